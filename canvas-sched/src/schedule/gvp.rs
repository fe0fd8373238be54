//! Quarter circles between data and noise.

use super::check_time;
use canvas_core::{Level, NoiseSchedule};
use std::f64::consts::FRAC_PI_2;

/// The quarter circle: `alpha = cos(pi t / 2)`, `sigma = sin(pi t / 2)`. The level's time is `t`.
///
/// SiT's generalised VP path, the cosine schedule of continuous time, and TrigFlow's with `t` in units of
/// `pi / 2`. `t = 1` is exactly pure noise.
///
/// # Reference
/// Ma et al., "SiT", 2024, section 2.3, <https://arxiv.org/abs/2401.08740>; as a schedule: Salimans & Ho,
/// "Progressive Distillation", 2022, <https://arxiv.org/abs/2202.00512>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gvp;

impl NoiseSchedule for Gvp {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        // From the nearer end, so that both ends are exact.
        let (sigma, alpha) = match t > 0.5 {
            false => (t * FRAC_PI_2).sin_cos(),
            true => {
                let (alpha, sigma) = ((1.0 - t) * FRAC_PI_2).sin_cos();
                (sigma, alpha)
            }
        };
        Level { time: t, alpha, sigma }
    }

    /// Closed form: `t = (2 / pi) atan(ratio)`.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let alpha = 1.0 / ratio.hypot(1.0);
        let sigma = if ratio.is_finite() { ratio * alpha } else { 1.0 };
        Level { time: ratio.atan() / FRAC_PI_2, alpha, sigma }
    }

    /// Closed form: `pi/2 (-sigma, alpha)`.
    fn slope(&self, t: f64) -> (f64, f64) {
        let Level { alpha, sigma, .. } = self.level(t);
        (-FRAC_PI_2 * sigma, FRAC_PI_2 * alpha)
    }
}

/// The cosine schedule with an offset, in continuous time: `alpha = cos(u) / cos(u_0)`,
/// `u = pi/2 (t + offset) / (1 + offset)`, `sigma = sqrt(1 - alpha^2)`. The level's time is `t`.
///
/// The limit of [`Vp::cosine`](super::Vp::cosine) for many training steps, but for its clipped betas: `t = 1`
/// is exactly pure noise here. `sigma` starts like `sqrt(t)`, so its slope at `t = 0` is infinite. An offset
/// of 0 is [`Gvp`].
///
/// # Reference
/// Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 17,
/// <https://arxiv.org/abs/2102.09672>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// Keeps noise from being too small near `t = 0`, `> 0`.
    pub offset: f64,
}

impl Default for Cosine {
    /// The paper's offset, 0.008.
    fn default() -> Self {
        Self { offset: 0.008 }
    }
}

impl Cosine {
    fn angle(&self, t: f64) -> f64 {
        FRAC_PI_2 * (t + self.offset) / (1.0 + self.offset)
    }
}

impl NoiseSchedule for Cosine {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        let (first, angle) = (self.angle(0.0), self.angle(t));
        // cos^2 u_0 - cos^2 u = sin(u - u_0) sin(u + u_0): nothing cancels near t = 0.
        let sigma = ((angle - first).sin() * (angle + first).sin()).max(0.0).sqrt() / first.cos();
        let alpha = (FRAC_PI_2 * (1.0 - t) / (1.0 + self.offset)).sin() / first.cos();
        Level { time: t, alpha, sigma: sigma.min(1.0) }
    }

    /// Closed form: `cos(u) = cos(u_0) / sqrt(1 + ratio^2)`.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let first = self.angle(0.0);
        let alpha = 1.0 / ratio.hypot(1.0);
        let sigma = if ratio.is_finite() { ratio * alpha } else { 1.0 };
        // From sin^2 u = sin^2 u_0 + sigma^2 cos^2 u_0, well conditioned at both ends.
        let angle = first.sin().hypot(sigma * first.cos()).atan2(alpha * first.cos());
        let time = (angle / FRAC_PI_2 * (1.0 + self.offset) - self.offset).clamp(0.0, 1.0);
        Level { time, alpha, sigma }
    }

    /// Closed form: `(-u' sin(u) / cos(u_0), -alpha alpha' / sigma)`.
    fn slope(&self, t: f64) -> (f64, f64) {
        let Level { alpha, sigma, .. } = self.level(t);
        let rate = FRAC_PI_2 / (1.0 + self.offset);
        let of_alpha = -rate * self.angle(t).sin() / self.angle(0.0).cos();
        (of_alpha, -alpha * of_alpha / sigma)
    }
}
