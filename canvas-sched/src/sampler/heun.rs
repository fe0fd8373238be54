//! Heun's method on the probability-flow ODE.

use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Deterministic, second order, two evaluations a step and one on the last.
///
/// The trapezoidal rule for `dx = x0 d(alpha) + eps d(sigma)`: EDM's Heun where `alpha = 1`, flow matching's
/// where `alpha = 1 - sigma`, and finite at `alpha = 0`. A last hop to clean data is Euler's.
///
/// # Reference
/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, Algorithm 1,
/// <https://arxiv.org/abs/2206.00364>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Heun;

impl<const D: usize> Sampler<D> for Heun {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let here = hop.start(x);
        let euler = here.carry(to);
        if to.sigma == 0.0 {
            return Step::exact(euler, here);
        }
        let there = hop.evaluate(euler, to);
        let signal = (here.x0() + there.x0()) * (0.5 * (to.alpha - from.alpha));
        let noise = (here.eps() + there.eps()) * (0.5 * (to.sigma - from.sigma));
        Step::exact(here.x.clone() + signal + noise, here)
    }
}
