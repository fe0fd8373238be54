//! Noise levels spread like a Laplace distribution.

use super::check_time;
use canvas_core::{Level, NoiseSchedule};

/// Log signal-to-noise ratios spread like a Laplace distribution, variance-preserving:
/// `ln(alpha^2 / sigma^2) = location - scale sgn(1/2 - t) ln(1 - |1 - 2t|)`. The level's time is `t`.
///
/// Half of the times lie within `0.7 scale` of the location. `t = 1` is exactly pure noise.
///
/// # Reference
/// Hang et al., "Improved Noise Schedule for Diffusion Training", 2024, Table 1,
/// <https://arxiv.org/abs/2407.03297>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Laplace {
    /// Log signal-to-noise ratio at `t = 1/2`.
    pub location: f64,
    /// Spread, `> 0`.
    pub scale: f64,
}

impl Default for Laplace {
    /// The paper's values: 0, 0.5.
    fn default() -> Self {
        Self { location: 0.0, scale: 0.5 }
    }
}

impl Laplace {
    /// The level of this ratio.
    fn at(time: f64, ratio: f64) -> Level {
        let alpha = 1.0 / ratio.hypot(1.0);
        Level { time, alpha, sigma: if ratio.is_finite() { ratio * alpha } else { 1.0 } }
    }
}

impl NoiseSchedule for Laplace {
    fn level(&self, t: f64) -> Level {
        check_time(t);
        let tail = self.scale * (2.0 * t.min(1.0 - t)).ln();
        let log_snr = if t < 0.5 { self.location - tail } else { self.location + tail };
        Self::at(t, (-0.5 * log_snr).exp())
    }

    /// Closed form: the distribution's share above the ratio.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let off = (-2.0 * ratio.ln() - self.location) / self.scale;
        let tail = 0.5 * (-off.abs()).exp();
        Self::at(if off > 0.0 { tail } else { 1.0 - tail }, ratio)
    }

    /// Closed form: `(-alpha sigma^2, sigma alpha^2) scale / (2 min(t, 1 - t))`; at the ends, its limit.
    fn slope(&self, t: f64) -> (f64, f64) {
        let Level { alpha, sigma, .. } = self.level(t);
        let near = t.min(1.0 - t);
        // What vanishes at an end does so like near^(scale / 2).
        let vanishing = (-0.5 * self.location * if t < 0.5 { 1.0 } else { -1.0 }).exp();
        let (gone, kept) = if t < 0.5 { (sigma, alpha) } else { (alpha, sigma) };
        let quick = match near > 0.0 {
            true => 0.5 * self.scale * gone * kept * kept / near,
            false if self.scale < 2.0 => f64::INFINITY,
            false if self.scale == 2.0 => 2.0 * vanishing,
            false => 0.0,
        };
        let slow = match near > 0.0 {
            true => 0.5 * self.scale * gone * gone * kept / near,
            false if self.scale < 1.0 => f64::INFINITY,
            false if self.scale == 1.0 => vanishing * vanishing,
            false => 0.0,
        };
        if t < 0.5 { (-slow, quick) } else { (-quick, slow) }
    }
}
