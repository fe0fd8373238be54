//! Timestep grids: where a run evaluates the network.

mod ays;
pub(crate) mod beta;
mod error;
mod part;
mod place;
mod spacing;
pub(crate) mod told;
mod transform;

pub use ays::Ays;
pub use error::GridSpecError;
pub use part::start;
pub use spacing::{Rule, Spacing};
pub use told::{Between, Round, Told};
pub use transform::{Over, Transform};

use canvas_core::{Level, NoiseSchedule};

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
}
