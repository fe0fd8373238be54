//! Attention to a text that stays the same over a run: its keys and values are kept.

use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::attention::{attend, joined, split};
use canvas_core::nn::init::{xavier_linear, zero_linear};
use canvas_core::nn::{RmsNorm, RmsNormConfig, dense};
use canvas_core::trace;

/// Cross-attention of patches to text of the model's width; all projections have biases.
#[derive(Module, Debug)]
pub(crate) struct Cross {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    heads: usize,
}

impl Cross {
    /// Begins by adding nothing. `norm` is the epsilon of a norm over queries and keys, all heads together, if there is one.
    pub fn new(width: usize, heads: usize, norm: Option<f64>, device: &Device) -> Self {
        let norm = || norm.map(|eps| RmsNormConfig::new(width).with_epsilon(eps).init(device));
        Self {
            query: xavier_linear(width, width, device),
            key: xavier_linear(width, width, device),
            value: xavier_linear(width, width, device),
            output: zero_linear(width, width, device),
            query_norm: norm(),
            key_norm: norm(),
            heads,
        }
    }

    /// # Shapes
    /// `x`: `[B, N, W]`, `text`: `[B, T, W]`, `mask`: `[B, T]`; output: `[B, N, W]`.
    pub fn forward(&self, x: Tensor<3>, text: &Tensor<3>, mask: &Tensor<2, Bool>) -> Tensor<3> {
        let heads = |x: Tensor<3>, norm: &Option<RmsNorm>| match norm {
            Some(norm) => split(norm.forward(x), self.heads),
            None => split(x, self.heads),
        };
        let [key, value] = keep(
            || "kv".into(),
            Constant::Condition,
            || {
                let key = heads(dense(&self.key, text.clone()), &self.key_norm); // [B, H, T, D]
                [key, split(dense(&self.value, text.clone()), self.heads)]
            },
        );
        let query = trace::tap(|| "query".into(), heads(dense(&self.query, x), &self.query_norm)); // [B, H, N, D]
        let read = trace::tap(|| "heads".into(), attend(query, key, value, Some(mask.clone())));
        dense(&self.output, joined(read)) // [B, N, W]
    }
}
