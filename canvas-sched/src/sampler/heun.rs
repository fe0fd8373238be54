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
        let x0 = hop.estimate(&x, from);
        let euler = hop.carry(x.clone(), x0.clone());
        if to.sigma == 0.0 {
            return Step::exact(euler, x0);
        }
        let x0_to = hop.estimate(&euler, to);
        let eps = from.eps(x.clone(), x0.clone()) + to.eps(euler, x0_to.clone());
        let signal = (x0.clone() + x0_to) * (0.5 * (to.alpha - from.alpha));
        Step::exact(x + signal + eps * (0.5 * (to.sigma - from.sigma)), x0)
    }
}
