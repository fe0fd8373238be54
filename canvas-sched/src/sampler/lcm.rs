//! Multistep sampling of consistency models: jump to clean data, noise to the next level.

use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic, one evaluation a step: `x' ~ N(a' x0, s'^2)`. For distilled networks, whose `x0` is a sample and
/// not a mean; with any other network the result is blurred towards the mean.
///
/// One line for latent consistency models ([`Boundary`](crate::predict::Boundary) as prediction), for flow
/// matching's (diffusers' `FlowMatchLCMScheduler`, on [`Flow`](crate::schedule::Flow)) and for sCM's (diffusers'
/// `SCMScheduler`: [`TrigFlow`](crate::predict::TrigFlow) where `alpha = cos(u)`, `sigma = sigma_data sin(u)`).
/// Finite at `alpha = 0`, certain at clean data.
///
/// # Reference
/// Song et al., "Consistency Models", 2023, Algorithm 1, <https://arxiv.org/abs/2303.01469>; Luo et al., "Latent
/// Consistency Models", 2023, Algorithm 3, <https://arxiv.org/abs/2310.04378>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lcm;

impl<const D: usize> Sampler<D> for Lcm {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        Step::random(here.x0() * hop.to.alpha, hop.to.sigma, here)
    }
}
