//! DPM2: the midpoint rule in the logarithm of noise.

use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Deterministic, second order, two evaluations a step and one on the last (KDPM2 in diffusers).
///
/// With `rho = sigma / alpha`: Euler's step to `rho_m = sqrt(rho rho')`, then the whole hop with the noise
/// estimate made there, `x' = (a'/a) x + (s' - s a'/a) eps_m`. A hop from `alpha = 0` or to clean data has no
/// middle in `ln(rho)` and is Euler's.
///
/// # Measured order
/// On the schedules EDM, linear, cosine and flow, for Gaussian and for two-bump data, in `tests/sched/ode.rs`:
/// median 2.00.
///
/// # Reference
/// Lu et al., "DPM-Solver", 2022, Algorithm 1 with `r = 1/2`, <https://arxiv.org/abs/2206.00927>, in the
/// form of k-diffusion's `sample_dpm_2`: after Karras et al., 2022, Algorithm 2,
/// <https://arxiv.org/abs/2206.00364>, without churn, which is [`Churned`](super::Churned).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dpm2;

impl<const D: usize> Sampler<D> for Dpm2 {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let here = hop.start(x);
        if from.alpha == 0.0 || to.alpha == 0.0 || to.sigma == 0.0 {
            return Step::exact(here.carry(to), here);
        }
        let ratio = (from.sigma / from.alpha * to.sigma / to.alpha).sqrt();
        let middle = hop.schedule.level_at_ratio(ratio);
        let there = hop.evaluate(here.carry(middle), middle);
        Step::exact(here.carry_eps(there.eps(), to), here)
    }
}
