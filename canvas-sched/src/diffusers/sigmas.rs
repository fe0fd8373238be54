//! Grids of `sigma / alpha` on the training table: the Euler and the DPM-Solver families.

use super::fields::Fields;
use super::flow::{Shift, beta_points};
use super::steps::{Spacing, falling};
use super::table::Table;
use super::{Ask, AskError, DiffusersError, Rule};
use canvas_core::Level;

/// How the ratios run between their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Karras,
    Exponential,
    Beta,
    /// Even in the logarithm over the whole table: `use_lu_lambdas`.
    Lu,
}

impl Transform {
    /// Reads `use_karras_sigmas` and its kin, of which only one may be on.
    pub(super) fn read(fields: &Fields, lu: bool) -> Result<Self, DiffusersError> {
        let mut on = Vec::new();
        let known = [
            ("use_karras_sigmas", Self::Karras),
            ("use_exponential_sigmas", Self::Exponential),
            ("use_beta_sigmas", Self::Beta),
            ("use_lu_lambdas", Self::Lu),
        ];
        for &(field, transform) in &known[..3 + usize::from(lu)] {
            if fields.flag(field, false)? {
                on.push((field, transform));
            }
        }
        match on[..] {
            [] => Ok(Self::None),
            [(_, transform)] => Ok(transform),
            [(first, _), (second, _), ..] => {
                Err(fields.refuse(second, format!("false beside {first}"), true))
            }
        }
    }

    /// `count` ratios from `high` to `low`, or `None` where they stay as spaced.
    pub(super) fn ratios(self, high: f64, low: f64, count: usize) -> Option<Vec<f64>> {
        let part = |i: usize| i as f64 / (count - 1).max(1) as f64;
        let (rho, root) = (7.0, |ratio: f64| ratio.powf(1.0 / 7.0));
        Some(match self {
            Self::None => return None,
            Self::Karras => {
                (0..count).map(|i| (root(high) + part(i) * (root(low) - root(high))).powf(rho)).collect()
            }
            Self::Exponential | Self::Lu => {
                (0..count).map(|i| (high.ln() + part(i) * (low.ln() - high.ln())).exp()).collect()
            }
            Self::Beta => beta_points(count).map(|point| low + point * (high - low)).collect(),
        })
    }
}

/// What happens to a training step that is not whole before the network is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Exact,
    Rounded,
    /// Cast to an integer.
    Truncated,
    /// `ln(sigma / alpha) / 4` instead: `timestep_type: continuous`.
    LogRatio,
}

/// Where a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Clean,
    /// The first training step.
    First,
    /// The last level once more: a hop of no length.
    Repeat,
}

/// A grid of ratios.
pub(super) struct SigmaGrid {
    pub(super) class: &'static str,
    pub(super) table: Table,
    pub(super) spacing: Spacing,
    /// Whether spaced training steps are made whole first.
    pub(super) whole: bool,
    pub(super) transform: Transform,
    /// Whether a transform runs over the whole table, instead of over what was spaced.
    pub(super) full: bool,
    /// Ends of the transform that the configuration gives: `sigma_min`, `sigma_max`.
    pub(super) ends: (Option<f64>, Option<f64>),
    /// `interpolation_type: log_linear`.
    pub(super) log_linear: bool,
    pub(super) told: Told,
    pub(super) end: End,
    /// Straight-line sigmas instead of the table: `use_flow_sigmas`.
    pub(super) flow: Option<Shift>,
    /// From data to noise.
    pub(super) rising: bool,
    pub(super) custom: bool,
}

impl SigmaGrid {
    fn tell(&self, ratio: f64, timestep: f64) -> Level {
        let timestep = match self.told {
            Told::Exact => timestep,
            Told::Rounded => timestep.round_ties_even(),
            Told::Truncated => timestep.trunc(),
            Told::LogRatio => 0.25 * ratio.ln(),
        };
        self.table.told(ratio, timestep)
    }

    /// Ratios and the training steps that go with them, before rounding.
    fn ratios(&self, ask: &Ask<'_>) -> Result<Vec<(f64, f64)>, AskError> {
        let (table, steps) = (&self.table, ask.steps);
        let of_ratio = |ratio: f64| (ratio, table.timestep_of(ratio));
        if let Some(sigmas) = ask.sigmas {
            falling("sigmas", sigmas)?;
            return Ok(sigmas.iter().copied().map(of_ratio).collect());
        }
        let mut timesteps = match ask.timesteps {
            Some(timesteps) => {
                falling("timesteps", timesteps)?;
                timesteps.to_vec()
            }
            None if self.rising => self.spacing.rising(steps, table.train()),
            None => self.spacing.timesteps(steps, table.train()),
        };
        if self.whole {
            timesteps.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
        }
        let spaced = |timestep: &f64| (table.ratio_at(*timestep), *timestep);
        let mut spaced: Vec<(f64, f64)> = timesteps.iter().map(spaced).collect();
        let whole = (table.ratio(table.train() - 1), table.ratio(0));
        if self.log_linear {
            let ratios = Transform::Exponential.ratios(whole.0, whole.1, steps + 1).expect("it moves them");
            spaced.iter_mut().zip(ratios).for_each(|(pair, ratio)| pair.0 = ratio);
        }
        let own =
            if self.full || self.log_linear { whole } else { (spaced[0].0, spaced[spaced.len() - 1].0) };
        let (high, low) = match self.transform {
            Transform::Lu => own,
            _ if self.rising => (own.1, own.0),
            _ => (self.ends.1.unwrap_or(own.0), self.ends.0.unwrap_or(own.1)),
        };
        Ok(match self.transform.ratios(high, low, spaced.len()) {
            Some(ratios) => ratios.into_iter().map(of_ratio).collect(),
            None => spaced,
        })
    }

    fn last(&self, levels: &[Level]) -> Level {
        match self.end {
            // diffusers makes one ratio more than it has steps here, and ends on it.
            _ if self.log_linear && self.transform == Transform::None => {
                self.table.told(self.table.ratio(0), 0.0)
            }
            _ if self.rising && self.transform == Transform::None => self.table.step(self.spacing.last - 1),
            End::Clean => Level { time: 0.0, alpha: 1.0, sigma: 0.0 },
            End::First => self.table.told(self.table.ratio(0), 0.0),
            End::Repeat => levels[levels.len() - 1],
        }
    }
}

impl Rule for SigmaGrid {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        if ask.steps == 0 && ask.sigmas.is_none() && ask.timesteps.is_none() {
            return Err(AskError::NoSteps);
        }
        if let Some(shift) = &self.flow {
            return shift.told_levels(ask, self);
        }
        ask.only_lists(self.class, self.custom, self.transform == Transform::None)?;
        let mut ratios = self.ratios(ask)?;
        if ask.sigmas.is_some() {
            // The caller's list has its own end.
            let end = ratios.pop().ok_or(AskError::NoSteps)?.0;
            let mut levels: Vec<Level> = ratios.iter().map(|&(ratio, t)| self.tell(ratio, t)).collect();
            levels.push(self.table.told(end, 0.0));
            return Ok(levels);
        }
        let mut levels: Vec<Level> = ratios.iter().map(|&(ratio, t)| self.tell(ratio, t)).collect();
        levels.push(self.last(&levels));
        Ok(levels)
    }
}
