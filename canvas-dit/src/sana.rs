//! Sana: PixArt's skeleton with linear attention and a convolution in the perceptron, on strongly compressed latents.
//!
//! Xie et al., "SANA: Efficient High-Resolution Image Synthesis with Linear Diffusion Transformers", 2024, section 2.2,
//! <https://arxiv.org/abs/2410.10629>; SANA 1.5, 2025, <https://arxiv.org/abs/2501.18427>, and SANA-Sprint, 2025,
//! <https://arxiv.org/abs/2503.09641>, normalise queries and keys, and Sprint is told the guidance scale.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `T` text tokens, `W` model width,
//! `D` width of a head.

mod mix;
mod published;

use crate::cross::Cross;
use crate::pixart::{caption, positions, table, tabled};
use crate::{Prompt, latents, patches, prompt::Expected};
use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::nn::{Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{normal_linear, zero_linear};
use canvas_core::nn::{Mlp, RmsNorm, RmsNormConfig, TimeEmbed, TimeEmbedConfig, dense, modulate, patch};
use canvas_core::ops::residual;
use canvas_core::{Backbone, ConfigError, check, trace};
use mix::{LinearAttention, MixFeed};

/// Sizes of a [`Sana`].
#[derive(Config, Debug)]
pub struct SanaConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Heads of linear attention.
    pub heads: usize,
    /// Heads of cross-attention; must divide the model's width.
    pub cross_heads: usize,
    /// Width of a head of linear attention; the model's width is `heads * head`.
    #[config(default = 32)]
    pub head: usize,
    /// Channels in and out.
    #[config(default = 32)]
    pub channels: usize,
    /// Side of a patch; must divide both sides of an input.
    #[config(default = 1)]
    pub patch: usize,
    /// Width of the text tokens.
    #[config(default = 2304)]
    pub context: usize,
    /// Width inside the perceptron, as a multiple of the model's.
    #[config(default = 2.5)]
    pub mlp_ratio: f64,
    /// Whether queries, keys and values of linear attention have biases.
    #[config(default = false)]
    pub bias: bool,
    /// Whether queries and keys are normalised, all heads together.
    #[config(default = false)]
    pub qk_norm: bool,
    /// Side, in patches, for which positions count `0, 1, 2, ..` before `interpolation`.
    #[config(default = 32)]
    pub base: usize,
    /// By what positions are divided; without it there are none: the convolutions tell.
    pub interpolation: Option<f64>,
    /// Factor on the time before its features.
    #[config(default = 1000.0)]
    pub time_scale: f64,
    /// Factor on the guidance scale before its features, in networks that are told it.
    pub guidance_scale: Option<f64>,
}

impl SanaConfig {
    /// Sana with 0.6 billion parameters.
    pub fn sana_600m() -> Self {
        Self::new(28, 36, 16)
    }

    /// Sana with 1.6 billion parameters.
    pub fn sana_1600m() -> Self {
        Self::new(20, 70, 20)
    }

    /// Sana 1.5 with 1.6 billion parameters.
    pub fn sana15_1600m() -> Self {
        Self::sana_1600m().with_qk_norm(true)
    }

    /// Sana 1.5 with 4.8 billion parameters.
    pub fn sana15_4800m() -> Self {
        Self::new(60, 70, 20).with_qk_norm(true)
    }

    /// This network as Sana-Sprint has it: with normalised queries and keys, and told time from 0 to 1 and guidance.
    ///
    /// It answers the velocity of a flow like the others, of latents over their standard deviation (`sigma_data`, 0.5):
    /// its sampler's TrigFlow, `x = cos(t) x0 + sin(t) noise`, is that flow at the noise fraction
    /// `sin(t) / (sin(t) + cos(t))`, scaled.
    pub fn sprint(self) -> Self {
        self.with_qk_norm(true).with_time_scale(1.0).with_guidance_scale(Some(0.1))
    }

    /// Model width.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// Width inside the perceptron.
    pub fn hidden(&self) -> usize {
        (self.mlp_ratio * self.width() as f64) as usize
    }

    /// # Errors
    /// Names the values that do not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes =
            [("patch", self.patch), ("base", self.base), ("width", self.width()), ("hidden", self.hidden())];
        sizes.into_iter().try_for_each(check::positive)?;
        check::divides(("cross_heads", self.cross_heads), ("width", self.width()))?;
        let Some(interpolation) = self.interpolation else { return Ok(()) };
        check::divides(("4, of the position table,", 4), ("width", self.width()))?;
        match interpolation > 0.0 {
            true => Ok(()),
            false => Err(ConfigError::new(format!("interpolation must be above 0, found {interpolation}"))),
        }
    }

    /// As PixArt, from which the paper's code begins; the norm of the text begins at 0.01, as section 2.3 says.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Sana {
        self.validate().unwrap_or_else(|error| panic!("SanaConfig: {error}"));
        let width = self.width();
        let embed = |scale: f64| TimeEmbedConfig::new(width).with_scale(scale).init(device);
        let norm = RmsNormConfig::new(width).with_epsilon(1e-5).init(device);
        Sana {
            embed: latents::embedding(self.channels, width, self.patch, device),
            time: embed(self.time_scale),
            guidance: self.guidance_scale.map(embed),
            modulation: normal_linear(0.02, width, 6 * width, device),
            caption: caption(self.context, width, device),
            caption_norm: RmsNorm {
                gamma: Initializer::Constant { value: 0.01 }.init([width], device),
                ..norm
            },
            blocks: (0..self.depth).map(|_| SanaBlock::new(self, device)).collect(),
            final_table: table(2, width, device),
            unembed: zero_linear(width, self.channels * self.patch * self.patch, device),
            channels: self.channels,
            patch: self.patch,
            context: self.context,
            base: self.base,
            interpolation: self.interpolation,
        }
    }
}

/// Sana's transformer: answers the velocity `noise - data` for times that are fractions of noise.
#[derive(Module, Debug)]
pub struct Sana {
    embed: Conv2d,
    time: TimeEmbed,
    guidance: Option<TimeEmbed>,
    modulation: Linear,
    caption: Mlp,
    caption_norm: RmsNorm,
    blocks: Vec<SanaBlock>,
    final_table: Param<Tensor<2>>, // [2, W], shift first
    unembed: Linear,
    channels: usize,
    patch: usize,
    context: usize,
    base: usize,
    #[module(skip)]
    interpolation: Option<f64>,
}

impl Sana {
    /// What all is modulated by: the time, and where the model is told it, the guidance scale. Output: `[B, W]`.
    fn vector(&self, time: Tensor<1>, prompt: &Prompt) -> Tensor<2> {
        let c = keep(|| "time".into(), Constant::Time, || self.time.forward(time));
        match (&self.guidance, prompt.guidance_for(self.guidance.is_some())) {
            (Some(guidance), Some(scale)) => {
                c + keep(|| "guidance".into(), Constant::Condition, || guidance.forward(scale))
            }
            _ => c,
        }
    }
}

impl Backbone<4> for Sana {
    type Cond = Prompt;

    /// # Panics
    /// If `x` or the text is not of the configured size, if the patch does not divide `x`, if times or texts are not
    /// one a sample, if the prompt holds references, or if only one of prompt and model knows a guidance scale.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Prompt) -> Tensor<4> {
        Expected { channels: self.channels, text: self.context, pooled: None }.check(&x, &time, &cond.text);
        assert!(cond.references.is_empty(), "a Sana reads no references, found {}", cond.references.len());
        let grid = latents::grid(&x, self.patch);
        let [_, _, height, width] = x.dims();
        let mut h = patches::tokens(&self.embed, x); // [B, N, W]
        if let Some(interpolation) = self.interpolation {
            h = h.clone() + positions(grid, self.base, interpolation, &h);
        }
        let c = self.vector(time, cond); // [B, W]
        let shared = latents::shared("shared", &self.modulation, &c, self.guidance.is_none()); // [B, 1, 6 W]
        let tokens = || self.caption_norm.forward(self.caption.forward(cond.text.tokens.clone()));
        let text = keep(|| "text".into(), Constant::Condition, tokens); // [B, T, W]
        for (i, block) in self.blocks.iter().enumerate() {
            let run = |h| block.forward(h, shared.clone(), (&text, &cond.text.mask), grid);
            h = trace::block(|| format!("blocks.{i}"), h, run); // [B, N, W]
        }
        let c = c.unsqueeze_dim::<3>(1);
        let both = Tensor::cat(vec![c.clone(), c], 2); // [B, 1, 2 W]
        let [shift, scale] = tabled("final_modulation", &self.final_table, both); // 2 x [B, 1, W]
        let h = dense(&self.unembed, modulate::normed(h, shift, scale));
        patch::join_channels_last(h, self.patch, height, width) // [B, C, H, S]
    }
}

/// Linear attention, cross-attention, and a perceptron that sees neighbours.
#[derive(Module, Debug)]
struct SanaBlock {
    attention: LinearAttention,
    cross: Cross,
    mlp: MixFeed,
    table: Param<Tensor<2>>, // [6, W]
}

impl SanaBlock {
    fn new(config: &SanaConfig, device: &Device) -> Self {
        let (width, norm) = (config.width(), config.qk_norm.then_some(1e-5));
        Self {
            attention: LinearAttention::new(width, config.heads, config.bias, norm, device),
            cross: Cross::new(width, config.cross_heads, norm, device),
            mlp: MixFeed::new(width, config.hidden(), device),
            table: table(6, width, device),
        }
    }

    /// `h`: `[B, N, W]`, `shared`: `[B, 1, 6 W]`, text and its mask, rows and columns; output: `[B, N, W]`.
    fn forward(
        &self,
        h: Tensor<3>,
        shared: Tensor<3>,
        (text, mask): (&Tensor<3>, &Tensor<2, Bool>),
        grid: [usize; 2],
    ) -> Tensor<3> {
        let [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m] = tabled("modulation", &self.table, shared);
        let a = modulate::normed(h.clone(), shift_a, scale_a);
        let own = trace::scope(|| "attention".into(), || self.attention.forward(&a));
        let h = residual(h, gate_a, own);
        let read = trace::scope(|| "cross".into(), || self.cross.forward(h.clone(), text, mask));
        let h = h + read;
        let m = modulate::normed(h.clone(), shift_m, scale_m);
        residual(h, gate_m, self.mlp.forward(m, grid))
    }
}
