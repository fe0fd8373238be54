//! Euler ancestral: a deterministic step below the target, then noise up to it.

use crate::Ancestral;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic, first order, one evaluation a step: `x' ~ N((d/s) x + (a' - a d/s) x0, up^2)` with
/// `d^2 + up^2 = s'^2` split by [`Ancestral`].
///
/// With k-diffusion's split and `eta <= 1` this is [`Ddim`](super::Ddim), exactly; larger `eta` is cut where
/// nothing but noise remains. Finite at `alpha = 0`, certain at clean data.
///
/// # Reference
/// Karras et al., 2022, and Song et al., 2020, as combined in k-diffusion's `sample_euler_ancestral`; Song et
/// al., "Denoising Diffusion Implicit Models", 2020, equation 16, <https://arxiv.org/abs/2010.02502>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EulerAncestral(
    /// How much noise, and in which form.
    pub Ancestral,
);

impl<const D: usize> Sampler<D> for EulerAncestral {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (down, up) = self.0.split(hop.from, hop.to);
        let here = hop.start(x);
        Step::random(here.carry(down), up, here)
    }
}
