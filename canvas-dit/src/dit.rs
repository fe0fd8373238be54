//! DiT: a plain transformer over latent patches, conditioned by adaptive layer norm (adaLN-Zero).
//!
//! Peebles and Xie, "Scalable Diffusion Models with Transformers", 2022, Figure 3,
//! <https://arxiv.org/abs/2212.09748>.
//!
//! The condition is a class, as in the paper, or whatever a layer can read as one vector ([`Embed`]): a pooled prompt, say.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `W` model width.

mod published;

use crate::{Embed, patches};
use burn::nn::conv::Conv2d;
use burn::nn::{Embedding, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{normal_embedding, xavier_linear, zero_linear};
use canvas_core::nn::{Activation, Attention, AttentionConfig, Mlp, MlpConfig, TimeEmbed, TimeEmbedConfig};
use canvas_core::nn::{dense, modulate, patch, position};
use canvas_core::ops::{self, Norm, residual};
use canvas_core::{Backbone, Condition, ConfigError, check, trace};

/// Sizes of a [`Dit`].
#[derive(Config, Debug)]
pub struct DitConfig {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Model width; `heads` must divide it, and so must 4.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch; must divide both sides.
    #[config(default = 2)]
    pub patch: usize,
    /// Channels in and out.
    #[config(default = 4)]
    pub channels: usize,
    /// Classes; label `classes` stands for "no class".
    #[config(default = 1000)]
    pub classes: usize,
    /// Predict a variance beside each channel, as the paper does: the last layer is twice as wide, and
    /// [`Dit::forward_with_variance`] returns it.
    #[config(default = true)]
    pub learn_variance: bool,
    /// Factor on the time before its features: 1000 for what the paper tells in steps, 1 for SiT.
    #[config(default = 1000.0)]
    pub time_scale: f64,
    /// The time's frequencies are `time_period^(-i / 128)`: 10000 in the paper's code. diffusers ends at 1/10000 itself,
    /// which is a period of `10000^(128 / 127)`; published weights were trained with the paper's.
    #[config(default = 10000.0)]
    pub time_period: f64,
    /// Epsilon of the norm before the MLP, where diffusers' published configurations have another.
    #[config(default = 1e-6)]
    pub mlp_norm_eps: f64,
}

impl DitConfig {
    /// DiT-S/2 (Table 1) for inputs of `side` by `side`: 32 for the latents of a 256 px image.
    pub fn small(side: usize) -> Self {
        Self::new([side, side], 384, 12, 6)
    }

    /// DiT-B/2.
    pub fn base(side: usize) -> Self {
        Self::new([side, side], 768, 12, 12)
    }

    /// DiT-L/2.
    pub fn large(side: usize) -> Self {
        Self::new([side, side], 1024, 24, 16)
    }

    /// DiT-XL/2.
    pub fn xl(side: usize) -> Self {
        Self::new([side, side], 1152, 28, 16)
    }

    /// # Errors
    /// Names the two sizes that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("channels", self.channels))?;
        patches::divide(self.size, self.patch, [self.width, self.heads])
    }

    /// A network that is told classes, drawn as the paper's: what changes a block's input starts at zero.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Dit {
        self.init_with(normal_embedding(0.02, self.classes + 1, self.width, device), device)
    }

    /// A network that is told pooled prompts of this width.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_text(&self, pooled: usize, device: &Device) -> Dit<Linear> {
        self.init_with(xavier_linear(pooled, self.width, device), device)
    }

    /// A network whose conditions this layer reads.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_with<E: Embed>(&self, cond: E, device: &Device) -> Dit<E> {
        self.validate().unwrap_or_else(|error| panic!("DitConfig: {error}"));
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let token = self.channels * self.patch * self.patch;
        let outputs = if self.learn_variance { 2 } else { 1 };
        Dit {
            embed: patches::embedding(self.channels, self.width, self.patch, true, device),
            position: position::sincos_2d(rows, columns, self.width, device),
            time: TimeEmbedConfig::new(self.width)
                .with_scale(self.time_scale)
                .with_period(self.time_period)
                .init(device),
            cond,
            blocks: (0..self.depth).map(|_| DitBlock::new(self, device)).collect(),
            final_modulation: zero_linear(self.width, 2 * self.width, device),
            unembed: zero_linear(self.width, outputs * token, device),
            patch: self.patch,
            input: [self.channels, self.size[0], self.size[1]],
        }
    }
}

/// Diffusion transformer, told a [`Class`](canvas_core::Class) or what else `E` reads.
#[derive(Module, Debug)]
pub struct Dit<E: Module = Embedding> {
    embed: Conv2d,
    position: Tensor<3>, // fixed, so not a parameter
    time: TimeEmbed,
    cond: E,
    blocks: Vec<DitBlock>,
    final_modulation: Linear,
    unembed: Linear,
    patch: usize,
    #[module(skip)]
    input: [usize; 3],
}

impl<E: Embed> Dit<E> {
    /// All output channels: the prediction and, with `learn_variance`, as many again for the variance.
    ///
    /// # Shapes
    /// As [`Backbone::forward`]; output `[B, C or 2C, H, S]`.
    ///
    /// # Panics
    /// If `x` is not of the configured size, or times or conditions are not one a sample.
    pub fn forward_with_variance(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        patches::check_input("DiT", self.input, &x, &time, cond.batch());
        let [_, _, height, width] = x.dims();
        let time = keep(|| "time".into(), Constant::Time, || self.time.forward(time)); // [B, W]
        let c = time + self.cond.vector(cond); // [B, W]
        let mut h = patches::placed(patches::tokens(&self.embed, x), &self.position); // [B, N, W]
        for (i, block) in self.blocks.iter().enumerate() {
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, c.clone())); // [B, N, W]
        }
        let [shift, scale] = modulate::chunks("final_modulation", &self.final_modulation, c); // 2 x [B, 1, W]
        let h = modulate::normed(h, shift, scale);
        patch::join_channels_last(dense(&self.unembed, h), self.patch, height, width) // [B, C or 2C, H, S]
    }
}

impl<E: Embed> Backbone<4> for Dit<E> {
    type Cond = E::Cond;

    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        let channels = x.dims()[1];
        self.forward_with_variance(x, time, cond).narrow(1, 0, channels) // [B, C, H, S]
    }
}

/// Attention and MLP, each shifted, scaled and gated by the conditioning vector.
#[derive(Module, Debug)]
struct DitBlock {
    attention: Attention,
    mlp: Mlp,
    modulation: Linear,
    mlp_norm_eps: f64,
}

impl DitBlock {
    fn new(config: &DitConfig, device: &Device) -> Self {
        let width = config.width;
        let mlp = MlpConfig::new(width, 4 * width).with_activation(Activation::GeluTanh);
        let third = || patches::xavier_of(3 * width, width, width, device);
        let mut attention = AttentionConfig::new(width, config.heads).init(device);
        (attention.query, attention.key, attention.value) = (third(), third(), third());
        Self {
            attention,
            mlp: mlp.init(device),
            modulation: zero_linear(width, 6 * width, device),
            mlp_norm_eps: config.mlp_norm_eps,
        }
    }

    /// `h`: `[B, N, W]`, `c`: `[B, W]`, output: `[B, N, W]`.
    fn forward(&self, h: Tensor<3>, c: Tensor<2>) -> Tensor<3> {
        let [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m] =
            modulate::chunks("modulation", &self.modulation, c); // 6 x [B, 1, W]
        let a = modulate::normed(h.clone(), shift_a, scale_a);
        let own = trace::scope(|| "attention".into(), || self.attention.forward(a.clone(), a, None));
        let h = residual(h, gate_a, own);
        let m = ops::norm(Norm::layer(self.mlp_norm_eps).modulated(), h.clone(), scale_m, shift_m);
        residual(h, gate_m, self.mlp.forward(m))
    }
}
