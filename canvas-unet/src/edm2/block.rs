//! The blocks of [`Edm2`](super::Edm2).
//!
//! Shape letters: `B` batch, `C` channels in, `O` channels out, `H` and `S` height and width, `N = H S` pixels, `E`
//! embedding width, `D` channels of a head.

use crate::blocks::Resize;
use crate::magnitude::{MpConv, MpLinear, mp_silu, mp_sum, normalized};
use burn::module::Param;
use burn::nn::Initializer;
use burn::prelude::*;
use canvas_core::nn::attend;
use canvas_core::trace;

/// Of a block's sum, the fraction that its branch contributes, and its attention.
const BRANCH: f64 = 0.3;

/// On the way down a block's input is normalised before it parts into skip connection and branch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    Down,
    Up,
}

/// What a [`Block`] is made for.
pub(super) struct Place {
    pub way: Way,
    pub resize: Resize,
    pub from: usize,
    pub to: usize,
    /// Of the embedding.
    pub embedding: usize,
    /// Channels of a head, where it attends.
    pub head: Option<usize>,
    /// Largest absolute value that leaves it.
    pub clip: f64,
}

/// Two convolutions with the embedding as a factor between them, added to their input; then attention where it attends.
#[derive(Module, Debug)]
pub(super) struct Block {
    skip: Option<MpConv>,
    first: MpConv,
    embed: MpLinear,
    /// Of what the embedding says: one number, 0 at first.
    gain: Param<Tensor<1>>,
    second: MpConv,
    attention: Option<CosineAttention>,
    clip: f64,
    #[module(skip)]
    way: Way,
    #[module(skip)]
    resize: Resize,
}

impl Block {
    pub(super) fn new(place: &Place, device: &Device) -> Self {
        let Place { way, resize, from, to, embedding, head, clip } = *place;
        // On the way down the branch reads what the skip connection has made.
        let read = if way == Way::Down { to } else { from };
        Self {
            skip: (from != to).then(|| MpConv::new(from, to, 1, device)),
            first: MpConv::new(read, to, 3, device),
            embed: MpLinear::new(embedding, to, device),
            gain: Initializer::Zeros.init([1], device),
            second: MpConv::new(to, to, 3, device),
            attention: head.map(|head| CosineAttention::new(to, head, device)),
            clip,
            way,
            resize,
        }
    }

    /// `x`: `[B, C, H, S]`, `embedding`: `[B, E]`, output: `[B, O, H, S]`, of twice or half the size where it resizes.
    pub(super) fn forward(&self, x: Tensor<4>, embedding: &Tensor<2>) -> Tensor<4> {
        let skip = |x: Tensor<4>| self.skip.as_ref().map_or(x.clone(), |conv| conv.forward(x));
        let mut x = self.resize.forward(x);
        if self.way == Way::Down {
            x = normalized(skip(x), 1); // [B, O, H, S]
        }
        let h = self.first.forward(mp_silu(x.clone())); // [B, O, H, S]
        let told = self.embed.forward(embedding.clone()) * self.gain.val().unsqueeze::<2>() + 1.0; // [B, O]
        let [batch, channels] = told.dims();
        let h = self.second.forward(mp_silu(h * told.reshape([batch, channels, 1, 1]))); // [B, O, H, S]
        if self.way == Way::Up {
            x = skip(x); // [B, O, H, S]
        }
        let mut h = mp_sum(x, h, BRANCH);
        if let Some(attention) = &self.attention {
            let read = trace::scope(|| "attention".into(), || attention.forward(&h));
            h = mp_sum(h, read, BRANCH);
        }
        h.clamp(-self.clip, self.clip)
    }
}

/// Self-attention of the pixels with queries, keys and values of unit variance, so that no map can grow sharper than the
/// angles between them allow.
#[derive(Module, Debug)]
struct CosineAttention {
    query: MpConv,
    key: MpConv,
    value: MpConv,
    output: MpConv,
    heads: usize,
}

impl CosineAttention {
    fn new(channels: usize, head: usize, device: &Device) -> Self {
        let conv = || MpConv::new(channels, channels, 1, device);
        Self { query: conv(), key: conv(), value: conv(), output: conv(), heads: channels / head }
    }

    /// `[B, C, H, S]` to `[B, C, H, S]`.
    fn forward(&self, x: &Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let shape = [batch, self.heads, channels / self.heads, height * width]; // [B, heads, D, N]
        let project = |conv: &MpConv| normalized(conv.forward(x.clone()).reshape(shape), 2).swap_dims(2, 3);
        let query = trace::tap(|| "query".into(), project(&self.query)); // [B, heads, N, D]
        let read = attend(query, project(&self.key), project(&self.value), None); // [B, heads, N, D]
        let read = trace::tap(|| "heads".into(), read);
        self.output.forward(read.swap_dims(2, 3).reshape([batch, channels, height, width]))
    }
}
