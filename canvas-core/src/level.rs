//! Points on a noise schedule, and the trait of everything that makes them.

use burn::prelude::*;
use burn::tensor::TensorCreationOptions;

/// A point on a noise schedule: the kernel `x_t = alpha * x_0 + sigma * eps`, `eps ~ N(0, I)`.
///
/// Plain host-side `f64`s: a level needs no device and no synchronisation, so the whole theory of
/// schedules and samplers is tested without a tensor, and is identical on every backend.
///
/// # Example
/// ```
/// use canvas_core::Level;
/// let level = Level { time: 0.5, alpha: 0.6, sigma: 0.8 };
/// assert!((level.half_log_snr() - (0.6f64 / 0.8).ln()).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Level {
    /// What the schedule calls this point, usually in `[0, 1]` with 0 = data. Predictions turn it into
    /// the number the network is told.
    pub time: f64,
    /// Signal scale, dimensionless, `>= 0`. `0` is pure noise.
    pub alpha: f64,
    /// Noise scale in units of the data, `>= 0`. `0` is clean data.
    pub sigma: f64,
}

impl Level {
    /// `ln(alpha / sigma)`, half the log signal-to-noise ratio: `-inf` at pure noise, `+inf` at data.
    pub fn half_log_snr(self) -> f64 {
        self.alpha.ln() - self.sigma.ln()
    }

    /// Signal-to-noise ratio `alpha^2 / sigma^2`.
    pub fn snr(self) -> f64 {
        (self.alpha / self.sigma).powi(2)
    }

    /// The noise implied by a clean estimate: `(x - alpha * x0) / sigma`.
    ///
    /// # Shapes
    /// `x`, `x0` and the output: `[B, ..]`. `sigma` must not be 0.
    pub fn eps<const D: usize>(self, x: Tensor<D>, x0: Tensor<D>) -> Tensor<D> {
        (x - x0 * self.alpha) / self.sigma
    }
}

/// A noise schedule: time `t` in `[0, 1]` (0 = data, 1 = most noise) to a [`Level`].
///
/// The signal-to-noise ratio falls strictly as `t` grows. A learned or a new schedule is a type of yours.
///
/// # Example
/// ```
/// use canvas_core::{Level, NoiseSchedule};
///
/// /// Twice as much noise for each tenth of the time.
/// #[derive(Clone, Copy, Debug)]
/// struct Doubling;
/// impl NoiseSchedule for Doubling {
///     fn level(&self, t: f64) -> Level {
///         Level { time: t, alpha: 1.0, sigma: 0.01 * 2f64.powf(10.0 * t) }
///     }
/// }
/// assert!((Doubling.level_at_ratio(0.32).time - 0.5).abs() < 1e-9); // by bisection, unless you know better
/// ```
pub trait NoiseSchedule: Send + Sync {
    /// The level at time `t`.
    ///
    /// # Panics
    /// May panic when `t` lies outside `[0, 1]`.
    fn level(&self, t: f64) -> Level;

    /// The level whose noise-to-signal ratio `sigma / alpha` is `ratio`, by bisection on time.
    ///
    /// Ratios beyond the ends of the schedule give its ends. This inverse is what sigma transforms
    /// (Karras, exponential) stand on.
    fn level_at_ratio(&self, ratio: f64) -> Level {
        let (mut low, mut high) = (0.0f64, 1.0f64);
        for _ in 0..100 {
            let middle = 0.5 * (low + high);
            let level = self.level(middle);
            if level.sigma < ratio * level.alpha { low = middle } else { high = middle }
        }
        self.level(0.5 * (low + high))
    }

    /// Derivatives `(d alpha/dt, d sigma/dt)` at time `t`, for samplers of differential equations.
    ///
    /// By default central differences (one-sided at the ends) of width 1e-6; closed forms are exact.
    fn slope(&self, t: f64) -> (f64, f64) {
        let (before, after) = ((t - 1e-6).max(0.0), (t + 1e-6).min(1.0));
        let (low, high) = (self.level(before), self.level(after));
        let width = after - before;
        ((high.alpha - low.alpha) / width, (high.sigma - low.sigma) / width)
    }
}

impl<S: NoiseSchedule + ?Sized> NoiseSchedule for Box<S> {
    fn level(&self, t: f64) -> Level {
        (**self).level(t)
    }
    fn level_at_ratio(&self, ratio: f64) -> Level {
        (**self).level_at_ratio(ratio)
    }
    fn slope(&self, t: f64) -> (f64, f64) {
        (**self).slope(t)
    }
}

impl<S: NoiseSchedule + ?Sized> NoiseSchedule for &S {
    fn level(&self, t: f64) -> Level {
        (**self).level(t)
    }
    fn level_at_ratio(&self, ratio: f64) -> Level {
        (**self).level_at_ratio(ratio)
    }
    fn slope(&self, t: f64) -> (f64, f64) {
        (**self).slope(t)
    }
}

/// Evaluates `f` at each level, shaped `[B, 1, ..]` (`[1, 1, ..]` for a single shared level) so that it
/// broadcasts over a batch of rank `D`. `on` is a device, or a device and a type of numbers.
pub fn per_sample<const D: usize>(
    at: &[Level],
    on: impl Into<TensorCreationOptions>,
    f: impl Fn(Level) -> f64,
) -> Tensor<D> {
    let values: Vec<f64> = at.iter().map(|&level| f(level)).collect();
    let mut shape = [1; D];
    shape[0] = values.len();
    Tensor::from_data(TensorData::new(values, shape), on)
}

/// Noises a batch: `alpha * x0 + sigma * eps`, each sample at its own level.
///
/// # Shapes
/// - `x0`, `eps`, output: `[B, ..]`; `at`: `B` levels, or one shared by all
pub fn mix<const D: usize>(x0: Tensor<D>, eps: Tensor<D>, at: &[Level]) -> Tensor<D> {
    let like = (&x0.device(), x0.dtype());
    let alpha = per_sample::<D>(at, like, |level| level.alpha);
    let sigma = per_sample::<D>(at, like, |level| level.sigma);
    x0 * alpha + eps * sigma
}
