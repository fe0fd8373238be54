//! iPNDM: PNDM without a costly warm-up.

use crate::pseudo::Extrapolated;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Deterministic multistep sampler, one evaluation a step.
///
/// The noise estimate is extrapolated by the Adams-Bashforth rule for even spacing, of order 1, 2, 3 and then
/// `order`, and carried by DDIM's transfer `x' = (a'/a) x + (s' - s a'/a) eps`. Second order on grids that
/// are not even in `sigma / alpha`, like [`Pndm`](super::Pndm). A start at `alpha = 0` is Euler's.
///
/// # Measured order
/// On the schedules EDM, linear, cosine and flow, for Gaussian and for two-bump data, in `tests/sched/ode.rs`:
/// median 1.98.
///
/// # Differs from diffusers
/// Its `IPNDMScheduler` ties this rule to one grid (`sigma = sin^2(pi t / 2)`, `alpha^2 = 1 - sigma^2`, told
/// `2/pi atan2(sigma, alpha)`) and to velocity prediction, and starts at `alpha = 0`, where it takes 0 for the
/// clean estimate: `x' = s' x`. Here the first hop uses the estimate.
///
/// # Reference
/// Zhang & Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2022, appendix H.2,
/// <https://arxiv.org/abs/2204.13902>; Liu et al., 2022, equation 12, <https://arxiv.org/abs/2202.09778>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipndm {
    /// Estimates a hop uses, at least 1 (DDIM).
    pub order: usize,
}

impl Default for Ipndm {
    /// Four estimates.
    fn default() -> Self {
        Self { order: 4 }
    }
}

impl<const D: usize> Sampler<D> for Ipndm {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        Step::exact(Extrapolated::Noise.adams_bashforth(self.order, &here, hop), here)
    }

    fn memory(&self) -> usize {
        self.order - 1
    }
}
