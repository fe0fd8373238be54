//! Euler's method on the probability-flow ODE.

use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Deterministic, first order, one evaluation a step: `x' = (s'/s) x + (a' - a s'/s) x0`.
///
/// The same line in EDM's variables and in flow matching's, and DDIM with `eta = 0`.
///
/// # Reference
/// Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020, equation
/// 13, <https://arxiv.org/abs/2011.13456>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Euler;

impl<const D: usize> Sampler<D> for Euler {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        Step::exact(here.carry(hop.to), here)
    }
}
