//! Variance-preserving schedules from a table of betas.

use super::check_time;
use canvas_core::{Level, NoiseSchedule};

/// A variance-preserving schedule of `T` training steps: `alpha = sqrt(alpha_bar)`,
/// `sigma = sqrt(1 - alpha_bar)`, `alpha_bar_i = prod_(j <= i) (1 - beta_j)`, all in `f64`.
///
/// `t = 0` is clean and `t = (i + 1) / T` is training step `i`. In between, `sigma / alpha` is linear in
/// `t`, as diffusers interpolates. The level's time is `t - 1/T`, so that `time * T` is the index that
/// networks trained with diffusers are told (below the first training step it is negative, down to `-1/T` at
/// `t = 0`).
///
/// # Example
/// ```
/// use canvas_core::NoiseSchedule;
/// use canvas_sched::schedule::Vp;
/// let stable_diffusion = Vp::scaled_linear(1000);
/// let most = stable_diffusion.level(1.0);
/// assert!((most.sigma / most.alpha - 14.614641).abs() < 1e-6);
/// ```
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equation 4,
/// <https://arxiv.org/abs/2006.11239>.
#[derive(Clone, Debug, PartialEq)]
pub struct Vp {
    /// `sigma / alpha` of the clean level and of every training step: `T + 1` numbers, increasing from 0.
    ratios: Vec<f64>,
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
    /// If there are none, or one does not lie strictly between 0 and 1.
    pub fn from_betas(betas: &[f64]) -> Self {
        assert!(!betas.is_empty(), "a schedule needs at least one beta");
        let (mut alpha_bar, mut ratios) = (1.0f64, vec![0.0]);
        for (index, &beta) in betas.iter().enumerate() {
            assert!(beta > 0.0 && beta < 1.0, "beta {index} must lie strictly between 0 and 1, found {beta}");
            alpha_bar *= 1.0 - beta;
            ratios.push(((1.0 - alpha_bar) / alpha_bar).sqrt());
        }
        Self { ratios }
    }

    /// Training steps `T`.
    pub fn steps(&self) -> usize {
        self.ratios.len() - 1
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
        Level { time: (position - 1.0) / self.steps() as f64, alpha, sigma: ratio * alpha }
    }
}

impl NoiseSchedule for Vp {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        let exact = t * self.steps() as f64;
        // A training step's own time must give its own table entry, not one rounding error beside it.
        let position = if (exact - exact.round()).abs() < 1e-9 { exact.round() } else { exact };
        let below = (position as usize).min(self.steps() - 1);
        let (low, high) = (self.ratios[below], self.ratios[below + 1]);
        self.at(position, low + (position - below as f64) * (high - low))
    }

    /// Closed form: a search in the table and the same linear interpolation.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let ratio = ratio.clamp(0.0, self.ratios[self.steps()]);
        let above = self.ratios.partition_point(|&entry| entry < ratio).clamp(1, self.steps());
        let (low, high) = (self.ratios[above - 1], self.ratios[above]);
        self.at((above - 1) as f64 + (ratio - low) / (high - low), ratio)
    }
}

/// Tables of betas, the noise variance each training step adds.
pub mod betas {
    use std::f64::consts::FRAC_PI_2;

    fn ramp(steps: usize, first: f64, last: f64) -> impl Iterator<Item = f64> {
        let count = steps.saturating_sub(1).max(1) as f64;
        (0..steps).map(move |i| first + (last - first) * i as f64 / count)
    }

    /// Linear from `first` to `last`, both included.
    ///
    /// # Reference
    /// Ho et al., 2020, section 4, <https://arxiv.org/abs/2006.11239>.
    pub fn linear(steps: usize, first: f64, last: f64) -> Vec<f64> {
        ramp(steps, first, last).collect()
    }

    /// Squares of a line from `sqrt(first)` to `sqrt(last)`.
    ///
    /// # Reference
    /// Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2021 (in the code),
    /// <https://arxiv.org/abs/2112.10752>.
    pub fn scaled_linear(steps: usize, first: f64, last: f64) -> Vec<f64> {
        ramp(steps, first.sqrt(), last.sqrt()).map(|root| root * root).collect()
    }

    /// `beta_i = min(1 - f((i + 1) / T) / f(i / T), max_beta)`, `f(u) = cos^2(pi/2 (u + 0.008) / 1.008)`.
    ///
    /// # Reference
    /// Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 17,
    /// <https://arxiv.org/abs/2102.09672>.
    pub fn cosine(steps: usize, max_beta: f64) -> Vec<f64> {
        let bar = |i: usize| {
            let u = i as f64 / steps as f64; // divided as floats: see the regression test of this line
            ((u + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)
        };
        (0..steps).map(|i| (1.0 - bar(i + 1) / bar(i)).min(max_beta)).collect()
    }
}
