//! T5's encoder and UMT5's: the text encoders of PixArt, Stable Diffusion 3, Flux and AuraFlow.

mod buckets;
mod config;

pub use config::T5Config;

use burn::nn::{Embedding, Linear};
use burn::prelude::*;
use canvas_core::nn::attention::{Scores, attend_with, joined};
use canvas_core::nn::{GatedMlp, Mlp, Qkv, RmsNorm, dense};
use canvas_core::{Text, TextEncoder, Tokens, trace};

/// T5's encoder: blocks of attention that every token pays to all, and of a perceptron, each behind a norm by root
/// mean square. There are no positions but a learned number for each head and bucket of distances, which is added to
/// the scores; those are not scaled: `softmax(q k^T + bias) v`.
///
/// How diffusers' pipelines call it; all pad to the number of tokens, and take these states:
///
/// | pipeline | tokens | mask | and then |
/// |---|---|---|---|
/// | Stable Diffusion 3 | 256 | none | behind CLIP's tokens |
/// | Flux | 512, schnell 256 | none | |
/// | Chroma | 512 | yes | the network has a mask, too: of the text and one token of padding |
/// | PixArt alpha, sigma | 120, 300 | yes | the mask goes to the network; prompts are lowercased and stripped first |
/// | AuraFlow (UMT5) | 256 | yes | padding's states become 0 |
/// | HiDream | 128 | yes | |
///
/// # Reference
/// Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2019, section 2.1,
/// <https://arxiv.org/abs/1910.10683>; UMT5, with positions in every block: Chung et al., "UniMax", 2023,
/// <https://arxiv.org/abs/2304.09151>; transformers' `T5EncoderModel` and `UMT5EncoderModel`.
///
/// # Differs from transformers
/// No dropout in training. In `f16`, transformers keeps the second layers of perceptrons in `f32` and clamps what
/// overflows; here nothing is: large models of `f16` overflow, those of `bf16` do not.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{TextEncoder, Tokens};
/// use canvas_text::T5Config;
///
/// let config = T5Config::new(16, 8, 2, 32, 2).with_vocabulary(10);
/// let t5 = config.init(&Device::flex());
/// let tokens = Tokens { ids: vec![5, 7, 1, 0], mask: vec![true, true, true, false], length: 4 };
/// let text = t5.encode(&tokens);
/// assert_eq!((text.tokens.dims(), text.pooled.dims()), ([1, 4, 16], [1, 0]));
/// ```
#[derive(Module, Debug)]
pub struct T5Encoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    buckets: usize,
    distance: usize,
    masked: bool,
}

#[derive(Module, Debug)]
struct Block {
    norm_attention: RmsNorm,
    attention: Attention,
    norm_feed: RmsNorm,
    feed: Feed,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Qkv,
    output: Linear,
    /// A number for each bucket of distances and each head; T5 has them in its first block only.
    positions: Option<Embedding>,
}

#[derive(Module, Debug)]
enum Feed {
    Gated(GatedMlp),
    Plain(Mlp),
}

impl T5Encoder {
    /// Whether tokens are kept from seeing padding; by default they are.
    ///
    /// The pipelines of Stable Diffusion 3 and Flux call their encoders without a mask: padding is read as if it were text,
    /// and [`Text::mask`] is all true.
    #[must_use]
    pub fn with_mask(mut self, masked: bool) -> Self {
        self.masked = masked;
        self
    }

    /// Width of the token states.
    pub fn width(&self) -> usize {
        self.embedding.weight.dims()[1]
    }

    /// Tokens it knows.
    pub fn vocabulary(&self) -> usize {
        self.embedding.weight.dims()[0]
    }

    fn check(&self, tokens: &Tokens) {
        assert!(tokens.batch() > 0, "a text encoder needs at least one prompt");
        let largest = tokens.ids.iter().max().map_or(0, |&id| id as usize);
        let vocabulary = self.vocabulary();
        assert!(largest < vocabulary, "token id {largest} for a vocabulary of {vocabulary}");
        let empty = tokens.mask.chunks(tokens.length).position(|row| !row.contains(&true));
        assert!(
            !self.masked || empty.is_none(),
            "row {} of the tokens is all padding: it could see nothing",
            empty.unwrap_or_default()
        );
    }

    /// What the positions of keys add to the scores: `[1, H, T, T]`.
    fn bias(&self, positions: &Embedding, length: usize) -> Tensor<4> {
        let buckets = buckets::square(length, self.buckets, self.distance);
        let device = positions.weight.val().device();
        let buckets = Tensor::<2, Int>::from_data(TensorData::new(buckets, [length, length]), &device);
        positions.forward(buckets).permute([2, 0, 1]).unsqueeze() // [T, T, H] to [1, H, T, T]
    }
}

impl TextEncoder for T5Encoder {
    /// The states of the last block, after the final norm. T5 has no vector for a whole prompt: `pooled` is `[B, 0]`.
    ///
    /// Blocks are tapped as `text.blocks.N`.
    ///
    /// # Panics
    /// If there is no prompt, or an id is outside the vocabulary; with a mask, if a row is all padding.
    fn encode(&self, tokens: &Tokens) -> Text {
        self.check(tokens);
        let (ids, mask) = tokens.tensors(&self.embedding.weight.val().device()); // [B, T], [B, T]
        let mask = if self.masked { mask } else { mask.full_like(true) };
        // Prompts of one length need no mask: attention without one is cheaper and gives the same.
        let padded = self.masked && tokens.mask.contains(&false);
        let mut scores = Scores { scale: Some(1.0), ..Scores::seen(padded.then(|| mask.clone())) };
        let mut x = self.embedding.forward(ids); // [B, T, W]
        for (i, block) in self.blocks.iter().enumerate() {
            if let Some(positions) = &block.attention.positions {
                scores.bias = Some(self.bias(positions, tokens.length));
            }
            x = trace::block(|| format!("text.blocks.{i}"), x, |x| block.forward(x, &scores));
        }
        let x = self.norm.forward(x); // [B, T, W]
        let pooled = Tensor::zeros([tokens.batch(), 0], (&x.device(), x.dtype()));
        Text { tokens: x, mask, pooled }
    }
}

impl Block {
    /// `x + attention(norm(x))`, then `x + feed(norm(x))`: `[B, T, W]` to `[B, T, W]`.
    fn forward(&self, x: Tensor<3>, scores: &Scores) -> Tensor<3> {
        let seen = self.norm_attention.forward(x.clone());
        let x = x + trace::scope(|| "attention".into(), || self.attention.forward(seen, scores));
        x.clone() + self.feed.forward(self.norm_feed.forward(x))
    }
}

impl Attention {
    /// Its map is tapped as `map`.
    fn forward(&self, x: Tensor<3>, scores: &Scores) -> Tensor<3> {
        let heads = attend_with(self.qkv.forward(x, None), scores); // [B, H, T, D]
        dense(&self.output, joined(heads)) // [B, T, W]
    }
}

impl Feed {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Gated(feed) => feed.forward(x),
            Self::Plain(feed) => feed.forward(x),
        }
    }
}
