//! Grids of `sigma / alpha` on the training table: the Euler and the DPM-Solver families.

use super::ask::{Placed, Places, listed, steps_listed};
use super::fields::Fields;
use super::flow::Shift;
use super::spacing::{Kind, Spaced, Variant};
use super::table::Table;
use super::{Ask, AskError, DiffusersError};
use crate::{Between, Ends, Final, Over, Round, Spacing, Timesteps, Told, Transform};
use canvas_core::Level;

const NONE: Transform = Transform::None;
const KARRAS: Transform = Transform::Karras { rho: 7.0 };
const BETA: Transform = Transform::Beta { alpha: 0.6, beta: 0.6 };

/// Reads `use_karras_sigmas` and its kin, of which only one may be on, and says which it was.
pub(super) fn transform(
    fields: &Fields,
    lu: bool,
) -> Result<(Transform, Option<&'static str>), DiffusersError> {
    let mut on = Vec::new();
    let known = [
        ("use_karras_sigmas", KARRAS),
        ("use_exponential_sigmas", Transform::Exponential),
        ("use_beta_sigmas", BETA),
        ("use_lu_lambdas", Transform::Exponential),
    ];
    for &(field, transform) in &known[..3 + usize::from(lu)] {
        if fields.flag(field, false)? {
            on.push((field, transform));
        }
    }
    match on[..] {
        [] => Ok((NONE, None)),
        [(field, transform)] => Ok((transform, Some(field))),
        [(first, _), (second, _), ..] => Err(fields.refuse(second, format!("false beside {first}"), true)),
    }
}

/// A grid of ratios.
#[derive(Clone)]
pub(super) struct SigmaGrid {
    pub(super) class: &'static str,
    pub(super) table: Table,
    pub(super) spaced: Spaced,
    pub(super) transform: Transform,
    /// What becomes of a training step that is not whole after a transform.
    pub(super) round: Round,
    /// Ends of the transform that the configuration gives: `sigma_min`, `sigma_max`.
    pub(super) ends: (Option<f64>, Option<f64>),
    pub(super) last: Final,
    /// `interpolation_type: log_linear`.
    pub(super) log_linear: bool,
    /// Told `ln(sigma / alpha) / 4` instead of a training step: `timestep_type: continuous`.
    pub(super) continuous: bool,
    /// Straight-line sigmas instead of the table: `use_flow_sigmas`.
    pub(super) flow: Option<Shift>,
    /// From data to noise.
    pub(super) rising: bool,
    /// Whether the caller may list sigmas.
    pub(super) custom: bool,
}

impl SigmaGrid {
    /// The settings of the Euler family.
    pub(super) fn new(class: &'static str, table: &Table, spaced: Spaced) -> Self {
        Self {
            class,
            table: table.clone(),
            spaced,
            transform: NONE,
            round: Round::Keep,
            ends: (None, None),
            last: Final::Clean,
            log_linear: false,
            continuous: false,
            flow: None,
            rising: false,
            custom: false,
        }
    }

    /// The ends of a transform: of the whole table in the DPM-Solver family, else of what is spaced.
    fn ends(&self, spacing: &Spacing, steps: usize) -> Result<Ends, AskError> {
        let whole = self.spaced.variant == Variant::Open || self.log_linear;
        let ends = if whole { Ends::Times { first: 1.0, last: self.table.first() } } else { Ends::Spaced };
        if self.ends == (None, None) || self.transform == NONE {
            return Ok(ends);
        }
        let own = if whole {
            self.table.ends()
        } else {
            let spaced = Timesteps::new(spacing.clone());
            let levels = Placed::new(self.class, self.table.clone(), spaced, steps).levels()?;
            let ratio = |level: Level| level.sigma / level.alpha;
            (ratio(levels[0]), ratio(levels[levels.len() - 2]))
        };
        Ok(Ends::Between { high: self.ends.1.unwrap_or(own.0), low: self.ends.0.unwrap_or(own.1) })
    }

    /// The rule, before what only diffusers has.
    fn rule(&self, spacing: Spacing, steps: usize) -> Result<Timesteps, AskError> {
        let train = self.table.train();
        let told = Told { train, between: Between::Schedule, round: self.round };
        Ok(Timesteps {
            ends: self.ends(&spacing, steps)?,
            transform: self.transform,
            told: (self.transform != NONE && self.round != Round::Keep).then_some(told),
            last: self.last,
            ..Timesteps::new(spacing)
        })
    }

    /// Ratios of the caller's, with their end.
    fn listed(&self, sigmas: &[f64]) -> Result<Placed, AskError> {
        let sigmas = listed(
            "sigmas",
            sigmas,
            ("a finite number, not negative", |sigma: f64| sigma.is_finite() && sigma >= 0.0),
        )?;
        if sigmas.len() < 2 {
            return Err(AskError::NoSteps);
        }
        let spacing = Spacing::Sigmas { of: Over::Ratio, sigmas };
        let timesteps = Timesteps::new(spacing).ending(Final::Nothing);
        Ok(Placed::new(self.class, self.table.clone(), timesteps, 0))
    }

    /// From data to noise: the cleanest training step, what was spaced but for the noisiest, and that.
    fn rising(&self, steps: usize) -> Result<Placed, AskError> {
        let last = match self.spaced.kind {
            Kind::Linspace if self.transform == NONE => Final::At(self.table.first()),
            Kind::Leading if self.transform == NONE => {
                Final::At((self.spaced.offset + 1) as f64 * self.table.first())
            }
            _ => Final::Nothing,
        };
        let timesteps = self.rule(self.spaced.spacing(steps), steps)?.ending(last);
        let noisiest = self.table.step(self.spaced.used - 1);
        Ok(Placed::new(self.class, self.table.clone(), timesteps, steps).then(move |levels| {
            levels.reverse();
            let end = levels.len() - 1;
            match last {
                Final::Nothing => levels.push(levels[end]), // a hop of no length
                _ => levels[end] = noisiest,
            }
        }))
    }

    /// diffusers makes one ratio more than it has steps, over the whole table, and ends on it; told are the
    /// times of the spacing.
    fn log_linear(&self, spacing: Spacing, steps: usize) -> Result<Placed, AskError> {
        let (class, table) = (self.class, self.table.clone());
        let told = Placed::new(class, table.clone(), Timesteps::new(spacing), steps);
        let told: Vec<f64> = told.levels()?[..].iter().map(|level| level.time).collect();
        let timesteps = Timesteps::linspace(table.train()).exponential().ending(Final::Nothing);
        Ok(Placed::new(class, table, timesteps, told.len()).then(move |levels| {
            levels.iter_mut().zip(told).for_each(|(level, time)| level.time = time);
        }))
    }
}

impl Places for SigmaGrid {
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError> {
        let (class, table, steps) = (self.class, &self.table, ask.steps);
        if let Some(shift) = &self.flow {
            return self.straight(shift, ask);
        }
        ask.lists(class, self.custom, self.transform == NONE && !self.rising)?;
        let train = table.train() as f64;
        let beyond = if ask.timesteps.is_none() { self.spaced.beyond(steps) } else { None };
        let spacing = match ask.timesteps {
            Some(timesteps) if self.spaced.variant == Variant::Open => {
                let whole: Vec<f64> = timesteps.iter().map(|timestep| timestep.round_ties_even()).collect();
                steps_listed(&whole, table.train())?
            }
            Some(timesteps) => steps_listed(timesteps, table.train())?,
            None => match &beyond {
                Some(list) => {
                    let steps = list.iter().map(|step| step.min(train - 1.0)).collect();
                    Spacing::Steps { train: table.train(), steps }
                }
                None => self.spaced.spacing(steps),
            },
        };
        let mut placed = match ask.sigmas {
            Some(sigmas) => self.listed(sigmas)?,
            None if self.rising => self.rising(steps)?,
            None if self.log_linear && self.transform == NONE => self.log_linear(spacing, steps)?,
            None => Placed::new(class, table.clone(), self.rule(spacing, steps)?, steps),
        };
        if let Some(list) = beyond.filter(|_| self.transform == NONE && ask.sigmas.is_none()) {
            placed = placed.then(move |levels| {
                levels.iter_mut().zip(list).for_each(|(level, step)| level.time = step / train);
            });
        }
        if self.continuous {
            placed = placed.then(move |levels| {
                levels.iter_mut().for_each(|level| level.time = -0.25 * level.half_log_snr() / train);
            });
        }
        Ok(placed)
    }
}
