//! U-ViT: a plain vision transformer for which time, condition and image are all tokens, with a UNet's long skips.
//!
//! Bao et al., "All are Worth Words: A ViT Backbone for Diffusion Models", 2022, Figure 1 and Table 4,
//! <https://arxiv.org/abs/2209.12152>.
//!
//! Blocks are those of ViT, nothing modulates them. Each block of the second half joins its input with the output of its
//! counterpart in the first (side by side, then a linear layer). Positions are learned, and the last layer is a
//! convolution over the image.
//!
//! The condition is a class's token, the tokens of a text, or none. The authors feed CLIP's 77 tokens, padding included; so
//! does this network by default, and [`hide_padding`](UVitConfig::hide_padding) hides padding from attention.
//!
//! # Differs from the paper
//! A text may be shorter than the table of positions, of which it then reads the first rows.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `T` tokens of the condition, `W` width.

mod published;

use crate::{EmbedTokens, NoTokens, patches};
use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::normal_linear;
use canvas_core::nn::{Activation, LayerNorm, LayerNormConfig, Mlp, MlpConfig, Qkv, QkvConfig, Scores};
use canvas_core::nn::{attend_jointly, conv2d, dense, patch, sinusoidal};
use canvas_core::{Backbone, Condition, ConfigError, check, trace};

/// Sizes of a [`UVit`].
#[derive(Config, Debug)]
pub struct UVitConfig {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Model width, even; `heads` must divide it.
    pub width: usize,
    /// Blocks beside the middle one, half of them with a skip; even. The paper counts the middle one, too.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch; must divide both sides.
    #[config(default = 2)]
    pub patch: usize,
    /// Channels in and out.
    #[config(default = 4)]
    pub channels: usize,
    /// Labels: classes, and one for "no class" if there is one.
    #[config(default = 1001)]
    pub labels: usize,
    /// Whether a convolution over the image ends the network; the paper's huge one has none.
    #[config(default = true)]
    pub conv: bool,
    /// Whether padding of a text is hidden from attention; the paper's is not.
    #[config(default = false)]
    pub hide_padding: bool,
}

impl UVitConfig {
    /// U-ViT-S/2, as for CIFAR-10: [`init_unconditional`](Self::init_unconditional), `side` 32, 3 channels.
    pub fn small(side: usize) -> Self {
        Self::new([side, side], 512, 12, 8)
    }

    /// U-ViT-M/4, as for ImageNet at 64 px: 3 channels, 1000 labels.
    pub fn mid(side: usize) -> Self {
        Self::new([side, side], 768, 16, 12).with_patch(4)
    }

    /// U-ViT-L/2, as for the latents of ImageNet at 256 px: `side` 32.
    pub fn large(side: usize) -> Self {
        Self::new([side, side], 1024, 20, 16)
    }

    /// U-ViT-H/2, as for the latents of ImageNet at 256 px: `side` 32.
    pub fn huge(side: usize) -> Self {
        Self::new([side, side], 1152, 28, 16).with_conv(false)
    }

    /// # Errors
    /// Names the two sizes that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("channels", self.channels))?;
        check::divides(("heads", self.heads), ("width", self.width))?;
        check::divides(("2, of the time's features,", 2), ("width", self.width))?;
        check::divides(("2, the halves that skips join,", 2), ("depth", self.depth))?;
        check::divides(("patch", self.patch), ("height", self.size[0]))?;
        check::divides(("patch", self.patch), ("width of the input", self.size[1]))
    }

    /// A network that is told classes, drawn as the authors': normal weights of standard deviation 0.02.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> UVit {
        self.init_with(EmbeddingConfig::new(self.labels, self.width).init(device), 1, device)
    }

    /// A network that reads texts of up to `length` tokens of width `context`: 77 of 768 in the paper.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_text(&self, context: usize, length: usize, device: &Device) -> UVit<Linear> {
        self.init_with(normal_linear(0.02, context, self.width, device), length, device)
    }

    /// A network without conditions.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_unconditional(&self, device: &Device) -> UVit<NoTokens> {
        self.init_with(NoTokens::new(self.width), 0, device)
    }

    /// A network whose conditions this layer reads, as up to `length` tokens.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_with<E: EmbedTokens>(&self, cond: E, length: usize, device: &Device) -> UVit<E> {
        self.validate().unwrap_or_else(|error| panic!("UVitConfig: {error}"));
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let (token, small) =
            (self.channels * self.patch * self.patch, Initializer::Normal { mean: 0.0, std: 0.02 });
        let block = |skips| UVitBlock::new(self.width, self.heads, skips, device);
        let conv =
            Conv2dConfig::new([self.channels; 2], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        UVit {
            embed: Conv2dConfig::new([self.channels, self.width], [self.patch; 2])
                .with_stride([self.patch; 2])
                .init(device),
            cond,
            position: small.init([1, 1 + length + rows * columns, self.width], device),
            down: (0..self.depth / 2).map(|_| block(false)).collect(),
            middle: block(false),
            up: (0..self.depth / 2).map(|_| block(true)).collect(),
            norm: LayerNormConfig::new(self.width).init(device),
            unembed: normal_linear(0.02, self.width, token, device),
            conv: self.conv.then(|| conv.init(device)),
            length,
            hide_padding: self.hide_padding,
            patch: self.patch,
            input: [self.channels, self.size[0], self.size[1]],
        }
    }
}

/// A vision transformer with long skips, told a [`Class`](canvas_core::Class), [`Text`](canvas_core::Text), or nothing.
#[derive(Module, Debug)]
pub struct UVit<E: Module = Embedding> {
    embed: Conv2d,
    cond: E,
    position: Param<Tensor<3>>, // of all tokens, [1, T + 1 + N, W]
    down: Vec<UVitBlock>,
    middle: UVitBlock,
    up: Vec<UVitBlock>,
    norm: LayerNorm,
    unembed: Linear,
    conv: Option<Conv2d>,
    length: usize,
    hide_padding: bool,
    patch: usize,
    #[module(skip)]
    input: [usize; 3],
}

impl<E: EmbedTokens> UVit<E> {
    /// Time and condition before the patches, each with its position: `[B, 1 + T + N, W]`.
    fn sequence(&self, image: Tensor<3>, time: Tensor<1>, cond: &E::Cond) -> Tensor<3> {
        let ([_, count, width], device, dtype) = (image.dims(), image.device(), image.dtype());
        // Not trained: the features themselves, of steps out of 1000.
        let time = sinusoidal(time * 1000.0, width, 10000.0).cast(dtype).unsqueeze_dim::<3>(1); // [B, 1, W]
        let read = || self.cond.tokens(cond, &device);
        let read = keep(|| "tokens".into(), Constant::Condition, read); // [B, T, W]
        let (length, limit) = (read.dims()[1], self.length);
        assert!(length <= limit, "{length} tokens of the condition, the U-ViT has positions for {limit}");
        let before = if E::BEFORE_TIME { vec![read, time] } else { vec![time, read] };
        let position = self.position.val();
        let parts = [position.clone().narrow(1, 0, 1 + length), position.narrow(1, 1 + limit, count)];
        Tensor::cat([before, vec![image]].concat(), 1) + Tensor::cat(parts.to_vec(), 1)
    }

    /// What attention may see: everything, or all but padding.
    fn scores(&self, cond: &E::Cond, count: usize, device: &Device) -> Scores {
        let mask = self.cond.mask(cond).filter(|_| self.hide_padding);
        Scores::seen(mask.map(|mask| {
            let all = |count| Tensor::<2, Int>::ones([mask.dims()[0], count], device).bool();
            let parts = if E::BEFORE_TIME {
                vec![mask.clone(), all(1 + count)]
            } else {
                vec![all(1), mask.clone(), all(count)]
            };
            Tensor::cat(parts, 1)
        }))
    }
}

impl<E: EmbedTokens> Backbone<4> for UVit<E> {
    type Cond = E::Cond;

    /// # Panics
    /// If `x` is not of the configured size, times or conditions are not one a sample, or a text has more tokens than
    /// there are positions.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        patches::check_input("U-ViT", self.input, &x, &time, cond.batch());
        let ([_, _, height, width], device) = (x.dims(), x.device());
        let image = patches::tokens(&self.embed, x); // [B, N, W]
        let count = image.dims()[1];
        let scores = self.scores(cond, count, &device);
        let mut h = self.sequence(image, time, cond); // [B, 1 + T + N, W]
        let mut skips = Vec::with_capacity(self.down.len());
        for (i, block) in self.down.iter().enumerate() {
            h = trace::block(|| format!("down.{i}"), h, |h| block.forward(h, &scores));
            skips.push(h.clone());
        }
        h = trace::block(|| "middle".into(), h, |h| self.middle.forward(h, &scores));
        for (i, (block, skip)) in self.up.iter().zip(skips.into_iter().rev()).enumerate() {
            h = trace::block(|| format!("up.{i}"), h, |h| block.forward(block.joined(h, skip), &scores));
        }
        let before = h.dims()[1] - count;
        let h = dense(&self.unembed, self.norm.forward(h.narrow(1, before, count))); // [B, N, C p p]
        let image = patch::join_channels_last(h, self.patch, height, width); // [B, C, H, S]
        match &self.conv {
            Some(conv) => conv2d(conv, image),
            None => image,
        }
    }
}

/// A block of ViT, of the second half with a layer that takes in the skip.
#[derive(Module, Debug)]
struct UVitBlock {
    skip: Option<Linear>,
    norm_attention: LayerNorm,
    qkv: Qkv,
    output: Linear,
    norm_mlp: LayerNorm,
    mlp: Mlp,
}

impl UVitBlock {
    fn new(width: usize, heads: usize, skips: bool, device: &Device) -> Self {
        let small = |from, to| normal_linear(0.02, from, to, device);
        let plain = || Linear { bias: None, ..small(width, width) };
        let mut qkv = QkvConfig::new(width, heads, width / heads).with_bias(false).init(device);
        (qkv.query, qkv.key, qkv.value) = (plain(), plain(), plain());
        let mut mlp = MlpConfig::new(width, 4 * width).with_activation(Activation::Gelu).init(device);
        (mlp.up, mlp.down) = (small(width, 4 * width), small(4 * width, width));
        Self {
            skip: skips.then(|| small(2 * width, width)),
            norm_attention: LayerNormConfig::new(width).init(device),
            qkv,
            output: small(width, width),
            norm_mlp: LayerNormConfig::new(width).init(device),
            mlp,
        }
    }

    /// The input with its counterpart's output, side by side and back to the width.
    fn joined(&self, h: Tensor<3>, skip: Tensor<3>) -> Tensor<3> {
        match &self.skip {
            Some(layer) => {
                let (found, expected) = (h.dims(), skip.dims());
                assert_eq!(found, expected, "a block of U-ViT and what it reads of its counterpart");
                dense(layer, Tensor::cat(vec![h, skip], 2))
            }
            None => h,
        }
    }

    /// `[B, M, W]` to `[B, M, W]`.
    fn forward(&self, h: Tensor<3>, scores: &Scores) -> Tensor<3> {
        let a = self.norm_attention.forward(h.clone());
        let own = trace::scope(
            || "attention".into(),
            || {
                let [read] = attend_jointly([self.qkv.forward(a, None)], scores);
                dense(&self.output, read)
            },
        );
        let h = h + own;
        h.clone() + self.mlp.forward(self.norm_mlp.forward(h))
    }
}
