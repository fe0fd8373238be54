//! Prediction types: what a network's output means.
//!
//! With `n^2 = alpha^2 + sigma^2`, `d` the standard deviation of the data and `v = alpha^2 d^2 + sigma^2`:
//!
//! | prediction | skip | out | input | target | time told |
//! |---|---|---|---|---|---|
//! | [`Epsilon`] | `1/alpha` | `-sigma/alpha` | `1/n` | `eps` | the level's |
//! | [`Sample`] | `0` | `1` | `1/n` | `x0` | the level's |
//! | [`Velocity`] | `alpha/n^2` | `-sigma/n` | `1/n` | `(alpha eps - sigma x0)/n` | the level's |
//! | [`Flow`] | `1/(alpha+sigma)` | `-sigma/(alpha+sigma)` | `1/(alpha+sigma)` | `eps - x0` | `sigma/(alpha+sigma)` |
//! | [`Edm`] | `alpha d^2/v` | `sigma d/sqrt(v)` | `1/sqrt(v)` | `(sigma/d x0 - alpha d eps)/sqrt(v)` | `ln(sigma/alpha)/4` |
//! | [`PathVelocity`], of slopes `a'`, `s'` | `s'/(alpha s' - sigma a')` | `-sigma/(alpha s' - sigma a')` | `1` | `a' x0 + s' eps` | the level's |
//! | [`Score`] | `1/alpha` | `sigma^2/alpha` | `1` | `-eps/sigma` | the level's |
//! | [`JustImage`], `r = sigma/max(sigma, least)` | `1 - r` | `r` | `1` | `x0` | `sigma` |
//!
//! `1/out^2` is the weight that turns a squared error of the raw output into one of the clean estimate's.

mod boundary;
mod interpolant;
mod just_image;
mod trigflow;

pub use boundary::{Boundary, Consistency};
pub use interpolant::{PathVelocity, Raw, Score};
pub use just_image::JustImage;
pub use trigflow::TrigFlow;

use canvas_core::{Coefficients, Level, Prediction};

/// The network predicts the noise.
///
/// At `alpha = 0` the input is nothing but noise, and knowing that noise says nothing of the data. The
/// estimate there is 0, the centre of images in `[-1, 1]` and of normalised latents, so a run that starts at
/// pure noise only loses the data's mean times the second level's `alpha`, which vanishes with the number of
/// steps. (A tiny `alpha` instead would multiply the network's error by `1/alpha`.) The target is `eps` at
/// every level.
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equations 12 and 14,
/// <https://arxiv.org/abs/2006.11239>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epsilon;

impl Prediction for Epsilon {
    fn coefficients(&self, Level { time, alpha, sigma }: Level) -> Coefficients {
        let input = 1.0 / alpha.hypot(sigma);
        if alpha == 0.0 {
            return Coefficients { skip: 0.0, out: 0.0, input, time };
        }
        Coefficients { skip: 1.0 / alpha, out: -sigma / alpha, input, time }
    }
    fn target(&self, _level: Level) -> (f64, f64) {
        (0.0, 1.0)
    }
}

/// The network predicts the clean data.
///
/// # Reference
/// Ho et al., 2020, section 3.2, <https://arxiv.org/abs/2006.11239>; Salimans & Ho, 2022, section 4.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample;

impl Prediction for Sample {
    fn coefficients(&self, Level { time, alpha, sigma }: Level) -> Coefficients {
        Coefficients { skip: 0.0, out: 1.0, input: 1.0 / alpha.hypot(sigma), time }
    }
}

/// The network predicts `v = (alpha eps - sigma x0) / n`: noise at the clean end, minus the data at the
/// noisy end.
///
/// # Reference
/// Salimans & Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, section 4 and
/// appendix D, <https://arxiv.org/abs/2202.00512>; there `n = 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Velocity;

impl Prediction for Velocity {
    fn coefficients(&self, Level { time, alpha, sigma }: Level) -> Coefficients {
        let n = alpha.hypot(sigma);
        Coefficients { skip: alpha / (n * n), out: -sigma / n, input: 1.0 / n, time }
    }
    fn target(&self, Level { alpha, sigma, .. }: Level) -> (f64, f64) {
        let n = alpha.hypot(sigma); // the generic formula is 0/0 at sigma = 0
        (-sigma / n, alpha / n)
    }
}

/// The network predicts `eps - x0`, the velocity of the straight line from data to noise.
///
/// # Reference
/// Lipman et al., "Flow Matching for Generative Modeling", 2022, equation 23 (with time the other way round),
/// <https://arxiv.org/abs/2210.02747>; Liu et al., "Flow Straight and Fast", 2022.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow;

impl Prediction for Flow {
    fn coefficients(&self, Level { alpha, sigma, .. }: Level) -> Coefficients {
        let sum = alpha + sigma;
        Coefficients { skip: 1.0 / sum, out: -sigma / sum, input: 1.0 / sum, time: sigma / sum }
    }
    fn target(&self, _level: Level) -> (f64, f64) {
        (-1.0, 1.0)
    }
}

/// EDM's preconditioning: input and target have unit variance at every level, for data of variance
/// `sigma_data^2`.
///
/// The network is told `c_noise = ln(sigma/alpha) / 4`, with the ratio held within `[1e-5, 1e5]`, so it is
/// finite at clean data and at pure noise.
///
/// # Reference
/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, Table 1 and
/// appendix B.6, <https://arxiv.org/abs/2206.00364>; there `alpha = 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edm {
    /// Standard deviation of the data, `> 0`: 0.5 for images in `[-1, 1]`, 1 for normalised latents.
    pub sigma_data: f64,
}

impl Default for Edm {
    /// The paper's 0.5.
    fn default() -> Self {
        Self { sigma_data: 0.5 }
    }
}

impl Edm {
    fn spread(&self, level: Level) -> f64 {
        (level.alpha * self.sigma_data).hypot(level.sigma)
    }
}

impl Prediction for Edm {
    fn coefficients(&self, level: Level) -> Coefficients {
        let (d, spread) = (self.sigma_data, self.spread(level));
        Coefficients {
            skip: level.alpha * (d / spread).powi(2),
            out: level.sigma * d / spread,
            input: 1.0 / spread,
            time: (level.sigma / level.alpha).clamp(1e-5, 1e5).ln() / 4.0,
        }
    }
    fn target(&self, level: Level) -> (f64, f64) {
        let (d, spread) = (self.sigma_data, self.spread(level)); // the generic formula is 0/0 at sigma = 0
        (level.sigma / (d * spread), -level.alpha * d / spread)
    }
}
