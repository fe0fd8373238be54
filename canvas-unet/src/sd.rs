//! The text-conditioned UNet of latent diffusion and Stable Diffusion 1.x.
//!
//! Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2021,
//! <https://arxiv.org/abs/2112.10752>, section 3.3 and appendix E; the sizes of [`UnetConfig::sd15`] are those
//! of the released Stable Diffusion 1.5 weights.
//!
//! # Differs from the original
//! - Time is in `[0, 1]` and multiplied by [`UnetConfig::time_scale`]; the original counts steps to 1000.
//! - Padding tokens are masked where the text says so; the original attends to all 77 tokens. A mask of all
//!   true is the original.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `T` text tokens, `K` context width,
//! `P` pooled width, `E` embedding width.

use crate::blocks::{ResBlock, ResBlockConfig, SpatialTransformer, SpatialTransformerConfig};
use crate::blocks::{conv3, double, downsample, zero_conv3};
use burn::nn::conv::Conv2d;
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::silu;
use canvas_core::nn::{Activation, TimeEmbed, TimeEmbedConfig};
use canvas_core::{Backbone, ConfigError, Text, check, trace};

/// Sizes of a [`Unet`].
///
/// A level is a resolution: the first is the input's, each next one half of it. The three lists have one entry
/// a level.
#[derive(Config, Debug)]
pub struct UnetConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Width of the text tokens.
    pub context_width: usize,
    /// Channels of each level; `norm_groups` must divide them.
    pub channels: Vec<usize>,
    /// Transformer blocks after each residual block of a level; 0 where a level does not attend.
    pub depth: Vec<usize>,
    /// Number of attention heads of each level; they must divide its channels where it attends.
    pub heads: Vec<usize>,
    /// Channels of the output; those of the input when not given.
    pub out_channels: Option<usize>,
    /// Residual blocks of each level on the way down; on the way up there is one more.
    #[config(default = 2)]
    pub blocks: usize,
    /// Transformer blocks in the middle, between its two residual blocks; 0 for none.
    #[config(default = 1)]
    pub middle_depth: usize,
    /// Groups of every group norm.
    #[config(default = 32)]
    pub norm_groups: usize,
    /// Width of pooled prompt vectors; when given, their projection is added to the time embedding.
    pub pooled_width: Option<usize>,
    /// Factor on the time before its sinusoidal features: 1000 for times in `[0, 1]`, 1 for step indices.
    #[config(default = 1000.0)]
    pub time_scale: f64,
    /// Of the residual blocks and the output. The paper's SiLU is slow on Burn's CPU backend; ReLU is not.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// Of the feed-forward gates. The paper's GELU is as slow there.
    #[config(default = "Activation::Gelu")]
    pub gate: Activation,
}

impl UnetConfig {
    /// Stable Diffusion 1.5: 860 million parameters, for latents `[4, 64, 64]` and CLIP ViT-L/14 text.
    pub fn sd15() -> Self {
        Self::new(4, 768, vec![320, 640, 1280, 1280], vec![1, 1, 1, 0], vec![8; 4])
    }

    /// Two levels for small latents such as `[C, 8, 8]`, to train on a CPU within minutes.
    ///
    /// ReLU stands for SiLU and GELU: Burn's CPU backend computes exponentials one at a time.
    pub fn small(in_channels: usize, context_width: usize) -> Self {
        Self::new(in_channels, context_width, vec![64, 128], vec![1, 1], vec![2, 4])
            .with_blocks(1)
            .with_norm_groups(16)
            .with_activation(Activation::Relu)
            .with_gate(Activation::Relu)
    }

    /// # Errors
    /// Names the two values that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let levels = self.channels.len();
        check::positive(("levels (entries of channels)", levels))?;
        for (name, found) in [("depth", self.depth.len()), ("heads", self.heads.len())] {
            if found != levels {
                return Err(ConfigError::new(format!(
                    "{name} has {found} entries, but channels has {levels}: one a level"
                )));
            }
        }
        check::positive(("in_channels", self.in_channels))?;
        check::positive(("out_channels", self.out_channels()))?;
        check::positive(("context_width", self.context_width))?;
        check::positive(("blocks", self.blocks))?;
        check::positive(("pooled_width", self.pooled_width.unwrap_or(1)))?;
        check::divides(
            ("2, of the sinusoidal time features,", 2),
            ("channels of level 0", self.channels[0]),
        )?;
        for level in 0..levels {
            let name = format!("channels of level {level}");
            let channels = (name.as_str(), self.channels[level]);
            check::positive(channels)?;
            check::divides(("norm_groups", self.norm_groups), channels)?;
            let attends = self.depth[level] > 0 || (level + 1 == levels && self.middle_depth > 0);
            if attends {
                check::divides((&format!("heads of level {level}"), self.heads[level]), channels)?;
            }
        }
        Ok(())
    }

    /// The output convolution and the last layer of every branch start at zero, as in the original code, so the
    /// first prediction is zero. Burn draws parameters on first use: call
    /// [`realise`](canvas_core::params::realise) before cloning.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Unet {
        self.validate().unwrap_or_else(|error| panic!("UnetConfig: {error}"));
        let first = self.channels[0];
        // What each step of the way down leaves for the way up, which takes them from the end.
        let mut skips = vec![first];
        let down = (0..self.channels.len()).map(|level| Down::new(self, level, &mut skips, device)).collect();
        let middle = Middle::new(self, device);
        let mut from = *self.channels.last().expect("validated");
        let up = (0..self.channels.len())
            .rev()
            .map(|level| Up::new(self, level, (&mut from, &mut skips), device))
            .collect();
        Unet {
            input: conv3(self.in_channels, first, device),
            time: TimeEmbedConfig::new(self.embedding())
                .with_features(first)
                .with_scale(self.time_scale)
                .init(device),
            pooled: self.pooled_width.map(|width| LinearConfig::new(width, self.embedding()).init(device)),
            down,
            middle,
            up,
            norm: GroupNormConfig::new(self.norm_groups, first).init(device),
            output: zero_conv3(first, self.out_channels(), device),
            in_channels: self.in_channels,
            context_width: self.context_width,
            activation: self.activation,
        }
    }

    fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Width of the time embedding.
    fn embedding(&self) -> usize {
        4 * self.channels[0]
    }

    fn res_block(&self, from: usize, to: usize, device: &Device) -> ResBlock {
        ResBlockConfig::new(from, to, self.embedding())
            .with_groups(self.norm_groups)
            .with_activation(self.activation)
            .init(device)
    }

    fn transformer(&self, level: usize, depth: usize, device: &Device) -> Option<SpatialTransformer> {
        let config =
            SpatialTransformerConfig::new(self.channels[level], self.heads[level], self.context_width)
                .with_depth(depth)
                .with_groups(self.norm_groups)
                .with_activation(self.gate);
        (depth > 0).then(|| config.init(device))
    }
}

/// The UNet: down through the levels, a middle, and up again, each step up reading what a step down left.
///
/// # Reference
/// Rombach et al., 2021, <https://arxiv.org/abs/2112.10752>.
#[derive(Module, Debug)]
pub struct Unet {
    input: Conv2d,
    time: TimeEmbed,
    pooled: Option<Linear>,
    down: Vec<Down>,
    middle: Middle,
    up: Vec<Up>,
    norm: GroupNorm,
    output: Conv2d,
    in_channels: usize,
    context_width: usize,
    #[module(skip)]
    activation: Activation,
}

impl Backbone<4> for Unet {
    type Cond = Text;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`; all levels but the last halve `H` and `S`
    /// - `time`: `[B]`; `text`: tokens `[B, T, K]`, mask `[B, T]`, pooled `[B, P]`
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If channels, height, width or the width of the tokens do not fit the configuration, or the batches differ.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, text: &Text) -> Tensor<4> {
        self.check_shapes(&x, &time, text);
        let embedding = self.embed(time, text); // [B, E]
        let mut h = self.input.forward(x); // [B, C0, H, S]
        let mut skips = vec![h.clone()];
        for (i, level) in self.down.iter().enumerate() {
            let run = || level.forward(h, &embedding, text, &mut skips); // [B, Ci, H / 2^i, S / 2^i]
            h = trace::tap(|| format!("down.{i}"), trace::scope(|| format!("down.{i}"), run));
        }
        h = trace::block(|| "middle".into(), h, |h| self.middle.forward(h, &embedding, text)); // [B, Cn, H / 2^n, S / 2^n]
        for (i, level) in self.up.iter().enumerate() {
            let run = || level.forward(h, &embedding, text, &mut skips); // [B, Ci, H / 2^(i-1), S / 2^(i-1)]
            h = trace::tap(|| format!("up.{i}"), trace::scope(|| format!("up.{i}"), run));
        }
        self.output.forward(self.activation.forward(self.norm.forward(h))) // [B, C, H, S]
    }
}

impl Unet {
    /// The embedding of time and, if configured, of the pooled prompt, ready for the blocks: `[B, E]`.
    fn embed(&self, time: Tensor<1>, text: &Text) -> Tensor<2> {
        let time = self.time.forward(time); // [B, E]
        match &self.pooled {
            Some(pooled) => silu(time + pooled.forward(text.pooled.clone())),
            None => silu(time),
        }
    }

    fn check_shapes(&self, x: &Tensor<4>, time: &Tensor<1>, text: &Text) {
        let [batch, channels, height, width] = x.dims();
        assert_eq!(
            channels, self.in_channels,
            "x has {channels} channels, the UNet takes {}",
            self.in_channels
        );
        let factor = 1 << (self.down.len() - 1);
        assert!(
            height.is_multiple_of(factor) && width.is_multiple_of(factor),
            "height ({height}) and width ({width}) must be multiples of {factor}: {} levels",
            self.down.len()
        );
        let [texts, _, context] = text.tokens.dims();
        assert_eq!(
            context, self.context_width,
            "tokens of width {context}, the UNet reads {}",
            self.context_width
        );
        let times = time.dims()[0];
        assert!(times == batch && texts == batch, "{times} times and {texts} texts for a batch of {batch}");
    }
}

/// One step down or up within a level: a residual block and, where the level attends, a transformer.
#[derive(Module, Debug)]
struct Stage {
    res: ResBlock,
    transformer: Option<SpatialTransformer>,
}

impl Stage {
    /// `h`: `[B, C, H, S]`, `embedding`: `[B, E]`, output: `[B, O, H, S]`.
    fn forward(&self, h: Tensor<4>, embedding: &Tensor<2>, text: &Text) -> Tensor<4> {
        let h = self.res.forward(h, embedding.clone()); // [B, O, H, S]
        match &self.transformer {
            Some(transformer) => trace::block(|| "transformer".into(), h, |h| transformer.forward(h, text)),
            None => h,
        }
    }
}

/// A level on the way down.
#[derive(Module, Debug)]
struct Down {
    stages: Vec<Stage>,
    downsample: Option<Conv2d>,
}

impl Down {
    /// Adds the channels of everything it will leave behind to `skips`.
    fn new(config: &UnetConfig, level: usize, skips: &mut Vec<usize>, device: &Device) -> Self {
        let channels = config.channels[level];
        let mut stage = || {
            let from = *skips.last().expect("starts with the input convolution's");
            skips.push(channels);
            Stage {
                res: config.res_block(from, channels, device),
                transformer: config.transformer(level, config.depth[level], device),
            }
        };
        let stages = (0..config.blocks).map(|_| stage()).collect();
        let last = level + 1 == config.channels.len();
        if !last {
            skips.push(channels);
        }
        Self { stages, downsample: (!last).then(|| downsample(channels, device)) }
    }

    /// `h`: `[B, C, H, S]`, output: `[B, O, H/2, S/2]`, in the last level `[B, O, H, S]`.
    fn forward(
        &self,
        mut h: Tensor<4>,
        embedding: &Tensor<2>,
        text: &Text,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, stage) in self.stages.iter().enumerate() {
            h = trace::scope(|| format!("stages.{i}"), || stage.forward(h, embedding, text)); // [B, O, H, S]
            skips.push(h.clone());
        }
        if let Some(downsample) = &self.downsample {
            h = downsample.forward(h); // [B, O, H/2, S/2]
            skips.push(h.clone());
        }
        h
    }
}

/// The lowest resolution: two residual blocks around a transformer.
#[derive(Module, Debug)]
struct Middle {
    first: Stage,
    second: ResBlock,
}

impl Middle {
    fn new(config: &UnetConfig, device: &Device) -> Self {
        let level = config.channels.len() - 1;
        let channels = config.channels[level];
        Self {
            first: Stage {
                res: config.res_block(channels, channels, device),
                transformer: config.transformer(level, config.middle_depth, device),
            },
            second: config.res_block(channels, channels, device),
        }
    }

    /// `[B, C, H, S]` to `[B, C, H, S]`.
    fn forward(&self, h: Tensor<4>, embedding: &Tensor<2>, text: &Text) -> Tensor<4> {
        let h = trace::scope(|| "first".into(), || self.first.forward(h, embedding, text));
        trace::block(|| "second".into(), h, |h| self.second.forward(h, embedding.clone()))
    }
}

/// A level on the way up.
#[derive(Module, Debug)]
struct Up {
    stages: Vec<Stage>,
    upsample: Option<Conv2d>,
}

impl Up {
    /// Takes the channels it will read from the end of `skips`, and leaves in `from` those it puts out.
    fn new(
        config: &UnetConfig,
        level: usize,
        (from, skips): (&mut usize, &mut Vec<usize>),
        device: &Device,
    ) -> Self {
        let channels = config.channels[level];
        let mut stage = || {
            let joined = *from + skips.pop().expect("one for each block up");
            *from = channels;
            Stage {
                res: config.res_block(joined, channels, device),
                transformer: config.transformer(level, config.depth[level], device),
            }
        };
        let stages = (0..=config.blocks).map(|_| stage()).collect();
        Self { stages, upsample: (level > 0).then(|| conv3(channels, channels, device)) }
    }

    /// `h`: `[B, C, H, S]`, output: `[B, O, 2 H, 2 S]`, in the first level `[B, O, H, S]`.
    fn forward(
        &self,
        mut h: Tensor<4>,
        embedding: &Tensor<2>,
        text: &Text,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, stage) in self.stages.iter().enumerate() {
            let joined = Tensor::cat(vec![h, skips.pop().expect("one for each block up")], 1);
            h = trace::scope(|| format!("stages.{i}"), || stage.forward(joined, embedding, text)); // [B, O, H, S]
        }
        match &self.upsample {
            Some(conv) => conv.forward(double(h)), // [B, O, 2 H, 2 S]
            None => h,
        }
    }
}
