//! The training table of diffusers' discrete schedulers: betas to levels.

use super::DiffusersError;
use super::fields::Fields;
use crate::schedule::{Vp, betas};
use canvas_core::{Level, NoiseSchedule};

/// Betas and what follows from them. As a schedule it is [`Vp`], except that a ratio is turned into a training
/// step as diffusers does: linearly in its logarithm, and never beyond the table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) alphas_cumprod: Vec<f64>,
    vp: Vp,
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
    /// `floor` says whether a rescaled table ends just above zero signal (2^-24) instead of at it.
    pub(super) fn read(
        fields: &Fields,
        (schedule, first, last): Defaults,
        floor: bool,
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
        let rescaled = fields.flag("rescale_betas_zero_snr", false)?;
        let betas = if rescaled { betas::rescale_zero_terminal_snr(&betas) } else { betas };
        let product = |bar: &mut f64, beta: &f64| {
            *bar *= 1.0 - beta;
            Some(*bar)
        };
        let mut alphas_cumprod: Vec<f64> = betas.iter().scan(1.0, product).collect();
        if rescaled && floor {
            // The smallest 16-bit number: where sigma / alpha must stay finite.
            *alphas_cumprod.last_mut().expect("at least one beta") = 2f64.powi(-24);
        }
        let vp = Vp::from_alphas_cumprod(&alphas_cumprod)
            .map_err(|error| fields.refuse("trained_betas", "a table that falls", error))?;
        Ok(Self { vp, alphas_cumprod })
    }

    /// Training steps.
    pub(super) fn train(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The level of a training step.
    pub(super) fn step(&self, index: usize) -> Level {
        let bar = self.alphas_cumprod[index];
        Level { time: index as f64 / self.train() as f64, alpha: bar.sqrt(), sigma: (1.0 - bar).sqrt() }
    }

    /// `sigma / alpha` of a training step.
    pub(super) fn ratio(&self, index: usize) -> f64 {
        ((1.0 - self.alphas_cumprod[index]) / self.alphas_cumprod[index]).sqrt()
    }

    /// `sigma / alpha` at a training step that need not be whole: linear in between, constant beyond.
    pub(super) fn ratio_at(&self, timestep: f64) -> f64 {
        let last = self.train() - 1;
        let position = timestep.clamp(0.0, last as f64);
        let below = (position as usize).min(last.saturating_sub(1));
        let above = (below + 1).min(last);
        let part = position - below as f64;
        self.ratio(below) + part * (self.ratio(above) - self.ratio(below))
    }

    /// The training step of a ratio, linear in its logarithm and clipped to the table.
    pub(super) fn timestep_of(&self, ratio: f64) -> f64 {
        let log = ratio.max(1e-10).ln();
        let (mut low, mut high) = (0, self.train() - 1);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.ratio(middle).ln() <= log { low = middle } else { high = middle }
        }
        let (below, above) = (self.ratio(low).ln(), self.ratio(high).ln());
        low as f64 + ((log - below) / (above - below)).clamp(0.0, 1.0)
    }

    /// The level of a ratio, told a training step.
    pub(super) fn told(&self, ratio: f64, timestep: f64) -> Level {
        let alpha = 1.0 / ratio.hypot(1.0);
        Level { time: timestep / self.train() as f64, alpha, sigma: ratio * alpha }
    }
}

impl NoiseSchedule for Table {
    fn level(&self, t: f64) -> Level {
        self.vp.level(t)
    }
    fn level_at_ratio(&self, ratio: f64) -> Level {
        self.told(ratio, self.timestep_of(ratio))
    }
    fn slope(&self, t: f64) -> (f64, f64) {
        self.vp.slope(t)
    }
}
