//! sCM's prediction.

use canvas_core::{Coefficients, Level, Prediction};
use std::f64::consts::FRAC_PI_2;

/// The network predicts the velocity on the circle through data and noise: with `d` the standard deviation of
/// the data, `n = sqrt(alpha^2 + (sigma/d)^2)`, the angle `u = atan(sigma / (d alpha))` and `y = x / n`,
/// `x0 = cos(u) y - sin(u) d F(y / d, u)`.
///
/// The network is told the angle. On a schedule with `alpha = cos(u)`, `sigma = d sin(u)` it is sCM's, and
/// [`Lcm`](crate::Lcm) its multistep sampler. [`Velocity`](super::Velocity) is `d = 1` (and tells its own time).
///
/// # Reference
/// Lu & Song, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models", 2024, section 3,
/// <https://arxiv.org/abs/2410.11081>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrigFlow {
    /// `d`, standard deviation of the data, `> 0`.
    pub sigma_data: f64,
}

impl Default for TrigFlow {
    /// The paper's 0.5.
    fn default() -> Self {
        Self { sigma_data: 0.5 }
    }
}

impl Prediction for TrigFlow {
    fn coefficients(&self, Level { alpha, sigma, .. }: Level) -> Coefficients {
        let d = self.sigma_data;
        let n = alpha.hypot(sigma / d);
        let time = if alpha == 0.0 { FRAC_PI_2 } else { (sigma / (d * alpha)).atan() };
        Coefficients { skip: alpha / (n * n), out: -sigma / n, input: 1.0 / (n * d), time }
    }
    fn target(&self, Level { alpha, sigma, .. }: Level) -> (f64, f64) {
        let d = self.sigma_data; // the generic formula is 0/0 at sigma = 0
        let n = alpha.hypot(sigma / d);
        (-sigma / (d * d * n), alpha / n)
    }
}
