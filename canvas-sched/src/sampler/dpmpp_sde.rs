//! DPM-Solver++ (stochastic): an ancestral midpoint method whose two noises lie on one Brownian path.

use crate::Ancestral;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic, two evaluations a step: an ancestral step to the part `r` of the hop in `ln(a/s)`, then one from
/// the start to the target with the estimate `(1 - 1/2r) x0 + x0_mid / 2r`.
///
/// The first noise `z1` spans `[s/a, mid]`, the second `[s/a, s'/a']`, of one Brownian path in `s/a`: the second
/// is `sqrt(w) z1 + sqrt(1 - w) z` with `w` the share of the hop that lies before `mid`. So `sqrt(w) z1` belongs
/// to the mean, and the step's own draw is the rest. Its density is that of its own draw, given `z1`.
/// Ancestral Euler at `alpha = 0` and to clean data.
///
/// # Reference
/// Lu et al., "DPM-Solver++", 2022, Algorithm 1, <https://arxiv.org/abs/2211.01095>; stochastic as in k-diffusion's
/// `sample_dpmpp_sde` with its Brownian tree over sigma, and diffusers' `DPMSolverSDEScheduler`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpmPpSde {
    /// How much noise.
    pub ancestral: Ancestral,
    /// Where the middle lies, in `(0, 1)`.
    pub r: f64,
}

impl Default for DpmPpSde {
    /// All of the noise, the middle in the middle.
    fn default() -> Self {
        Self { ancestral: Ancestral::default(), r: 0.5 }
    }
}

impl<const D: usize> Sampler<D> for DpmPpSde {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let (down, up) = self.ancestral.split(from, to);
        let here = hop.start(x);
        let (start, end) = (from.sigma / from.alpha, to.sigma / to.alpha);
        if to.sigma == 0.0 || from.alpha == 0.0 || start == end {
            return Step::random(here.carry(down), up, here);
        }
        let middle = hop.schedule.level_at_ratio(start.powf(1.0 - self.r) * end.powf(self.r));
        let (below, first) = self.ancestral.split(from, middle);
        // No noise is asked for where none is added.
        let z1 = if up > 0.0 { hop.fresh_noise(&here.x) } else { here.x.zeros_like() };
        let there = hop.evaluate(here.carry(below) + z1.clone() * first, middle);
        let second = 0.5 / self.r;
        let along = here.x0() * (1.0 - second) + there.x0() * second;
        let share = ((start - middle.sigma / middle.alpha) / (start - end)).clamp(0.0, 1.0);
        let mean = here.carry_along(along, down) + z1 * (up * share.sqrt());
        Step::random(mean, up * (1.0 - share).sqrt(), here)
    }
}
