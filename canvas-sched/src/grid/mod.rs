//! Timestep grids: where a run evaluates the network.

mod ays;
mod beta;
mod error;
mod part;
mod spacing;
mod told;
mod transform;

pub use ays::Ays;
pub use error::GridSpecError;
pub use part::start;
pub use spacing::{Rule, Spacing};
pub use told::{Between, Round, Told};
pub use transform::{Over, Transform};

use canvas_core::{Level, NoiseSchedule};
use error::setting;
use spacing::{at, ratio};

/// Anything that places the levels of a run.
pub trait Grid: std::fmt::Debug + Send + Sync {
    /// The levels of a run of `steps` on a schedule, noisiest first.
    ///
    /// # Errors
    /// If there are no such levels, and why.
    fn levels(&self, schedule: &dyn NoiseSchedule, steps: usize) -> Result<Vec<Level>, GridSpecError>;
}

/// A list of levels is a grid for as many steps as it has hops, whatever the schedule.
impl Grid for Vec<Level> {
    fn levels(&self, _schedule: &dyn NoiseSchedule, steps: usize) -> Result<Vec<Level>, GridSpecError> {
        let listed = self.len().saturating_sub(1);
        if listed == steps { Ok(self.clone()) } else { Err(GridSpecError::WrongLength { listed, steps }) }
    }
}

impl Grid for Timesteps {
    fn levels(&self, schedule: &dyn NoiseSchedule, steps: usize) -> Result<Vec<Level>, GridSpecError> {
        self.place(schedule, steps)
    }
}

impl<G: Grid + ?Sized> Grid for Box<G> {
    fn levels(&self, schedule: &dyn NoiseSchedule, steps: usize) -> Result<Vec<Level>, GridSpecError> {
        (**self).levels(schedule, steps)
    }
}

/// A rule that places the levels of a run: by a [`Spacing`], then moved by a [`Transform`], then ended by a
/// [`Final`].
///
/// # Example
/// ```
/// use canvas_sched::{Timesteps, schedule};
/// let levels = Timesteps::uniform().levels(&schedule::Flow::default(), 4)?;
/// let sigmas: Vec<f64> = levels.iter().map(|level| level.sigma).collect();
/// assert_eq!(sigmas, [1.0, 0.75, 0.5, 0.25, 0.0]);
/// # Ok::<(), canvas_sched::GridSpecError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timesteps {
    /// Where the levels lie.
    pub spacing: Spacing,
    /// If set, the spaced levels are stretched so that the last has this flow sigma, `sigma/(alpha + sigma)`,
    /// in `(0, 1)`: `1 - s' = (1 - s) (1 - terminal) / (1 - s_last)`. `shift_terminal` of diffusers, 0.02 for
    /// Qwen-Image, 0.1 for LTX-Video. A single level of pure noise stays.
    pub terminal: Option<f64>,
    /// How the levels between two ends are moved.
    pub transform: Transform,
    /// What the transform runs over.
    pub over: Over,
    /// Which two ends.
    pub ends: Ends,
    /// Whether the network is told rounded times: nothing else of the levels changes.
    pub told: Option<Told>,
    /// What comes after the noisy levels.
    pub last: Final,
}

/// The ends of a [`Transform`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Ends {
    /// The first and the last spaced level: diffusers' Euler, Heun, LMS and flow classes.
    #[default]
    Spaced,
    /// The levels at these times, whatever the spacing. From 1 to `1/T` the full training range: diffusers'
    /// DPM++, UniPC, DEIS and SA-Solver, and ComfyUI.
    Times {
        /// The noisiest.
        first: f64,
        /// The least noisy.
        last: f64,
    },
    /// These noise levels, in what the transform runs over: `sigma_min` and `sigma_max` of a configuration.
    Between {
        /// The noisiest.
        high: f64,
        /// The least noisy, `> 0`.
        low: f64,
    },
}

/// What comes after the noisy levels of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Final {
    /// A clean level, `alpha = 1`, `sigma = 0`: `zero` in diffusers.
    #[default]
    Clean,
    /// The schedule's level at this time: at `1/T` `sigma_min` in diffusers, at 0 the least an exploding
    /// schedule has. A last noisy level with less noise is repeated.
    At(f64),
    /// The last noisy level again: a hop of no length.
    Repeat,
    /// Nothing: the noisy levels alone, one hop fewer. The last of a list may be clean then.
    Nothing,
}

impl Timesteps {
    /// [`Spacing::Uniform`], as spaced.
    pub fn uniform() -> Self {
        Self::default()
    }

    /// As spaced by `spacing`.
    pub fn new(spacing: Spacing) -> Self {
        Self { spacing, ..Self::default() }
    }

    /// EDM's published grid, on its own schedule: from `t = 1` to `t = 0`, both included.
    pub fn edm() -> Self {
        Self::new(Spacing::Linspace { first: 1.0, last: 0.0 })
    }

    /// From the last training step to the first, both included and not rounded: diffusers' `linspace` of the
    /// Euler and Heun schedulers, and the default grid of its flow schedulers.
    pub fn linspace(train: usize) -> Self {
        Self::new(Spacing::Linspace { first: 1.0, last: 1.0 / train as f64 })
    }

    /// diffusers' `leading` with this `steps_offset`.
    pub fn leading(train: usize, offset: usize) -> Self {
        Self::training(train, Rule::Leading { offset })
    }

    /// diffusers' `trailing`.
    pub fn trailing(train: usize) -> Self {
        Self::training(train, Rule::Trailing)
    }

    /// Training steps by a rule of the reference code.
    pub fn training(train: usize, rule: Rule) -> Self {
        Self::new(Spacing::Training { rule, train, used: train })
    }

    /// ComfyUI's `sgm_uniform`: evenly from the last training step, without the first.
    pub fn sgm_uniform(train: usize) -> Self {
        Self::new(Spacing::Open { first: 1.0, last: 1.0 / train as f64 })
    }

    /// The same with this transform, over what it ran before.
    pub fn transformed(self, transform: Transform) -> Self {
        Self { transform, ..self }
    }

    /// The same ends with Karras' spacing (`rho = 7`) between them.
    pub fn karras(self) -> Self {
        self.transformed(Transform::Karras { rho: 7.0 })
    }

    /// The same ends with exponential spacing between them.
    pub fn exponential(self) -> Self {
        self.transformed(Transform::Exponential)
    }

    /// The same ends with quantiles of the beta distribution (0.6, 0.6) between them.
    pub fn beta(self) -> Self {
        self.transformed(Transform::Beta { alpha: 0.6, beta: 0.6 })
    }

    /// The transform over this.
    pub fn over(self, over: Over) -> Self {
        Self { over, ..self }
    }

    /// The transform between these ends.
    pub fn between(self, ends: Ends) -> Self {
        Self { ends, ..self }
    }

    /// Stretched to end at this flow sigma: see [`terminal`](Self#structfield.terminal).
    pub fn terminal(self, terminal: f64) -> Self {
        Self { terminal: Some(terminal), ..self }
    }

    /// With these told times.
    pub fn told(self, told: Told) -> Self {
        Self { told: Some(told), ..self }
    }

    /// With this end.
    pub fn ending(self, last: Final) -> Self {
        Self { last, ..self }
    }

    /// `steps` noisy levels, noisiest first, and what [`last`](Self#structfield.last) says.
    ///
    /// # Errors
    /// If `steps` is 0, more than the training steps of a spacing that picks them, or not the length of a
    /// list; if a level that a hop starts from has no noise ([`edm`](Self::edm) on a schedule that starts
    /// clean); if noise rises; if a transform over `sigma / alpha` is asked of a level without signal (the
    /// flow schedule at `t = 1`); if a setting has no meaning.
    pub fn levels<S: NoiseSchedule + ?Sized>(
        &self,
        schedule: &S,
        steps: usize,
    ) -> Result<Vec<Level>, GridSpecError> {
        self.place(&schedule, steps)
    }

    fn place(&self, schedule: &dyn NoiseSchedule, steps: usize) -> Result<Vec<Level>, GridSpecError> {
        if steps == 0 {
            return Err(GridSpecError::NoSteps);
        }
        let mut levels = self.spacing.levels(schedule, steps)?;
        self.stretch(schedule, &mut levels)?;
        self.transform(schedule, &mut levels)?;
        let noisy = if self.last == Final::Nothing { steps - 1 } else { steps };
        // Not `<= 0`: NaN is no noise either.
        if let Some(index) = levels[..noisy].iter().position(|level| !(level.sigma > 0.0)) {
            return Err(GridSpecError::NoNoise { index, count: noisy });
        }
        if let Some(told) = &self.told {
            told.tell(schedule, &mut levels)?;
        }
        let least = levels[steps - 1];
        match self.last {
            Final::Clean => levels.push(Level { alpha: 1.0, sigma: 0.0, ..schedule.level(0.0) }),
            Final::Repeat => levels.push(least),
            Final::At(time) => {
                let last = at(schedule, steps, time)?;
                levels.push(if ratio(last) > ratio(least) { least } else { last });
            }
            Final::Nothing => {}
        }
        falling(&levels)?;
        Ok(levels)
    }

    fn stretch(&self, schedule: &dyn NoiseSchedule, levels: &mut [Level]) -> Result<(), GridSpecError> {
        let Some(terminal) = self.terminal else { return Ok(()) };
        setting(terminal > 0.0 && terminal < 1.0, "the terminal", "in (0, 1)", terminal)?;
        let clean = |level: Level| level.alpha / (level.alpha + level.sigma);
        let most = clean(levels[levels.len() - 1]);
        for level in levels.iter_mut().filter(|level| level.alpha > 0.0) {
            let share = clean(*level) / most * (1.0 - terminal);
            *level = schedule.level_at_ratio((1.0 - share) / share);
        }
        Ok(())
    }

    fn transform(&self, schedule: &dyn NoiseSchedule, levels: &mut [Level]) -> Result<(), GridSpecError> {
        if self.transform == Transform::None {
            return Ok(());
        }
        let count = levels.len();
        let (first, last) = match self.ends {
            Ends::Spaced => (levels[0], levels[count - 1]),
            Ends::Times { first, last } => (at(schedule, 0, first)?, at(schedule, count - 1, last)?),
            Ends::Between { high, low } => {
                let most = if self.over == Over::Flow { 1.0 } else { f64::INFINITY };
                setting(high > 0.0 && high <= most, "the noisiest end", "a noise level above 0", high)?;
                setting(low > 0.0 && low <= high, "the cleanest end", "above 0, at most the noisiest", low)?;
                let level = |noise| schedule.level_at_ratio(self.over.ratio(noise));
                (level(high), level(low))
            }
        };
        let noise = |level| self.over.of_ratio(ratio(level));
        let (high, low) = (noise(first), noise(last));
        // Not `<= 0`: NaN is no noise either.
        if !(low > 0.0) {
            return Err(GridSpecError::NoNoise { index: count - 1, count });
        }
        if low > high {
            let (ratio, before) = (ratio(last), ratio(first));
            return Err(GridSpecError::WrongWay { index: count - 1, ratio, before });
        }
        self.transform.check(high)?;
        for (i, level) in levels.iter_mut().enumerate() {
            *level = match i {
                0 => first,
                i if i + 1 == count => last,
                i => {
                    let u = i as f64 / (count - 1) as f64;
                    schedule.level_at_ratio(self.over.ratio(self.transform.level(u, (high, low))))
                }
            };
        }
        Ok(())
    }
}

/// Refuses a level with more noise than the one before.
fn falling(levels: &[Level]) -> Result<(), GridSpecError> {
    for (i, pair) in levels.windows(2).enumerate() {
        let (before, ratio) = (ratio(pair[0]), ratio(pair[1]));
        // Equal levels may differ by a rounding error; NaN is never fine.
        if !(ratio <= before * (1.0 + 1e-9)) {
            return Err(GridSpecError::WrongWay { index: i + 1, ratio, before });
        }
    }
    Ok(())
}
