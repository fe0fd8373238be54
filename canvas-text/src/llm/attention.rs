//! Grouped-query attention with what the families add to it, and who may see whom.

use super::RmsNorm;
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::nn::attention::{Scores, attend_with, joined, split};
use canvas_core::nn::{Rope as Rotation, dense};
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
    /// uses for Gemma 2. (No gradient goes to the scores, on which the mean does not depend; there one does.)
    Mean,
}

/// Who sees whom, of one kind of block.
pub(super) struct Sight {
    /// True where a token (third axis) sees another (last axis), or none at all: `[B or 1, 1, T, T]`.
    seen: Tensor<4, Bool>,
    /// Zero at tokens that see none: `[B or 1, 1, T, 1]`.
    sees: Option<Tensor<4>>,
}

impl Sight {
    /// A token sees itself and the real ones before it, or all real ones; those of a window no further than so many.
    /// `None` where every token sees every other.
    pub fn new(tokens: &Tokens, causal: bool, window: Option<usize>, device: &Device) -> Option<Self> {
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
        let (mut seen, mut sees) = (Vec::with_capacity(rows * length * length), Vec::new());
        for row in tokens.mask.chunks(length).take(rows) {
            for own in 0..length {
                let start = seen.len();
                let one = |other: usize| row[other] && (!causal || other <= own) && near(own, other);
                seen.extend((0..length).map(one));
                let any = seen[start..].contains(&true);
                sees.push(if any { 1f32 } else { 0.0 });
                seen[start..].iter_mut().for_each(|seen| *seen |= !any);
            }
        }
        let blind = sees.contains(&0.0);
        let sees = || Tensor::from_data(TensorData::new(sees, [rows, 1, length, 1]), device);
        let sees = blind.then(sees);
        let seen = Tensor::from_data(TensorData::new(seen, [rows, 1, length, length]), device);
        Some(Self { seen, sees })
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
    pub blind: Blind,
}

impl Attention {
    /// `[B, T, W]` to `[B, T, W]`; the map is tapped as `map`.
    pub fn forward(&self, x: Tensor<3>, rotation: &Rotation, sight: Option<&Sight>) -> Tensor<3> {
        let Shape { heads, groups, scale, softcap, blind } = self.shape;
        let norm = |norm: &Option<RmsNorm>, x: Tensor<4>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let query = norm(&self.query_norm, split(dense(&self.query, x.clone()), heads)); // [B, H, T, D]
        let key = norm(&self.key_norm, split(dense(&self.key, x.clone()), groups)); // [B, G, T, D]
        let value = split(dense(&self.value, x), groups); // [B, G, T, D]
        let sees = |at: Blind, x: Tensor<4>| match sight.and_then(|sight| sight.sees.clone()) {
            Some(sees) if blind == at => x.clone() * sees.cast(x.dtype()),
            _ => x,
        };
        let query = sees(Blind::Mean, rotation.rotate(query)); // of a query of zeros all scores are equal
        let seen = sight.map(|sight| sight.seen.clone());
        let scores = Scores { seen, bias: None, scale: Some(scale), softcap };
        let found = attend_with([query, rotation.rotate(key), value], &scores); // [B, H, T, D]
        let found = trace::tap(|| "heads".into(), sees(Blind::Zero, found));
        dense(&self.output, joined(found))
    }
}
