//! Norms over the channels at each place of an image.

use burn::module::Param;
use burn::nn::Initializer;
use burn::prelude::*;
use burn::tensor::DType;

/// Halves as f32, which their sums of squares need; others as they are.
pub(crate) fn wide(x: Tensor<4>) -> Tensor<4> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.cast(DType::F32) } else { x }
}

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
        let mean = wide(x.clone()).square().mean_dim(1); // [B, 1, H, W]
        let factor = (mean + self.epsilon).sqrt().recip().cast(x.dtype());
        x * factor * row(&self.weight) + row(&self.bias)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of their squares is above the largest half.
    #[test]
    fn halves_do_not_overflow() {
        let device = Device::flex();
        let norm = ChannelRms::new(8, 1e-5, &device);
        let norm = canvas_core::params::cast(norm, burn::tensor::FloatDType::F16);
        let x = Tensor::<4>::full([1, 8, 2, 2], 300.0, &device).cast(DType::F16);
        let found = norm.forward(x).cast(DType::F32);
        assert!((found - 1.0).abs().max().into_scalar::<f32>() < 2e-3);
    }
}
