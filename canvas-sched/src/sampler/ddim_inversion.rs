//! DDIM inversion: from an image to the noise that DDIM makes it from.

use burn::prelude::*;
use canvas_core::{Estimate, Evaluation, GridError, Hop, Level, Sampler, Step, rising};

/// Deterministic, first order, one evaluation a step, from data to noise: `x' = (a'/a) x + (s' - s a'/a) eps`
/// with the noise estimate of `x` as if it lay at `(a', s')`, the level the step goes to.
///
/// So the network is told the time of where the step ends, as DDIM is told the time of where it starts, and a
/// start at clean data needs no noise estimate there. [`Inversion`](super::Inversion) of `Euler` asks at the
/// start of each hop instead.
///
/// # Differs from diffusers
/// With velocity or sample prediction diffusers' `DDIMInverseScheduler` turns the network's output into a
/// noise estimate by the level of the start, although the network was told the end. Here the end's level serves
/// for both. With epsilon prediction there is no difference.
///
/// # Reference
/// Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, appendix F,
/// <https://arxiv.org/abs/2105.05233>; Mokady et al., "Null-text Inversion", 2022, section 3.1,
/// <https://arxiv.org/abs/2211.09794>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DdimInversion;

/// DDIM's step with the noise estimate made at the end of the hop.
pub(super) fn from_the_end<const D: usize>(x: Tensor<D>, hop: &Hop<'_, D>) -> Step<D> {
    let (from, to) = (hop.from, hop.to);
    if to.sigma == 0.0 {
        // From clean to clean: nothing but a scale.
        let here = hop.evaluate(x.clone(), from);
        return Step::exact(x * (to.alpha / from.alpha), here);
    }
    let there = hop.evaluate(x, to);
    let eps = there.eps();
    let estimate = Estimate { eps: Some(eps.clone()), ..there.estimate };
    let here = Evaluation { level: from, x: there.x, estimate };
    Step::exact(here.carry_eps(eps, to), here)
}

impl<const D: usize> Sampler<D> for DdimInversion {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        from_the_end(x, hop)
    }

    /// Noise must not fall, and no level may be without signal.
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        rising(levels)?;
        let why = "this inversion asks for the noise in the state at the level it goes to, and at alpha = 0 \
                   that is the state itself: stop earlier";
        match levels.iter().position(|level| level.alpha == 0.0) {
            Some(index) => {
                Err(GridError::OutOfReach { index, count: levels.len(), level: levels[index], why })
            }
            None => Ok(()),
        }
    }
}
