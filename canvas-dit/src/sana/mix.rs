//! What Sana has in place of softmax attention and of the perceptron.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::activation::relu;
use canvas_core::nn::attention::{joined, split};
use canvas_core::nn::init::{linear, xavier_linear};
use canvas_core::nn::{Activation, RmsNorm, RmsNormConfig, conv2d, dense};
use canvas_core::ops::{self, silu};
use canvas_core::{macs, trace};

/// Attention with `relu(q) . relu(k)` in place of `exp(q . k)`: keys and values of all tokens are one `[D, D]` matrix a
/// head, so that the cost grows with the number of tokens and not with its square.
///
/// # Reference
/// Katharopoulos et al., "Transformers are RNNs", 2020, equation 5, <https://arxiv.org/abs/2006.16236>; with ReLU as in
/// Cai et al., "EfficientViT", 2022, <https://arxiv.org/abs/2205.14756>.
#[derive(Module, Debug)]
pub(super) struct LinearAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    heads: usize,
}

impl LinearAttention {
    /// `norm` is the epsilon of a norm over queries and keys, all heads together, if there is one.
    pub fn new(width: usize, heads: usize, bias: bool, norm: Option<f64>, device: &Device) -> Self {
        let norm = || norm.map(|eps| RmsNormConfig::new(width).with_epsilon(eps).init(device));
        Self {
            query: linear(width, width, bias, device),
            key: linear(width, width, bias, device),
            value: linear(width, width, bias, device),
            output: xavier_linear(width, width, device),
            query_norm: norm(),
            key_norm: norm(),
            heads,
        }
    }

    /// In 32 bits at least: sums over all tokens. There is no map to tap.
    ///
    /// # Shapes
    /// `[B, N, W]` to `[B, N, W]`.
    pub fn forward(&self, x: &Tensor<3>) -> Tensor<3> {
        let dtype = x.dtype();
        let precise = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let heads = |layer: &Linear, norm: &Option<RmsNorm>| {
            let y = dense(layer, x.clone());
            let y = match norm {
                Some(norm) => norm.forward(y),
                None => y,
            };
            split(y, self.heads).cast(precise) // [B, H, N, D]
        };
        let query = trace::tap(|| "query".into(), heads(&self.query, &self.query_norm));
        let (query, key) = (relu(query), relu(heads(&self.key, &self.key_norm)));
        let read = trace::tap(|| "heads".into(), attend_linearly(query, key, heads(&self.value, &None)));
        dense(&self.output, joined(read.cast(dtype)))
    }
}

/// `q (k^T v) / (q (k^T 1) + 1e-15)`, each `[B, H, N, D]`.
fn attend_linearly(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let [batch, heads, count, width] = query.dims();
    macs::add(batch * heads * count * width * (2 * width + 1));
    let total = key.clone().sum_dim(2).swap_dims(2, 3); // [B, H, D, 1]
    let mixed = key.swap_dims(2, 3).matmul(value); // [B, H, D, D]
    query.clone().matmul(mixed) / (query.matmul(total) + 1e-15)
}

/// The paper's Mix-FFN: pointwise up, a 3 x 3 convolution of each channel by itself, a gate, and pointwise down (GLUMBConv).
#[derive(Module, Debug)]
pub(super) struct MixFeed {
    inverted: Linear,
    depth: Conv2d,
    point: Linear,
}

impl MixFeed {
    pub fn new(width: usize, hidden: usize, device: &Device) -> Self {
        let depth = Conv2dConfig::new([2 * hidden, 2 * hidden], [3, 3])
            .with_groups(2 * hidden)
            .with_padding(PaddingConfig2d::Same)
            .init(device);
        Self {
            inverted: xavier_linear(width, 2 * hidden, device),
            depth: Conv2d { bias: Some(Initializer::Zeros.init([2 * hidden], device)), ..depth },
            point: linear(hidden, width, false, device),
        }
    }

    /// # Shapes
    /// `[B, N, W]`, which are so many rows and columns, to `[B, N, W]`.
    pub fn forward(&self, x: Tensor<3>, [rows, columns]: [usize; 2]) -> Tensor<3> {
        trace::needs_all_tokens("a perceptron that sees neighbours");
        let h = silu(dense(&self.inverted, x)).swap_dims(1, 2); // [B, 2 F, N]
        let [batch, channels, _] = h.dims();
        let h = conv2d(&self.depth, h.reshape([batch, channels, rows, columns]));
        let h = h.flatten::<3>(2, 3).swap_dims(1, 2); // [B, N, 2 F]
        let [up, gate] = [0, 1].map(|half| h.clone().narrow(2, half * channels / 2, channels / 2));
        dense(&self.point, ops::gate(Activation::Silu, gate, up))
    }
}
