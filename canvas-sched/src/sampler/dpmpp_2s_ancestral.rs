//! DPM-Solver++(2S) ancestral: second order below the target, then noise up to it.

use crate::Ancestral;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic, two evaluations a step: to the geometric mean of `s/a` and `d/a'`, and with the clean estimate
/// found there from the start to `d`: `x' ~ N((d/s) x + (a' - a d/s) x0_mid, up^2)`.
///
/// The deterministic part is of second order; the noise of [`Ancestral`] makes the whole first order. Euler's
/// at `alpha = 0` (the exact limit) and to clean data.
///
/// # Reference
/// Lu et al., "DPM-Solver++", 2022, Algorithm 1 with `r = 1/2`, <https://arxiv.org/abs/2211.01095>; ancestral as
/// in k-diffusion's `sample_dpmpp_2s_ancestral`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DpmPp2sAncestral(
    /// How much noise, and in which form.
    pub Ancestral,
);

impl<const D: usize> Sampler<D> for DpmPp2sAncestral {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (down, up) = self.0.split(hop.from, hop.to);
        let here = hop.start(x);
        if down.sigma == 0.0 || hop.from.alpha == 0.0 {
            return Step::random(here.carry(down), up, here);
        }
        let ratio = (hop.from.sigma / hop.from.alpha * (down.sigma / down.alpha)).sqrt();
        let middle = hop.schedule.level_at_ratio(ratio);
        let there = hop.evaluate(here.carry(middle), middle);
        Step::random(here.carry_along(there.x0(), down), up, here)
    }
}
