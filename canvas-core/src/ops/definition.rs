//! What each operation is: plain tensor operations, for any backend and precision. Kernels are held to these.

use super::{AdamW, Conv2d, GroupNorm, Norm};
use crate::nn::{Activation, Pairs};
use burn::prelude::*;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, activation, module};

/// See [`activate`](super::activate()).
pub fn activate<const D: usize>(x: Tensor<D>, by: Activation) -> Tensor<D> {
    match by {
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
        Activation::Silu => activation::silu(x),
        Activation::Relu => activation::relu(x),
        Activation::ReluSquared => activation::relu(x).square(),
    }
}

/// See [`gate`](super::gate()).
pub fn gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>, by: Activation) -> Tensor<D> {
    activate(gate, by) * up
}

/// See [`norm`](super::norm()). Sums are of 32 bits at least.
pub fn norm(x: Tensor<3>, weight: Tensor<3>, bias: Tensor<3>, norm: Norm) -> Tensor<3> {
    let dtype = x.dtype();
    let x = x.cast(precise(dtype));
    let x = if norm.centred { x.clone() - x.mean_dim(2) } else { x };
    let square = x.clone().square().mean_dim(2) + norm.epsilon;
    (x / square.sqrt()).cast(dtype) * (weight + norm.plus) + bias
}

/// What sums are computed in.
fn precise(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// See [`residual`](super::residual()).
pub fn residual(x: Tensor<3>, gate: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
    x + gate * y
}

/// See [`linear`](super::linear()).
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    x.matmul(weight) + bias.unsqueeze()
}

/// See [`conv2d`](super::conv2d()).
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, conv: Conv2d) -> Tensor<4> {
    let options = ConvOptions::new(conv.stride, conv.padding, [1, 1], 1);
    module::conv2d(x, weight, Some(bias), options)
}

/// See [`group_norm`](super::group_norm()).
pub fn group_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, norm: GroupNorm) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let dtype = x.dtype();
    let groups =
        x.reshape([batch, norm.groups, channels / norm.groups * height * width]).cast(precise(dtype));
    let groups = groups.clone() - groups.mean_dim(2);
    let square = groups.clone().square().mean_dim(2) + norm.epsilon;
    let x = (groups / square.sqrt()).cast(dtype).reshape([batch, channels, height, width]);
    let y = x * weight.reshape([1, channels, 1, 1]) + bias.reshape([1, channels, 1, 1]);
    match norm.activation {
        Some(by) => activate(y, by),
        None => y,
    }
}

/// See [`adamw`](super::adamw()).
pub fn adamw<const D: usize>(
    with: AdamW,
    param: Tensor<D>,
    grad: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let first = first * with.beta_1 + grad.clone() * (1.0 - with.beta_1);
    let second = second * with.beta_2 + grad.square() * (1.0 - with.beta_2);
    let [one, two] = with.corrections;
    let delta = first.clone() / one / ((second.clone() / two).sqrt() + with.epsilon);
    (param * with.keep - delta * with.rate, [first, second])
}

/// Each pair of features turned by its angle; in 32 bits at least.
pub(crate) fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>, pairs: Pairs) -> Tensor<4> {
    let ([batch, heads, length, width], half) = (x.dims(), cos.dims()[3]);
    let dtype = x.dtype();
    let precise = precise(dtype);
    let (x, cos, sin) = (x.cast(precise), cos.cast(precise), sin.cast(precise));
    let turned = match pairs {
        Pairs::Halves => {
            let [first, second] = [0, half].map(|start| x.clone().narrow(3, start, half));
            let a = first.clone() * cos.clone() - second.clone() * sin.clone();
            Tensor::cat(vec![a, first * sin + second * cos], 3)
        }
        Pairs::Neighbours => {
            let x = x.reshape([batch, heads, length, half, 2]);
            let [even, odd] = [0, 1].map(|at| x.clone().narrow(4, at, 1)); // [B, H, N, D/2, 1]
            let (cos, sin) = (cos.unsqueeze_dim::<5>(4), sin.unsqueeze_dim::<5>(4));
            let a = even.clone() * cos.clone() - odd.clone() * sin.clone();
            Tensor::cat(vec![a, even * sin + odd * cos], 4).reshape([batch, heads, length, width])
        }
    };
    turned.cast(dtype)
}
