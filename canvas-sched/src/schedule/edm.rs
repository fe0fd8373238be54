//! Noise added to data that keeps its scale.

use super::check_time;
use canvas_core::{Level, NoiseSchedule};

/// EDM's variance-exploding schedule: `alpha = 1`, `sigma(t)` along the rho ramp.
///
/// `sigma(t) = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho`, and the level's time is
/// `t`.
///
/// # Differs from the trait
/// `t = 0` is `sigma_min`, not exactly clean: only so is `sigma` continuous, and [`Timesteps::edm`] the
/// published grid. Every [`Timesteps`] ends in a clean level of its own.
///
/// # Reference
/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, equation 5,
/// <https://arxiv.org/abs/2206.00364>.
///
/// [`Timesteps`]: crate::Timesteps
/// [`Timesteps::edm`]: crate::Timesteps::edm
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edm {
    /// `sigma` at `t = 0`, in units of the data, `> 0`.
    pub sigma_min: f64,
    /// `sigma` at `t = 1`, in units of the data, `> sigma_min`.
    pub sigma_max: f64,
    /// Bend of the ramp, `>= 1`: 1 is linear in sigma, larger puts more levels at little noise.
    pub rho: f64,
}

impl Default for Edm {
    /// The paper's values: 0.002, 80, 7.
    fn default() -> Self {
        Self { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 }
    }
}

impl Edm {
    /// Both ends of the ramp, `sigma^(1/rho)`.
    fn ends(&self) -> (f64, f64) {
        (self.sigma_min.powf(1.0 / self.rho), self.sigma_max.powf(1.0 / self.rho))
    }
}

impl NoiseSchedule for Edm {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        let (low, high) = self.ends();
        Level { time: t, alpha: 1.0, sigma: (low + t * (high - low)).powf(self.rho) }
    }

    /// Closed form: the ramp turned around.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let (low, high) = self.ends();
        let sigma = ratio.clamp(self.sigma_min, self.sigma_max);
        let time = ((sigma.powf(1.0 / self.rho) - low) / (high - low)).clamp(0.0, 1.0);
        Level { time, alpha: 1.0, sigma }
    }

    /// Closed form: `(0, rho (high - low) ramp^(rho - 1))`.
    fn slope(&self, t: f64) -> (f64, f64) {
        check_time(t);
        let (low, high) = self.ends();
        (0.0, self.rho * (high - low) * (low + t * (high - low)).powf(self.rho - 1.0))
    }
}
