//! From what CLIP says of an image to tokens beside those of the text.
//!
//! Shape letters: `B` batch, `I` vectors of an image, `V` their width, `T` tokens, `K` width of the tokens, `R` width and
//! `A` attention width of a resampler.

use burn::module::Param;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::attention::{joined, split};
use canvas_core::nn::{Activation, LayerNorm, LayerNormConfig, attend, dense};
use canvas_core::{ConfigError, check, trace};
use serde::{Deserialize, Serialize};

/// How an [`IpAdapter`](super::IpAdapter) makes tokens of what CLIP says of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageReader {
    /// One layer makes this many tokens of CLIP's projected vector: `ip-adapter_sd15`, `ip-adapter_sdxl`.
    Pooled {
        /// Tokens of each vector.
        tokens: usize,
    },
    /// Two layers make one token of each of CLIP's states: `ip-adapter-full-face`.
    EachState,
    /// Learned queries read CLIP's states: `ip-adapter-plus`.
    Resampler {
        /// Tokens, which are as many as there are queries.
        tokens: usize,
        /// Width of the queries.
        width: usize,
        /// Heads of 64 numbers.
        heads: usize,
        /// Rounds of attention and feed-forward.
        depth: usize,
    },
}

/// Width of a resampler's heads: the same in everything published, and nowhere in the files.
pub(super) const HEAD: usize = 64;

impl ImageReader {
    /// Whether it reads states of CLIP's vision transformer, those before its last layer, and not its projected vector.
    pub fn reads_states(self) -> bool {
        !matches!(self, Self::Pooled { .. })
    }

    pub(super) fn validate(self) -> Result<(), ConfigError> {
        match self {
            Self::Pooled { tokens } => check::positive(("tokens of the reader", tokens)),
            Self::EachState => Ok(()),
            Self::Resampler { tokens, width, heads, depth } => {
                check::positive(("tokens of the reader", tokens))?;
                check::positive(("width of the reader", width))?;
                check::positive(("heads of the reader", heads))?;
                check::positive(("depth of the reader", depth))
            }
        }
    }

    /// From vectors of width `from` to tokens of width `to`.
    pub(super) fn init(self, from: usize, to: usize, device: &Device) -> Reader {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let norm = LayerNormConfig::new(to).init(device);
        match self {
            Self::Pooled { tokens } => Reader::Pooled(Pooled { layer: linear(from, tokens * to), norm }),
            Self::EachState => {
                Reader::EachState(EachState { input: linear(from, from), output: linear(from, to), norm })
            }
            Self::Resampler { tokens, width, heads, depth } => {
                let std = (width as f64).sqrt().recip();
                Reader::Resampler(Resampler {
                    latents: Initializer::Normal { mean: 0.0, std }.init([1, tokens, width], device),
                    input: linear(from, width),
                    layers: (0..depth).map(|_| Round::new(width, heads, device)).collect(),
                    output: linear(width, to),
                    norm,
                })
            }
        }
    }
}

/// The network that an [`ImageReader`] describes.
#[derive(Module, Debug)]
pub(super) enum Reader {
    Pooled(Pooled),
    EachState(EachState),
    Resampler(Resampler),
}

impl Reader {
    /// `[B, I, V]` to `[B, T, K]`.
    pub(super) fn forward(&self, image: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Pooled(reader) => reader.forward(image),
            Self::EachState(reader) => reader.forward(image),
            Self::Resampler(reader) => reader.forward(image),
        }
    }

    /// Width of what it reads.
    pub(super) fn width(&self) -> usize {
        let first = match self {
            Self::Pooled(reader) => &reader.layer,
            Self::EachState(reader) => &reader.input,
            Self::Resampler(reader) => &reader.input,
        };
        first.weight.dims()[0]
    }
}

/// `norm(layer(x))`, cut into tokens before the norm.
#[derive(Module, Debug)]
pub(super) struct Pooled {
    layer: Linear,
    norm: LayerNorm,
}

impl Pooled {
    fn forward(&self, image: Tensor<3>) -> Tensor<3> {
        let width = self.norm.gamma.dims()[0];
        let ([batch, count, _], made) = (image.dims(), self.layer.weight.dims()[1] / width);
        let tokens = dense(&self.layer, image); // [B, I, T K / I]
        self.norm.forward(tokens.reshape([batch, count * made, width])) // [B, T, K]
    }
}

/// `norm(output(gelu(input(x))))`.
#[derive(Module, Debug)]
pub(super) struct EachState {
    input: Linear,
    output: Linear,
    norm: LayerNorm,
}

impl EachState {
    fn forward(&self, states: Tensor<3>) -> Tensor<3> {
        self.norm.forward(dense(&self.output, Activation::Gelu.forward(dense(&self.input, states)))) // [B, I, K]
    }
}

/// Learned queries that read the states in several rounds.
///
/// Alayrac et al., "Flamingo: a Visual Language Model for Few-Shot Learning", 2022, section 3.1.1,
/// <https://arxiv.org/abs/2204.14198>.
#[derive(Module, Debug)]
pub(super) struct Resampler {
    latents: Param<Tensor<3>>,
    input: Linear,
    layers: Vec<Round>,
    output: Linear,
    norm: LayerNorm,
}

impl Resampler {
    fn forward(&self, states: Tensor<3>) -> Tensor<3> {
        let ([batch, ..], [_, tokens, width]) = (states.dims(), self.latents.dims());
        let states = dense(&self.input, states); // [B, I, R]
        let mut h = self.latents.val().expand([batch, tokens, width]); // [B, T, R]
        for (i, layer) in self.layers.iter().enumerate() {
            h = trace::block(|| format!("resampler.{i}"), h, |h| layer.forward(h, states.clone())); // [B, T, R]
        }
        self.norm.forward(dense(&self.output, h)) // [B, T, K]
    }
}

/// The queries attend to the states and to themselves; then each goes through a feed-forward.
#[derive(Module, Debug)]
struct Round {
    norm_states: LayerNorm,
    norm_latents: LayerNorm,
    query: Linear,
    /// Keys in the first half of its output, values in the second.
    key_value: Linear,
    output: Linear,
    norm_feed: LayerNorm,
    up: Linear,
    down: Linear,
    heads: usize,
}

impl Round {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        let inner = heads * HEAD;
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let norm = || LayerNormConfig::new(width).init(device);
        Self {
            norm_states: norm(),
            norm_latents: norm(),
            query: linear(width, inner),
            key_value: linear(width, 2 * inner),
            output: linear(inner, width),
            norm_feed: norm(),
            up: linear(width, 4 * width),
            down: linear(4 * width, width),
            heads,
        }
    }

    /// `h`: `[B, T, R]`, `states`: `[B, I, R]`, output: `[B, T, R]`.
    fn forward(&self, h: Tensor<3>, states: Tensor<3>) -> Tensor<3> {
        let (own, states) = (self.norm_latents.forward(h.clone()), self.norm_states.forward(states));
        let query = split(dense(&self.query, own.clone()), self.heads); // [B, H, T, 64]
        let both = dense(&self.key_value, Tensor::cat(vec![states, own], 1)); // [B, I + T, 2 A]
        let [key, value] = both.chunk(2, 2).try_into().expect("two halves");
        let read = attend(query, split(key, self.heads), split(value, self.heads), None); // [B, H, T, 64]
        let h = h + dense(&self.output, joined(read)); // [B, T, R]
        let hidden = Activation::Gelu.forward(dense(&self.up, self.norm_feed.forward(h.clone()))); // [B, T, 4 R]
        h + dense(&self.down, hidden)
    }
}
