//! Predictions of consistency models: the clean estimate is the state itself at the cleanest level.

use canvas_core::{Coefficients, Level, Prediction};

/// Latent consistency models' boundary around another prediction: `x0 = c_skip x + c_out x0_inner` with
/// `c_skip = d^2 / (u^2 + d^2)`, `c_out = u / sqrt(u^2 + d^2)`, `u = scale * time`.
///
/// At time 0 it is the state itself, where a target has no meaning (`out = 0`).
///
/// # Reference
/// Luo et al., "Latent Consistency Models", 2023, section 4.1, <https://arxiv.org/abs/2310.04378>; the numbers are
/// those of its code and of diffusers' `LCMScheduler`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boundary<P> {
    /// What the network's output means.
    pub inner: P,
    /// `u` per unit of told time: `timestep_scaling` times the training steps.
    pub scale: f64,
    /// `d`, 0.5 as published.
    pub sigma_data: f64,
}

impl<P> Boundary<P> {
    /// The published numbers: a `timestep_scaling` of 10, 1000 training steps, `d = 0.5`.
    pub fn new(inner: P) -> Self {
        Self { inner, scale: 10.0 * 1000.0, sigma_data: 0.5 }
    }
}

impl<P: Prediction> Prediction for Boundary<P> {
    fn coefficients(&self, level: Level) -> Coefficients {
        // Below the first training step told times are negative.
        let (u, d) = ((self.scale * level.time).max(0.0), self.sigma_data);
        let (through, from_inner) = (d * d / (u * u + d * d), u / u.hypot(d));
        let inner = self.inner.coefficients(level);
        Coefficients { skip: through + from_inner * inner.skip, out: from_inner * inner.out, ..inner }
    }
}

/// Consistency models' own preconditioning, EDM's moved so that `sigma / alpha = m` is the boundary: with
/// `r = sigma / alpha`, `x0 = d^2 / ((r - m)^2 + d^2) x / alpha + (r - m) d / sqrt(r^2 + d^2) F`.
///
/// The network is told `ln(r) / 4`; diffusers tells it 1000 times that.
///
/// # Reference
/// Song et al., "Consistency Models", 2023, appendix C, <https://arxiv.org/abs/2303.01469>; there `alpha = 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Consistency {
    /// `d`, standard deviation of the data, `> 0`.
    pub sigma_data: f64,
    /// `m`, `sigma / alpha` of the cleanest level.
    pub least: f64,
}

impl Default for Consistency {
    /// The paper's 0.5 and 0.002.
    fn default() -> Self {
        Self { sigma_data: 0.5, least: 0.002 }
    }
}

impl Prediction for Consistency {
    fn coefficients(&self, level: Level) -> Coefficients {
        let Level { alpha, sigma, .. } = level;
        let (d, spread) = (self.sigma_data, (alpha * self.sigma_data).hypot(sigma));
        // Multiplied out by alpha, so that pure noise is finite.
        let above = (sigma - alpha * self.least).max(0.0);
        Coefficients {
            skip: alpha * d * d / (above.powi(2) + (alpha * d).powi(2)),
            out: above * d / spread,
            input: 1.0 / spread,
            time: (sigma / alpha).clamp(1e-5, 1e5).ln() / 4.0,
        }
    }
}
