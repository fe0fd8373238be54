//! Sizes of a [`Unet`]: the published ones, what fits together, and how they become a network.

use super::Unet;
use crate::blocks::{
    ResBlock, ResBlockConfig, SpatialTransformer, SpatialTransformerConfig, conv3, zero_conv3,
};
use crate::embed::{Extra, LabelKind};
use crate::levels::{Down, Middle, Up};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, GroupNormConfig, TimeEmbed, TimeEmbedConfig};
use canvas_core::{ConfigError, check};

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
    /// Sinusoidal features of each number that says the image's size (SDXL: 256); when given, they go behind the
    /// pooled prompt through two layers, in place of the projection of the pooled prompt alone.
    pub size_features: Option<usize>,
    /// How many such numbers there are.
    #[config(default = 6)]
    pub size_count: usize,
    /// A label that is embedded and added as the time is.
    pub label: Option<LabelKind>,
    /// Levels whose transformers read the text twice, in place of the pixels themselves; none when not given.
    pub cross_only: Option<Vec<bool>>,
    /// Whether the projections around transformer blocks are linear layers (from Stable Diffusion 2 on) or 1x1
    /// convolutions.
    #[config(default = false)]
    pub linear_projection: bool,
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
    /// Stable Diffusion 1.x: 859,520,964 parameters, for latents `[4, 64, 64]` and CLIP ViT-L/14 text.
    #[doc(alias = "sd15")]
    pub fn sd1() -> Self {
        Self::new(4, 768, vec![320, 640, 1280, 1280], vec![1, 1, 1, 0], vec![8; 4])
    }

    /// Stable Diffusion 2.x: 865,910,724 parameters, for OpenCLIP ViT-H/14 text.
    #[doc(alias = "sd21")]
    pub fn sd2() -> Self {
        Self::new(4, 1024, vec![320, 640, 1280, 1280], vec![1, 1, 1, 0], vec![5, 10, 20, 20])
            .with_linear_projection(true)
    }

    /// SDXL's base model: 2,567,463,684 parameters, for latents `[4, 128, 128]`, the joined tokens of CLIP
    /// ViT-L/14 and OpenCLIP ViT-bigG/14, the latter's pooled prompt, and six sizes.
    pub fn sdxl() -> Self {
        Self::new(4, 2048, vec![320, 640, 1280], vec![0, 2, 10], vec![5, 10, 20])
            .with_middle_depth(10)
            .with_linear_projection(true)
            .with_pooled_width(Some(1280))
            .with_size_features(Some(256))
    }

    /// SDXL's refiner, for OpenCLIP ViT-bigG/14 and five numbers: two original sizes, two crops, a score.
    pub fn sdxl_refiner() -> Self {
        Self::new(4, 1280, vec![384, 768, 1536, 1536], vec![0, 4, 4, 0], vec![6, 12, 24, 24])
            .with_middle_depth(4)
            .with_linear_projection(true)
            .with_pooled_width(Some(1280))
            .with_size_features(Some(256))
            .with_size_count(5)
    }

    /// Stable Diffusion's upscaler by four: 473,398,020 parameters, for latents with the small image behind them
    /// ([`Concatenated`](canvas_core::Concatenated)) and its noise level as a label.
    pub fn sd_upscaler() -> Self {
        Self::new(7, 1024, vec![256, 512, 512, 1024], vec![0, 1, 1, 1], vec![8; 4])
            .with_out_channels(Some(4))
            .with_linear_projection(true)
            .with_cross_only(Some(vec![true, true, true, false]))
            .with_label(Some(LabelKind::Class(1000)))
    }

    /// The same network with more input channels, its output unchanged: 9 for inpainting (latent, mask, masked
    /// latent), 8 for InstructPix2Pix. [`Concatenated`](canvas_core::Concatenated) reads them as a condition.
    pub fn with_in_channels(self, channels: usize) -> Self {
        let output = self.out_channels();
        Self { in_channels: channels, out_channels: Some(output), ..self }
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
        let cross_only = self.cross_only.as_ref().map_or(levels, Vec::len);
        let lists = [("depth", self.depth.len()), ("heads", self.heads.len()), ("cross_only", cross_only)];
        for (name, found) in lists {
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
        self.validate_extra()?;
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

    fn validate_extra(&self) -> Result<(), ConfigError> {
        if let Some(features) = self.size_features {
            check::positive(("size_features", features))?;
            check::divides(("2, of the sinusoidal size features,", 2), ("size_features", features))?;
            check::positive(("size_count", self.size_count))?;
            check::positive(("pooled_width, which size_features needs,", self.pooled_width.unwrap_or(0)))?;
        }
        match self.label {
            Some(LabelKind::Class(count)) => check::positive(("classes of label", count)),
            Some(LabelKind::Vector(width)) => check::positive(("width of label", width)),
            Some(LabelKind::Time) | None => Ok(()),
        }
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
            time: self.time(device),
            pooled: self.pooled(device),
            extra: Extra::new(self, device),
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

    pub(crate) fn time(&self, device: &Device) -> TimeEmbed {
        TimeEmbedConfig::new(self.embedding())
            .with_features(self.channels[0])
            .with_scale(self.time_scale)
            .init(device)
    }

    pub(crate) fn pooled(&self, device: &Device) -> Option<Linear> {
        let width = self.pooled_width.filter(|_| self.size_features.is_none())?;
        Some(LinearConfig::new(width, self.embedding()).init(device))
    }

    fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Width of the time embedding.
    pub(crate) fn embedding(&self) -> usize {
        4 * self.channels[0]
    }

    pub(crate) fn res_block(&self, from: usize, to: usize, device: &Device) -> ResBlock {
        ResBlockConfig::new(from, to, self.embedding())
            .with_groups(self.norm_groups)
            .with_activation(self.activation)
            .init(device)
    }

    /// The transformer of a level's stages, or that of the middle, which reads itself whatever its level does.
    pub(crate) fn transformer(
        &self,
        level: usize,
        middle: bool,
        device: &Device,
    ) -> Option<SpatialTransformer> {
        let depth = if middle { self.middle_depth } else { self.depth[level] };
        let cross_only = !middle && self.cross_only.as_ref().is_some_and(|levels| levels[level]);
        let config =
            SpatialTransformerConfig::new(self.channels[level], self.heads[level], self.context_width)
                .with_depth(depth)
                .with_cross_only(cross_only)
                .with_linear(self.linear_projection)
                .with_groups(self.norm_groups)
                .with_activation(self.gate);
        (depth > 0).then(|| config.init(device))
    }
}
