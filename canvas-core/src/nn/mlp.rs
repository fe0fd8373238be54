//! The two-layer perceptron of a transformer block, and its activations.

use super::{dense, init::xavier_linear};
use crate::ops;
use burn::nn::Linear;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

/// A pointwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU with the exact error function.
    Gelu,
    /// GELU by its tanh approximation, as DiT uses.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, OpenAI's approximation of GELU in CLIP.
    QuickGelu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2` (So et al., "Primer", 2021, <https://arxiv.org/abs/2109.08668>): as good in transformers,
    /// and free of transcendental functions, which Burn's CPU backend computes one at a time.
    ReluSquared,
}

impl Activation {
    /// Applies it to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        ops::activate(self, x)
    }
}

/// Sizes of an [`Mlp`].
#[derive(Config, Debug)]
pub struct MlpConfig {
    /// Width in and out.
    pub width: usize,
    /// Width between the two layers, commonly four times `width`.
    pub hidden: usize,
    /// Between the two layers.
    #[config(default = "Activation::GeluTanh")]
    pub activation: Activation,
}

impl MlpConfig {
    /// Xavier-uniform weights, zero biases.
    pub fn init(&self, device: &Device) -> Mlp {
        Mlp {
            up: xavier_linear(self.width, self.hidden, device),
            down: xavier_linear(self.hidden, self.width, device),
            activation: self.activation,
        }
    }
}

/// `down(activation(up(x)))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// First layer.
    pub up: Linear,
    /// Second layer.
    pub down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// # Shapes
    /// `[B, N, W]` to `[B, N, W]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        dense(&self.down, self.activation.forward(dense(&self.up, x)))
    }
}
