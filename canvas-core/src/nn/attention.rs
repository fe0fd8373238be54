//! Multi-head attention.

use super::{dense, init::xavier_linear};
use crate::trace;
use burn::nn::Linear;
use burn::prelude::*;
use burn::tensor::activation::softmax;

/// Sizes of an [`Attention`].
#[derive(Config, Debug)]
pub struct AttentionConfig {
    /// Width of the queries and of the output; the heads must divide it.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Width of the keys' and values' source, when it is not the queries' own.
    pub context: Option<usize>,
}

impl AttentionConfig {
    /// # Panics
    /// If the heads do not divide the width.
    pub fn init(&self, device: &Device) -> Attention {
        let (width, heads) = (self.width, self.heads);
        assert!(heads > 0 && width.is_multiple_of(heads), "heads ({heads}) must divide width ({width})");
        let context = self.context.unwrap_or(width);
        Attention {
            query: xavier_linear(width, width, device),
            key: xavier_linear(context, width, device),
            value: xavier_linear(context, width, device),
            output: xavier_linear(width, width, device),
            heads,
        }
    }
}

/// Multi-head attention of a sequence to itself or to a context, all projections with bias.
#[derive(Module, Debug)]
pub struct Attention {
    /// Query projection.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Output projection.
    pub output: Linear,
    heads: usize,
}

impl Attention {
    /// Attention of `x` to `context`.
    ///
    /// Tapped are the queries as `query` and the map as `map`, and as `heads` what the heads have read, before the output
    /// projection: all that a hook needs to let them read something else as well.
    ///
    /// # Shapes
    /// - `x`: `[B, N, W]`, `context`: `[B, T, C]`
    /// - `mask`: `[B, T]`, true where a context token may be seen; a row must not be all false
    /// - output: `[B, N, W]`
    pub fn forward(&self, x: Tensor<3>, context: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let query = split(dense(&self.query, x), self.heads); // [B, H, N, W/H]
        let query = trace::tap(|| "query".into(), query);
        let key = split(dense(&self.key, context.clone()), self.heads); // [B, H, T, W/H]
        let value = split(dense(&self.value, context), self.heads); // [B, H, T, W/H]
        let heads = trace::tap(|| "heads".into(), attend(query, key, value, mask)); // [B, H, N, W/H]
        dense(&self.output, joined(heads)) // [B, N, W]
    }
}

/// `softmax(q k^T / sqrt(D)) v`, each head for itself; the map is tapped as `map`.
///
/// # Shapes
/// - `query`: `[B, H, N, D]`, `key` and `value`: `[B, H, T, D]`
/// - `mask`: `[B, T]`, true where a key may be seen; a row must not be all false
/// - output: `[B, H, N, D]`
///
/// # Reference
/// Vaswani et al., "Attention Is All You Need", 2017, equation 1, <https://arxiv.org/abs/1706.03762>.
pub fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<2, Bool>>,
) -> Tensor<4> {
    let ([batch, _, _, width], length) = (query.dims(), key.dims()[2]);
    let scale = (width as f64).sqrt().recip();
    let mut scores = (query * scale).matmul(key.swap_dims(2, 3)); // [B, H, N, T]
    if let Some(mask) = mask {
        let hidden = mask.bool_not().reshape([batch, 1, 1, length]).expand(scores.dims());
        scores = scores.mask_fill(hidden, f32::MIN);
    }
    let map = trace::tap(|| "map".into(), softmax(scores, 3)); // [B, H, N, T]
    map.matmul(value)
}

/// Cuts tokens into heads: `[B, N, W]` to `[B, H, N, W/H]`.
pub fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, width] = x.dims();
    x.reshape([batch, length, heads, width / heads]).swap_dims(1, 2)
}

/// The inverse of [`split`]: `[B, H, N, W/H]` to `[B, N, W]`.
pub fn joined(heads: Tensor<4>) -> Tensor<3> {
    heads.swap_dims(1, 2).flatten(2, 3)
}
