//! Grids of straight-line sigmas: the flow-matching classes, and `use_flow_sigmas` of the others.

use super::ask::{Placed, Places, listed};
use super::fields::Fields;
use super::sigmas::SigmaGrid;
use super::{Ask, AskError, Compat, DiffusersError};
use crate::schedule::Flow;
use crate::{Between, Ends, Final, Over, Round, Spacing, Timesteps, Told, Transform};
use canvas_core::{Level, NoiseSchedule};

/// How sigmas are moved towards noise.
#[derive(Clone, Debug)]
pub(super) struct Shift {
    pub(super) kind: ShiftKind,
    /// The last sigma after stretching: `shift_terminal`.
    pub(super) terminal: Option<f64>,
    /// Starts at 1 - 1e-6 instead of below 1 - 1/T, as UniPC does.
    pub(super) from_noise: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ShiftKind {
    /// `shift s / (1 + (shift - 1) s)`.
    Static(f64),
    /// The same with `shift = e^mu`: `time_shift_type: exponential`.
    Exponential,
    /// The same with `shift = mu`: `time_shift_type: linear`.
    Linear,
}

impl ShiftKind {
    /// `field` is the static shift's; `dynamic` says whether the class can take one of the caller's.
    pub(super) fn read(fields: &Fields, field: &'static str, dynamic: bool) -> Result<Self, DiffusersError> {
        let shift = fields.number(field, 1.0, f64::MIN_POSITIVE, 1e6)?;
        if !dynamic {
            return Ok(Self::Static(shift));
        }
        let word = fields.word("time_shift_type", "exponential", &["exponential", "linear"])?;
        Ok(match (fields.flag("use_dynamic_shifting", false)?, &*word) {
            (false, _) => Self::Static(shift),
            (true, "linear") => Self::Linear,
            _ => Self::Exponential,
        })
    }

    fn schedule(self, mu: Option<f64>) -> Result<Flow, AskError> {
        match self {
            Self::Static(shift) => Ok(Flow { shift }),
            Self::Exponential => mu.map(Flow::exponential).ok_or(AskError::NoMu),
            Self::Linear => mu.map(Flow::linear).ok_or(AskError::NoMu),
        }
    }
}

/// Flow sigmas of the caller's, before any shift.
fn sigmas_listed(sigmas: &[f64]) -> Result<Spacing, AskError> {
    let within = ("a flow sigma, in (0, 1]", |sigma: f64| sigma > 0.0 && sigma <= 1.0);
    listed("sigmas", sigmas, within).map(Spacing::Times)
}

impl SigmaGrid {
    /// The grid of a training-table class that runs on straight-line sigmas.
    pub(super) fn straight(&self, shift: &Shift, ask: &Ask<'_>) -> Result<Placed, AskError> {
        ask.lists(self.class, shift.from_noise, false)?;
        let (train, first) = (self.table.train(), self.table.first());
        let flow = match self.transform {
            Transform::None => shift.kind.schedule(ask.mu)?,
            _ => Flow::default(), // its ends come from the table, and are not shifted
        };
        let ((high, low), exact) = (self.table.ends(), self.round == Round::Keep);
        let spacing = match ask.sigmas {
            Some(sigmas) => sigmas_listed(sigmas)?,
            None if shift.from_noise => Spacing::Open { first: 1.0, last: first },
            None => Spacing::Open { first: 1.0 - first, last: 0.0 },
        };
        let timesteps = Timesteps {
            terminal: shift.terminal.filter(|_| self.transform == Transform::None),
            transform: self.transform,
            ends: Ends::Between { high: self.ends.1.unwrap_or(high), low: self.ends.0.unwrap_or(low) },
            told: (!exact).then_some(Told { train, between: Between::Schedule, round: Round::Down }),
            last: match self.last {
                // The table's least ratio, taken for a flow sigma: at the time that the shift moves there.
                Final::At(_) => Final::At(Flow { shift: 1.0 / flow.shift }.level(low).sigma),
                last => last,
            },
            ..Timesteps::new(spacing)
        };
        Ok(Placed::new(self.class, flow, timesteps, ask.steps).then(move |levels| {
            // These solvers take a logarithm of 1 - sigma.
            if levels[0].alpha < 1e-6 {
                let (sigma, train) = (levels[0].sigma - 1e-6, train as f64);
                let time = if exact { sigma } else { (sigma * train).floor() / train };
                levels[0] = Level { time, alpha: 1.0 - sigma, sigma };
            }
        }))
    }
}

/// The grid of the flow-matching classes.
pub(super) struct FlowGrid {
    pub(super) class: &'static str,
    pub(super) train: usize,
    pub(super) kind: ShiftKind,
    /// The last sigma after stretching: `shift_terminal`.
    pub(super) terminal: Option<f64>,
    pub(super) transform: Transform,
    /// Told `1 - sigma` and running the other way: `invert_sigmas`.
    pub(super) inverted: bool,
    pub(super) compat: Compat,
    /// Whether the caller may give sigmas and timesteps.
    pub(super) custom: bool,
    /// Spaced down to `1/N` instead of to `1/T`, and told the shifted time whatever the caller gave.
    pub(super) uniform: bool,
}

impl FlowGrid {
    fn spacing(&self, ask: &Ask<'_>) -> Result<Spacing, AskError> {
        let train = self.train as f64;
        if let Some(sigmas) = ask.sigmas {
            return sigmas_listed(sigmas);
        }
        if let Some(timesteps) = ask.timesteps {
            let within = ("above 0 and at most num_train_timesteps", |t: f64| t > 0.0 && t <= train);
            let times = listed("timesteps", timesteps, within)?;
            return Ok(Spacing::Times(times.into_iter().map(|timestep| timestep / train).collect()));
        }
        if self.uniform {
            return Ok(Spacing::Uniform);
        }
        // diffusers takes the ends of its default grid from a table that is shifted already, and shifts again
        // (huggingface/diffusers issue 13243).
        let last = match (self.compat, self.kind) {
            (Compat::Diffusers, ShiftKind::Static(shift)) => Flow { shift }.level(1.0 / train).sigma,
            _ => 1.0 / train,
        };
        Ok(Spacing::Linspace { first: 1.0, last })
    }
}

impl Places for FlowGrid {
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError> {
        ask.lists(self.class, self.custom, self.custom)?;
        let timesteps = Timesteps {
            terminal: self.terminal,
            transform: self.transform,
            over: Over::Flow,
            ..Timesteps::new(self.spacing(ask)?)
        };
        let placed = Placed::new(self.class, self.kind.schedule(ask.mu)?, timesteps, ask.steps);
        if self.inverted {
            return Ok(
                placed.then(|levels| levels.iter_mut().for_each(|level| level.time = 1.0 - level.time))
            );
        }
        // Told as they were given, not as they were shifted.
        Ok(match ask.timesteps {
            Some(timesteps) if !self.uniform => {
                let times: Vec<f64> = timesteps.iter().map(|t| t / self.train as f64).collect();
                placed.then(move |levels| {
                    levels.iter_mut().zip(times).for_each(|(level, time)| level.time = time);
                })
            }
            _ => placed,
        })
    }
}
