//! SDE-DPM-Solver: the multistep SDE solver in the noise estimate.

use crate::exponential::Reverse;
use crate::{Finish, SolverType};
use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step, falling_with_signal};

/// Stochastic multistep, one evaluation a step, with `h = ln(a'/s') - ln(a/s)`:
/// `x' ~ N((a'/a) x - 2 s' (e^h - 1) eps - w (h / h_prev) (eps - eps_prev), s'^2 (e^2h - 1))`, `w` either
/// `s' (e^h - 1)` or `2 s' ((e^h - 1) / h - 1)`.
///
/// First order in the first hop; to clean data [`Ddim`](super::Ddim) without noise. It needs signal at the start, and
/// enough of it: rounding errors of the noise estimate grow by `s / a`, so beyond some hundreds 32 bits do not do.
/// [`DpmPp2mSde`](super::DpmPp2mSde) has no such limit.
///
/// # Differs from diffusers
/// `sde-dpmsolver` refuses a clean end (`final_sigmas_type = "zero"`).
///
/// # Reference
/// Lu et al., "DPM-Solver++", 2022, appendix B.3, <https://arxiv.org/abs/2211.01095>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SdeDpmSolver {
    /// Estimates a hop uses, 1 or 2; more work as 2.
    pub order: usize,
    /// How the slope enters: `w` above, in this order.
    pub solver: SolverType,
    /// When the order falls.
    pub finish: Finish,
}

impl Default for SdeDpmSolver {
    /// Second order, midpoint, full order to the end.
    fn default() -> Self {
        Self { order: 2, solver: SolverType::Midpoint, finish: Finish::FULL }
    }
}

impl<const D: usize> Sampler<D> for SdeDpmSolver {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (to, Reverse { h, .. }) = (hop.to, Reverse::new(hop.from, hop.to, 1.0));
        let here = hop.start(x);
        if to.sigma == 0.0 {
            return Step::exact(here.carry(to), here);
        }
        let grown = h.exp_m1();
        let mut mean = here.x.clone() * (to.alpha / hop.from.alpha) - here.eps() * (2.0 * to.sigma * grown);
        let second = self.finish.order(self.order, to, hop.index, hop.count) > 1;
        if let Some(past) = hop.past.last().filter(|past| second && past.level != hop.from && h > 0.0) {
            let h_prev = hop.from.half_log_snr() - past.level.half_log_snr();
            let weight = match self.solver {
                SolverType::Midpoint => grown * h,
                SolverType::Heun => 2.0 * (grown - h),
            };
            mean = mean - (here.eps() - past.eps()) * (to.sigma * weight / h_prev);
        }
        Step::random(mean, to.sigma * (2.0 * h).exp_m1().sqrt(), here)
    }

    fn memory(&self) -> usize {
        1
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        falling_with_signal(levels)
    }
}
