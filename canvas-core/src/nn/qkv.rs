//! Queries, keys and values of one stream of tokens, and attention over several streams together.

use super::attention::{Scores, attend_with, joined, split};
use super::{RmsNorm, RmsNormConfig, Rope, dense, init};
use crate::trace;
use burn::nn::Linear;
use burn::prelude::*;

/// Sizes of a [`Qkv`].
#[derive(Config, Debug)]
pub struct QkvConfig {
    /// Width of the tokens.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of a head; commonly `width / heads`.
    pub head: usize,
    /// Heads of keys and values, where there are fewer (grouped-query attention).
    pub key_heads: Option<usize>,
    /// Whether the projections have biases.
    #[config(default = true)]
    pub bias: bool,
    /// Epsilon of a root-mean-square norm over each head's queries and keys (QK-norm), where there is one.
    pub norm: Option<f64>,
}

impl QkvConfig {
    /// Xavier-uniform weights, zero biases, norms of ones.
    pub fn init(&self, device: &Device) -> Qkv {
        let key_heads = self.key_heads.unwrap_or(self.heads);
        let layer = |heads: usize| init::linear(self.width, heads * self.head, self.bias, device);
        let norm = || self.norm.map(|eps| RmsNormConfig::new(self.head).with_epsilon(eps).init(device));
        Qkv {
            query: layer(self.heads),
            key: layer(key_heads),
            value: layer(key_heads),
            query_norm: norm(),
            key_norm: norm(),
            heads: self.heads,
            key_heads,
        }
    }
}

/// Projections of tokens to queries, keys and values, with QK-norm and rotary positions where there are any.
///
/// # Reference
/// QK-norm: Henry et al., "Query-Key Normalization for Transformers", 2020, <https://arxiv.org/abs/2010.04245>, here by
/// root mean square, as in Stable Diffusion 3.5 and Flux.
#[derive(Module, Debug)]
pub struct Qkv {
    /// Query projection.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Of each head's queries.
    pub query_norm: Option<RmsNorm>,
    /// Of each head's keys.
    pub key_norm: Option<RmsNorm>,
    heads: usize,
    key_heads: usize,
}

impl Qkv {
    /// # Shapes
    /// `[B, N, W]` to queries `[B, H, N, D]`, keys and values `[B, K, N, D]`.
    pub fn forward(&self, x: Tensor<3>, rope: Option<&Rope>) -> [Tensor<4>; 3] {
        let query = split(dense(&self.query, x.clone()), self.heads); // [B, H, N, D]
        let key = split(dense(&self.key, x.clone()), self.key_heads); // [B, K, N, D]
        let value = split(dense(&self.value, x), self.key_heads); // [B, K, N, D]
        let turned = |x: Tensor<4>, norm: &Option<RmsNorm>| {
            let x = match norm {
                Some(norm) => norm.forward(x),
                None => x,
            };
            match rope {
                Some(rope) => rope.rotate(x),
                None => x,
            }
        };
        [turned(query, &self.query_norm), turned(key, &self.key_norm), value]
    }
}

/// Attention of several streams of tokens to all of them, as one sequence in this order; what each has read, before its
/// output projection.
///
/// Tapped are the queries as `query` and the map as `map`, and as `heads` what the heads have read: `[B, H, N1 + N2 .., D]`.
///
/// # Shapes
/// - a stream: queries `[B, H, N, D]`, keys and values `[B, K, N, D]`; output: `[B, N, H D]` for each
/// - the scores' mask and bias are over all streams together
pub fn attend_jointly<const S: usize>(streams: [[Tensor<4>; 3]; S], scores: &Scores) -> [Tensor<3>; S] {
    let lengths = streams.each_ref().map(|[query, ..]| query.dims()[2]);
    let mut joint: [Vec<Tensor<4>>; 3] = Default::default();
    for stream in streams {
        for (all, own) in joint.iter_mut().zip(stream) {
            all.push(own);
        }
    }
    let [query, key, value] = joint.map(|parts| Tensor::cat(parts, 2)); // [B, H or K, N, D]
    let query = trace::tap(|| "query".into(), query);
    let read = trace::tap(|| "heads".into(), attend_with([query, key, value], scores)); // [B, H, N, D]
    let read = joined(read); // [B, N, H D]
    let mut start = 0;
    lengths.map(|length| {
        let own = read.clone().narrow(1, start, length);
        start += length;
        own
    })
}
