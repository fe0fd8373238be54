//! Any schedule with its signal-to-noise ratio scaled.

use canvas_core::{Level, NoiseSchedule};

/// Another schedule with `ln(alpha^2 / sigma^2)` moved by a constant at every time, and `alpha^2 + sigma^2`
/// and the time told kept: `(alpha', sigma') ~ (e^(shift/2) alpha, sigma)`.
///
/// Larger pictures need more noise, as neighbouring pixels say the same: see
/// [`for_resolution`](Self::for_resolution). Meant for variance-preserving schedules; [`Flow`](super::Flow)
/// has a shift of its own, `shift = -2 ln(Flow::shift)` here, which keeps `alpha + sigma = 1` instead.
///
/// # Example
/// ```
/// use canvas_core::NoiseSchedule;
/// use canvas_sched::schedule::{Gvp, Shifted};
/// let large = Shifted::for_resolution(Gvp, 64.0, 256.0);
/// assert!((large.level(0.3).snr() - Gvp.level(0.3).snr() / 16.0).abs() < 1e-12);
/// ```
///
/// # Reference
/// Hoogeboom et al., "simple diffusion", 2023, equation 4, <https://arxiv.org/abs/2301.11093>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shifted<S> {
    /// The schedule.
    pub inner: S,
    /// Added to the log signal-to-noise ratio: below 0 is more noise.
    pub shift: f64,
}

impl<S> Shifted<S> {
    /// A schedule made for pictures `base` pixels wide (64 in the paper), for pictures `width` wide:
    /// `SNR' = SNR (base / width)^2`.
    pub fn for_resolution(inner: S, base: f64, width: f64) -> Self {
        Self { inner, shift: 2.0 * (base / width).ln() }
    }

    /// Factor of `alpha / sigma`.
    fn factor(&self) -> f64 {
        (0.5 * self.shift).exp()
    }

    fn moved(&self, level: Level) -> Level {
        let signal = level.alpha * self.factor();
        let scale = level.alpha.hypot(level.sigma) / signal.hypot(level.sigma);
        Level { time: level.time, alpha: signal * scale, sigma: level.sigma * scale }
    }
}

impl<S: NoiseSchedule> NoiseSchedule for Shifted<S> {
    fn level(&self, t: f64) -> Level {
        self.moved(self.inner.level(t))
    }

    fn level_at_ratio(&self, ratio: f64) -> Level {
        self.moved(self.inner.level_at_ratio(ratio * self.factor()))
    }

    /// The inner slope through the quotient rule.
    fn slope(&self, t: f64) -> (f64, f64) {
        let (Level { alpha, sigma, .. }, factor) = (self.inner.level(t), self.factor());
        let (of_alpha, of_sigma) = self.inner.slope(t);
        let (whole, moved) = (alpha.hypot(sigma), (factor * alpha).hypot(sigma));
        let of_whole = (alpha * of_alpha + sigma * of_sigma) / whole;
        let of_moved = (factor * factor * alpha * of_alpha + sigma * of_sigma) / moved;
        let (scale, of_scale) = (whole / moved, (of_whole - whole / moved * of_moved) / moved);
        (factor * (of_alpha * scale + alpha * of_scale), of_sigma * scale + sigma * of_scale)
    }
}
