//! Inversion: a deterministic sampler run from data to noise.

use super::ddim_inversion::from_the_end;
use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step, rising};

/// Runs a deterministic sampler up a grid that starts at the data: the noise that leads to a given image.
///
/// The probability-flow ODE has no direction, and neither has a deterministic sampler's formula, so this is
/// flow inversion around `Euler` or `Heun` and DPM-Solver++ inversion around `DpmPp`. The inverse of a run is
/// its grid turned around. Going up and coming down again returns to the start with an error of the sampler's
/// order.
///
/// At clean data the noise estimate `(x - a x0)/s` is 0/0. A first hop from there evaluates the network at
/// its end instead, like [`DdimInversion`](super::DdimInversion): `eps = (x - a' x0')/s'`, `x' = (a'/a) x +
/// s' eps`. That hop is first order and costs one evaluation: begin with a short one.
///
/// Up and down again, measured in `tests/sched/inversions.rs`: order 1.0 for `Euler` and `DdimInversion`, 2.9 for
/// `Heun`, `Midpoint` and `Dpm2` (their leading error cancels on the way back), 1.9 to 3.0 for `DpmPp::two_m()`.
///
/// A stochastic sampler inside would be wrong: an inversion draws nothing.
///
/// # Differs from diffusers
/// `DPMSolverMultistepInverseScheduler` starts at the first training step's noise instead of clean data; such
/// a grid gives its numbers.
///
/// # Reference
/// Mokady et al., "Null-text Inversion", 2022, section 3.1, <https://arxiv.org/abs/2211.09794>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inversion<S> {
    /// The sampler that steps.
    pub inner: S,
}

impl<const D: usize, S: Sampler<D>> Sampler<D> for Inversion<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        if hop.from.sigma == 0.0 { from_the_end(x, hop) } else { self.inner.step(x, hop) }
    }

    fn memory(&self) -> usize {
        self.inner.memory()
    }

    /// Noise must not fall, and the sampler must be able to run down the same levels. The first hop from clean
    /// data may not end without signal.
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        rising(levels)?;
        let why = "the first hop from clean data evaluates the network at its end, and pure noise says nothing \
                   of the data: put a level between";
        let noisy = levels.iter().position(|level| level.sigma > 0.0);
        if let Some(index) = noisy.filter(|&index| index > 0 && levels[index].alpha == 0.0) {
            return Err(GridError::OutOfReach { index, count: levels.len(), level: levels[index], why });
        }
        let down: Vec<Level> = levels.iter().rev().copied().collect();
        self.inner.check(&down).map_err(|error| match error {
            GridError::OutOfReach { index, count, level, why } => {
                GridError::OutOfReach { index: count - 1 - index, count, level, why }
            }
            other => other,
        })
    }
}
