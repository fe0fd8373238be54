//! Ancestral sampling, the reverse Markov chain of DDPM, for any schedule.

use crate::ancestral::{forward_variance, kept};
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Std, Step};

/// Which variance a step of DDPM has. The two fixed ones agree as the number of steps grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variance {
    /// That of `q(x_s | x_t, x_0)`: right for data that is a point.
    #[default]
    FixedSmall,
    /// That of `q(x_t | x_s)`, `beta_t`: right for data of unit variance.
    FixedLarge,
    /// The network's own: its second half of channels is the logarithm of the variance.
    Learned,
    /// Between the two fixed ones: the logarithms are interpolated by `(v + 1) / 2`, `v` the network's second
    /// half of channels.
    LearnedRange,
}

/// Stochastic, one evaluation a step: `x' ~ N((a/a') (s'/s)^2 x + a' (v/s^2) x0, std^2)` with the variance
/// `v = s^2 - (a/a')^2 s'^2` of `q(x_t | x_s)`, and `std^2` either `v (s'/s)^2` or `v`. Finite at
/// `alpha = 0`.
///
/// # Panics
/// A step with a learned variance panics if the denoiser gave none.
///
/// # Differs from diffusers
/// Its `learned` takes the network's output for the variance itself, and is NaN where that is negative; here
/// it is the logarithm, as in Improved DDPM's code. Its `fixed_small_log` is `FixedSmall`; its `fixed_large_log`
/// takes the square root of a negative logarithm, which is NaN, and is not offered.
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equations 6 and 7,
/// <https://arxiv.org/abs/2006.11239>; any `alpha`, `sigma`: Kingma et al., "Variational Diffusion Models",
/// 2021, appendix A.2, <https://arxiv.org/abs/2107.00630>; learned variances: Nichol & Dhariwal, "Improved Denoising
/// Diffusion Probabilistic Models", 2021, equation 15, <https://arxiv.org/abs/2102.09672>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ddpm {
    /// The variance of each step. A step to clean data has none.
    pub variance: Variance,
}

impl<const D: usize> Sampler<D> for Ddpm {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to, here) = (hop.from, hop.to, hop.start(x));
        let added = forward_variance(from, to);
        let shrink = (to.sigma / from.sigma).powi(2);
        let (of_x, of_x0) = (kept(from, to) * shrink, to.alpha * added / from.sigma.powi(2));
        let mean = here.x.clone() * of_x + here.x0() * of_x0;
        let (large, small) = (added, added * shrink);
        let std = match (self.variance, here.estimate.variance.clone()) {
            _ if small == 0.0 => Std::Same(0.0),
            (Variance::FixedSmall, _) => Std::Same(small.sqrt()),
            (Variance::FixedLarge, _) => Std::Same(large.sqrt()),
            (_, None) => panic!("a learned variance needs a network with twice the channels"),
            (Variance::Learned, Some(log)) => Std::Each((log * 0.5).exp()),
            (Variance::LearnedRange, Some(v)) => {
                // Held above 0 as in the published code, whose table starts with a variance of 0.
                let (low, high) = (small.max(1e-20).ln(), large.ln());
                Std::Each(((v + 1.0) * (0.25 * (high - low)) + 0.5 * low).exp())
            }
        };
        Step { mean, std, eval: here }
    }
}
