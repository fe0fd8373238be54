//! DDIM: from deterministic to ancestral with one number.

use crate::ancestral::forward_variance;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// First order, one evaluation a step: `x' ~ N(a' x0 + sqrt(s'^2 - std^2) eps, std^2)` with
/// `std = eta (s'/s) sqrt(s^2 - (a/a')^2 s'^2)`.
///
/// # Panics
/// A step panics if `eta` lies outside `[0, 1]`.
///
/// # Reference
/// Song et al., "Denoising Diffusion Implicit Models", 2020, equations 12 and 16,
/// <https://arxiv.org/abs/2010.02502>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ddim {
    /// Part of the ancestral noise, in `[0, 1]`: 0 is deterministic, 1 is [`Ddpm`](super::Ddpm).
    pub eta: f64,
}

impl<const D: usize> Sampler<D> for Ddim {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        assert!((0.0..=1.0).contains(&self.eta), "eta must lie in [0, 1], found {}", self.eta);
        let (from, to) = (hop.from, hop.to);
        let here = hop.start(x);
        let std = self.eta * to.sigma / from.sigma * forward_variance(from, to).sqrt();
        let direction = here.eps() * (to.sigma.powi(2) - std.powi(2)).max(0.0).sqrt();
        Step::random(here.x0() * to.alpha + direction, std, here)
    }
}
