//! How much the error at each noise level counts.

use canvas_core::{Level, Prediction};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_2_PI;

/// A factor on each sample's error.
///
/// Papers give a weight for what their network predicts. Here each is defined once, as a weight on the squared error of `x0`,
/// and carried to any prediction's space: an error `e` there is `out * e` in `x0`'s, so a weight `w` becomes `w * out^2`. A
/// network that predicts noise, velocity or data is then trained for the same thing.
///
/// # Differs from other trainers
/// They agree with this for the predictions that their papers have, and some not beyond. Debiased weighting of a velocity is
/// `1 / (SNR + 1)` in kohya's scripts and `1 / sqrt(SNR + 1)` in OneTrainer; carried over it is `sqrt(SNR) / (SNR + 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Weighting {
    /// 1 in the prediction's own space: for [`Edm`](canvas_core::Prediction) rows this is EDM's weighting.
    Uniform,
    /// `min(SNR, gamma)`.
    ///
    /// Hang et al., "Efficient Diffusion Training via Min-SNR Weighting", 2023, <https://arxiv.org/abs/2303.09556>.
    MinSnr {
        /// Largest weight; 5 in the paper.
        gamma: f64,
    },
    /// `SNR gamma / (SNR + gamma)`: min-SNR without the corner. Of the noise's error that is `sigmoid(ln gamma - ln SNR)`, the
    /// sigmoid weighting (whose papers count the density of levels in it).
    ///
    /// Crowson et al., "Hourglass Diffusion Transformer", 2024, <https://arxiv.org/abs/2401.11605>; Kingma and Gao,
    /// "Understanding Diffusion Objectives as the ELBO", 2023, <https://arxiv.org/abs/2303.00848>.
    SoftMinSnr {
        /// Largest weight; 4 in HDiT.
        gamma: f64,
    },
    /// `max(SNR, 1)`.
    ///
    /// Salimans and Ho, "Progressive Distillation", 2022, section 4, <https://arxiv.org/abs/2202.00512>.
    TruncatedSnr,
    /// As if the noise were predicted: the SNR. SiT weights its score so, by `sigma^2`.
    ///
    /// Ma et al., "SiT", 2024, equation 7, <https://arxiv.org/abs/2401.08740>.
    Noise,
    /// As if a flow's velocity were predicted: `((alpha + sigma) / sigma)^2`. JiT weights its image so, with the noise
    /// fraction held above 0.05 by its prediction; diffusers calls it `sigma_sqrt`.
    ///
    /// Li & He, "Back to Basics", 2025, algorithm 1, <https://arxiv.org/abs/2511.13720>.
    Velocity,
    /// Perception prioritised: `SNR / (k + SNR)^gamma`, less for low noise.
    ///
    /// Choi et al., "Perception Prioritized Training of Diffusion Models", 2022, <https://arxiv.org/abs/2204.00227>.
    P2 {
        /// 1 in the paper.
        k: f64,
        /// 0.5 or 1 in the paper; 0 is [`Noise`](Self::Noise).
        gamma: f64,
    },
    /// `sqrt(SNR)`, and proportional to the SNR where that is above 1000.
    ///
    /// Yu et al., "Unmasking Bias in Diffusion Model Training", 2023, <https://arxiv.org/abs/2310.08442>.
    Debiased,
    /// EDM's `(sigma^2 + sigma_data^2) / (sigma sigma_data)^2`, with `sigma / alpha` for sigma, whatever is predicted.
    ///
    /// Karras et al., "Elucidating the Design Space", 2022, Table 1, <https://arxiv.org/abs/2206.00364>.
    Edm {
        /// Standard deviation of the data; 0.5 in the paper.
        sigma_data: f64,
    },
    /// A flow's velocity by `2 / (pi (1 - 2 t + 2 t^2))`, where `t = sigma / (alpha + sigma)`.
    ///
    /// Esser et al., "Scaling Rectified Flow Transformers", 2024, section 3.1, <https://arxiv.org/abs/2403.03206>.
    CosMap,
}

impl Weighting {
    /// The factor at a level.
    pub fn at(&self, prediction: &dyn Prediction, level: Level) -> f64 {
        let bounded = matches!(self, Self::MinSnr { .. } | Self::SoftMinSnr { .. });
        // The others grow without bound towards clean data; what they become in the prediction's space has a limit.
        let held = Level { sigma: level.sigma.max(1e-9 * level.alpha), ..level };
        let level = if bounded { level } else { held };
        match self {
            Self::Uniform => 1.0,
            _ => self.of_x0(level) * prediction.coefficients(level).out.powi(2),
        }
    }

    /// The factor on the squared error of `x0`; infinite at clean data for some.
    ///
    /// # Panics
    /// For [`Uniform`](Self::Uniform), which is another one for each prediction.
    pub fn of_x0(&self, level: Level) -> f64 {
        let snr = level.snr();
        let sum = level.alpha + level.sigma;
        match *self {
            Self::Uniform => panic!("uniform in the space of each prediction is no weight on x0"),
            Self::MinSnr { gamma } => snr.min(gamma),
            Self::SoftMinSnr { gamma } => gamma / (1.0 + gamma / snr),
            Self::TruncatedSnr => snr.max(1.0),
            Self::Noise => snr,
            Self::Velocity => (sum / level.sigma).powi(2),
            Self::P2 { k, gamma } => snr / (k + snr).powf(gamma),
            Self::Debiased => snr.sqrt().max(snr / 1000f64.sqrt()),
            Self::Edm { sigma_data } => {
                let spread = (level.alpha * sigma_data).powi(2) + level.sigma.powi(2);
                spread / (level.sigma * sigma_data).powi(2)
            }
            Self::CosMap => {
                let t = level.sigma / sum;
                FRAC_2_PI / (1.0 - 2.0 * t + 2.0 * t * t) * (sum / level.sigma).powi(2)
            }
        }
    }
}
