//! AdamW, whose step is one operation.

use burn::optim::{AdamWState, AdaptiveMomentumState, LearningRate, Optimizer};
use burn::prelude::*;
use canvas_core::ops;

/// AdamW: Adam with weight decay apart from the gradient.
///
/// Burn's update rule and Burn's state, so that either goes on where the other stopped, bit for bit; but one pass over
/// the parameters in place of ten (see [`ops::adamw`]).
///
/// # Example
/// ```
/// use canvas_train::AdamW;
///
/// let optimizer = AdamW { beta_2: 0.99, ..AdamW::default() };
/// assert_eq!(optimizer.epsilon, 1e-8); // PyTorch's defaults
/// ```
///
/// # Reference
/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2, <https://arxiv.org/abs/1711.05101>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients, in `[0, 1)`.
    pub beta_1: f32,
    /// Decay of the mean of their squares, in `[0, 1)`.
    pub beta_2: f32,
    /// Added to the root of the mean square.
    pub epsilon: f32,
    /// Part of the parameters that a step of rate 1 takes away.
    pub weight_decay: f32,
}

impl Default for AdamW {
    /// PyTorch's: 0.9, 0.999, 1e-8, 0.01.
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let (time, moments) = match state.map(|state| state.momentum) {
            Some(old) => (old.time + 1, [old.moment_1, old.moment_2]),
            None => (1, [grad.zeros_like(), grad.zeros_like()]),
        };
        let with = ops::AdamW {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            corrections: [self.beta_1, self.beta_2].map(|beta| 1.0 - beta.powi(time as i32)),
            rate: rate as f32,
            keep: (1.0 - rate * f64::from(self.weight_decay)) as f32,
        };
        let (tensor, [first, second]) = ops::adamw(with, tensor, grad, moments);
        (tensor, Some(AdamWState::new(AdaptiveMomentumState::new(time, first, second))))
    }

    fn to_device<const D: usize>(mut state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}
