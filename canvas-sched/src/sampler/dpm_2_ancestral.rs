//! DPM2 ancestral: the midpoint rule below the target, then noise up to it.

use crate::Ancestral;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic, two evaluations a step: to the geometric mean of `s/a` and `d/a'`, and with the noise estimate
/// found there from the start to `d`: `x' ~ N((a'/a) x + (d - s a'/a) eps_mid, up^2)`.
///
/// The deterministic part is of second order; the noise of [`Ancestral`] makes the whole first order. Euler's
/// at `alpha = 0`, where the middle is pure noise too, and to clean data.
///
/// # Reference
/// Karras et al., 2022, Algorithm 2 with the midpoint of DPM-Solver-2, as in k-diffusion's
/// `sample_dpm_2_ancestral`; Lu et al., "DPM-Solver", 2022, Algorithm 1, <https://arxiv.org/abs/2206.00927>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dpm2Ancestral(
    /// How much noise, and in which form.
    pub Ancestral,
);

impl<const D: usize> Sampler<D> for Dpm2Ancestral {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (down, up) = self.0.split(hop.from, hop.to);
        let here = hop.start(x);
        if down.sigma == 0.0 || hop.from.alpha == 0.0 {
            return Step::random(here.carry(down), up, here);
        }
        let ratio = (hop.from.sigma / hop.from.alpha * (down.sigma / down.alpha)).sqrt();
        let middle = hop.schedule.level_at_ratio(ratio);
        let there = hop.evaluate(here.carry(middle), middle);
        Step::random(here.carry_eps(there.eps(), down), up, here)
    }
}
