//! SDE-DPM-Solver: the multistep SDE solver in the noise estimate.

use crate::exponential::Reverse;
use crate::multistep::dpm_moments;
use crate::{Finish, Form, SolverType};
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
        let here = hop.start(x);
        if hop.to.sigma == 0.0 {
            return Step::exact(here.carry(hop.to), here);
        }
        let reverse = Reverse::new(Form::Noise, hop.from, hop.to, 1.0);
        let order = self.finish.order(self.order, hop.to, hop.index, hop.count);
        let nodes = reverse.nodes(hop.from, hop.past.iter().rev(), order - 1);
        let moments = dpm_moments((self.solver, false), reverse.h, reverse.moments(nodes.len() + 1));
        Step::random(reverse.carry(&here, &nodes, &moments), reverse.std, here)
    }

    fn memory(&self) -> usize {
        1
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        falling_with_signal(levels)
    }
}
