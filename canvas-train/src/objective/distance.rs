//! What an error costs.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

/// How far the network's answer is from the target.
///
/// Both Huber losses are scaled so that small errors cost their square, as with [`Squared`](Self::Squared): changing one for
/// the other does not change the learning rate that is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Distance {
    /// The mean of squares.
    #[default]
    Squared,
    /// The mean of absolute values.
    Absolute,
    /// The mean of squares up to `delta`, from there of lines: `2 delta |e| - delta^2`. Twice PyTorch's `huber_loss`.
    Huber {
        /// Where lines begin, above 0.
        delta: f64,
    },
    /// The mean of `2 delta (sqrt(e^2 + delta^2) - delta)`: Huber's without the corner.
    PseudoHuber {
        /// About where lines begin, above 0.
        delta: f64,
    },
    /// The mean over places of one less the cosine of the angle between the channels of answer and target: what LightningDiT adds
    /// to the squared error.
    ///
    /// Yao et al., "Reconstruction vs. Generation", 2025, section 4.2, <https://arxiv.org/abs/2501.01423>.
    Cosine,
}

impl Distance {
    /// Of each element: `[B, C, ..]`, or for [`Cosine`](Self::Cosine) of each place: `[B, 1, ..]`.
    ///
    /// # Panics
    /// If the two are not of the same shape.
    pub fn each<const D: usize>(&self, answer: Tensor<D>, target: Tensor<D>) -> Tensor<D> {
        assert_eq!(answer.dims(), target.dims(), "shapes of answer and target");
        match *self {
            Self::Squared => (answer - target).square(),
            Self::Absolute => (answer - target).abs(),
            Self::Huber { delta } => {
                let size = (answer - target).abs();
                let near = size.clone().clamp_max(delta);
                // With n = min(|e|, delta): n (2 |e| - n).
                near.clone() * (size * 2.0 - near)
            }
            Self::PseudoHuber { delta } => {
                // Without the difference, which small errors would not survive.
                let square = (answer - target).square();
                let root = (square.clone() + delta * delta).sqrt();
                square * (2.0 * delta) / (root + delta)
            }
            Self::Cosine => {
                let along = (answer.clone() * target.clone()).sum_dim(1);
                let lengths = answer.square().sum_dim(1) * target.square().sum_dim(1);
                // Of a vector without a direction the cosine is 0.
                -along / lengths.clamp_min(1e-16).sqrt() + 1.0
            }
        }
    }
}
