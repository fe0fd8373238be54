//! Multistep sampling of consistency models whose cleanest level is a little noisy.

use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic, one evaluation a step: `x' ~ N(a' x0, s'^2 - (a' m)^2)`, `m` the least `sigma / alpha`: the
/// network's estimate is already that noisy. `m = 0` is [`Lcm`](super::Lcm).
///
/// Certain from the level `s'/a' = m` on. Finite at `alpha = 0`.
///
/// # Reference
/// Song et al., "Consistency Models", 2023, Algorithm 1, <https://arxiv.org/abs/2303.01469>; there `alpha = 1`.
/// diffusers' `CMStochasticIterativeScheduler`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsistencyModel {
    /// `sigma / alpha` of the cleanest level, `>= 0`.
    pub least: f64,
    /// Scale of the fresh noise, about 1 (`s_noise`).
    pub noise: f64,
}

impl Default for ConsistencyModel {
    /// The paper's least sigma, 0.002.
    fn default() -> Self {
        Self { least: 0.002, noise: 1.0 }
    }
}

impl<const D: usize> Sampler<D> for ConsistencyModel {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (to, floor) = (hop.to, self.least * hop.to.alpha);
        let here = hop.start(x);
        let std = ((to.sigma - floor) * (to.sigma + floor)).max(0.0).sqrt();
        Step::random(here.x0() * to.alpha, std * self.noise, here)
    }
}
