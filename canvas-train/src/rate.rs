//! Learning rates as functions of the images seen.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// A learning rate: a linear warm-up to a peak, then a decay.
///
/// Counted in images, so that changing the batch size does not change the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// Largest rate.
    pub peak: f64,
    /// Images of the linear warm-up.
    pub warmup: u64,
    /// What comes after it.
    pub decay: Decay,
}

/// How a learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Decay {
    /// Not at all.
    None,
    /// Along half a cosine, to `floor` times the peak at `total` images.
    Cosine {
        /// Part of the peak.
        floor: f64,
        /// Images of the whole run, warm-up included.
        total: u64,
    },
    /// Along a line, to `floor` times the peak at `total` images.
    Linear {
        /// Part of the peak.
        floor: f64,
        /// Images of the whole run, warm-up included.
        total: u64,
    },
    /// None until the last `tail` images, then a line to 0: a run can be prolonged from before it.
    ///
    /// Haegele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024,
    /// <https://arxiv.org/abs/2405.18392>.
    Tail {
        /// Images of the line.
        tail: u64,
        /// Images of the whole run, warm-up included.
        total: u64,
    },
    /// `sqrt(from / images)` from then on.
    ///
    /// Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2023, section 2.4,
    /// <https://arxiv.org/abs/2312.02696>.
    InverseRoot {
        /// Images until which it does not fall.
        from: u64,
    },
}

impl LearningRate {
    /// The rate for a step that ends after `images` images.
    pub fn at(&self, images: u64) -> f64 {
        if images < self.warmup {
            return self.peak * images as f64 / self.warmup as f64;
        }
        self.peak * self.decay.at(images, self.warmup)
    }
}

impl Decay {
    /// What is left of the peak.
    fn at(&self, images: u64, warmup: u64) -> f64 {
        let done = |from: u64, total: u64| {
            let rest = total.saturating_sub(from).max(1) as f64;
            (images.saturating_sub(from) as f64 / rest).min(1.0)
        };
        match *self {
            Self::None => 1.0,
            Self::Cosine { floor, total } => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (PI * done(warmup, total)).cos())
            }
            Self::Linear { floor, total } => 1.0 - (1.0 - floor) * done(warmup, total),
            Self::Tail { tail, total } => 1.0 - done(total.saturating_sub(tail).max(warmup), total),
            Self::InverseRoot { from } => (from as f64 / images as f64).sqrt().min(1.0),
        }
    }
}
