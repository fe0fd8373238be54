//! A DiT that reads text: adaLN-Zero for time and the pooled prompt, cross-attention for its tokens.
//!
//! The block is DiT's with the cross-attention layer of PixArt-alpha between attention and MLP.
//! Peebles and Xie, "Scalable Diffusion Models with Transformers", 2022, <https://arxiv.org/abs/2212.09748>;
//! Chen et al., "PixArt-alpha", 2023, Figure 4, <https://arxiv.org/abs/2310.00426>.
//!
//! # Differs from the papers
//! Modulation is each block's own (DiT) and not shared (PixArt's adaLN-single); the text keys are not
//! normalised. The activation is a choice.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `T` tokens, `W` width.

use crate::patches;
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{xavier_linear, zero_linear};
use canvas_core::nn::{Activation, Attention, AttentionConfig, Mlp, MlpConfig, TimeEmbed, TimeEmbedConfig};
use canvas_core::nn::{dense, linear, modulate, patch, position};
use canvas_core::ops::residual;
use canvas_core::{Backbone, Condition, ConfigError, Text, check, trace};

/// Sizes of a [`TextDit`].
#[derive(Config, Debug)]
pub struct TextDitConfig {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Channels in and out.
    pub channels: usize,
    /// Model width; `heads` must divide it, and so must 4.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the text tokens.
    pub context: usize,
    /// Width of the pooled prompt.
    pub pooled: usize,
    /// Side of a patch; must divide both sides.
    #[config(default = 2)]
    pub patch: usize,
    /// Hidden width of the MLP, as a multiple of `width`.
    #[config(default = 4)]
    pub mlp_ratio: usize,
    /// The MLP's nonlinearity.
    #[config(default = "Activation::GeluTanh")]
    pub activation: Activation,
}

impl TextDitConfig {
    /// # Errors
    /// Names the two sizes that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::divides(("heads", self.heads), ("width", self.width))?;
        check::divides(("4, of the position table,", 4), ("width", self.width))?;
        check::divides(("patch", self.patch), ("height", self.size[0]))?;
        check::divides(("patch", self.patch), ("width of the input", self.size[1]))
    }

    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> TextDit {
        self.validate().unwrap_or_else(|error| panic!("TextDitConfig: {error}"));
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let token = self.channels * self.patch * self.patch;
        TextDit {
            embed: xavier_linear(token, self.width, device),
            position: position::sincos_2d(rows, columns, self.width, device),
            time: TimeEmbedConfig::new(self.width).init(device),
            prompt: xavier_linear(self.pooled, self.width, device),
            blocks: (0..self.depth).map(|_| TextDitBlock::new(self, device)).collect(),
            final_modulation: zero_linear(self.width, 2 * self.width, device),
            unembed: zero_linear(self.width, token, device),
            patch: self.patch,
            input: [self.channels, self.size[0], self.size[1]],
            text: [self.context, self.pooled],
        }
    }
}

/// Text-conditional diffusion transformer.
#[derive(Module, Debug)]
pub struct TextDit {
    embed: Linear,
    position: Tensor<3>, // fixed, so not a parameter
    time: TimeEmbed,
    prompt: Linear,
    blocks: Vec<TextDitBlock>,
    final_modulation: Linear,
    unembed: Linear,
    patch: usize,
    #[module(skip)]
    input: [usize; 3],
    #[module(skip)]
    text: [usize; 2],
}

impl TextDit {
    fn check_shapes(&self, x: &Tensor<4>, time: &Tensor<1>, cond: &Text) {
        let [batch, channels, height, width] = x.dims();
        let found = [channels, height, width];
        // A turned image has as many patches, and would be given the positions of another.
        assert_eq!(found, self.input, "x is [C, H, S] = {found:?}, the DiT takes {:?}", self.input);
        let (times, texts) = (time.dims()[0], cond.batch());
        assert!(times == batch && texts == batch, "{times} times and {texts} texts for a batch of {batch}");
        let found = [cond.tokens.dims()[2], cond.pooled.dims()[1]];
        assert_eq!(found, self.text, "[token, pooled] widths are {found:?}, the DiT reads {:?}", self.text);
    }
}

impl Backbone<4> for TextDit {
    type Cond = Text;

    /// # Panics
    /// If `x` or the text is not of the configured size, or times or texts are not one a sample.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Text) -> Tensor<4> {
        self.check_shapes(&x, &time, cond);
        let [_, _, height, width] = x.dims();
        let time = keep(|| "time".into(), Constant::Time, || self.time.forward(time));
        let prompt =
            keep(|| "prompt".into(), Constant::Condition, || linear(&self.prompt, cond.pooled.clone()));
        let c = time + prompt; // [B, W]
        let h = dense(&self.embed, patch::split(x, self.patch));
        let mut h = patches::placed(h, &self.position); // [B, N, W]
        for (i, block) in self.blocks.iter().enumerate() {
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, c.clone(), cond)); // [B, N, W]
        }
        let [shift, scale] = modulate::chunks("final_modulation", &self.final_modulation, c); // 2 x [B, 1, W]
        let h = modulate::normed(h, shift, scale);
        patch::join_channels_last(dense(&self.unembed, h), self.patch, height, width) // [B, C, H, S]
    }
}

/// Self-attention and MLP with modulation, and cross-attention without.
#[derive(Module, Debug)]
struct TextDitBlock {
    attention: Attention,
    cross: Attention,
    mlp: Mlp,
    modulation: Linear,
}

impl TextDitBlock {
    fn new(config: &TextDitConfig, device: &Device) -> Self {
        let (width, heads) = (config.width, config.heads);
        let mut cross = AttentionConfig::new(width, heads).with_context(Some(config.context)).init(device);
        cross.output = zero_linear(width, width, device); // starts as DiT's own block, as in PixArt-alpha
        let mlp = MlpConfig::new(width, config.mlp_ratio * width).with_activation(config.activation);
        Self {
            attention: AttentionConfig::new(width, heads).init(device),
            cross,
            mlp: mlp.init(device),
            modulation: zero_linear(width, 6 * width, device),
        }
    }

    /// `h`: `[B, N, W]`, `c`: `[B, W]`, output: `[B, N, W]`.
    fn forward(&self, h: Tensor<3>, c: Tensor<2>, text: &Text) -> Tensor<3> {
        let [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m] =
            modulate::chunks("modulation", &self.modulation, c); // 6 x [B, 1, W]
        let a = modulate::normed(h.clone(), shift_a, scale_a);
        let own = trace::scope(|| "attention".into(), || self.attention.forward(a.clone(), a, None));
        let h = residual(h, gate_a, own);
        let h = h.clone() + trace::scope(|| "cross".into(), || self.read(h, text));
        let m = modulate::normed(h.clone(), shift_m, scale_m);
        residual(h, gate_m, self.mlp.forward(m))
    }

    /// What the patches `[B, N, W]` read of the text.
    fn read(&self, h: Tensor<3>, text: &Text) -> Tensor<3> {
        let kv = || self.cross.keys_and_values(text.tokens.clone());
        self.cross.read(h, keep(|| "kv".into(), Constant::Condition, kv), Some(text.mask.clone()))
    }
}
