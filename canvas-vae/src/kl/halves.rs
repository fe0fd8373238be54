//! The two halves of an [`AutoencoderKl`](super::AutoencoderKl): its encoder, its decoder, and their blocks.

use super::AutoencoderKlConfig;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::interpolate::{Interpolate2d, Interpolate2dConfig, InterpolateMode};
use burn::nn::{GroupNorm, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::silu;
use canvas_core::nn::{Attention, AttentionConfig};

/// A layer that may be absent.
pub(super) fn apply(conv: &Option<Conv2d>, x: Tensor<4>) -> Tensor<4> {
    match conv {
        Some(conv) => conv.forward(x),
        None => x,
    }
}

/// A 3x3 convolution that keeps the size.
fn conv3(from: usize, to: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
}

/// A 3x3 convolution that halves an even size: padded below and to the right only.
fn halve(width: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([width, width], [3, 3])
        .with_stride([2, 2])
        .with_padding(PaddingConfig2d::Explicit(0, 0, 1, 1))
        .init(device)
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
    fn new(config: &AutoencoderKlConfig, from: usize, to: usize, device: &Device) -> Self {
        Self {
            norm1: config.norm(from, device),
            conv1: conv3(from, to, device),
            norm2: config.norm(to, device),
            conv2: conv3(to, to, device),
            shortcut: (from != to).then(|| Conv2dConfig::new([from, to], [1, 1]).init(device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = self.conv1.forward(silu(self.norm1.forward(x.clone()))); // [B, D, H, W]
        let hidden = self.conv2.forward(silu(self.norm2.forward(hidden))); // [B, D, H, W]
        apply(&self.shortcut, x) + hidden // [B, D, H, W]
    }
}

/// The innermost level: attention over all places, between two residual blocks.
#[derive(Module, Debug)]
struct Middle {
    first: ResBlock,
    norm: GroupNorm,
    attention: Attention,
    second: ResBlock,
}

impl Middle {
    fn new(config: &AutoencoderKlConfig, device: &Device) -> Self {
        let width = config.innermost();
        Self {
            first: ResBlock::new(config, width, width, device),
            norm: config.norm(width, device),
            attention: AttentionConfig::new(width, 1).init(device),
            second: ResBlock::new(config, width, width, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.first.forward(x); // [B, C, h, w]
        let shape = x.dims();
        let tokens: Tensor<3> = self.norm.forward(x.clone()).flatten(2, 3).swap_dims(1, 2); // [B, h w, C]
        let mixed = self.attention.forward(tokens.clone(), tokens, None); // [B, h w, C]
        self.second.forward(x + mixed.swap_dims(1, 2).reshape(shape)) // [B, C, h, w]
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
        config: &AutoencoderKlConfig,
        widths: [usize; 2],
        count: usize,
        resize: Option<Conv2d>,
        device: &Device,
    ) -> Self {
        let [from, to] = widths;
        let width_before = |i| if i == 0 { from } else { to };
        Self {
            blocks: (0..count).map(|i| ResBlock::new(config, width_before(i), to, device)).collect(),
            resize,
        }
    }

    fn blocks(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// Images to moments.
#[derive(Module, Debug)]
pub(super) struct KlEncoder {
    input: Conv2d,
    stages: Vec<Stage>,
    middle: Middle,
    norm: GroupNorm,
    output: Conv2d,
}

impl KlEncoder {
    pub(super) fn new(config: &AutoencoderKlConfig, device: &Device) -> Self {
        let mut from = config.channels[0];
        let mut stages = Vec::new();
        for (level, &width) in config.channels.iter().enumerate() {
            let resize = (level + 1 < config.channels.len()).then(|| halve(width, device));
            stages.push(Stage::new(config, [from, width], config.layers, resize, device));
            from = width;
        }
        Self {
            input: conv3(config.image_channels, config.channels[0], device),
            stages,
            middle: Middle::new(config, device),
            norm: config.norm(from, device),
            output: conv3(from, 2 * config.latent, device),
        }
    }

    /// # Shapes
    /// - `images`: `[B, C, H, W]` in `[-1, 1]`
    /// - output: `[B, 2 latent, H / f, W / f]` with the downsampling `f`: means, then log variances
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = self.input.forward(images); // [B, C0, H, W]
        let x = self.stages.iter().fold(x, |x, stage| apply(&stage.resize, stage.blocks(x))); // [B, C, h, w]
        let x = self.middle.forward(x); // [B, C, h, w]
        self.output.forward(silu(self.norm.forward(x))) // [B, 2 latent, h, w]
    }
}

/// Latents to images.
#[derive(Module, Debug)]
pub(super) struct KlDecoder {
    input: Conv2d,
    middle: Middle,
    stages: Vec<Stage>,
    double: Interpolate2d,
    norm: GroupNorm,
    output: Conv2d,
}

impl KlDecoder {
    pub(super) fn new(config: &AutoencoderKlConfig, device: &Device) -> Self {
        let mut from = config.innermost();
        let mut stages = Vec::new();
        for (level, &width) in config.channels.iter().enumerate().rev() {
            let resize = (level > 0).then(|| conv3(width, width, device));
            stages.push(Stage::new(config, [from, width], config.layers + 1, resize, device));
            from = width;
        }
        Self {
            input: conv3(config.latent, config.innermost(), device),
            middle: Middle::new(config, device),
            stages,
            double: Interpolate2dConfig::new()
                .with_scale_factor(Some([2.0, 2.0]))
                .with_mode(InterpolateMode::Nearest)
                .init(),
            norm: config.norm(from, device),
            output: conv3(from, config.image_channels, device),
        }
    }

    /// # Shapes
    /// - `latents`: `[B, latent, h, w]`
    /// - output: `[B, C, f h, f w]`, about `[-1, 1]`, with the downsampling `f`
    pub(super) fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let mut x = self.middle.forward(self.input.forward(latents)); // [B, C, h, w]
        for stage in &self.stages {
            x = stage.blocks(x);
            if let Some(conv) = &stage.resize {
                x = conv.forward(self.double.forward(x)); // [B, C, 2h, 2w]
            }
        }
        self.output.forward(silu(self.norm.forward(x))) // [B, 3, H, W]
    }
}
