//! The gated perceptron of newer transformer blocks: GEGLU, SwiGLU.

use super::{Activation, dense, init};
use crate::ops;
use burn::nn::Linear;
use burn::prelude::*;

/// Sizes of a [`GatedMlp`].
#[derive(Config, Debug)]
pub struct GatedMlpConfig {
    /// Width in and out.
    pub width: usize,
    /// Width between the layers.
    pub hidden: usize,
    /// Of the gate: `Silu` for SwiGLU, `Gelu` for GEGLU.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// Whether the layers have biases.
    #[config(default = false)]
    pub bias: bool,
}

impl GatedMlpConfig {
    /// Xavier-uniform weights, zero biases.
    pub fn init(&self, device: &Device) -> GatedMlp {
        GatedMlp {
            gate: init::linear(self.width, self.hidden, self.bias, device),
            up: init::linear(self.width, self.hidden, self.bias, device),
            down: init::linear(self.hidden, self.width, self.bias, device),
            activation: self.activation,
        }
    }
}

/// `down(activation(gate(x)) * up(x))`.
///
/// # Reference
/// Shazeer, "GLU Variants Improve Transformer", 2020, <https://arxiv.org/abs/2002.05202>.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// Goes through the activation.
    pub gate: Linear,
    /// Is multiplied by it.
    pub up: Linear,
    /// Back to the tokens' width.
    pub down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl GatedMlp {
    /// # Shapes
    /// `[B, N, W]` to `[B, N, W]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = dense(&self.gate, x.clone());
        dense(&self.down, ops::gate(self.activation, gate, dense(&self.up, x)))
    }
}
