//! The variances that DiT and PixArt have learned, for a sampler that draws with them.

use crate::{Dit, Embed, PixArt, PixArtCondition};
use burn::prelude::*;
use canvas_core::Backbone;

/// A network that can answer with a variance beside each channel.
pub trait LearnsVariance: Backbone<4> {
    /// # Shapes
    /// As [`Backbone::forward`]; output `[B, 2 C, H, S]`: the answer, then what is said of its variance.
    fn with_variance(&self, x: Tensor<4>, time: Tensor<1>, cond: &Self::Cond) -> Tensor<4>;
}

impl<E: Embed> LearnsVariance for Dit<E> {
    fn with_variance(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        self.forward_with_variance(x, time, cond)
    }
}

impl LearnsVariance for PixArt {
    fn with_variance(&self, x: Tensor<4>, time: Tensor<1>, cond: &PixArtCondition) -> Tensor<4> {
        self.forward_with_variance(x, time, cond)
    }
}

/// A network with its learned variance. By itself [`Dit`] is a backbone that answers with the noise alone, as most samplers
/// want it; this one answers with twice the channels, of which a denoiser hands the second half on to the sampler
/// ([`Estimate::variance`](canvas_core::Estimate)).
///
/// # Example
/// A run of DDPM with the variances between the two fixed ones that the network has learned:
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Noise, Process, Run, Seeded};
/// use canvas_dit::{DitConfig, WithVariance};
/// use canvas_sched::{Ddpm, Timesteps, Variance, predict, schedule};
///
/// let device = Device::flex();
/// let dit = DitConfig::new([4, 6], 16, 2, 2).with_classes(10).init(&device);
/// let vp = schedule::Vp::linear(1000);
/// let levels = Timesteps::linspace(1000).levels(&vp, 4)?;
/// let process = Process { schedule: Box::new(vp), prediction: Box::new(predict::Epsilon) };
///
/// let (network, class) = (WithVariance(&dit), Class::new(&[3], &device));
/// let denoiser = process.denoiser(&network);
/// let mut noise = Seeded::new(0, [0]);
/// let start = noise.normal_like(&Tensor::<4>::zeros([1, 4, 4, 6], &device));
/// let sampler = Ddpm { variance: Variance::LearnedRange };
/// let run = Run::new(&sampler, &*process.schedule, &levels, &mut noise)?;
/// let drawn = run.sample(|x, level| denoiser.denoise(x, &[level], &class), start);
/// assert_eq!(drawn.dims(), [1, 4, 4, 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Reference
/// Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 15,
/// <https://arxiv.org/abs/2102.09672>.
#[derive(Debug)]
pub struct WithVariance<'a, N>(pub &'a N);

impl<N: LearnsVariance> Backbone<4> for WithVariance<'_, N> {
    type Cond = N::Cond;

    /// # Panics
    /// If the network was made without a variance, and as the network.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &N::Cond) -> Tensor<4> {
        let channels = x.dims()[1];
        let both = self.0.with_variance(x, time, cond); // [B, 2 C, H, S]
        let found = both.dims()[1];
        assert_eq!(
            found,
            2 * channels,
            "{found} channels for {channels}: this network has learned no variance"
        );
        both
    }
}
