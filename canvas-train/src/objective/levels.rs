//! Which noise levels training sees, and how often.

use canvas_core::{Level, NoiseSchedule, generator};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF, Normal};
use std::f64::consts::PI;

/// How training draws noise levels.
///
/// Each is its quantile function: a number in `[0, 1)` becomes a level, more noise for a greater one. So how
/// levels are spread ([`Draws`]) has nothing to do with how often each comes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LevelDistribution {
    /// Time uniform in `[0, 1]`.
    Uniform,
    /// One of so many training steps of a [`Vp`](https://arxiv.org/abs/2006.11239) schedule, all equally often.
    Steps {
        /// As many as the schedule has; 1000 in DDPM, DiT and Stable Diffusion.
        count: usize,
    },
    /// Time is the logistic function of a normal variable: more weight on the middle of a flow.
    ///
    /// Esser et al., "Scaling Rectified Flow Transformers", 2024, section 3.1, <https://arxiv.org/abs/2403.03206>.
    LogitNormal {
        /// Mean before the logistic function; positive moves to more noise.
        mean: f64,
        /// Standard deviation before it.
        std: f64,
    },
    /// "Mode sampling with heavy tails": like [`LogitNormal`](Self::LogitNormal), but both ends stay possible.
    ///
    /// Esser et al., 2024, section 3.1: this is their function of `1 - u`, which rises.
    Mode {
        /// From -1 to `2 / (pi - 2)`: positive favours the middle, negative the ends, 0 is uniform. 1.29 in the paper's best.
        scale: f64,
    },
    /// What gives a flow the signal-to-noise ratios of a cosine schedule at uniform times.
    ///
    /// Esser et al., 2024, section 3.1.
    CosMap,
    /// Time has a beta distribution.
    Beta {
        /// Weight of the noisy end, above 0.
        noise: f64,
        /// Weight of the clean end, above 0.
        data: f64,
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
    /// The level below which a part `u` of all draws lies.
    ///
    /// # Panics
    /// If a parameter of the distribution is outside its range.
    pub fn level(&self, schedule: &dyn NoiseSchedule, u: f64) -> Level {
        match *self {
            Self::Uniform => schedule.level(u),
            Self::Steps { count } => schedule.level(((u * count as f64).floor() + 1.0) / count as f64),
            Self::LogitNormal { mean, std } => schedule.level(1.0 / (1.0 + (-mean - std * normal(u)).exp())),
            Self::Mode { scale } => {
                assert!(
                    (-1.0..=2.0 / (PI - 2.0)).contains(&scale),
                    "mode of scale {scale}: -1 to 2/(pi - 2)"
                );
                schedule.level((u + scale * (u - (0.5 * PI * u).sin().powi(2))).clamp(0.0, 1.0))
            }
            Self::CosMap => schedule.level(1.0 - 1.0 / ((0.5 * PI * u).tan() + 1.0)),
            Self::Beta { noise, data } => {
                let beta = Beta::new(noise, data).expect("weights of both ends are above 0");
                schedule.level(beta.inverse_cdf(u))
            }
            Self::LogNormal { mean, std } => schedule.level_at_ratio((mean + std * normal(u)).exp()),
        }
    }
}

/// The number below which a standard normal variable lies with probability `u`, finite at 0 as well.
fn normal(u: f64) -> f64 {
    // What 53 bits of a draw can tell apart from 0.
    Normal::standard().inverse_cdf(u.max(0.5f64.powi(54)))
}

/// How the draws of a run are spread over `[0, 1)`: image number `n` of a run always has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draws {
    /// Each by itself.
    #[default]
    Independent,
    /// Evenly: any `k` images that follow each other are spread almost as `k` strata would be, so that a batch's loss says
    /// less about its draws. Other than with strata of a batch, nothing depends on how a run is cut into batches.
    ///
    /// Steps of the golden ratio. Kingma et al., "Variational Diffusion Models", 2021, <https://arxiv.org/abs/2107.00630>, spread
    /// the draws of each batch.
    Stratified,
}

impl Draws {
    /// The draw of an image, in `[0, 1)`.
    ///
    /// # Example
    /// ```
    /// use canvas_train::Draws;
    /// let mut draws: Vec<f64> = (100..108).map(|image| Draws::Stratified.at(7, image)).collect();
    /// draws.sort_by(f64::total_cmp);
    /// assert!(draws.windows(2).all(|pair| pair[1] - pair[0] < 0.24)); // of eight, 1/8 apart on average
    /// ```
    pub fn at(self, seed: u64, image: u64) -> f64 {
        match self {
            Self::Independent => generator(seed, image, 0).random(),
            Self::Stratified => {
                let start: u64 = generator(seed, 0, 0).random();
                // 2^64 over the golden ratio: addition wraps where the sequence does.
                let place = start.wrapping_add(image.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                (place >> 11) as f64 * 0.5f64.powi(53)
            }
        }
    }
}
