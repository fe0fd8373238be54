//! The straight line between data and noise.

use super::check_time;
use canvas_core::{Level, NoiseSchedule};

/// Flow matching's schedule: `alpha = 1 - s`, `sigma = s`, with `s = shift t / (1 + (shift - 1) t)`.
///
/// The level's time is `s` itself. `t = 1` is exactly pure noise, `t = 0` exactly data.
///
/// # Example
/// ```
/// use canvas_core::NoiseSchedule;
/// use canvas_sched::schedule::Flow;
/// let level = Flow { shift: 3.0 }.level(0.5);
/// assert_eq!((level.alpha, level.sigma), (0.25, 0.75));
/// ```
///
/// # Reference
/// Lipman et al., "Flow Matching for Generative Modeling", 2022, example II,
/// <https://arxiv.org/abs/2210.02747>; the shift: Esser et al., "Scaling Rectified Flow Transformers", 2024,
/// equation 23, <https://arxiv.org/abs/2403.03206>. Flux's `mu` is `shift = exp(mu)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// How far times move towards noise, `> 0`: 1 leaves them, SD3 uses 3. Larger images need more.
    pub shift: f64,
}

impl Default for Flow {
    fn default() -> Self {
        Self { shift: 1.0 }
    }
}

impl Flow {
    /// `s = e^mu / (e^mu + 1/t - 1)`: `shift = exp(mu)`, what Flux, SD3.5 and Qwen-Image do. See [`mu`](super::mu).
    pub fn exponential(mu: f64) -> Self {
        Self { shift: mu.exp() }
    }

    /// `s = mu / (mu + 1/t - 1)`: `shift = mu`, what CogView4 does.
    pub fn linear(mu: f64) -> Self {
        Self { shift: mu }
    }

    /// `1 + (shift - 1) t`, so that `s` is exactly 1 at `t = 1` and never above.
    fn weight(&self, t: f64) -> f64 {
        (1.0 - t) + self.shift * t
    }

    fn at(s: f64) -> Level {
        Level { time: s, alpha: 1.0 - s, sigma: s }
    }
}

impl NoiseSchedule for Flow {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        Self::at(self.shift * t / self.weight(t))
    }

    /// Closed form: `s = ratio / (1 + ratio)`, whatever the shift.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        Self::at(1.0 / (1.0 + 1.0 / ratio)) // finite at a ratio of 0 and of infinity
    }

    /// Closed form: `s' = shift / (1 + (shift - 1) t)^2`, as `(-s', s')`.
    fn slope(&self, t: f64) -> (f64, f64) {
        check_time(t);
        let rate = self.shift / self.weight(t).powi(2);
        (-rate, rate)
    }
}
