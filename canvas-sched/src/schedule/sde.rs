//! Variance-preserving and sub-variance-preserving schedules of continuous time.

use super::check_time;
use canvas_core::{Level, NoiseSchedule};

/// The VP SDE: `beta(t) = beta_min + t (beta_max - beta_min)`, `ln alpha = -1/2 int_0^t beta`,
/// `sigma = sqrt(1 - alpha^2)`. The level's time is `t`.
///
/// The limit of [`Vp::linear`](super::Vp::linear) for many training steps. `sigma` starts like `sqrt(t)`, so
/// its slope at `t = 0` is infinite.
///
/// # Reference
/// Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020, equations
/// 32 and 33, <https://arxiv.org/abs/2011.13456>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpSde {
    /// Rate of noise at `t = 0`, `>= 0`.
    pub beta_min: f64,
    /// Rate of noise at `t = 1`, `> beta_min`.
    pub beta_max: f64,
}

impl Default for VpSde {
    /// The paper's values: 0.1, 20.
    fn default() -> Self {
        Self { beta_min: 0.1, beta_max: 20.0 }
    }
}

impl VpSde {
    /// `beta` and `-ln alpha`.
    fn rate(&self, t: f64) -> (f64, f64) {
        let growth = self.beta_max - self.beta_min;
        (self.beta_min + t * growth, t * (0.5 * self.beta_min + 0.25 * t * growth))
    }

    /// The time where `-ln alpha` is this.
    fn time(&self, fall: f64) -> f64 {
        let (half, growth) = (0.5 * self.beta_min, self.beta_max - self.beta_min);
        let root = (half * half + growth * fall).sqrt();
        if root == 0.0 { 0.0 } else { (2.0 * fall / (half + root)).clamp(0.0, 1.0) }
    }
}

impl NoiseSchedule for VpSde {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        let (_, fall) = self.rate(t);
        Level { time: t, alpha: (-fall).exp(), sigma: (-(-2.0 * fall).exp_m1()).sqrt() }
    }

    /// Closed form: `-ln alpha = ln(1 + ratio^2) / 2`, and a quadratic equation for `t`.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let (_, most) = self.rate(1.0);
        let fall = (0.5 * (ratio * ratio).ln_1p()).min(most);
        self.level(self.time(fall))
    }

    /// Closed form: `(-beta alpha / 2, beta alpha^2 / (2 sigma))`.
    fn slope(&self, t: f64) -> (f64, f64) {
        let (Level { alpha, sigma, .. }, (beta, _)) = (self.level(t), self.rate(t));
        let of_sigma = match beta == 0.0 {
            true => (0.5 * (self.beta_max - self.beta_min)).sqrt(), // the limit at t = 0
            false => 0.5 * beta * alpha * alpha / sigma,
        };
        (-0.5 * beta * alpha, of_sigma)
    }
}

/// The sub-VP SDE: `alpha` of [`VpSde`], `sigma = 1 - alpha^2`: less noise than variance-preserving.
///
/// # Reference
/// Song et al., 2020, equation 29 and appendix B, <https://arxiv.org/abs/2011.13456>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SubVp(
    /// Where `alpha` comes from.
    pub VpSde,
);

impl NoiseSchedule for SubVp {
    fn level(&self, t: f64) -> Level {
        let of_vp = self.0.level(t);
        Level { sigma: of_vp.sigma * of_vp.sigma, ..of_vp }
    }

    /// Closed form: `ratio = 1/alpha - alpha`, so `-ln alpha = asinh(ratio / 2)`.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let (_, most) = self.0.rate(1.0);
        self.level(self.0.time((0.5 * ratio).asinh().min(most)))
    }

    /// Closed form: `(-beta alpha / 2, beta alpha^2)`.
    fn slope(&self, t: f64) -> (f64, f64) {
        let ((beta, _), alpha) = (self.0.rate(t), self.0.level(t).alpha);
        (-0.5 * beta * alpha, beta * alpha * alpha)
    }
}
