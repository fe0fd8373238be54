//! Grouped-query attention with what the families add to it, and who may see whom.

use super::RmsNorm;
use super::rope::Rotation;
use burn::nn::Linear;
use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::activation::softmax;
use canvas_core::nn::attention::{joined, split};
use canvas_core::nn::dense;
use canvas_core::{Tokens, trace};
use serde::{Deserialize, Serialize};

/// What attention answers to a token that may see no token at all, which is padding that comes first in its row.
///
/// No real token reads the answer, but pipelines that keep padding (Flux.2's) hand it to their network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blind {
    /// Zero, as PyTorch's fused attention does, which transformers uses where it can.
    Zero,
    /// The mean of all values of the row, as a softmax does of equal scores: transformers' own attention, which it
    /// uses for Gemma 2.
    Mean,
}

/// Who may not be seen, of one kind of block.
pub(super) struct Sight {
    /// True where a token (third axis) must not see another (last axis): `[B or 1, 1, T, T]`.
    hidden: Tensor<4, Bool>,
    /// Zero at tokens that see none, where their answer is zero: `[B, 1, T, 1]`.
    sees: Option<Tensor<4>>,
}

impl Sight {
    /// A token sees itself and the real ones before it, or all real ones; those of a window no further than so many.
    /// `None` where every token sees every other.
    pub fn new(
        tokens: &Tokens,
        causal: bool,
        window: Option<usize>,
        blind: Blind,
        device: &Device,
    ) -> Option<Self> {
        let length = tokens.length;
        let padded = tokens.mask.contains(&false);
        if !causal && !padded && window.is_none_or(|window| length <= window + 1) {
            return None;
        }
        let near = |own: usize, other: usize| match (window, causal) {
            (None, _) => true,
            (Some(window), true) => other + window > own, // itself is one of them
            (Some(window), false) => own.abs_diff(other) <= window,
        };
        let rows = if padded { tokens.batch() } else { 1 };
        let mut hidden = Vec::with_capacity(rows * length * length);
        for row in tokens.mask.chunks(length).take(rows) {
            for own in 0..length {
                let seen = |other: usize| row[other] && (!causal || other <= own) && near(own, other);
                hidden.extend((0..length).map(|other| !seen(other)));
            }
        }
        let sees: Vec<f32> =
            hidden.chunks(length).map(|row| if row.contains(&false) { 1.0 } else { 0.0 }).collect();
        let sees = (blind == Blind::Zero && sees.contains(&0.0))
            .then(|| Tensor::from_data(TensorData::new(sees, [rows, 1, length, 1]), device));
        let hidden = Tensor::from_data(TensorData::new(hidden, [rows, 1, length, length]), device);
        Some(Self { hidden, sees })
    }
}

/// `softmax(cap(s q k^T)) v` of `heads` queries, each group of which shares a key and a value.
#[derive(Module, Debug)]
pub(super) struct Attention {
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    pub query_norm: Option<RmsNorm>,
    pub key_norm: Option<RmsNorm>,
    #[module(skip)]
    pub shape: Shape,
}

/// What [`Attention`] has no parameters for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub heads: usize,
    /// Heads of keys and values.
    pub groups: usize,
    pub scale: f64,
    pub softcap: Option<f64>,
}

impl Attention {
    /// `[B, T, W]` to `[B, T, W]`; the map is tapped as `map`.
    pub fn forward(&self, x: Tensor<3>, rotation: &Rotation, sight: Option<&Sight>) -> Tensor<3> {
        let Shape { heads, groups, .. } = self.shape;
        let norm = |norm: &Option<RmsNorm>, x: Tensor<4>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let query = norm(&self.query_norm, split(dense(&self.query, x.clone()), heads)); // [B, H, T, D]
        let key = norm(&self.key_norm, split(dense(&self.key, x.clone()), groups)); // [B, G, T, D]
        let value = split(dense(&self.value, x), groups); // [B, G, T, D]
        let map = self.map(rotation.turn(query), rotation.turn(key), sight); // [B, H, T, T]
        let map = trace::tap(|| "map".into(), map);
        let mut found = self.gathered(map, value); // [B, H, T, D]
        if let Some(sees) = sight.and_then(|sight| sight.sees.clone()) {
            found = found.clone() * sees.cast(found.dtype());
        }
        dense(&self.output, joined(found))
    }

    /// Scores in f32 from the cap on, as in transformers.
    fn map(&self, query: Tensor<4>, key: Tensor<4>, sight: Option<&Sight>) -> Tensor<4> {
        let ([batch, heads, length, width], dtype) = (query.dims(), query.dtype());
        let groups = self.shape.groups;
        // The queries of a group stand one behind the other, so that keys need not be repeated.
        let query = (query * self.shape.scale).reshape([batch, groups, heads / groups * length, width]);
        let scores = query.matmul(key.swap_dims(2, 3)).reshape([batch, heads, length, length]);
        let mut scores = scores.cast(DType::F32); // [B, H, T, T]
        if let Some(cap) = self.shape.softcap {
            scores = (scores / cap).tanh() * cap;
        }
        if let Some(sight) = sight {
            let hidden = sight.hidden.clone().expand(scores.dims());
            scores = scores.mask_fill(hidden, f32::MIN);
        }
        softmax(scores, 3).cast(dtype)
    }

    /// The values that the map asks for.
    fn gathered(&self, map: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let ([batch, heads, length, _], [_, groups, _, width]) = (map.dims(), value.dims());
        let map = map.reshape([batch, groups, heads / groups * length, length]);
        map.matmul(value).reshape([batch, heads, length, width])
    }
}
