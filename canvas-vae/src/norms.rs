//! Norms over the channels at each place of an image.

use burn::module::Param;
use burn::nn::Initializer;
use burn::prelude::*;

/// Each place divided by the root of its channels' mean square: `x / sqrt(mean(x^2) + epsilon) * weight + bias`.
#[derive(Module, Debug)]
pub(crate) struct ChannelRms {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl ChannelRms {
    pub(crate) fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([width], device),
            bias: Initializer::Zeros.init([width], device),
            epsilon,
        }
    }

    /// `[B, C, H, W]` to the same.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mean = x.clone().square().mean_dim(1); // [B, 1, H, W]
        x / (mean + self.epsilon).sqrt() * row(&self.weight) + row(&self.bias)
    }
}

/// A batch norm whose statistics stay those that were loaded, in training too: a line for each channel.
#[derive(Module, Debug)]
pub(crate) struct FrozenBatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
    epsilon: f64,
}

impl FrozenBatchNorm {
    pub(crate) fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([width], device),
            bias: Initializer::Zeros.init([width], device),
            running_mean: frozen(0.0, width, device),
            running_var: frozen(1.0, width, device),
            epsilon,
        }
    }

    /// `[B, C, H, W]` to the same.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let spread = (row(&self.running_var) + self.epsilon).sqrt();
        (x - row(&self.running_mean)) / spread * row(&self.weight) + row(&self.bias)
    }
}

/// Numbers that are loaded and saved, and not trained.
pub(crate) fn frozen(value: f64, count: usize, device: &Device) -> Param<Tensor<1>> {
    Initializer::Constant { value }.init([count], device).set_require_grad(false)
}

/// One number a channel: `[1, C, 1, 1]`.
fn row(param: &Param<Tensor<1>>) -> Tensor<4> {
    let value = param.val();
    let count = value.dims()[0];
    value.reshape([1, count, 1, 1])
}
