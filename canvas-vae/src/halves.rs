//! The two halves of an [`AutoencoderKl`](crate::AutoencoderKl) and of a [`VqModel`](crate::VqModel): the encoder,
//! the decoder, and their blocks.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::interpolate::{Interpolate2dConfig, InterpolateMode};
use burn::prelude::*;
use canvas_core::nn::{Activation, Attention, AttentionConfig, GroupNorm, GroupNormConfig, conv2d};
use canvas_core::{ConfigError, check};

/// Added to every group norm's variance; Burn's own default is ten times larger.
const EPSILON: f64 = 1e-6;

/// The sizes that both halves share.
#[derive(Clone, Copy)]
pub(crate) struct Sizes<'a> {
    /// Of each level, from the image inwards.
    pub channels: &'a [usize],
    /// Residual blocks of each level in the encoder.
    pub layers: usize,
    pub image_channels: usize,
    pub groups: usize,
    /// Whether the middles attend.
    pub attends: bool,
}

impl Sizes<'_> {
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("levels of channels", self.channels.len()))?;
        for &width in self.channels {
            check::positive(("channels", width))?;
            check::divides(("groups", self.groups), ("channels", width))?;
        }
        check::positive(("layers", self.layers))?;
        check::positive(("image_channels", self.image_channels))
    }

    /// Pixels of an image's side per latent of its side.
    pub fn downsampling(&self) -> usize {
        1 << self.channels.len().saturating_sub(1)
    }

    fn norm(&self, width: usize, device: &Device) -> GroupNorm {
        GroupNormConfig::new(self.groups, width).with_epsilon(EPSILON).init(device)
    }

    /// Channels of the innermost level.
    fn innermost(&self) -> usize {
        self.channels[self.channels.len() - 1]
    }
}

/// A layer that may be absent.
pub(crate) fn apply(conv: &Option<Conv2d>, x: Tensor<4>) -> Tensor<4> {
    match conv {
        Some(conv) => conv2d(conv, x),
        None => x,
    }
}

/// A 3x3 convolution that keeps the size.
pub(crate) fn conv3(from: usize, to: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
}

/// A 3x3 convolution that halves an even size: padded below and to the right only.
pub(crate) fn halve(width: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([width, width], [3, 3])
        .with_stride([2, 2])
        .with_padding(PaddingConfig2d::Explicit(0, 0, 1, 1))
        .init(device)
}

/// Twice as high and wide, each number four times.
pub(crate) fn doubled(x: Tensor<4>) -> Tensor<4> {
    let config = Interpolate2dConfig::new().with_scale_factor(Some([2.0, 2.0]));
    config.with_mode(InterpolateMode::Nearest).init().forward(x)
}

/// Two convolutions, each after a norm and SiLU, and the way around them.
#[derive(Module, Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResBlock {
    fn new(sizes: &Sizes<'_>, from: usize, to: usize, device: &Device) -> Self {
        Self {
            norm1: sizes.norm(from, device),
            conv1: conv3(from, to, device),
            norm2: sizes.norm(to, device),
            conv2: conv3(to, to, device),
            shortcut: (from != to).then(|| Conv2dConfig::new([from, to], [1, 1]).init(device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = conv2d(&self.conv1, self.norm1.forward_then(Activation::Silu, x.clone())); // [B, D, H, W]
        let hidden = conv2d(&self.conv2, self.norm2.forward_then(Activation::Silu, hidden)); // [B, D, H, W]
        apply(&self.shortcut, x) + hidden // [B, D, H, W]
    }
}

/// The innermost level: attention over all places, if there is any, between two residual blocks.
#[derive(Module, Debug)]
struct Middle {
    first: ResBlock,
    norm: Option<GroupNorm>,
    attention: Option<Attention>,
    second: ResBlock,
}

impl Middle {
    fn new(sizes: &Sizes<'_>, device: &Device) -> Self {
        let width = sizes.innermost();
        Self {
            first: ResBlock::new(sizes, width, width, device),
            norm: sizes.attends.then(|| sizes.norm(width, device)),
            attention: sizes.attends.then(|| AttentionConfig::new(width, 1).init(device)),
            second: ResBlock::new(sizes, width, width, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.first.forward(x); // [B, C, h, w]
        if let (Some(norm), Some(attention)) = (&self.norm, &self.attention) {
            let shape = x.dims();
            let tokens: Tensor<3> = norm.forward(x.clone()).flatten(2, 3).swap_dims(1, 2); // [B, h w, C]
            let mixed = attention.forward(tokens.clone(), tokens, None); // [B, h w, C]
            x = x + mixed.swap_dims(1, 2).reshape(shape); // [B, C, h, w]
        }
        self.second.forward(x) // [B, C, h, w]
    }
}

/// One level: its blocks, and the convolution that changes the size, if any.
#[derive(Module, Debug)]
struct Stage {
    blocks: Vec<ResBlock>,
    resize: Option<Conv2d>,
}

impl Stage {
    fn new(
        sizes: &Sizes<'_>,
        widths: [usize; 2],
        count: usize,
        resize: Option<Conv2d>,
        device: &Device,
    ) -> Self {
        let [from, to] = widths;
        let width_before = |i| if i == 0 { from } else { to };
        Self {
            blocks: (0..count).map(|i| ResBlock::new(sizes, width_before(i), to, device)).collect(),
            resize,
        }
    }

    fn blocks(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// Images to the numbers of latents: a [`VqModel`](crate::VqModel)'s latents, or moments, twice as many.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    input: Conv2d,
    stages: Vec<Stage>,
    middle: Middle,
    norm: GroupNorm,
    output: Conv2d,
}

impl Encoder {
    /// With so many channels out.
    pub(crate) fn new(sizes: &Sizes<'_>, output: usize, device: &Device) -> Self {
        let mut from = sizes.channels[0];
        let mut stages = Vec::new();
        for (level, &width) in sizes.channels.iter().enumerate() {
            let resize = (level + 1 < sizes.channels.len()).then(|| halve(width, device));
            stages.push(Stage::new(sizes, [from, width], sizes.layers, resize, device));
            from = width;
        }
        Self {
            input: conv3(sizes.image_channels, sizes.channels[0], device),
            stages,
            middle: Middle::new(sizes, device),
            norm: sizes.norm(from, device),
            output: conv3(from, output, device),
        }
    }

    /// # Shapes
    /// - `images`: `[B, C, H, W]` in `[-1, 1]`
    /// - output: `[B, Z, H / f, W / f]` with the downsampling `f` and `Z` channels out
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = conv2d(&self.input, images); // [B, C0, H, W]
        let x = self.stages.iter().fold(x, |x, stage| apply(&stage.resize, stage.blocks(x))); // [B, C, h, w]
        let x = self.middle.forward(x); // [B, C, h, w]
        conv2d(&self.output, self.norm.forward_then(Activation::Silu, x)) // [B, Z, h, w]
    }
}

/// Latents to images.
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    input: Conv2d,
    middle: Middle,
    stages: Vec<Stage>,
    norm: GroupNorm,
    output: Conv2d,
}

impl Decoder {
    /// With so many channels in.
    pub(crate) fn new(sizes: &Sizes<'_>, input: usize, device: &Device) -> Self {
        let mut from = sizes.innermost();
        let mut stages = Vec::new();
        for (level, &width) in sizes.channels.iter().enumerate().rev() {
            let resize = (level > 0).then(|| conv3(width, width, device));
            stages.push(Stage::new(sizes, [from, width], sizes.layers + 1, resize, device));
            from = width;
        }
        Self {
            input: conv3(input, sizes.innermost(), device),
            middle: Middle::new(sizes, device),
            stages,
            norm: sizes.norm(from, device),
            output: conv3(from, sizes.image_channels, device),
        }
    }

    /// # Shapes
    /// - `latents`: `[B, Z, h, w]`
    /// - output: `[B, C, f h, f w]`, about `[-1, 1]`, with the downsampling `f`
    pub(crate) fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let mut x = self.middle.forward(conv2d(&self.input, latents)); // [B, C, h, w]
        for stage in &self.stages {
            x = stage.blocks(x);
            if let Some(conv) = &stage.resize {
                x = conv2d(conv, doubled(x)); // [B, C, 2h, 2w]
            }
        }
        conv2d(&self.output, self.norm.forward_then(Activation::Silu, x)) // [B, C, H, W]
    }
}
