//! Blocks that attend: pixels to pixels, and pixels to text.
//!
//! Shape letters: as in [`blocks`](super).

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{
    Activation, Attention, AttentionConfig, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig, dense,
    project,
};
use canvas_core::{Text, ops, trace};

/// Sizes of an [`ImageAttention`].
#[derive(Config, Debug)]
pub struct ImageAttentionConfig {
    /// Channels in and out; `heads` and `groups` must divide them.
    pub channels: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Groups of the norm in front.
    #[config(default = 32)]
    pub groups: usize,
    /// Of the norm.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

impl ImageAttentionConfig {
    /// The output projection starts at zero, as in the original code: it begins as the identity.
    ///
    /// # Panics
    /// If the heads or the groups do not divide the channels.
    pub fn init(&self, device: &Device) -> ImageAttention {
        let mut inner = AttentionConfig::new(self.channels, self.heads).init(device);
        let zero = LinearConfig::new(self.channels, self.channels).with_initializer(Initializer::Zeros);
        inner.output = zero.init(device);
        let norm = GroupNormConfig::new(self.groups, self.channels).with_epsilon(self.epsilon);
        ImageAttention { norm: norm.init(device), inner }
    }
}

/// Self-attention of the pixels of a feature map: `x + attention(norm(x))`, all projections with bias.
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, appendix B, <https://arxiv.org/abs/2006.11239>.
#[derive(Module, Debug)]
pub struct ImageAttention {
    norm: GroupNorm,
    inner: Attention,
}

impl ImageAttention {
    /// # Shapes
    /// `[B, C, H, S]` to `[B, C, H, S]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let size = x.dims();
        let h = self.norm.forward(x.clone()).flatten::<3>(2, 3).swap_dims(1, 2); // [B, N, C]
        let h = self.inner.forward(h.clone(), h, None); // [B, N, C]
        x + h.swap_dims(1, 2).reshape(size)
    }
}

/// Sizes of a [`SpatialTransformer`].
#[derive(Config, Debug)]
pub struct SpatialTransformerConfig {
    /// Channels in and out; `heads` and `groups` must divide them.
    pub channels: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of the text tokens.
    pub context: usize,
    /// Transformer blocks.
    #[config(default = 1)]
    pub depth: usize,
    /// Whether blocks read the text twice, in place of the pixels themselves: Stable Diffusion's upscaler.
    #[config(default = false)]
    pub cross_only: bool,
    /// Whether the projections before and after the blocks are linear layers, as from Stable Diffusion 2 on,
    /// or 1x1 convolutions: the same map, with weights of another rank.
    #[config(default = false)]
    pub linear: bool,
    /// Groups of the norm in front.
    #[config(default = 32)]
    pub groups: usize,
    /// Of the feed-forward gates.
    #[config(default = "Activation::Gelu")]
    pub activation: Activation,
}

impl SpatialTransformerConfig {
    /// The output projection starts at zero, as in the original code: it begins as the identity.
    ///
    /// # Panics
    /// If the heads or the groups do not divide the channels.
    pub fn init(&self, device: &Device) -> SpatialTransformer {
        let conv = Conv2dConfig::new([self.channels; 2], [1, 1]);
        let linear = LinearConfig::new(self.channels, self.channels);
        let zero = Initializer::Zeros;
        SpatialTransformer {
            norm: GroupNormConfig::new(self.groups, self.channels).with_epsilon(1e-6).init(device),
            input: (!self.linear).then(|| conv.init(device)),
            linear_in: self.linear.then(|| linear.init(device)),
            blocks: (0..self.depth).map(|_| TransformerBlock::new(self, device)).collect(),
            linear_out: self.linear.then(|| linear.clone().with_initializer(zero.clone()).init(device)),
            output: (!self.linear).then(|| conv.clone().with_initializer(zero).init(device)),
        }
    }
}

/// Transformer blocks over the pixels of a feature map, which read the text by cross-attention.
///
/// `x + output(blocks(input(norm(x))))`; the norm has `eps` 1e-6, unlike those of [`ResBlock`](super::ResBlock).
///
/// # Reference
/// Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2021, appendix E.2.1,
/// <https://arxiv.org/abs/2112.10752>.
#[derive(Module, Debug)]
pub struct SpatialTransformer {
    norm: GroupNorm,
    input: Option<Conv2d>,
    linear_in: Option<Linear>,
    blocks: Vec<TransformerBlock>,
    linear_out: Option<Linear>,
    output: Option<Conv2d>,
}

impl SpatialTransformer {
    /// # Shapes
    /// - `x`: `[B, C, H, S]`; `text`: tokens `[B, T, K]`, mask `[B, T]`
    /// - output: `[B, C, H, S]`
    pub fn forward(&self, x: Tensor<4>, text: &Text) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let h: Tensor<3> = self.norm.forward(x.clone()).flatten::<3>(2, 3).swap_dims(1, 2); // [B, N, C]
        let mut h = pointwise((&self.input, &self.linear_in), h); // [B, N, C]
        for (i, block) in self.blocks.iter().enumerate() {
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, text)); // [B, N, C]
        }
        let h = pointwise((&self.output, &self.linear_out), h).swap_dims(1, 2); // [B, C, N]
        x + h.reshape([batch, channels, height, width])
    }
}

/// A 1x1 convolution applied to tokens instead of pixels, or a linear layer: `[B, N, C]` to `[B, N, O]`.
fn pointwise((conv, linear): (&Option<Conv2d>, &Option<Linear>), tokens: Tensor<3>) -> Tensor<3> {
    if let Some(conv) = conv {
        let weight = conv.weight.val().flatten::<2>(1, 3).swap_dims(0, 1); // [C, O]
        return project_tokens(tokens, weight, conv.bias.as_ref().map(|bias| bias.val()));
    }
    dense(linear.as_ref().expect("one of the two"), tokens)
}

/// `x w + b` for every token: `[B, N, C]` to `[B, N, O]`.
///
/// As one matrix of `B N` rows: the gradient of a batched product would hold one weight matrix a sample.
fn project_tokens(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let ([batch, count, _], [_, width]) = (x.dims(), weight.dims());
    project(x.flatten::<2>(0, 1), weight, bias).reshape([batch, count, width])
}

/// Self-attention, cross-attention and a gated feed-forward, each behind a layer norm and added to its input.
#[derive(Module, Debug)]
struct TransformerBlock {
    norm_attention: LayerNorm,
    attention: Attention,
    norm_cross: LayerNorm,
    cross: Attention,
    norm_feed: LayerNorm,
    feed: GatedMlp,
    cross_only: bool,
}

impl TransformerBlock {
    fn new(config: &SpatialTransformerConfig, device: &Device) -> Self {
        let (width, heads) = (config.channels, config.heads);
        let norm = || LayerNormConfig::new(width).init(device);
        let attention = AttentionConfig::new(width, heads);
        let cross = attention.clone().with_context(Some(config.context));
        let own = if config.cross_only { &cross } else { &attention };
        Self {
            norm_attention: norm(),
            attention: without_bias(own.init(device)),
            norm_cross: norm(),
            cross: without_bias(cross.init(device)),
            norm_feed: norm(),
            feed: GatedMlp::new(width, config.activation, device),
            cross_only: config.cross_only,
        }
    }

    /// `h`: `[B, N, C]`, output: `[B, N, C]`.
    fn forward(&self, h: Tensor<3>, text: &Text) -> Tensor<3> {
        let own = self.norm_attention.forward(h.clone()); // [B, N, C]
        let (tokens, mask) = (text.tokens.clone(), Some(text.mask.clone()));
        let (read, hidden) = if self.cross_only { (tokens, mask) } else { (own.clone(), None) };
        let own = trace::part(|| "attention".into(), || self.attention.forward(own, read, hidden));
        let h = h + own;
        let query = self.norm_cross.forward(h.clone()); // [B, N, C]
        let (tokens, mask) = (text.tokens.clone(), Some(text.mask.clone()));
        let read = trace::part(|| "cross".into(), || self.cross.forward(query, tokens, mask));
        let h = h + read;
        h.clone() + trace::part(|| "feed".into(), || self.feed.forward(self.norm_feed.forward(h)))
    }
}

/// Stable Diffusion's queries, keys and values have no bias; its output projection has.
fn without_bias(mut attention: Attention) -> Attention {
    for layer in [&mut attention.query, &mut attention.key, &mut attention.value] {
        layer.bias = None;
    }
    attention
}

/// `down(value * act(gate))` with `value, gate = up(x)`, four times as wide: GEGLU for `act` = GELU.
///
/// Shazeer, "GLU Variants Improve Transformer", 2020, <https://arxiv.org/abs/2002.05202>.
#[derive(Module, Debug)]
struct GatedMlp {
    up: Linear,
    down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl GatedMlp {
    fn new(width: usize, activation: Activation, device: &Device) -> Self {
        Self {
            up: LinearConfig::new(width, 8 * width).init(device),
            down: LinearConfig::new(4 * width, width).init(device),
            activation,
        }
    }

    /// `[B, N, C]` to `[B, N, C]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        // The weight is cut rather than the product: that is smaller, and so is its gradient.
        let half = self.down.weight.shape()[0];
        let part = |x, start| {
            let weight = self.up.weight.val().narrow(1, start, half); // [C, 4 C]
            project_tokens(x, weight, self.up.bias.as_ref().map(|bias| bias.val().narrow(0, start, half)))
        };
        let hidden = ops::gate(self.activation, part(x.clone(), half), part(x, 0)); // [B, N, 4 C]
        dense(&self.down, hidden) // [B, N, C]
    }
}
