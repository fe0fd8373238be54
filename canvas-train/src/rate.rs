//! Learning rates as functions of the images seen.

use serde::{Deserialize, Serialize};

/// Linear warm-up to a peak, then a half cosine down to a floor.
///
/// Counted in images, so that changing the batch size does not change the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// Largest rate.
    pub peak: f64,
    /// Rate at the end, as a fraction of the peak.
    pub floor: f64,
    /// Images of the linear warm-up.
    pub warmup: u64,
    /// Images of the whole run.
    pub total: u64,
}

impl LearningRate {
    /// The rate for a step that ends after `images` images.
    pub fn at(&self, images: u64) -> f64 {
        if images < self.warmup {
            return self.peak * images as f64 / self.warmup as f64;
        }
        let rest = self.total.saturating_sub(self.warmup).max(1) as f64;
        let done = ((images - self.warmup) as f64 / rest).min(1.0);
        let fall = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.peak * (self.floor + (1.0 - self.floor) * fall)
    }
}
