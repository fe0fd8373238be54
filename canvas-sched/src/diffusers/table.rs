//! The training table of diffusers' discrete schedulers: betas to levels.

use super::DiffusersError;
use super::fields::Fields;
use crate::Final;
use crate::grid::told::index_of;
use crate::schedule::{Vp, betas};
use canvas_core::{Level, NoiseSchedule};

/// [`Vp`], except that a `sigma / alpha` may lie beyond the table, and is told a training step as diffusers
/// does: linearly in its logarithm, and never beyond the table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    vp: Vp,
    /// `ln(sigma / alpha)` of every training step.
    logs: Vec<f64>,
}

/// What `rescale_betas_zero_snr` does in a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rescale {
    /// The class has no such field.
    Never,
    /// The table ends without signal.
    ToZero,
    /// It ends just above, where `sigma / alpha` must stay finite.
    AboveZero,
}

/// The betas a class has unless its file says otherwise: schedule, first, last.
pub(super) type Defaults = (&'static str, f64, f64);
pub(super) const DDPM: Defaults = ("linear", 1e-4, 0.02);
pub(super) const K_DIFFUSION: Defaults = ("linear", 8.5e-4, 0.012);
pub(super) const LATENT: Defaults = ("scaled_linear", 8.5e-4, 0.012);

pub(super) const SCHEDULES: [&str; 6] =
    ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"];

impl Table {
    /// Reads the fields that every discrete scheduler shares.
    ///
    pub(super) fn read(
        fields: &Fields,
        (schedule, first, last): Defaults,
        rescale: Rescale,
    ) -> Result<Self, DiffusersError> {
        let train = fields.count("num_train_timesteps", 1000, 1, 1_000_000)?;
        let first = fields.number("beta_start", first, f64::MIN_POSITIVE, 1.0)?;
        let last = fields.number("beta_end", last, f64::MIN_POSITIVE, 1.0)?;
        let schedule = fields.word("beta_schedule", schedule, &SCHEDULES)?;
        let trained = fields.list("trained_betas")?;
        let betas = match (trained, schedule.as_str()) {
            (Some(betas), _) => betas,
            (None, "linear") => betas::linear(train, first, last),
            (None, "scaled_linear") => betas::scaled_linear(train, first, last),
            (None, "squaredcos_cap_v2") => betas::cosine(train, 0.999),
            (None, "sigmoid") => betas::sigmoid(train, first, last),
            (None, "laplace") => betas::laplace(train, 0.999),
            _ => betas::exponential(train, 0.999),
        };
        let strange = betas.iter().position(|beta| !(*beta > 0.0 && *beta < 1.0));
        if let Some(index) = strange {
            let found = format!("{} at {index}", betas[index]);
            return Err(fields.refuse("trained_betas", "numbers strictly between 0 and 1", found));
        }
        let rescaled = rescale != Rescale::Never && fields.flag("rescale_betas_zero_snr", false)?;
        if rescaled && betas.len() < 2 {
            return Err(fields.refuse("rescale_betas_zero_snr", "false with a single training step", true));
        }
        let falls = |error| fields.refuse("trained_betas", "a table that falls", error);
        let vp = Vp::try_from_betas(&betas).map_err(falls)?;
        Ok(Self::new(match rescale {
            _ if !rescaled => vp,
            Rescale::ToZero => vp.zero_terminal_snr(),
            // The smallest 16-bit number.
            _ => vp.zero_terminal_snr().with_last_alpha_bar(2f64.powi(-24)).map_err(falls)?,
        }))
    }

    fn new(vp: Vp) -> Self {
        let log = |step| -vp.training_step(step).half_log_snr();
        let logs = (0..vp.steps()).map(log).collect();
        Self { vp, logs }
    }

    /// Training steps.
    pub(super) fn train(&self) -> usize {
        self.vp.steps()
    }

    /// The time of the first training step.
    pub(super) fn first(&self) -> f64 {
        1.0 / self.train() as f64
    }

    /// The level of a training step.
    pub(super) fn step(&self, index: usize) -> Level {
        self.vp.training_step(index)
    }

    /// `sigma / alpha` of the last training step and of the first.
    pub(super) fn ends(&self) -> (f64, f64) {
        let ratio = |level: Level| level.sigma / level.alpha;
        (ratio(self.step(self.train() - 1)), ratio(self.step(0)))
    }

    /// How many training steps have `ln(alpha / sigma)` of at least this.
    pub(super) fn steps_above(&self, half_log_snr: f64) -> usize {
        self.vp.steps_above(half_log_snr)
    }

    /// Where a run ends: `set_alpha_to_one`.
    pub(super) fn last(&self, clean: bool) -> Final {
        if clean { Final::Clean } else { Final::At(self.first()) }
    }

    /// The level there.
    pub(super) fn end(&self, clean: bool) -> Level {
        if clean { self.vp.level(0.0) } else { self.step(0) }
    }
}

impl NoiseSchedule for Table {
    fn level(&self, t: f64) -> Level {
        self.vp.level(t)
    }
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let time = index_of(&self.logs, ratio.max(1e-10).ln()) / self.train() as f64;
        let alpha = 1.0 / ratio.hypot(1.0);
        Level { time, alpha, sigma: ratio * alpha }
    }
    fn slope(&self, t: f64) -> (f64, f64) {
        self.vp.slope(t)
    }
}
