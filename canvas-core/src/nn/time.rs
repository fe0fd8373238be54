//! Time embeddings.

use super::init::normal_linear;
use super::linear;
use crate::ops::silu;
use burn::nn::Linear;
use burn::prelude::*;

/// Sinusoidal features of times: cosines, then sines, of `time * max_period^(-i / (width/2))`.
///
/// This is the order of DiT and of Stable Diffusion (`flip_sin_to_cos`).
///
/// # Shapes
/// `[B]` to `[B, width]`.
///
/// # Panics
/// If `width` is odd.
///
/// # Reference
/// Vaswani et al., "Attention Is All You Need", 2017, section 3.5, <https://arxiv.org/abs/1706.03762>.
pub fn sinusoidal(time: Tensor<1>, width: usize, max_period: f64) -> Tensor<2> {
    assert!(width.is_multiple_of(2), "a sinusoidal embedding needs an even width, found {width}");
    let half = width / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| (-max_period.ln() * i as f64 / half as f64).exp() as f32).collect();
    let frequencies = Tensor::<2>::from_data(TensorData::new(frequencies, [1, half]), &time.device());
    let angles = time.unsqueeze_dim::<2>(1) * frequencies; // [B, width/2]
    Tensor::cat(vec![angles.clone().cos(), angles.sin()], 1)
}

/// Sizes of a [`TimeEmbed`].
#[derive(Config, Debug)]
pub struct TimeEmbedConfig {
    /// Width of the output.
    pub width: usize,
    /// Width of the sinusoidal features.
    #[config(default = 256)]
    pub features: usize,
    /// Factor on the time before the features: 1000 for times in `[0, 1]`, 1 for step indices.
    #[config(default = 1000.0)]
    pub scale: f64,
    /// Frequencies are `period^(-i / (features / 2))`.
    #[config(default = 10000.0)]
    pub period: f64,
}

impl TimeEmbedConfig {
    /// Normal weights (standard deviation 0.02, as in DiT), zero biases.
    pub fn init(&self, device: &Device) -> TimeEmbed {
        TimeEmbed {
            input: normal_linear(0.02, self.features, self.width, device),
            output: normal_linear(0.02, self.width, self.width, device),
            features: self.features,
            scale: self.scale,
            period: self.period,
        }
    }
}

/// Sinusoidal features through a two-layer perceptron with SiLU.
#[derive(Module, Debug)]
pub struct TimeEmbed {
    /// First layer.
    pub input: Linear,
    /// Second layer.
    pub output: Linear,
    features: usize,
    scale: f64,
    period: f64,
}

impl TimeEmbed {
    /// # Shapes
    /// `[B]` to `[B, W]`.
    pub fn forward(&self, time: Tensor<1>) -> Tensor<2> {
        let features = sinusoidal(time * self.scale, self.features, self.period);
        // A network in 16 bits is told its time in 32, and from here on computes in its own.
        let features = features.cast(self.input.weight.val().dtype());
        linear(&self.output, silu(linear(&self.input, features)))
    }
}
