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
    /// Attention of `x` to `context`. Its map is tapped as `map`.
    ///
    /// # Shapes
    /// - `x`: `[B, N, W]`, `context`: `[B, T, C]`
    /// - `mask`: `[B, T]`, true where a context token may be seen; a row must not be all false
    /// - output: `[B, N, W]`
    pub fn forward(&self, x: Tensor<3>, context: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let [batch, _, width] = x.dims();
        let length = context.dims()[1];
        let query = self.split(dense(&self.query, x)); // [B, H, N, W/H]
        let key = self.split(dense(&self.key, context.clone())); // [B, H, T, W/H]
        let value = self.split(dense(&self.value, context)); // [B, H, T, W/H]

        let scale = ((width / self.heads) as f64).sqrt().recip();
        let mut scores = (query * scale).matmul(key.swap_dims(2, 3)); // [B, H, N, T]
        if let Some(mask) = mask {
            let hidden = mask.bool_not().reshape([batch, 1, 1, length]).expand(scores.dims());
            scores = scores.mask_fill(hidden, f32::MIN);
        }
        let map = trace::tap(|| "map".into(), softmax(scores, 3)); // [B, H, N, T]
        let mixed = map.matmul(value); // [B, H, N, W/H]
        dense(&self.output, mixed.swap_dims(1, 2).flatten(2, 3)) // [B, N, W]
    }

    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, length, width] = x.dims();
        x.reshape([batch, length, self.heads, width / self.heads]).swap_dims(1, 2)
    }
}
