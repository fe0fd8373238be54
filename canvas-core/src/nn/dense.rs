//! A linear layer over tokens, as one matrix product.

use burn::nn::Linear;
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
    let y = layer.forward(x.reshape([batch * length, width]));
    let width = y.dims()[1];
    y.reshape([batch, length, width])
}
