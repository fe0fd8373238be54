//! Noise that grows by a constant factor.

use super::check_time;
use canvas_core::{Level, NoiseSchedule};

/// The variance-exploding schedule of score matching: `alpha = 1`,
/// `sigma(t) = sigma_min (sigma_max / sigma_min)^t`. The level's time is `t`.
///
/// # Differs from the trait
/// `t = 0` is `sigma_min`, not exactly clean, as in [`Edm`](super::Edm).
///
/// # Reference
/// Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020, section
/// 3.4 and appendix C, <https://arxiv.org/abs/2011.13456>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ve {
    /// `sigma` at `t = 0`, in units of the data, `> 0`.
    pub sigma_min: f64,
    /// `sigma` at `t = 1`, in units of the data, `> sigma_min`.
    pub sigma_max: f64,
}

impl Default for Ve {
    /// The paper's values for CIFAR-10: 0.01, 50 (data in `[0, 1]` there).
    fn default() -> Self {
        Self { sigma_min: 0.01, sigma_max: 50.0 }
    }
}

impl Ve {
    fn growth(&self) -> f64 {
        (self.sigma_max / self.sigma_min).ln()
    }
}

impl NoiseSchedule for Ve {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        Level { time: t, alpha: 1.0, sigma: self.sigma_min * (self.growth() * t).exp() }
    }

    /// Closed form: `t = ln(ratio / sigma_min) / ln(sigma_max / sigma_min)`.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let sigma = ratio.clamp(self.sigma_min, self.sigma_max);
        let time = ((sigma / self.sigma_min).ln() / self.growth()).clamp(0.0, 1.0);
        Level { time, alpha: 1.0, sigma }
    }

    /// Closed form: `(0, sigma ln(sigma_max / sigma_min))`.
    fn slope(&self, t: f64) -> (f64, f64) {
        (0.0, self.growth() * self.level(t).sigma)
    }
}
