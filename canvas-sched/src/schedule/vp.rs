//! Variance-preserving schedules from a table of training steps.

use super::{betas, check_time};
use canvas_core::{Level, NoiseSchedule};

/// A variance-preserving schedule of `T` training steps: `alpha = sqrt(alpha_bar)`,
/// `sigma = sqrt(1 - alpha_bar)`, `alpha_bar_i = prod_(j <= i) (1 - beta_j)`, all in `f64`.
///
/// `t = 0` is clean and `t = (i + 1) / T` is training step `i`. In between, `sigma / alpha` is linear in
/// `t`, as diffusers interpolates. The level's time is `t - 1/T`, so that `time * T` is the index that
/// networks trained with diffusers are told (below the first training step it is negative, down to `-1/T` at
/// `t = 0`).
///
/// The last training step may be pure noise ([`zero_terminal_snr`](Self::zero_terminal_snr)). Before it,
/// where no line to an infinite `sigma / alpha` can be drawn, `alpha / sigma` falls linearly to 0.
///
/// # Example
/// ```
/// use canvas_core::NoiseSchedule;
/// use canvas_sched::schedule::Vp;
/// let stable_diffusion = Vp::scaled_linear(1000);
/// let most = stable_diffusion.level(1.0);
/// assert!((most.sigma / most.alpha - 14.614641).abs() < 1e-6);
/// let most = stable_diffusion.zero_terminal_snr().level(1.0);
/// assert_eq!((most.alpha, most.sigma), (0.0, 1.0));
/// ```
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equation 4,
/// <https://arxiv.org/abs/2006.11239>.
#[derive(Clone, Debug, PartialEq)]
pub struct Vp {
    /// `sigma / alpha` of the clean level and of every training step: `T + 1` numbers, increasing from 0. The
    /// last may be infinite.
    ratios: Vec<f64>,
}

/// A table that is no noise schedule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TableError {
    /// Nothing in it.
    #[error("a schedule needs at least one training step, and two if the last is pure noise")]
    Empty,
    /// A beta that adds no noise, or leaves no signal before the end.
    #[error("beta {index} must lie strictly between 0 and 1 (the last may be 1), found {beta}")]
    Beta {
        /// Which.
        index: usize,
        /// The beta.
        beta: f64,
    },
    /// An `alpha_bar` outside `[0, 1)`, or not below the one before.
    #[error(
        "alpha_bar {index} must be less than the one before ({before}) and not negative, found {alpha_bar}"
    )]
    AlphaBar {
        /// Which.
        index: usize,
        /// Its value.
        alpha_bar: f64,
        /// The value before, 1 before the first.
        before: f64,
    },
}

impl Vp {
    /// DDPM's schedule: betas linear from 1e-4 to 0.02, whatever `steps` is (1000 in the paper).
    pub fn linear(steps: usize) -> Self {
        Self::from_betas(&betas::linear(steps, 1e-4, 0.02))
    }

    /// Stable Diffusion's schedule: square roots of betas linear, from 8.5e-4 to 0.012 (1000 steps there).
    pub fn scaled_linear(steps: usize) -> Self {
        Self::from_betas(&betas::scaled_linear(steps, 8.5e-4, 0.012))
    }

    /// The cosine schedule, `squaredcos_cap_v2` in diffusers, with betas of at most 0.999.
    pub fn cosine(steps: usize) -> Self {
        Self::from_betas(&betas::cosine(steps, 0.999))
    }

    /// From betas of your own.
    ///
    /// # Panics
    /// Where [`try_from_betas`](Self::try_from_betas) gives an error.
    pub fn from_betas(betas: &[f64]) -> Self {
        Self::try_from_betas(betas).unwrap_or_else(|error| panic!("{error}"))
    }

    /// From betas of your own: `trained_betas` in diffusers.
    ///
    /// # Errors
    /// If there are none, or one does not lie strictly between 0 and 1. The last of several may be 1.
    pub fn try_from_betas(betas: &[f64]) -> Result<Self, TableError> {
        let (mut alpha_bar, mut table) = (1.0f64, Vec::with_capacity(betas.len()));
        for (index, &beta) in betas.iter().enumerate() {
            let ends = beta == 1.0 && index + 1 == betas.len();
            if !(beta > 0.0 && beta < 1.0 || ends) {
                return Err(TableError::Beta { index, beta });
            }
            alpha_bar *= 1.0 - beta;
            table.push(alpha_bar);
        }
        Self::from_alphas_cumprod(&table)
    }

    /// From `alpha_bar` of every training step, `alphas_cumprod` in diffusers. The last may be 0.
    ///
    /// # Errors
    /// If there are none (or only a 0), or one is not below the one before, or is negative.
    pub fn from_alphas_cumprod(table: &[f64]) -> Result<Self, TableError> {
        if table.is_empty() || table == [0.0] {
            return Err(TableError::Empty);
        }
        let (mut before, mut ratios) = (1.0, vec![0.0]);
        for (index, &alpha_bar) in table.iter().enumerate() {
            if !(alpha_bar >= 0.0 && alpha_bar < before) {
                return Err(TableError::AlphaBar { index, alpha_bar, before });
            }
            ratios.push(((1.0 - alpha_bar) / alpha_bar).sqrt());
            before = alpha_bar;
        }
        Ok(Self { ratios })
    }

    /// The same schedule made to end in pure noise: `alpha` shifted so that its last is exactly 0, and scaled
    /// so that its first stays. For networks trained so; predictions of noise say nothing there.
    ///
    /// # Panics
    /// If there is only one training step.
    ///
    /// # Reference
    /// Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023, Algorithm 1,
    /// <https://arxiv.org/abs/2305.08891>.
    pub fn zero_terminal_snr(&self) -> Self {
        assert!(self.steps() > 1, "zero terminal SNR needs at least two training steps");
        let alphas: Vec<f64> = self.ratios[1..].iter().map(|ratio| 1.0 / ratio.hypot(1.0)).collect();
        let moved = betas::stretched(&alphas).into_iter();
        let ratios = moved.map(|alpha| ((1.0 - alpha) * (1.0 + alpha)).sqrt() / alpha);
        Self { ratios: std::iter::once(0.0).chain(ratios).collect() }
    }

    /// The same schedule with another last `alpha_bar`. diffusers' Euler, DPM++ and UniPC replace the 0 of a
    /// zero terminal SNR with `2^-24`, a `sigma / alpha` of 4096.
    ///
    /// # Errors
    /// If it is not below the one before, or negative.
    pub fn with_last_alpha_bar(&self, alpha_bar: f64) -> Result<Self, TableError> {
        let mut table: Vec<f64> =
            self.ratios[1..].iter().map(|ratio| 1.0 / ratio.mul_add(*ratio, 1.0)).collect();
        table[self.steps() - 1] = alpha_bar;
        let checked = Self::from_alphas_cumprod(&table)?;
        let mut ratios = self.ratios.clone();
        ratios[self.steps()] = checked.ratios[self.steps()];
        Ok(Self { ratios })
    }

    /// Training steps `T`.
    pub fn steps(&self) -> usize {
        self.ratios.len() - 1
    }

    /// How many training steps have `ln(alpha / sigma)` of at least this: `lambda_min_clipped` of diffusers'
    /// DPM++ (-5.1 for cosine schedules, whose last steps are almost pure noise).
    pub fn steps_above(&self, half_log_snr: f64) -> usize {
        self.ratios[1..].partition_point(|ratio| -ratio.ln() >= half_log_snr)
    }

    /// The level of training step `index`, the number diffusers calls a timestep: `level((index + 1) / T)`.
    ///
    /// # Panics
    /// If `index` is not below [`steps`](Self::steps).
    pub fn training_step(&self, index: usize) -> Level {
        let steps = self.steps();
        assert!(index < steps, "training step {index} of a schedule of {steps}");
        self.at((index + 1) as f64, self.ratios[index + 1])
    }

    /// The level of this ratio, at `position = t * T`.
    fn at(&self, position: f64, ratio: f64) -> Level {
        let alpha = 1.0 / ratio.hypot(1.0);
        let sigma = if ratio.is_finite() { ratio * alpha } else { 1.0 };
        Level { time: (position - 1.0) / self.steps() as f64, alpha, sigma }
    }

    /// `t * T`. A training step's own time must give its own table entry, not one rounding error beside it.
    fn position(&self, t: f64) -> f64 {
        check_time(t);
        let exact = t * self.steps() as f64;
        if (exact - exact.round()).abs() < 1e-9 { exact.round() } else { exact }
    }

    /// Both ends of the piece between table entries `below` and `below + 1`.
    fn piece(&self, below: usize) -> (f64, f64) {
        (self.ratios[below], self.ratios[below + 1])
    }
}

impl NoiseSchedule for Vp {
    fn level(&self, t: f64) -> Level {
        let position = self.position(t);
        let below = (position as usize).min(self.steps() - 1);
        let ((low, high), part) = (self.piece(below), position - below as f64);
        let ratio = if high.is_finite() { low + part * (high - low) } else { low / (1.0 - part) };
        self.at(position, ratio)
    }

    /// Closed form: a search in the table and the same interpolation.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let ratio = ratio.clamp(0.0, self.ratios[self.steps()]);
        let above = self.ratios.partition_point(|&entry| entry < ratio).clamp(1, self.steps());
        let (low, high) = self.piece(above - 1);
        let part = if high.is_finite() { (ratio - low) / (high - low) } else { 1.0 - low / ratio };
        self.at((above - 1) as f64 + part, ratio)
    }

    /// Closed form. At a training step, where the table has a corner, the slope of the side with less noise.
    fn slope(&self, t: f64) -> (f64, f64) {
        let position = self.position(t);
        let below = (position.ceil() as usize).clamp(1, self.steps()) - 1;
        let ((low, high), steps) = (self.piece(below), self.steps() as f64);
        let part = position - below as f64;
        if high.is_finite() {
            let ratio = low + part * (high - low);
            let cube = ratio.hypot(1.0).powi(-3) * (high - low) * steps;
            return (-ratio * cube, cube);
        }
        let inverse = (1.0 - part) / low;
        let cube = inverse.hypot(1.0).powi(-3) * steps / low;
        (-cube, inverse * cube)
    }
}
