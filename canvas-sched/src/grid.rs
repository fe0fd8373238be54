//! Timestep grids: where a run evaluates the network.

use canvas_core::{Level, NoiseSchedule};

/// A rule that places the levels of a run: times by a [`Spacing`], then moved by a [`Transform`].
///
/// # Example
/// ```
/// use canvas_sched::{Timesteps, schedule};
/// let levels = Timesteps::uniform().levels(&schedule::Flow::default(), 4);
/// let sigmas: Vec<f64> = levels.iter().map(|level| level.sigma).collect();
/// assert_eq!(sigmas, [1.0, 0.75, 0.5, 0.25, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timesteps {
    /// Where the times lie.
    pub spacing: Spacing,
    /// How the levels between the first and the last noisy one are moved.
    pub transform: Transform,
}

/// How the `N` noisy times of a run are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Spacing {
    /// `1 - i/N`: from 1 to `1/N`. What flow pipelines use; good for every schedule.
    #[default]
    Uniform,
    /// Evenly from 1 to `last`, both included (for one step, 1).
    Linspace {
        /// The least noisy time, in `[0, 1)`. The schedule must have noise there.
        last: f64,
    },
    /// Training steps `offset + k (T / N)`, the division rounding down: never starts at the noisiest step.
    Leading {
        /// Training steps `T`.
        train: usize,
        /// Added to each: 1 in Stable Diffusion's published settings.
        offset: usize,
    },
    /// Training steps `round(T - i T/N) - 1`, halves to even: starts at the noisiest step.
    Trailing {
        /// Training steps `T`.
        train: usize,
    },
}

/// How noise-to-signal ratios `sigma / alpha` run between the first and the last of the spaced levels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Transform {
    /// As spaced.
    #[default]
    None,
    /// Linear in `ratio^(1/rho)`. Karras et al., 2022, equation 5, <https://arxiv.org/abs/2206.00364>.
    Karras {
        /// Bend, 7 in the paper.
        rho: f64,
    },
    /// Linear in `ln(ratio)`.
    Exponential,
}

impl Timesteps {
    /// [`Spacing::Uniform`], as spaced.
    pub fn uniform() -> Self {
        Self::default()
    }

    /// EDM's published grid, on its own schedule: from `t = 1` to `t = 0`, both included.
    pub fn edm() -> Self {
        Self { spacing: Spacing::Linspace { last: 0.0 }, ..Self::default() }
    }

    /// From the last training step to the first, both included and not rounded: diffusers' `linspace` of the
    /// Euler and Heun schedulers, and the default grid of its flow schedulers.
    pub fn linspace(train: usize) -> Self {
        Self { spacing: Spacing::Linspace { last: 1.0 / train as f64 }, ..Self::default() }
    }

    /// diffusers' `leading` with this `steps_offset`.
    pub fn leading(train: usize, offset: usize) -> Self {
        Self { spacing: Spacing::Leading { train, offset }, ..Self::default() }
    }

    /// diffusers' `trailing`.
    pub fn trailing(train: usize) -> Self {
        Self { spacing: Spacing::Trailing { train }, ..Self::default() }
    }

    /// The same ends with Karras' spacing (`rho = 7`) between them.
    pub fn karras(self) -> Self {
        Self { transform: Transform::Karras { rho: 7.0 }, ..self }
    }

    /// The same ends with exponential spacing between them.
    pub fn exponential(self) -> Self {
        Self { transform: Transform::Exponential, ..self }
    }

    /// `steps + 1` levels, noisiest first; the last is clean (`alpha = 1`, `sigma = 0`).
    ///
    /// # Panics
    /// If `steps` is 0 or more than the training steps of a leading or trailing spacing; if a spaced level
    /// has no noise (`Linspace { last: 0.0 }` on a schedule that starts clean); if a transform is asked of a
    /// level without signal (the flow schedule at `t = 1`), whose ratio is infinite.
    pub fn levels<S: NoiseSchedule + ?Sized>(&self, schedule: &S, steps: usize) -> Vec<Level> {
        let spaced: Vec<Level> = self.spacing.times(steps).iter().map(|&t| schedule.level(t)).collect();
        let least = spaced[steps - 1];
        assert!(least.sigma > 0.0, "level {} of {steps} has no noise: space to a later last time", steps - 1);
        let ends = (spaced[0].sigma / spaced[0].alpha, least.sigma / least.alpha);
        let mut levels = match self.transform.ratios(ends, steps) {
            Some(ratios) => ratios.map(|ratio| schedule.level_at_ratio(ratio)).collect(),
            None => spaced,
        };
        levels.push(Level { alpha: 1.0, sigma: 0.0, ..schedule.level(0.0) });
        levels
    }
}

impl Spacing {
    /// The noisy times of a run of `steps`, noisiest first.
    fn times(self, steps: usize) -> Vec<f64> {
        assert!(steps > 0, "a run needs at least 1 step");
        if let Self::Leading { train, .. } | Self::Trailing { train } = self {
            assert!(steps <= train, "{steps} steps on a grid of {train} training steps");
        }
        let count = steps as f64;
        let time = |i: usize| match self {
            Self::Uniform => 1.0 - i as f64 / count,
            Self::Linspace { last } => 1.0 - (1.0 - last) * i as f64 / (count - 1.0).max(1.0),
            Self::Leading { train, offset } => {
                ((steps - 1 - i) * (train / steps) + offset + 1) as f64 / train as f64
            }
            Self::Trailing { train } => {
                let train = train as f64;
                (train - i as f64 * train / count).round_ties_even() / train
            }
        };
        (0..steps).map(time).collect()
    }
}

impl Transform {
    /// Ratios from the first of `ends` to the second, or `None` for "as spaced".
    fn ratios(self, (high, low): (f64, f64), steps: usize) -> Option<Box<dyn Iterator<Item = f64>>> {
        if self == Self::None {
            return None;
        }
        assert!(
            high.is_finite(),
            "{self:?} needs a finite sigma / alpha, and the first level has alpha = 0: \
             use Transform::None (and the shift of schedule::Flow), or start at an earlier time"
        );
        let part = move |i: usize| i as f64 / (steps as f64 - 1.0).max(1.0);
        Some(match self {
            Self::Karras { rho } => {
                let (high, low) = (high.powf(1.0 / rho), low.powf(1.0 / rho));
                Box::new((0..steps).map(move |i| (high + part(i) * (low - high)).powf(rho)))
            }
            _ => Box::new((0..steps).map(move |i| (high.ln() + part(i) * (low.ln() - high.ln())).exp())),
        })
    }
}
