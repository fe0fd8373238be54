//! Ancestral sampling, the reverse Markov chain of DDPM, for any schedule.

use burn::prelude::*;
use canvas_core::{Hop, Level, Sampler, Step};

/// Which of DDPM's two variances a step has. They agree as the number of steps grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variance {
    /// That of `q(x_s | x_t, x_0)`: right for data that is a point.
    #[default]
    FixedSmall,
    /// That of `q(x_t | x_s)`, `beta_t`: right for data of unit variance.
    FixedLarge,
}

/// Stochastic, one evaluation a step: `x' ~ N((a/a') (s'/s)^2 x + a' (v/s^2) x0, std^2)` with the variance
/// `v = s^2 - (a/a')^2 s'^2` of `q(x_t | x_s)`, and `std^2` either `v (s'/s)^2` or `v`. Finite at
/// `alpha = 0`.
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equations 6 and 7,
/// <https://arxiv.org/abs/2006.11239>; any `alpha`, `sigma`: Kingma et al., "Variational Diffusion Models",
/// 2021, appendix A.2, <https://arxiv.org/abs/2107.00630>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ddpm {
    /// The variance of each step. A step to clean data has none.
    pub variance: Variance,
}

/// Variance of `q(x_from | x_to)`, `s^2 - (a/a')^2 s'^2`, for `to` the cleaner of the two.
pub(super) fn forward_variance(from: Level, to: Level) -> f64 {
    (from.sigma.powi(2) - (from.alpha / to.alpha * to.sigma).powi(2)).max(0.0)
}

impl<const D: usize> Sampler<D> for Ddpm {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let here = hop.start(x);
        let added = forward_variance(from, to);
        let shrink = (to.sigma / from.sigma).powi(2);
        let (of_x, of_x0) = (from.alpha / to.alpha * shrink, to.alpha * added / from.sigma.powi(2));
        let mean = here.x.clone() * of_x + here.x0() * of_x0;
        let std = match self.variance {
            Variance::FixedLarge if to.sigma > 0.0 => added.sqrt(),
            _ => (added * shrink).sqrt(),
        };
        Step::random(mean, std, here)
    }
}
