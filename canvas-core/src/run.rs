//! The loop that runs a sampler along a grid, and what can be wrong with the grid.

use crate::{Estimate, Hop, Level, Noise, NoiseSchedule, Sampler, Step};
use burn::prelude::*;

/// Why a sampler cannot run along a grid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GridError {
    /// Nothing to step between.
    #[error("a run needs two levels, found {0}")]
    TooFew(usize),
    /// Noise rises where it must fall, or falls where it must rise.
    #[error(
        "the grid goes the wrong way: level {index} has sigma/alpha = {ratio} after {before}, and this \
         sampler runs from {}", if *.inversion { "data to noise" } else { "noise to data" }
    )]
    WrongWay {
        /// The first level that lies wrong.
        index: usize,
        /// Its `sigma / alpha`.
        ratio: f64,
        /// That of the level before.
        before: f64,
        /// Whether this is an inversion, from data to noise.
        inversion: bool,
    },
    /// A level this sampler has no formula for.
    #[error(
        "level {index} of {count} (time {}, alpha {}, sigma {}) is out of reach: {why}",
        .level.time, .level.alpha, .level.sigma
    )]
    OutOfReach {
        /// Which level.
        index: usize,
        /// Levels of the grid.
        count: usize,
        /// The level itself.
        level: Level,
        /// What the sampler needs, and what does without.
        why: &'static str,
    },
}

fn monotone(levels: &[Level], inversion: bool) -> Result<(), GridError> {
    if levels.len() < 2 {
        return Err(GridError::TooFew(levels.len()));
    }
    for (index, pair) in levels.windows(2).enumerate() {
        let (before, ratio) = (pair[0].sigma / pair[0].alpha, pair[1].sigma / pair[1].alpha);
        // Equal levels may differ by a rounding error; NaN is never fine.
        let slack = 1e-9 * before.abs();
        let fine = if inversion { ratio >= before - slack } else { ratio <= before + slack };
        if !fine {
            return Err(GridError::WrongWay { index: index + 1, ratio, before, inversion });
        }
    }
    Ok(())
}

/// At least two levels whose noise does not rise: what most samplers need.
///
/// # Errors
/// The first level that is noisier than the one before.
pub fn falling(levels: &[Level]) -> Result<(), GridError> {
    monotone(levels, false)
}

/// At least two levels whose noise does not fall: what inversions need.
///
/// # Errors
/// The first level that is cleaner than the one before.
pub fn rising(levels: &[Level]) -> Result<(), GridError> {
    monotone(levels, true)
}

/// Every level of a hop's start but pure noise: what samplers need that work in `sigma / alpha` or its
/// logarithm.
///
/// # Errors
/// As [`falling`], and a start without signal.
pub fn falling_with_signal(levels: &[Level]) -> Result<(), GridError> {
    falling(levels)?;
    let why = "this sampler works in sigma/alpha, which is infinite at alpha = 0: start at an earlier time, \
               or use euler, heun, ddim, ddpm or dpmpp-2m";
    match levels.iter().position(|level| level.alpha == 0.0) {
        Some(index) => Err(GridError::OutOfReach { index, count: levels.len(), level: levels[index], why }),
        None => Ok(()),
    }
}

/// What a run shows after each step.
pub struct Progress<'a, const D: usize> {
    /// Finished hops.
    pub done: usize,
    /// Hops in the run.
    pub count: usize,
    /// The state after this hop.
    pub x: &'a Tensor<D>,
    /// The step that led there.
    pub step: &'a Step<D>,
}

/// A sampling run: a sampler along a grid of levels.
pub struct Run<'a, const D: usize> {
    sampler: &'a dyn Sampler<D>,
    schedule: &'a dyn NoiseSchedule,
    levels: &'a [Level],
    first: usize,
    last: usize,
    noise: &'a mut dyn Noise<D>,
}

impl<'a, const D: usize> Run<'a, D> {
    /// A run of `sampler` along `levels`, noisiest first, on the schedule they lie on.
    ///
    /// # Errors
    /// If the sampler cannot run along these levels: too few, the wrong way, or one it has no formula for.
    pub fn new(
        sampler: &'a dyn Sampler<D>,
        schedule: &'a dyn NoiseSchedule,
        levels: &'a [Level],
        noise: &'a mut dyn Noise<D>,
    ) -> Result<Self, GridError> {
        sampler.check(levels)?;
        Ok(Self { sampler, schedule, levels, first: 0, last: levels.len() - 1, noise })
    }

    /// The same run from level `first` on, for image-to-image: hops keep their numbers and their count, by which some
    /// samplers go.
    ///
    /// # Panics
    /// If there is no hop from there.
    pub fn starting(self, first: usize) -> Self {
        let hops = self.levels.len() - 1;
        assert!(first < hops, "a run from level {first} of {hops} hops");
        Self { first, ..self }
    }

    /// The same run up to level `last`: the state that a network meets in the middle of its own run, as distillation by
    /// backward simulation asks. Hops keep their numbers and their count; up to where it starts, nothing is done.
    ///
    /// # Panics
    /// If there is no such level.
    pub fn until(self, last: usize) -> Self {
        let hops = self.levels.len() - 1;
        assert!(last <= hops, "a run to level {last} of {hops} hops");
        Self { last, ..self }
    }

    /// The levels, noisiest first.
    pub fn levels(&self) -> &'a [Level] {
        self.levels
    }

    /// Carries `x` from the first level (or where it is [`starting`](Self::starting)) to the last. `denoise` is a denoiser bound to its condition.
    pub fn sample<E: Into<Estimate<D>>>(
        self,
        denoise: impl Fn(Tensor<D>, Level) -> E,
        x: Tensor<D>,
    ) -> Tensor<D> {
        self.watch(denoise, x, &mut |_| {})
    }

    /// As [`sample`](Self::sample), showing each step: previews, trajectories, log-probabilities.
    pub fn watch<E: Into<Estimate<D>>>(
        self,
        denoise: impl Fn(Tensor<D>, Level) -> E,
        mut x: Tensor<D>,
        watch: &mut dyn FnMut(Progress<'_, D>),
    ) -> Tensor<D> {
        let denoise = |x, level| denoise(x, level).into();
        let (mut past, count) = (Vec::new(), self.levels.len() - 1);
        for (index, pair) in self.levels.windows(2).enumerate().take(self.last).skip(self.first) {
            let mut hop = Hop::single((pair[0], pair[1]), self.schedule, &denoise, &mut *self.noise)
                .after(&past, index, count);
            let step = self.sampler.step(x, &mut hop);
            x = step.draw(self.noise);
            watch(Progress { done: index + 1, count, x: &x, step: &step });
            if past.len() == self.sampler.memory() {
                past.drain(..past.len().min(1));
            }
            if self.sampler.memory() > 0 {
                past.push(step.eval);
            }
        }
        x
    }
}
