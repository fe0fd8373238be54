//! The UNet of DDPM, for pixels or latents without text; [`Adm`](crate::Adm) is built on it.
//!
//! Ho et al., "Denoising Diffusion Probabilistic Models", 2020, appendix B, <https://arxiv.org/abs/2006.11239>.
//!
//! # Differs from the original
//! - Time is in `[0, 1]` and multiplied by [`DdpmConfig::time_scale`]; the original counts steps to 1000.
//! - No dropout.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `E` embedding width.

mod levels;

use crate::blocks::{
    ImageAttention, ImageAttentionConfig, ResBlock, ResBlockConfig, Resize, conv3, zero_conv3,
};
use burn::nn::conv::Conv2d;
use burn::prelude::*;
use canvas_core::nn::{Activation, GroupNorm, GroupNormConfig, TimeEmbed, TimeEmbedConfig, conv2d, linear};
use canvas_core::ops::silu;
use canvas_core::{Backbone, ConfigError, Unconditional, check, trace};
use levels::{Down, Middle, Stage, Up};
use serde::{Deserialize, Serialize};

/// How levels change the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// Down by a convolution padded below and to the right, as DDPM; up by doubling and a convolution.
    After,
    /// Down by a convolution padded on every side; up as above.
    Around,
    /// Both by a residual block that resizes, as ADM.
    Residual,
}

/// Sizes of a [`Ddpm`].
///
/// A level is a resolution: the first is the input's, each next one half of it. The lists have one entry a level.
#[derive(Config, Debug)]
pub struct DdpmConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of each level; `norm_groups` must divide them.
    pub channels: Vec<usize>,
    /// Which levels attend. The middle always does.
    pub attends: Vec<bool>,
    /// Channels of the output; those of the input when not given, twice as many for a learned variance.
    pub out_channels: Option<usize>,
    /// Channels of an attention head, which must divide those of a level that attends; one head when not given.
    pub head_width: Option<usize>,
    /// Residual blocks of each level on the way down; on the way up there is one more.
    #[config(default = 2)]
    pub blocks: usize,
    /// Groups of every group norm.
    #[config(default = 32)]
    pub norm_groups: usize,
    /// Of every group norm. DDPM's is 1e-6.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether the time scales and shifts norms, as in ADM, or is added before them.
    #[config(default = false)]
    pub scale_shift: bool,
    /// How levels change the resolution.
    #[config(default = "Resample::Around")]
    pub resample: Resample,
    /// DDPM's features of the time: sines first, the slowest at exactly 1/10000. Others have cosines first, and a
    /// slowest just above.
    #[config(default = false)]
    pub ddpm_time: bool,
    /// Factor on the time before its sinusoidal features: 1000 for times in `[0, 1]`, 1 for step indices.
    #[config(default = 1000.0)]
    pub time_scale: f64,
    /// Of the residual blocks and the output.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
}

impl DdpmConfig {
    /// DDPM for CIFAR-10: 35,746,307 parameters, for images `[3, 32, 32]`.
    pub fn cifar10() -> Self {
        Self::new(3, vec![128, 256, 256, 256], vec![false, true, false, false]).original()
    }

    /// DDPM for 256x256 images (LSUN, CelebA-HQ): 113,673,219 parameters.
    pub fn large() -> Self {
        let attends = vec![false, false, false, false, true, false];
        Self::new(3, vec![128, 128, 256, 256, 512, 512], attends).original()
    }

    /// The choices of the paper's code.
    fn original(self) -> Self {
        self.with_epsilon(1e-6).with_resample(Resample::After).with_ddpm_time(true)
    }

    /// # Errors
    /// Names the two values that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let levels = self.channels.len();
        check::positive(("levels (entries of channels)", levels))?;
        if self.attends.len() != levels {
            let found = self.attends.len();
            let message = format!("attends has {found} entries, but channels has {levels}: one a level");
            return Err(ConfigError::new(message));
        }
        check::positive(("in_channels", self.in_channels))?;
        check::positive(("out_channels", self.out_channels.unwrap_or(1)))?;
        check::positive(("blocks", self.blocks))?;
        let first = ("channels of level 0", self.channels[0]);
        check::divides(("2, of the sinusoidal time features,", 2), first)?;
        if self.ddpm_time && self.channels[0] < 4 {
            return Err(ConfigError::new(format!(
                "ddpm_time needs 4 channels at level 0, found {}",
                first.1
            )));
        }
        for (level, &channels) in self.channels.iter().enumerate() {
            let name = format!("channels of level {level}");
            check::positive((&name, channels))?;
            check::divides(("norm_groups", self.norm_groups), (&name, channels))?;
            if self.attends[level] || level + 1 == levels {
                check::divides(("head_width", self.head_width.unwrap_or(channels)), (&name, channels))?;
            }
        }
        Ok(())
    }

    /// The output convolution and the last layer of every branch start at zero, as in the original code. Burn draws
    /// parameters on first use: call [`realise`](canvas_core::params::realise) before cloning.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Ddpm {
        self.validate().unwrap_or_else(|error| panic!("DdpmConfig: {error}"));
        let (first, levels) = (self.channels[0], self.channels.len());
        let mut skips = vec![first];
        let down = (0..levels).map(|level| Down::new(self, level, &mut skips, device)).collect();
        let middle = Middle::new(self, device);
        let mut from = self.channels[levels - 1];
        let up =
            (0..levels).rev().map(|level| Up::new(self, level, (&mut from, &mut skips), device)).collect();
        let norm = GroupNormConfig::new(self.norm_groups, first).with_epsilon(self.epsilon);
        Ddpm {
            input: conv3(self.in_channels, first, device),
            time: TimeEmbedConfig::new(self.embedding()).with_features(first).init(device),
            down,
            middle,
            up,
            norm: norm.init(device),
            output: zero_conv3(first, self.out_channels.unwrap_or(self.in_channels), device),
            in_channels: self.in_channels,
            ddpm_time: self.ddpm_time,
            time_scale: self.time_scale,
            activation: self.activation,
        }
    }

    /// Width of the time embedding.
    pub(crate) fn embedding(&self) -> usize {
        4 * self.channels[0]
    }

    fn res_block(&self, from: usize, to: usize, resize: Resize, device: &Device) -> ResBlock {
        ResBlockConfig::new(from, to, self.embedding())
            .with_groups(self.norm_groups)
            .with_activation(self.activation)
            .with_epsilon(self.epsilon)
            .with_scale_shift(self.scale_shift)
            .with_resize(resize)
            .init(device)
    }

    fn attention(&self, channels: usize, device: &Device) -> ImageAttention {
        ImageAttentionConfig::new(channels, channels / self.head_width.unwrap_or(channels))
            .with_groups(self.norm_groups)
            .with_epsilon(self.epsilon)
            .init(device)
    }

    fn stage(&self, from: usize, level: usize, device: &Device) -> Stage {
        let channels = self.channels[level];
        Stage {
            res: self.res_block(from, channels, Resize::Keep, device),
            attention: self.attends[level].then(|| self.attention(channels, device)),
        }
    }

    /// A change of size in a level, if it is a residual block.
    fn resize(&self, channels: usize, resize: Resize, device: &Device) -> Option<ResBlock> {
        let residual = self.resample == Resample::Residual;
        residual.then(|| self.res_block(channels, channels, resize, device))
    }
}

/// The UNet of DDPM: down through the levels, a middle, and up again.
///
/// # Reference
/// Ho et al., 2020, <https://arxiv.org/abs/2006.11239>.
#[derive(Module, Debug)]
pub struct Ddpm {
    input: Conv2d,
    time: TimeEmbed,
    down: Vec<Down>,
    middle: Middle,
    up: Vec<Up>,
    norm: GroupNorm,
    output: Conv2d,
    in_channels: usize,
    ddpm_time: bool,
    time_scale: f64,
    #[module(skip)]
    activation: Activation,
}

impl Backbone<4> for Ddpm {
    type Cond = Unconditional;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`; all levels but the last halve `H` and `S`
    /// - `time`: `[B]`
    /// - output: `[B, C, H, S]`, or with the configured number of channels
    ///
    /// # Panics
    /// If channels, height or width do not fit the configuration, or the batches differ.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
        self.run(x, time, None)
    }
}

impl Ddpm {
    /// The network with something added to the time embedding, `[B, E]`: a class, for example.
    ///
    /// # Shapes
    /// As [`forward`](Backbone::forward).
    ///
    /// # Panics
    /// As [`forward`](Backbone::forward).
    pub fn run(&self, x: Tensor<4>, time: Tensor<1>, added: Option<Tensor<2>>) -> Tensor<4> {
        self.check_shapes(&x, &time);
        let embedding = self.embed(time); // [B, E]
        let embedding = silu(added.map_or(embedding.clone(), |added| embedding + added));
        let embedding = trace::tap(|| "embedding".into(), embedding);
        let mut h = conv2d(&self.input, x); // [B, C0, H, S]
        let mut skips = vec![h.clone()];
        for (i, level) in self.down.iter().enumerate() {
            let run = || level.forward(h, &embedding, &mut skips); // [B, Ci, H / 2^i, S / 2^i]
            h = trace::part(|| format!("down.{i}"), run);
        }
        h = trace::block(|| "middle".into(), h, |h| self.middle.forward(h, &embedding));
        for (i, level) in self.up.iter().enumerate() {
            let run = || level.forward(h, &embedding, &mut skips); // [B, Ci, H / 2^(i-1), S / 2^(i-1)]
            h = trace::part(|| format!("up.{i}"), run);
        }
        conv2d(&self.output, self.norm.forward_then(self.activation, h)) // [B, C, H, S]
    }

    /// `[B]` to `[B, E]`.
    fn embed(&self, time: Tensor<1>) -> Tensor<2> {
        let half = self.time.input.weight.shape()[0] / 2;
        let last = if self.ddpm_time { half - 1 } else { half };
        let frequency = |i: usize| (-(10000f64.ln()) * i as f64 / last as f64).exp() as f32;
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let frequencies = Tensor::<2>::from_data(TensorData::new(frequencies, [1, half]), &time.device());
        let angles = (time * self.time_scale).unsqueeze_dim::<2>(1) * frequencies; // [B, C0/2]
        let (sin, cos) = (angles.clone().sin(), angles.cos());
        let features = if self.ddpm_time { vec![sin, cos] } else { vec![cos, sin] };
        linear(&self.time.output, silu(linear(&self.time.input, Tensor::cat(features, 1))))
    }

    fn check_shapes(&self, x: &Tensor<4>, time: &Tensor<1>) {
        let ([batch, channels, height, width], times) = (x.dims(), time.dims()[0]);
        let (expected, levels) = (self.in_channels, self.down.len());
        assert_eq!(channels, expected, "x has {channels} channels, the UNet takes {expected}");
        let factor = 1 << (levels - 1);
        assert!(
            height.is_multiple_of(factor) && width.is_multiple_of(factor),
            "height ({height}) and width ({width}) must be multiples of {factor}: {levels} levels"
        );
        assert_eq!(times, batch, "{times} times for a batch of {batch}");
    }
}
