//! Euler-Maruyama on SiT's SDEs.

use crate::diffusion::SitSde;
use crate::locate::time_of;
use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step, falling, falling_with_signal};

/// Stochastic, first order in distribution, one evaluation a step: with `w` at the start and `d = t - t'`,
/// `x' ~ N(x - d (v - w score), 2 w d)`, `v = (da/dt) x0 + (ds/dt) eps`, `score = -eps / s`.
///
/// It ends as [`SitSde::last`] says, without noise. [`Sbdm`](crate::Diffusion::Sbdm) needs signal at the start.
///
/// # Differs from the paper
/// Time runs from 1 (noise) to 0 (data); SiT's `t` is `1 - t` here.
///
/// # Reference
/// Ma et al., "SiT", 2024, equation 6 and appendix, <https://arxiv.org/abs/2401.08740>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SitEuler(
    /// The SDE.
    pub SitSde,
);

impl<const D: usize> Sampler<D> for SitEuler {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        if hop.to.sigma == 0.0 {
            return Step::exact(self.0.finish(hop.schedule, &here, hop.to), here);
        }
        let duration = time_of(hop.schedule, hop.from) - time_of(hop.schedule, hop.to);
        let rate = self.0.coefficient(hop.schedule, hop.from);
        let mean = here.x.clone() - SitSde::drift(hop.schedule, &here, rate) * duration;
        Step::random(mean, (2.0 * rate * duration).sqrt(), here)
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        if self.0.needs_signal() { falling_with_signal(levels) } else { falling(levels) }
    }
}
