//! How a network's raw output becomes a clean estimate.

use crate::Level;
use std::fmt::Debug;

/// One row of Table 1 of EDM, for any `alpha`: `x0 = skip * x + out * network(input * x, time)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Factor of the noised input that passes the network by.
    pub skip: f64,
    /// Factor of the network's output.
    pub out: f64,
    /// Factor of the network's input, usually such that it has about unit variance.
    pub input: f64,
    /// The time the network is told.
    pub time: f64,
}

/// A prediction type: what the network's output means at each level.
///
/// The one place where epsilon, velocity, sample, flow and EDM preconditioning meet: a sampler sees only
/// clean estimates, an objective only targets, and both come from here, so they cannot disagree.
///
/// # Reference
/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, equation 7 and
/// Table 1, <https://arxiv.org/abs/2206.00364>.
pub trait Prediction: Debug + Send + Sync {
    /// The four coefficients at a level.
    fn coefficients(&self, level: Level) -> Coefficients;

    /// The regression target as `(a, b)`: `target = a * x0 + b * eps`.
    ///
    /// Solved from [`coefficients`](Self::coefficients): `(x0 - skip * (alpha * x0 + sigma * eps)) / out`.
    fn target(&self, level: Level) -> (f64, f64) {
        let Coefficients { skip, out, .. } = self.coefficients(level);
        ((1.0 - skip * level.alpha) / out, -skip * level.sigma / out)
    }
}

impl<P: Prediction + ?Sized> Prediction for Box<P> {
    fn coefficients(&self, level: Level) -> Coefficients {
        (**self).coefficients(level)
    }
    fn target(&self, level: Level) -> (f64, f64) {
        (**self).target(level)
    }
}

impl<P: Prediction + ?Sized> Prediction for &P {
    fn coefficients(&self, level: Level) -> Coefficients {
        (**self).coefficients(level)
    }
    fn target(&self, level: Level) -> (f64, f64) {
        (**self).target(level)
    }
}
