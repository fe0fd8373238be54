//! Grids of straight-line sigmas: the flow-matching classes, and `use_flow_sigmas` of the others.

use super::fields::Fields;
use super::sigmas::{End, SigmaGrid, Transform};
use super::steps::falling;
use super::{Ask, AskError, Compat, DiffusersError, Rule};
use canvas_core::Level;

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
    pub(super) fn read(fields: &Fields, field: &'static str) -> Result<Self, DiffusersError> {
        let shift = fields.number(field, 1.0, f64::MIN_POSITIVE, 1e6)?;
        let word = fields.word("time_shift_type", "exponential", &["exponential", "linear"])?;
        Ok(match (fields.flag("use_dynamic_shifting", false)?, &*word) {
            (false, _) => Self::Static(shift),
            (true, "linear") => Self::Linear,
            _ => Self::Exponential,
        })
    }

    fn factor(self, mu: Option<f64>) -> Result<f64, AskError> {
        match self {
            Self::Static(shift) => Ok(shift),
            Self::Exponential => mu.map(f64::exp).ok_or(AskError::NoMu),
            Self::Linear => mu.ok_or(AskError::NoMu),
        }
    }
}

fn shifted(factor: f64, sigma: f64) -> f64 {
    factor * sigma / (1.0 + (factor - 1.0) * sigma)
}

/// Moves sigmas so that the last becomes `terminal`, and 1 stays.
fn stretch(sigmas: &mut [f64], terminal: f64) -> Result<(), AskError> {
    let index = sigmas.len() - 1;
    let scale = (1.0 - sigmas[index]) / (1.0 - terminal);
    if scale == 0.0 {
        let expected =
            "a last sigma below 1, or shift_terminal cannot stretch to it: ask for two steps or more";
        return Err(AskError::Entry { what: "sigmas", index, value: 1.0, expected });
    }
    sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    Ok(())
}

/// The level of a flow sigma, told a time in `[0, 1]`.
fn level(sigma: f64, time: f64) -> Level {
    Level { time, alpha: 1.0 - sigma, sigma }
}

/// `count` points of the Beta(0.6, 0.6) distribution from 1 to 0.
pub(super) fn beta_points(count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| crate::grid::beta::quantile(1.0 - i as f64 / (count - 1).max(1) as f64, 0.6, 0.6))
}

impl Shift {
    /// The grid of a training-table class that runs on straight-line sigmas.
    pub(super) fn told_levels(&self, ask: &Ask<'_>, grid: &SigmaGrid) -> Result<Vec<Level>, AskError> {
        ask.only_flow_lists(grid.class, self.from_noise)?;
        let (table, steps) = (&grid.table, ask.sigmas.map_or(ask.steps, <[f64]>::len));
        let least = 1.0 / table.train() as f64;
        let part = |i: usize| i as f64 / steps as f64;
        let whole = (table.ratio(table.train() - 1), table.ratio(0));
        let (high, low) = (grid.ends.1.unwrap_or(whole.0), grid.ends.0.unwrap_or(whole.1));
        let mut sigmas: Vec<f64> = match (grid.transform.ratios(high, low, steps), ask.sigmas) {
            (Some(ratios), _) => ratios.into_iter().map(|ratio| ratio / (1.0 + ratio)).collect(),
            (None, Some(sigmas)) => sigmas.to_vec(),
            (None, None) if self.from_noise => (0..steps).map(|i| 1.0 + part(i) * (least - 1.0)).collect(),
            (None, None) => (0..steps).map(|i| part(steps - i) * (1.0 - least)).collect(),
        };
        if grid.transform == Transform::None {
            let factor = self.kind.factor(ask.mu)?;
            sigmas.iter_mut().for_each(|sigma| *sigma = shifted(factor, *sigma));
            if let Some(terminal) = self.terminal {
                stretch(&mut sigmas, terminal)?;
            }
            if (sigmas[0] - 1.0).abs() < 1e-6 {
                sigmas[0] -= 1e-6; // these solvers take a logarithm of 1 - sigma
            }
        }
        let told = |sigma: f64| match grid.told {
            super::sigmas::Told::Exact => sigma,
            _ => (sigma * table.train() as f64).trunc() / table.train() as f64,
        };
        let mut levels: Vec<Level> = sigmas.iter().map(|&sigma| level(sigma, told(sigma))).collect();
        levels.push(match grid.end {
            End::Clean => level(0.0, 0.0),
            End::First if self.from_noise => levels[steps - 1],
            End::First => level(table.ratio(0), 0.0),
            End::Repeat => levels[steps - 1],
        });
        Ok(levels)
    }
}

/// The grid of the flow-matching classes.
pub(super) struct FlowGrid {
    pub(super) class: &'static str,
    pub(super) train: usize,
    pub(super) shift: Shift,
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
    /// The sigmas before any shift.
    fn base(&self, ask: &Ask<'_>) -> Result<Vec<f64>, AskError> {
        let train = self.train as f64;
        if let Some(sigmas) = ask.sigmas {
            falling("sigmas", sigmas)?;
            return Ok(sigmas.to_vec());
        }
        if let Some(timesteps) = ask.timesteps {
            falling("timesteps", timesteps)?;
            return Ok(timesteps.iter().map(|timestep| timestep / train).collect());
        }
        let steps = ask.steps;
        if steps == 0 {
            return Err(AskError::NoSteps);
        }
        if self.uniform {
            return Ok((0..steps).map(|i| 1.0 - i as f64 / steps as f64).collect());
        }
        // diffusers takes the ends of its default grid from a table that is shifted already, and shifts again
        // (huggingface/diffusers issue 13243).
        let low = match (self.compat, self.shift.kind) {
            (Compat::Diffusers, ShiftKind::Static(shift)) => shifted(shift, 1.0 / train),
            _ => 1.0 / train,
        };
        Ok((0..steps).map(|i| 1.0 + i as f64 * ((low - 1.0) / (steps - 1).max(1) as f64)).collect())
    }
}

impl Rule for FlowGrid {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        if !self.custom {
            ask.only_lists(self.class, false, false)?;
        }
        let mut sigmas = self.base(ask)?;
        let factor = self.shift.kind.factor(ask.mu)?;
        sigmas.iter_mut().for_each(|sigma| *sigma = shifted(factor, *sigma));
        if let Some(terminal) = self.shift.terminal {
            stretch(&mut sigmas, terminal)?;
        }
        let ends = (sigmas[0], sigmas[sigmas.len() - 1]);
        if let Some(moved) = self.transform.ratios(ends.0, ends.1, sigmas.len()) {
            sigmas = moved;
        }
        let time = |index: usize, sigma: f64| match ask.timesteps {
            Some(timesteps) if !self.inverted && !self.uniform => timesteps[index] / self.train as f64,
            _ => sigma,
        };
        let told = |(index, &sigma): (usize, &f64)| {
            if self.inverted { level(sigma, 1.0 - sigma) } else { level(sigma, time(index, sigma)) }
        };
        let mut levels: Vec<Level> = sigmas.iter().enumerate().map(told).collect();
        levels.push(level(0.0, if self.inverted { 1.0 } else { 0.0 }));
        Ok(levels)
    }
}
