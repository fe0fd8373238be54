//! EDM's Heun: the trapezoidal rule in the noise-to-signal ratio.

use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step, falling_with_signal};

/// Deterministic, second order, two evaluations a step and one on the last.
///
/// With `rho = sigma / alpha`: `x'/a' = x/a + (eps + eps') / 2 (rho' - rho)`, the second noise estimate made
/// where Euler's step ends. [`Heun`](super::Heun) is the same rule along `alpha` and `sigma`; where `alpha = 1`
/// the two are one. This one needs signal at the start, and its hops are long where `alpha` is small. A last
/// hop to clean data is Euler's.
///
/// # Reference
/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, Algorithm 1,
/// <https://arxiv.org/abs/2206.00364>; k-diffusion's `sample_heun`, diffusers' `HeunDiscreteScheduler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdmHeun;

impl<const D: usize> Sampler<D> for EdmHeun {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        let euler = here.carry(hop.to);
        if hop.to.sigma == 0.0 {
            return Step::exact(euler, here);
        }
        let there = hop.evaluate(euler, hop.to);
        let eps = (here.eps() + there.eps()) * 0.5;
        Step::exact(here.carry_eps(eps, hop.to), here)
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        falling_with_signal(levels)
    }
}
