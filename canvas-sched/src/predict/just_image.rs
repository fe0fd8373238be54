//! JiT's prediction.

use canvas_core::{Coefficients, Level, Prediction};

/// The network predicts the clean image, and a sampler follows the velocity `(x - x0) / max(sigma, least)` of a flow.
///
/// The two agree down to a noise fraction of `least`. Below it a whole step to the image would be taken on the word of a
/// network that was trained with the velocity's loss divided by `least` only: the estimate is then the state moved part of the
/// way, `x + (sigma / least) (x0 - x)`. The target is the clean image at every level. In the loss of the paper an error
/// counts `1 / max(sigma, least)^2`, an error of that velocity.
///
/// Level by level of `alpha + sigma = 1`; others are scaled to it, and the network is told the noise fraction.
///
/// # Reference
/// Li & He, "Back to Basics: Let Denoising Generative Models Denoise", 2025, section 4.3 and algorithms 1 and 2,
/// <https://arxiv.org/abs/2511.13720>; there `t` is `1 - t` here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JustImage {
    /// Noise fraction below which the velocity is held, `> 0`.
    pub least: f64,
}

impl Default for JustImage {
    /// The paper's 0.05.
    fn default() -> Self {
        Self { least: 0.05 }
    }
}

impl Prediction for JustImage {
    fn coefficients(&self, Level { alpha, sigma, .. }: Level) -> Coefficients {
        let sum = alpha + sigma;
        let time = sigma / sum;
        let part = time / time.max(self.least);
        Coefficients { skip: (1.0 - part) / sum, out: part, input: 1.0 / sum, time }
    }
    fn target(&self, _level: Level) -> (f64, f64) {
        (1.0, 0.0)
    }
}
