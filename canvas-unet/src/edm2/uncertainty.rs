//! A weight for every noise level, learned beside a denoiser.

use crate::magnitude::{MpFourier, MpLinear};
use burn::prelude::*;

/// How uncertain a denoiser is at a noise level: `u`, the logarithm of its error's variance. Trained beside the network,
/// and left behind after training.
///
/// # Reference
/// Karras et al., 2023, equations 14 to 16 and 21, <https://arxiv.org/abs/2312.02696>.
#[derive(Module, Debug)]
pub struct Uncertainty {
    fourier: MpFourier,
    output: MpLinear,
}

impl Uncertainty {
    /// With this many Fourier features; the paper has 128.
    pub fn new(features: usize, device: &Device) -> Self {
        Self { fourier: MpFourier::new(features, device), output: MpLinear::new(features, 1, device) }
    }

    /// The prediction's time, `ln(sigma) / 4`, to `u`: `[B]` to `[B]`.
    pub fn forward(&self, time: Tensor<1>) -> Tensor<1> {
        self.output.forward(self.fourier.forward(time)).squeeze_dim(1)
    }

    /// What is minimised: `loss / exp(u) + u`, by which every noise level comes to count alike.
    ///
    /// # Shapes
    /// Losses of the samples `[B]`, which are weighted as EDM's are, and `time`: `[B]`; output: `[B]`.
    pub fn weigh(&self, losses: Tensor<1>, time: Tensor<1>) -> Tensor<1> {
        let u = self.forward(time);
        losses * u.clone().neg().exp() + u
    }
}
