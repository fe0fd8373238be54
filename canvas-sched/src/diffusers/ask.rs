//! What a run asks of a scheduler, and the grid that answers.

use super::AskError;
use crate::grid::{GridSpecError, Spacing, Timesteps};
use canvas_core::{Level, NoiseSchedule};

/// What a run asks of a scheduler's grid: diffusers' `set_timesteps`.
///
/// A number of steps is one by `into()`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask<'a> {
    /// Steps of the run. Ignored where a list is given.
    pub steps: usize,
    /// The resolution-dependent shift of flow models: see [`Scheduler::mu`](super::Scheduler::mu).
    pub mu: Option<f64>,
    /// Training steps of one's own, noisiest first.
    pub timesteps: Option<&'a [f64]>,
    /// Sigmas of one's own, noisiest first: `sigma / alpha` with their end for Euler, flow sigmas without it.
    pub sigmas: Option<&'a [f64]>,
    /// LCM and TCD: the part of the distillation's steps to use, in `(0, 1]`.
    pub strength: f64,
}

impl From<usize> for Ask<'_> {
    fn from(steps: usize) -> Self {
        Self { steps, mu: None, timesteps: None, sigmas: None, strength: 1.0 }
    }
}

impl Ask<'_> {
    /// Refuses lists that the class does not take.
    pub(super) fn lists(&self, class: &'static str, sigmas: bool, timesteps: bool) -> Result<(), AskError> {
        match self {
            Ask { sigmas: Some(_), .. } if !sigmas => Err(AskError::Unsupported { class, what: "sigmas" }),
            Ask { timesteps: Some(_), .. } if !timesteps => {
                Err(AskError::Unsupported { class, what: "timesteps" })
            }
            _ => Ok(()),
        }
    }
}

/// A list of the caller's, noisiest first, every entry of which must be `fine`.
pub(super) fn listed(
    what: &'static str,
    values: &[f64],
    (expected, fine): (&'static str, impl Fn(f64) -> bool),
) -> Result<Vec<f64>, AskError> {
    for (index, &value) in values.iter().enumerate() {
        if !fine(value) {
            return Err(AskError::Entry { what, index, value, expected });
        }
        if index > 0 && value >= values[index - 1] {
            return Err(AskError::Entry { what, index, value, expected: "less than the entry before" });
        }
    }
    Ok(values.to_vec())
}

/// Training steps of the caller's.
pub(super) fn steps_listed(timesteps: &[f64], train: usize) -> Result<Spacing, AskError> {
    let within = |timestep: &f64| (0.0..=(train - 1) as f64).contains(timestep);
    if let Some(index) = timesteps.iter().position(|timestep| !within(timestep)) {
        return Err(AskError::OutOfTable { index, timestep: timesteps[index], train });
    }
    Ok(Spacing::Steps { train, steps: listed("timesteps", timesteps, ("a number", |_| true))? })
}

/// What answers an [`Ask`].
pub(super) trait Places: Send + Sync {
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError>;
}

/// The grid of one run: a rule of this crate on a schedule, and what only diffusers does to its levels.
pub(super) struct Placed {
    class: &'static str,
    pub(super) on: Box<dyn NoiseSchedule>,
    pub(super) timesteps: Timesteps,
    steps: usize,
    then: Vec<Then>,
}

type Then = Box<dyn FnOnce(&mut Vec<Level>)>;

impl Placed {
    pub(super) fn new(
        class: &'static str,
        on: impl NoiseSchedule + 'static,
        timesteps: Timesteps,
        steps: usize,
    ) -> Self {
        let steps = match &timesteps.spacing {
            Spacing::Steps { steps: list, .. }
            | Spacing::Times(list)
            | Spacing::Sigmas { sigmas: list, .. } => list.len(),
            _ => steps,
        };
        Self { class, on: Box::new(on), timesteps, steps, then: Vec::new() }
    }

    /// Changes the levels afterwards.
    pub(super) fn then(mut self, change: impl FnOnce(&mut Vec<Level>) + 'static) -> Self {
        self.then.push(Box::new(change));
        self
    }

    /// Whether the levels are those of the rule, unchanged.
    pub(super) fn plain(&self) -> bool {
        self.then.is_empty()
    }

    pub(super) fn levels(self) -> Result<Vec<Level>, AskError> {
        let placed = self.timesteps.levels(&*self.on, self.steps);
        let mut levels = placed.map_err(|error| self.error(error))?;
        self.then.into_iter().for_each(|change| change(&mut levels));
        Ok(levels)
    }

    fn error(&self, source: GridSpecError) -> AskError {
        let class = self.class;
        match (source, &self.timesteps.spacing) {
            (GridSpecError::NoSteps, _) => AskError::NoSteps,
            (GridSpecError::TooManySteps { steps, train }, _) => {
                let why = ", as many as it was trained with";
                AskError::TooManySteps { class, steps, most: train, why }
            }
            (GridSpecError::BadTime { index, time }, &Spacing::Training { train, .. }) => {
                let timestep = (time * train as f64).round() - 1.0;
                AskError::OutOfTable { index, timestep, train }
            }
            (source, _) => AskError::Grid { class, source },
        }
    }
}
