//! Heun's method on SiT's SDEs.

use crate::diffusion::SitSde;
use crate::locate::time_of;
use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step, falling, falling_with_signal};

/// Stochastic, two evaluations a step: noise first, `y = x + sqrt(2 w d) z`, then the trapezoidal rule for
/// `v - w score` from `y`, with `d = t - t'` and `w` at each end.
///
/// The noise comes before the evaluations, so the step's own draw is none and it has no density.
/// It ends as [`SitSde::last`] says, without noise. [`Sbdm`](crate::Diffusion::Sbdm) needs signal at the start.
///
/// # Differs from the paper
/// Time runs from 1 (noise) to 0 (data); SiT's `t` is `1 - t` here.
///
/// # Reference
/// Ma et al., "SiT", 2024, and its code, <https://arxiv.org/abs/2401.08740>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SitHeun(
    /// The SDE.
    pub SitSde,
);

impl<const D: usize> Sampler<D> for SitHeun {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (schedule, from, to) = (hop.schedule, hop.from, hop.to);
        if to.sigma == 0.0 {
            let here = hop.start(x);
            return Step::exact(self.0.finish(schedule, &here, to), here);
        }
        let duration = time_of(schedule, from) - time_of(schedule, to);
        let rate = |level| self.0.coefficient(schedule, level);
        let spread = (2.0 * rate(from) * duration).sqrt();
        let x = if spread > 0.0 { x.clone() + hop.fresh_noise(&x) * spread } else { x };
        let here = hop.start(x);
        let first = SitSde::drift(schedule, &here, rate(from));
        let there = hop.evaluate(here.x.clone() - first.clone() * duration, to);
        let second = SitSde::drift(schedule, &there, rate(to));
        Step::exact(here.x.clone() - (first + second) * (0.5 * duration), here)
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        if self.0.needs_signal() { falling_with_signal(levels) } else { falling(levels) }
    }
}
