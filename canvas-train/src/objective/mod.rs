//! What is minimised: a squared error in the prediction's own space, at drawn noise levels.

use burn::prelude::*;
use canvas_core::{Backbone, Level, NoiseSchedule, Preconditioned, Prediction, mix, per_sample};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// How training draws noise levels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LevelDistribution {
    /// Time uniform in `[0, 1]`.
    Uniform,
    /// Time is the logistic function of a normal variable: more weight on the middle of a flow.
    ///
    /// Esser et al., "Scaling Rectified Flow Transformers", 2024, section 3.1, <https://arxiv.org/abs/2403.03206>.
    LogitNormal {
        /// Mean before the logistic function; positive moves to more noise.
        mean: f64,
        /// Standard deviation before it.
        std: f64,
    },
    /// `ln(sigma / alpha)` is normal.
    ///
    /// Karras et al., "Elucidating the Design Space", 2022, Table 1, <https://arxiv.org/abs/2206.00364>.
    LogNormal {
        /// Mean, `P_mean` in the paper.
        mean: f64,
        /// Standard deviation, `P_std` in the paper.
        std: f64,
    },
}

impl LevelDistribution {
    /// Draws a level of a schedule.
    pub fn draw(&self, schedule: &dyn NoiseSchedule, generator: &mut impl Rng) -> Level {
        match *self {
            Self::Uniform => schedule.level(generator.random::<f64>()),
            Self::LogitNormal { mean, std } => {
                schedule.level(1.0 / (1.0 + (-(mean + std * normal(generator))).exp()))
            }
            Self::LogNormal { mean, std } => schedule.level_at_ratio((mean + std * normal(generator)).exp()),
        }
    }
}

/// A standard normal number by Box and Muller's method, from exactly two draws.
fn normal(generator: &mut impl Rng) -> f64 {
    let (radius, angle): (f64, f64) = (generator.random(), generator.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (TAU * angle).cos()
}

/// A factor on each sample's squared error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Weighting {
    /// 1 in the prediction's own space: for [`Edm`](canvas_core::Prediction) rows this is EDM's weighting.
    Uniform,
    /// Min-SNR, expressed in x0 space as `min(SNR, gamma)` and carried to the prediction's space.
    ///
    /// Hang et al., "Efficient Diffusion Training via Min-SNR Weighting", 2023, <https://arxiv.org/abs/2303.09556>.
    MinSnr {
        /// Largest weight in x0 space; 5 in the paper.
        gamma: f64,
    },
    /// As if the noise were predicted: `(alpha / sigma)^2` in x0 space. SiT weights its score so, by `sigma^2`.
    ///
    /// Ma et al., "SiT", 2024, equation 7, <https://arxiv.org/abs/2401.08740>.
    Noise,
    /// As if a flow's velocity were predicted: `((alpha + sigma) / sigma)^2` in x0 space. JiT weights its image so, with the
    /// noise fraction held above 0.05 by its prediction.
    ///
    /// Li & He, "Back to Basics", 2025, algorithm 1, <https://arxiv.org/abs/2511.13720>.
    Velocity,
}

impl Weighting {
    /// The factor at a level.
    ///
    /// An error `e` in the prediction's space is `out * e` in x0 space, so a weight `w` on x0 is `w * out^2`.
    pub fn at(&self, prediction: &dyn Prediction, level: Level) -> f64 {
        match *self {
            Self::Uniform => 1.0,
            Self::MinSnr { gamma } => level.snr().min(gamma) * prediction.coefficients(level).out.powi(2),
            Self::Noise => relative(prediction, level, |level| level.alpha),
            Self::Velocity => relative(prediction, level, |level| level.alpha + level.sigma),
        }
    }
}

/// `(out * scale / sigma)^2`, and its limit at clean data.
fn relative(prediction: &dyn Prediction, level: Level, scale: fn(Level) -> f64) -> f64 {
    let level = Level { sigma: level.sigma.max(1e-9 * level.alpha), ..level };
    (prediction.coefficients(level).out * scale(level) / level.sigma).powi(2)
}

/// A regression objective: which levels, and what weight each has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// How levels are drawn.
    pub levels: LevelDistribution,
    /// What each counts.
    pub weighting: Weighting,
}

impl Objective {
    /// Per-sample losses `[B]` of a network on a noised batch.
    ///
    /// `weight * mean((network(x_t) - target)^2)`, with the target of the prediction type.
    ///
    /// # Shapes
    /// - `x0`, `eps`: `[B, ..]`; `at`: `B` levels
    pub fn losses<const D: usize, B: Backbone<D>, P: Prediction + ?Sized>(
        &self,
        network: Preconditioned<'_, B, P>,
        x0: Tensor<D>,
        eps: Tensor<D>,
        at: &[Level],
        cond: &B::Cond,
    ) -> Tensor<1> {
        let (device, dtype, batch) = (x0.device(), x0.dtype(), x0.dims()[0]);
        let prediction = network.prediction;
        let of_x0 = per_sample::<D>(at, (&device, dtype), |level| prediction.target(level).0);
        let of_eps = per_sample::<D>(at, (&device, dtype), |level| prediction.target(level).1);
        let target = x0.clone() * of_x0 + eps.clone() * of_eps;
        let raw = network.raw(mix(x0, eps, at), at, cond);

        let count = target.shape().num_elements() / batch;
        let error: Tensor<2> = (raw - target).square().reshape([batch, count]);
        let error: Tensor<1> = error.mean_dim(1).reshape([batch]);
        error * per_sample::<1>(at, (&device, dtype), |level| self.weighting.at(&prediction, level))
    }
}
