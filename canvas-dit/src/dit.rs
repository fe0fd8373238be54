//! DiT: a plain transformer over latent patches, conditioned by adaptive layer norm (adaLN-Zero).
//!
//! Peebles and Xie, "Scalable Diffusion Models with Transformers", 2022, Figure 3,
//! <https://arxiv.org/abs/2212.09748>.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `W` model width.

use burn::nn::{Embedding, Linear};
use burn::prelude::*;
use canvas_core::nn::init::{normal_embedding, xavier_linear, zero_linear};
use canvas_core::nn::{Activation, Attention, AttentionConfig, Mlp, MlpConfig, TimeEmbed, TimeEmbedConfig};
use canvas_core::nn::{dense, modulate, patch, position};
use canvas_core::{Backbone, Class, Condition, ConfigError, check, trace};

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
        check::divides(("heads", self.heads), ("width", self.width))?;
        check::divides(("4, of the position table,", 4), ("width", self.width))?;
        check::divides(("patch", self.patch), ("height", self.size[0]))?;
        check::divides(("patch", self.patch), ("width of the input", self.size[1]))
    }

    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Dit {
        self.validate().unwrap_or_else(|error| panic!("DitConfig: {error}"));
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let token = self.channels * self.patch * self.patch;
        let outputs = if self.learn_variance { 2 } else { 1 };
        Dit {
            embed: xavier_linear(token, self.width, device),
            position: position::sincos_2d(rows, columns, self.width, device),
            time: TimeEmbedConfig::new(self.width).init(device),
            class: normal_embedding(0.02, self.classes + 1, self.width, device),
            blocks: (0..self.depth).map(|_| DitBlock::new(self.width, self.heads, device)).collect(),
            final_modulation: zero_linear(self.width, 2 * self.width, device),
            unembed: zero_linear(self.width, outputs * token, device),
            patch: self.patch,
            input: [self.channels, self.size[0], self.size[1]],
        }
    }
}

/// Class-conditional diffusion transformer.
#[derive(Module, Debug)]
pub struct Dit {
    embed: Linear,
    position: Tensor<3>, // fixed, so not a parameter
    time: TimeEmbed,
    class: Embedding,
    blocks: Vec<DitBlock>,
    final_modulation: Linear,
    unembed: Linear,
    patch: usize,
    #[module(skip)]
    input: [usize; 3],
}

impl Dit {
    fn check_shapes(&self, x: &Tensor<4>, time: &Tensor<1>, cond: &Class) {
        let [batch, channels, height, width] = x.dims();
        let found = [channels, height, width];
        // A turned image has as many patches, and would be given the positions of another.
        assert_eq!(found, self.input, "x is [C, H, S] = {found:?}, the DiT takes {:?}", self.input);
        let (times, labels) = (time.dims()[0], cond.batch());
        let fit = times == batch && labels == batch;
        assert!(fit, "{times} times and {labels} labels for a batch of {batch}");
    }

    /// All output channels: the prediction and, with `learn_variance`, as many again for the variance.
    ///
    /// # Shapes
    /// As [`Backbone::forward`]; output `[B, C or 2C, H, S]`.
    ///
    /// # Panics
    /// If `x` is not of the configured size, or times or labels are not one a sample.
    pub fn forward_with_variance(&self, x: Tensor<4>, time: Tensor<1>, cond: &Class) -> Tensor<4> {
        self.check_shapes(&x, &time, cond);
        let [_, _, height, width] = x.dims();
        let class = self.class.forward(cond.labels.clone().unsqueeze_dim::<2>(1)).squeeze_dim::<2>(1);
        let c = self.time.forward(time) + class; // [B, W]
        let mut h = dense(&self.embed, patch::split(x, self.patch)) + self.position.clone(); // [B, N, W]
        for (i, block) in self.blocks.iter().enumerate() {
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, c.clone())); // [B, N, W]
        }
        let [shift, scale] = modulate::chunks(&self.final_modulation, c); // 2 x [B, 1, W]
        let h = modulate::apply(modulate::norm(h), shift, scale);
        patch::join_channels_last(dense(&self.unembed, h), self.patch, height, width) // [B, C or 2C, H, S]
    }
}

impl Backbone<4> for Dit {
    type Cond = Class;

    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Class) -> Tensor<4> {
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
}

impl DitBlock {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        let mlp = MlpConfig::new(width, 4 * width).with_activation(Activation::GeluTanh);
        Self {
            attention: AttentionConfig::new(width, heads).init(device),
            mlp: mlp.init(device),
            modulation: zero_linear(width, 6 * width, device),
        }
    }

    /// `h`: `[B, N, W]`, `c`: `[B, W]`, output: `[B, N, W]`.
    fn forward(&self, h: Tensor<3>, c: Tensor<2>) -> Tensor<3> {
        let [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m] = modulate::chunks(&self.modulation, c);
        let a = modulate::apply(modulate::norm(h.clone()), shift_a, scale_a);
        let own = trace::scope(|| "attention".into(), || self.attention.forward(a.clone(), a, None));
        let h = h + gate_a * own;
        let m = modulate::apply(modulate::norm(h.clone()), shift_m, scale_m);
        h + gate_m * self.mlp.forward(m)
    }
}
