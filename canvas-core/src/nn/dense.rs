//! Linear and convolutional layers, counted.

use crate::{macs, ops};
use burn::nn::conv::Conv2d;
use burn::nn::{Linear, PaddingConfig2d};
use burn::prelude::*;

/// Applies a layer to every token of every sample.
///
/// Samples and tokens are one axis while it does. Burn's CPU backend computes the weight's gradient of a
/// rank-3 input as one product a sample and sums them, which is about half as fast.
///
/// # Shapes
/// `[B, N, I]` to `[B, N, O]`.
pub fn dense(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let y = linear(layer, x.reshape([batch * length, width]));
    let width = y.dims()[1];
    y.reshape([batch, length, width])
}

/// Applies a layer to every row, and [counts](macs) it.
///
/// # Shapes
/// `[N, I]` to `[N, O]`.
pub fn linear(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    project(x, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()))
}

/// `x w + b`, or `x w`, [counted](macs).
///
/// # Shapes
/// `[N, I]` by `[I, O]` and `[O]` to `[N, O]`.
pub fn project(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let ([rows, _], [from, to]) = (x.dims(), weight.dims());
    macs::add(rows * from * to);
    match bias.or_else(|| none(&x, to)) {
        Some(bias) => ops::linear(x, weight, bias),
        None => x.matmul(weight),
    }
}

/// Applies a convolution, and [counts](macs) it.
///
/// # Shapes
/// `[B, C, H, S]` to `[B, O, H', S']`.
pub fn conv2d(layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let weight = layer.weight.val();
    let bias = layer.bias.as_ref().map(|bias| bias.val()).or_else(|| none(&x, weight.dims()[0]));
    let y = match (plain(layer), bias) {
        (Some(conv), Some(bias)) => ops::conv2d(conv, x, weight, bias),
        _ => layer.forward(x),
    };
    let ([batch, _, height, width], kernel) = (y.dims(), layer.weight.dims());
    macs::add(batch * height * width * kernel.iter().product::<usize>());
    y
}

/// A bias of zeros, for a kernel: Burn's own operations go without.
fn none<const D: usize>(x: &Tensor<D>, width: usize) -> Option<Tensor<1>> {
    ops::has_kernels(x).then(|| Tensor::zeros([width], &x.device()))
}

/// How a layer moves, if [`ops::conv2d`] can.
fn plain(layer: &Conv2d) -> Option<ops::Conv2d> {
    let padding = match layer.padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, bottom, right) if (top, left) == (bottom, right) => [top, left],
        _ => return None,
    };
    let plain = layer.groups == 1 && layer.dilation == [1, 1];
    plain.then_some(ops::Conv2d { stride: layer.stride, padding })
}
