//! What UNets are made of: residual blocks, spatial transformers, and changes of resolution.
//!
//! Shape letters: `B` batch, `C` channels in, `O` channels out, `H` and `S` height and width, `N = H S` image
//! tokens, `T` text tokens, `K` context width, `E` embedding width.

mod attention;

pub use attention::{ImageAttention, ImageAttentionConfig, SpatialTransformer, SpatialTransformerConfig};

use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, GroupNorm, GroupNormConfig, conv2d, linear};
use serde::{Deserialize, Serialize};

/// A 3x3 convolution that keeps the size.
pub fn conv3(from: usize, to: usize, device: &Device) -> Conv2d {
    conv3_config(from, to).init(device)
}

/// As [`conv3`], starting from zero: the last layer of a branch that begins by adding nothing.
pub fn zero_conv3(from: usize, to: usize, device: &Device) -> Conv2d {
    conv3_config(from, to).with_initializer(Initializer::Zeros).init(device)
}

/// A 3x3 convolution that halves the size, padded by one on every side.
///
/// The autoencoder of the same paper pads only below and to the right: the two are not interchangeable.
pub fn downsample(channels: usize, device: &Device) -> Conv2d {
    conv3_config(channels, channels).with_stride([2, 2]).init(device)
}

fn conv3_config(from: usize, to: usize) -> Conv2dConfig {
    Conv2dConfig::new([from, to], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
}

/// Repeats every pixel twice in both directions.
///
/// # Shapes
/// `[B, C, H, S]` to `[B, C, 2 H, 2 S]`.
pub fn double(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, s] = x.dims();
    x.reshape([b, c, h, 1, s, 1]).expand([b, c, h, 2, s, 2]).reshape([b, c, 2 * h, 2 * s])
}

/// Sizes of a [`ResBlock`].
#[derive(Config, Debug)]
pub struct ResBlockConfig {
    /// Channels in; `groups` must divide them.
    pub from: usize,
    /// Channels out; `groups` must divide them.
    pub to: usize,
    /// Width of the time embedding.
    pub embedding: usize,
    /// Groups of the two norms.
    #[config(default = 32)]
    pub groups: usize,
    /// After each norm.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// Of the two norms.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether the time scales and shifts the second norm, as in ADM, or is added before it.
    #[config(default = false)]
    pub scale_shift: bool,
    /// A change of size inside the block, as in ADM.
    #[config(default = "Resize::Keep")]
    pub resize: Resize,
}

/// A change of size without weights, in the skip connection and in the branch of a [`ResBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// None.
    Keep,
    /// Every pixel twice in both directions.
    Double,
    /// The mean of every four pixels.
    Halve,
}

impl Resize {
    pub(crate) fn forward(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Keep => x,
            Self::Double => double(x),
            Self::Halve => {
                let [b, c, h, s] = x.dims();
                let cells = x.reshape([b, c, h / 2, 2, s / 2, 2]);
                cells.mean_dim(5).mean_dim(3).reshape([b, c, h / 2, s / 2])
            }
        }
    }
}

impl ResBlockConfig {
    /// The last convolution starts at zero, as in the original code: the block begins as its skip connection.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    pub fn init(&self, device: &Device) -> ResBlock {
        let (from, to) = (self.from, self.to);
        let skip = (from != to).then(|| Conv2dConfig::new([from, to], [1, 1]).init(device));
        let norm =
            |channels| GroupNormConfig::new(self.groups, channels).with_epsilon(self.epsilon).init(device);
        let told = if self.scale_shift { 2 * to } else { to };
        ResBlock {
            norm_in: norm(from),
            conv_in: conv3(from, to, device),
            time: LinearConfig::new(self.embedding, told).init(device),
            norm_out: norm(to),
            conv_out: zero_conv3(to, to, device),
            skip,
            activation: self.activation,
            scale_shift: self.scale_shift,
            resize: self.resize,
        }
    }
}

/// Two rounds of norm, activation and convolution, with the time embedding added between them.
///
/// `skip(x) + conv_out(act(norm_out(conv_in(act(norm_in(x))) + time(embedding))))`; with `scale_shift`,
/// `norm_out(..) (1 + scale) + shift` in place of the sum, where `scale, shift = time(embedding)`. A change of size
/// stands before `conv_in` and before `skip`.
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, appendix B, <https://arxiv.org/abs/2006.11239>;
/// Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, section 3,
/// <https://arxiv.org/abs/2105.05233>.
#[derive(Module, Debug)]
pub struct ResBlock {
    norm_in: GroupNorm,
    conv_in: Conv2d,
    time: Linear,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    skip: Option<Conv2d>,
    #[module(skip)]
    activation: Activation,
    scale_shift: bool,
    #[module(skip)]
    resize: Resize,
}

impl ResBlock {
    /// # Shapes
    /// - `x`: `[B, C, H, S]`
    /// - `embedding`: `[B, E]`, the SiLU already applied: it is the same in every block
    /// - output: `[B, O, H, S]`, of twice or half the size where the block resizes
    pub fn forward(&self, x: Tensor<4>, embedding: Tensor<2>) -> Tensor<4> {
        let time = linear(&self.time, embedding); // [B, O], or [B, 2 O]
        let [batch, channels] = time.dims();
        let time = time.reshape([batch, channels, 1, 1]);
        let h = self.resize.forward(self.norm_in.forward_then(self.activation, x.clone())); // [B, C, H, S]
        let h = conv2d(&self.conv_in, h); // [B, O, H, S]
        let h = if self.scale_shift {
            let [scale, shift] = [0, 1].map(|i| time.clone().narrow(1, i * channels / 2, channels / 2));
            self.activation.forward(self.norm_out.forward(h) * (scale + 1.0) + shift)
        } else {
            self.norm_out.forward_then(self.activation, h + time)
        };
        let h = conv2d(&self.conv_out, h); // [B, O, H, S]
        let x = self.resize.forward(x);
        match &self.skip {
            Some(skip) => conv2d(skip, x) + h,
            None => x + h,
        }
    }
}
