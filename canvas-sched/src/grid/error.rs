//! What can be wrong with a grid.

/// Why a grid has no levels for a schedule and a number of steps.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GridSpecError {
    /// No steps were asked for.
    #[error("a run needs at least 1 step")]
    NoSteps,
    /// More steps than the network was trained with.
    #[error("{steps} steps on a grid of {train} training steps")]
    TooManySteps {
        /// Steps asked for.
        steps: usize,
        /// Training steps there are.
        train: usize,
    },
    /// A list that holds another number of steps.
    #[error("{steps} steps were asked of a list that has {listed}")]
    WrongLength {
        /// Steps the list has.
        listed: usize,
        /// Steps asked for.
        steps: usize,
    },
    /// A time no schedule has.
    #[error("time {index} must lie in [0, 1], found {time}")]
    BadTime {
        /// Which.
        index: usize,
        /// Its value.
        time: f64,
    },
    /// Noise rises along the grid.
    #[error(
        "the grid goes the wrong way: level {index} has sigma/alpha = {ratio} after {before}; give the noisiest first"
    )]
    WrongWay {
        /// The first level that lies wrong.
        index: usize,
        /// Its `sigma / alpha`.
        ratio: f64,
        /// That of the level before.
        before: f64,
    },
    /// A hop that starts at clean data.
    #[error("level {index} of {count} has no noise: space to a later last time")]
    NoNoise {
        /// Which level.
        index: usize,
        /// How many must have noise.
        count: usize,
    },
    /// A transform of an infinite number.
    #[error(
        "{transform} over sigma/alpha needs a finite one, and the first level has alpha = 0: transform over the \
         flow sigma, sigma/(alpha + sigma), with Over::Flow, or start at an earlier time"
    )]
    PureNoise {
        /// The transform's name.
        transform: &'static str,
    },
    /// A noise level the schedule does not reach.
    #[error("noise level {index} has sigma/alpha = {ratio}, and the schedule has {least} to {most}")]
    OutOfRange {
        /// Which.
        index: usize,
        /// Its `sigma / alpha`.
        ratio: f64,
        /// Least of the schedule.
        least: f64,
        /// Most of the schedule.
        most: f64,
    },
    /// A setting with no meaning.
    #[error("{what} must be {must}, found {found}")]
    BadSetting {
        /// The setting.
        what: &'static str,
        /// What it may be.
        must: &'static str,
        /// What it is.
        found: f64,
    },
}

/// An error unless `fine`.
pub(super) fn setting(
    fine: bool,
    what: &'static str,
    must: &'static str,
    found: f64,
) -> Result<(), GridSpecError> {
    if fine { Ok(()) } else { Err(GridSpecError::BadSetting { what, must, found }) }
}

/// An error unless `value` is finite and above 0.
pub(super) fn positive(what: &'static str, value: f64) -> Result<(), GridSpecError> {
    setting(value.is_finite() && value > 0.0, what, "finite and greater than 0", value)
}
