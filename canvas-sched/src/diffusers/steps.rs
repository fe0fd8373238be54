//! Grids of whole training steps: DDPM, DDIM, PNDM, LCM, TCD.

use super::fields::Fields;
use super::table::Table;
use super::{Ask, AskError, DiffusersError, Rule};
use canvas_core::Level;

/// Where training steps lie: what diffusers calls `timestep_spacing`, with `steps_offset`.
#[derive(Clone, Debug)]
pub(super) struct Spacing {
    pub(super) kind: Kind,
    pub(super) offset: usize,
    /// Places one more step and leaves the cleanest out, as the DPM-Solver classes do.
    pub(super) extra: bool,
    /// Training steps that count: fewer where `lambda_min_clipped` cuts the noisiest.
    pub(super) last: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Linspace,
    Leading,
    Trailing,
}

impl Spacing {
    pub(super) fn read(fields: &Fields, default: &str, train: usize) -> Result<Self, DiffusersError> {
        let kind = match &*fields.word("timestep_spacing", default, &["linspace", "leading", "trailing"])? {
            "linspace" => Kind::Linspace,
            "leading" => Kind::Leading,
            _ => Kind::Trailing,
        };
        Ok(Self { kind, offset: fields.count("steps_offset", 0, 0, train)?, extra: false, last: train })
    }

    /// Training steps from the noisiest to the cleanest, not rounded where they are spaced evenly.
    pub(super) fn timesteps(&self, steps: usize, train: usize) -> Vec<f64> {
        let (count, dropped) = (steps + usize::from(self.extra), usize::from(self.extra));
        let part = |i: usize| i as f64 * ((self.last - 1) as f64 / (count - 1).max(1) as f64);
        let ascending = (dropped..count).rev();
        match self.kind {
            // One step of `linspace` is its first number.
            Kind::Linspace => ascending.map(part).collect(),
            Kind::Leading => {
                let stride = self.last / count;
                ascending.map(|i| (i * stride + self.offset) as f64).collect()
            }
            Kind::Trailing => {
                let stride = train as f64 / steps as f64;
                // diffusers makes one step more, at -1, where rounding lets its range run over (N = 61, 103 ..).
                let values = (0..steps).map(|i| self.last as f64 - i as f64 * stride);
                values.take_while(|value| *value > 0.0).map(|value| value.round_ties_even() - 1.0).collect()
            }
        }
    }
}

impl Spacing {
    /// Training steps from the cleanest up, the noisiest left out: what the multistep inversion starts its
    /// hops from.
    pub(super) fn rising(&self, steps: usize, train: usize) -> Vec<f64> {
        let whole = Self { extra: false, ..self.clone() };
        match self.kind {
            Kind::Trailing => whole.timesteps(steps, train).into_iter().rev().collect(),
            _ => whole.timesteps(steps + 1, train).into_iter().rev().take(steps).collect(),
        }
    }
}

/// Levels at whole training steps.
pub(super) struct StepGrid {
    pub(super) class: &'static str,
    pub(super) table: Table,
    pub(super) spacing: Spacing,
    /// Whether a run ends at clean data, or at the first training step.
    pub(super) clean: bool,
    /// Fewest steps, and why.
    pub(super) least: (usize, &'static str),
    pub(super) custom: bool,
}

impl StepGrid {
    pub(super) fn end(&self) -> Level {
        end(&self.table, self.clean)
    }
}

/// Where a run ends: `set_alpha_to_one`.
pub(super) fn end(table: &Table, clean: bool) -> Level {
    if clean { Level { time: 0.0, alpha: 1.0, sigma: 0.0 } } else { table.step(0) }
}

/// The levels of training steps; the told time is the step itself.
pub(super) fn at_steps(table: &Table, timesteps: &[f64]) -> Result<Vec<Level>, AskError> {
    let train = table.train();
    let level = |(index, &timestep): (usize, &f64)| {
        if timestep.fract() == 0.0 && (0.0..train as f64).contains(&timestep) {
            Ok(table.step(timestep as usize))
        } else {
            Err(AskError::OutOfTable { index, timestep, train })
        }
    };
    timesteps.iter().enumerate().map(level).collect()
}

/// Refuses lists that do not fall.
pub(super) fn falling(what: &'static str, values: &[f64]) -> Result<(), AskError> {
    let wrong = |pair: &[f64]| pair[1].partial_cmp(&pair[0]) != Some(std::cmp::Ordering::Less);
    match values.windows(2).position(wrong) {
        Some(index) => {
            let value = values[index + 1];
            Err(AskError::Entry { what, index: index + 1, value, expected: "less than the entry before" })
        }
        None => Ok(()),
    }
}

impl Rule for StepGrid {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        let (class, train, steps) = (self.class, self.table.train(), ask.steps);
        ask.only_timesteps(class, self.custom)?;
        let timesteps = match ask.timesteps {
            Some(timesteps) => {
                falling("timesteps", timesteps)?;
                timesteps.to_vec()
            }
            None if steps == 0 => return Err(AskError::NoSteps),
            None if steps > train => {
                let why = ", as many as it was trained with";
                return Err(AskError::TooManySteps { class, steps, most: train, why });
            }
            None if steps < self.least.0 => {
                let (least, why) = self.least;
                return Err(AskError::TooFewSteps { class, steps, least, why });
            }
            None => {
                let spaced = self.spacing.timesteps(steps, train);
                spaced.into_iter().map(f64::round_ties_even).collect()
            }
        };
        let mut levels = at_steps(&self.table, &timesteps)?;
        levels.push(self.end());
        Ok(levels)
    }
}

/// A subset of the steps a consistency model was distilled on: LCM and TCD.
pub(super) struct OriginGrid {
    pub(super) class: &'static str,
    pub(super) table: Table,
    pub(super) origin: usize,
    /// TCD with an `original_inference_steps` of the caller's counts every training step.
    pub(super) every: bool,
    pub(super) end: Level,
}

impl Rule for OriginGrid {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        let (class, train, steps) = (self.class, self.table.train(), ask.steps);
        ask.only_timesteps(class, true)?;
        let timesteps: Vec<f64> = match ask.timesteps {
            Some(timesteps) => {
                falling("timesteps", timesteps)?;
                let kept = ((timesteps.len() as f64 * ask.strength) as usize).min(timesteps.len());
                timesteps[timesteps.len() - kept..].to_vec()
            }
            None if steps == 0 => return Err(AskError::NoSteps),
            None => {
                let origin: Vec<usize> = if self.every {
                    (0..(train as f64 * ask.strength) as usize).rev().collect()
                } else {
                    let stride = train / self.origin;
                    (1..=(self.origin as f64 * ask.strength) as usize).rev().map(|i| i * stride - 1).collect()
                };
                if steps > origin.len() {
                    let why = ", as many as it was distilled with (original_inference_steps x strength)";
                    return Err(AskError::TooManySteps { class, steps, most: origin.len(), why });
                }
                (0..steps).map(|i| origin[i * origin.len() / steps] as f64).collect()
            }
        };
        let mut levels = at_steps(&self.table, &timesteps)?;
        levels.push(self.end);
        Ok(levels)
    }
}

/// Training steps upwards, from data to noise: DDIM inversion.
pub(super) struct RisingGrid {
    pub(super) table: Table,
    pub(super) spacing: Spacing,
    pub(super) clean: bool,
}

impl Rule for RisingGrid {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        let grid = StepGrid {
            class: "DDIMInverseScheduler",
            table: self.table.clone(),
            spacing: self.spacing.clone(),
            clean: self.clean,
            least: (1, ""),
            custom: false,
        };
        let mut levels = grid.levels(ask)?;
        levels.reverse();
        Ok(levels)
    }
}
