//! Painting within a mask by any sampler.

use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Std, Step, mix};
use std::cell::Cell;

/// Wraps a sampler so that a known picture stays outside of a mask: after each step the known part is put in its
/// place, noised to the step's level with the run's one noise, after the last step clean.
///
/// What the network is asked within a step agrees with the picture, too. A step's noise is drawn here, so its density is not
/// known and [`Step::log_prob`](canvas_core::Step::log_prob) is not to be had.
///
/// # Reference
/// Lugmayr et al., "RePaint", 2022, equation 8 without resampling, <https://arxiv.org/abs/2201.09865>; diffusers'
/// `StableDiffusionInpaintPipeline` with networks of 4 input channels.
#[derive(Clone, Debug)]
pub struct Inpaint<S, const D: usize> {
    /// The sampler that steps.
    pub inner: S,
    /// The known picture, clean: `[B, C, ..]`.
    pub clean: Tensor<D>,
    /// Unit noise that it is noised with, alike.
    pub noise: Tensor<D>,
    /// 1 where the sampler paints, 0 where the picture stays; of one channel or of all: `[B, 1 or C, ..]`.
    pub mask: Tensor<D>,
}

impl<S, const D: usize> Inpaint<S, D> {
    fn blend(&self, x: Tensor<D>, known: Tensor<D>) -> Tensor<D> {
        x * self.mask.clone() + known * (self.mask.clone() * -1.0 + 1.0)
    }

    fn known(&self, level: Level) -> Tensor<D> {
        mix(self.clean.clone(), self.noise.clone(), &[level])
    }
}

impl<S: Sampler<D>, const D: usize> Sampler<D> for Inpaint<S, D> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (denoise, to, started) = (hop.denoise, hop.to, Cell::new(false));
        // The first question is about the state, which agrees already.
        let seen = |x, level| match started.replace(true) {
            true => denoise(self.blend(x, self.known(level)), level),
            false => denoise(x, level),
        };
        let step = self.inner.step(x, &mut hop.denoised_by(&seen));
        let next = match &step.std {
            Std::Same(0.0) => step.mean,
            Std::Same(std) => hop.fresh_noise(&step.mean) * *std + step.mean,
            Std::Each(std) => hop.fresh_noise(&step.mean) * std.clone() + step.mean,
        };
        let last = hop.index + 1 == hop.count;
        let known = if last { self.clean.clone() } else { self.known(to) };
        Step::exact(self.blend(next, known), step.eval)
    }

    fn memory(&self) -> usize {
        self.inner.memory()
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        self.inner.check(levels)
    }
}
