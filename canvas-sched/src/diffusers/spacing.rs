//! `timestep_spacing`, and the grids of whole training steps: DDPM, DDIM, PNDM, LCM, TCD.

use super::ask::Placed;
use super::ask::{Places, listed, steps_listed};
use super::fields::Fields;
use super::table::Table;
use super::{Ask, AskError, DiffusersError};
use crate::{Final, Rule, Spacing, Timesteps};

/// Where training steps lie: `timestep_spacing` with `steps_offset`, in the variant of the class.
#[derive(Clone, Debug)]
pub(super) struct Spaced {
    pub(super) kind: Kind,
    pub(super) offset: usize,
    /// Which of the three variants of each spacing.
    pub(super) variant: Variant,
    pub(super) train: usize,
    /// Training steps that count: fewer where `lambda_min_clipped` cuts the noisiest.
    pub(super) used: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Linspace,
    Leading,
    Trailing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// Whole training steps, the first included.
    Whole,
    /// `linspace` is not rounded: the Euler family.
    Real,
    /// One step more, of which the cleanest is left out: the DPM-Solver family.
    Open,
}

impl Spaced {
    pub(super) fn read(
        fields: &Fields,
        default: &str,
        variant: Variant,
        train: usize,
    ) -> Result<Self, DiffusersError> {
        let kind = match &*fields.word("timestep_spacing", default, &["linspace", "leading", "trailing"])? {
            "linspace" => Kind::Linspace,
            "leading" => Kind::Leading,
            _ => Kind::Trailing,
        };
        let offset = fields.count("steps_offset", 0, 0, train)?;
        Ok(Self { kind, offset, variant, train, used: train })
    }

    pub(super) fn spacing(&self, steps: usize) -> Spacing {
        let (&Self { offset, train, used, .. }, open) = (self, self.variant == Variant::Open);
        let rule = match self.kind {
            Kind::Linspace if open => Rule::LinspaceOpen,
            // One number of numpy's `linspace` is the first.
            Kind::Linspace if steps == 1 => return Spacing::Steps { train, steps: vec![0.0] },
            Kind::Linspace if self.variant == Variant::Real => return Timesteps::linspace(train).spacing,
            Kind::Linspace => Rule::Linspace,
            Kind::Leading if open => Rule::LeadingOpen { offset },
            Kind::Leading => Rule::Leading { offset },
            // The stride is that of the whole table, so there are fewer steps than were asked for.
            Kind::Trailing if used < train => {
                let value = |i| used as f64 - i as f64 * (train as f64 / steps as f64);
                let values = (0..steps).map(value).take_while(|value| *value > 0.0);
                let steps = values.map(|value| value.round_ties_even() - 1.0).collect();
                return Spacing::Steps { train, steps };
            }
            Kind::Trailing => Rule::Trailing,
        };
        Spacing::Training { rule, train, used }
    }

    /// The first of `leading` where its offset leads beyond the table.
    pub(super) fn beyond(&self, steps: usize) -> Option<Vec<f64>> {
        let leading = self.kind == Kind::Leading && self.variant == Variant::Real;
        if !leading || steps == 0 || steps > self.train {
            return None;
        }
        let stride = self.train / steps;
        let list: Vec<f64> = (0..steps).rev().map(|i| (i * stride + self.offset) as f64).collect();
        (list[0] > (self.train - 1) as f64).then_some(list)
    }
}

/// Levels at whole training steps.
pub(super) struct StepGrid {
    pub(super) class: &'static str,
    pub(super) table: Table,
    pub(super) spaced: Spaced,
    /// Whether a run ends at clean data, or at the first training step.
    pub(super) clean: bool,
    /// Fewest steps, and why.
    pub(super) least: (usize, &'static str),
    /// Whether the caller may list timesteps.
    pub(super) custom: bool,
    /// From data to noise: DDIM inversion.
    pub(super) rising: bool,
}

impl Places for StepGrid {
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError> {
        let (class, steps, (least, why)) = (self.class, ask.steps, self.least);
        ask.lists(class, false, self.custom)?;
        let spacing = match ask.timesteps {
            Some(timesteps) => whole(timesteps, &self.table)?,
            None if steps < least && steps > 0 => {
                return Err(AskError::TooFewSteps { class, steps, least, why });
            }
            None => self.spaced.spacing(steps),
        };
        let timesteps = Timesteps::new(spacing).ending(self.table.last(self.clean));
        let placed = Placed::new(class, self.table.clone(), timesteps, steps);
        Ok(if self.rising { placed.then(|levels| levels.reverse()) } else { placed })
    }
}

/// Whole training steps of the caller's.
fn whole(timesteps: &[f64], table: &Table) -> Result<Spacing, AskError> {
    listed("timesteps", timesteps, ("a whole training step", |timestep: f64| timestep.fract() == 0.0))?;
    steps_listed(timesteps, table.train())
}

/// A subset of the steps a consistency model was distilled on: LCM and TCD.
pub(super) struct OriginGrid {
    pub(super) class: &'static str,
    pub(super) table: Table,
    pub(super) origin: usize,
    /// TCD with an `original_inference_steps` of the caller's counts every training step.
    pub(super) every: bool,
    pub(super) last: Final,
}

impl OriginGrid {
    /// Every how many of the distilled training steps, noisiest first.
    fn spacing(&self, steps: usize, strength: f64) -> Result<Spacing, AskError> {
        let (class, train) = (self.class, self.table.train());
        let origin: Vec<usize> = if self.every {
            (0..(train as f64 * strength) as usize).rev().collect()
        } else {
            let stride = train / self.origin;
            (1..=(self.origin as f64 * strength) as usize).rev().map(|i| i * stride - 1).collect()
        };
        if steps > origin.len() {
            let why = ", as many as it was distilled with (original_inference_steps x strength)";
            return Err(AskError::TooManySteps { class, steps, most: origin.len(), why });
        }
        let steps = (0..steps).map(|i| origin[i * origin.len() / steps] as f64).collect();
        Ok(Spacing::Steps { train, steps })
    }
}

impl Places for OriginGrid {
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError> {
        ask.lists(self.class, false, true)?;
        let spacing = match ask.timesteps {
            Some(timesteps) => {
                let kept = ((timesteps.len() as f64 * ask.strength) as usize).min(timesteps.len());
                whole(&timesteps[timesteps.len() - kept..], &self.table)?
            }
            None => self.spacing(ask.steps, ask.strength)?,
        };
        let timesteps = Timesteps::new(spacing).ending(self.last);
        Ok(Placed::new(self.class, self.table.clone(), timesteps, ask.steps))
    }
}
