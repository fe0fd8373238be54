//! LightningDiT: DiT with what language models have taught since: rotary positions, SwiGLU, root-mean-square norms.
//!
//! Yao, Yang and Wang, "Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models", 2025,
//! section 4.2 and Table 2, <https://arxiv.org/abs/2501.01423>; rotations from Fang et al., "EVA-02", 2023,
//! <https://arxiv.org/abs/2303.11331>.
//!
//! The block is DiT's, adaLN-Zero and all, with learned `RMSNorm`, attention whose queries and keys are turned by row
//! (first half of each head) and column (second half), neighbouring features in pairs, and a SwiGLU of two thirds of
//! `4 W`. The table of sines stays. Times and signs are this workspace's: the network itself is told `1 - time`, since
//! its authors count from noise to data, and its answer is negated.
//!
//! # Differs from the paper
//! Variants that the authors' code has and their published networks do not use are not here: no rotations, no SwiGLU,
//! no shifts.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `W` model width.

pub(crate) mod published;

use crate::{Embed, patches};
use burn::nn::conv::Conv2d;
use burn::nn::{Embedding, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{normal_embedding, xavier_linear, zero_linear};
use canvas_core::nn::{
    GatedMlp, GatedMlpConfig, Qkv, QkvConfig, RmsNorm, RmsNormConfig, Rope, Scores, TimeEmbed,
    TimeEmbedConfig,
};
use canvas_core::nn::{attend_jointly, dense, modulate, patch, position};
use canvas_core::ops::{residual, silu};
use canvas_core::{Backbone, Condition, ConfigError, check, trace};

/// Sizes of a [`LightningDit`].
#[derive(Config, Debug)]
pub struct LightningDitConfig {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Model width; `heads` must divide it, and 4 the width of a head.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch; must divide both sides.
    #[config(default = 1)]
    pub patch: usize,
    /// Channels in and out: 32 are those of VA-VAE.
    #[config(default = 32)]
    pub channels: usize,
    /// Classes; label `classes` stands for "no class".
    #[config(default = 1000)]
    pub classes: usize,
    /// Norms of queries and keys, for long training.
    #[config(default = false)]
    pub qk_norm: bool,
}

impl LightningDitConfig {
    /// LightningDiT-XL/1 for inputs of `side` by `side`: 16 for the latents of a 256 px image.
    pub fn xl(side: usize) -> Self {
        Self::new([side, side], 1152, 28, 16)
    }

    /// # Errors
    /// Names the two sizes that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("channels", self.channels))?;
        patches::divide(self.size, self.patch, [self.width, self.heads])?;
        patches::rotates([self.width, self.heads])
    }

    /// A network that is told classes, drawn as the paper's: what changes a block's input starts at zero.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> LightningDit {
        self.init_with(normal_embedding(0.02, self.classes + 1, self.width, device), device)
    }

    /// A network that is told pooled prompts of this width.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_text(&self, pooled: usize, device: &Device) -> LightningDit<Linear> {
        self.init_with(xavier_linear(pooled, self.width, device), device)
    }

    /// A network whose conditions this layer reads.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_with<E: Embed>(&self, cond: E, device: &Device) -> LightningDit<E> {
        self.validate().unwrap_or_else(|error| panic!("LightningDitConfig: {error}"));
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let block = || LightningBlock::new([self.width, self.heads], self.qk_norm, device);
        LightningDit {
            embed: patches::embedding(self.channels, self.width, self.patch, true, device),
            position: position::sincos_2d(rows, columns, self.width, device),
            time: TimeEmbedConfig::new(self.width).with_scale(1.0).init(device),
            cond,
            blocks: (0..self.depth).map(|_| block()).collect(),
            end: LightningEnd::new(self.width, self.channels * self.patch * self.patch, device),
            patch: self.patch,
            head: self.width / self.heads,
            input: [self.channels, self.size[0], self.size[1]],
        }
    }
}

/// DiT with rotary positions, SwiGLU and root-mean-square norms, told a [`Class`](canvas_core::Class) or what else `E` reads.
#[derive(Module, Debug)]
pub struct LightningDit<E: Module = Embedding> {
    embed: Conv2d,
    position: Tensor<3>, // fixed, so not a parameter
    time: TimeEmbed,
    cond: E,
    blocks: Vec<LightningBlock>,
    end: LightningEnd,
    patch: usize,
    head: usize,
    #[module(skip)]
    input: [usize; 3],
}

impl<E: Embed> Backbone<4> for LightningDit<E> {
    type Cond = E::Cond;

    /// # Panics
    /// If `x` is not of the configured size, or times or conditions are not one a sample.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        patches::check_input("LightningDiT", self.input, &x, &time, cond.batch());
        let ([_, _, height, width], device) = (x.dims(), x.device());
        // The authors' time is 1 at the data.
        let time = keep(|| "time".into(), Constant::Time, || self.time.forward(1.0 - time)); // [B, W]
        let c = (time + self.cond.vector(cond)).unsqueeze_dim::<3>(1); // [B, 1, W]
        let rope = patches::rope(0, [height, width].map(|side| side / self.patch), self.head, &device);
        let mut h = patches::placed(patches::tokens(&self.embed, x), &self.position); // [B, N, W]
        for (i, block) in self.blocks.iter().enumerate() {
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, c.clone(), &rope)); // [B, N, W]
        }
        let velocity = patch::join_channels_last(self.end.forward(h, c), self.patch, height, width);
        -velocity // theirs points to the data; [B, C, H, S]
    }
}

/// Attention and gated perceptron, each shifted, scaled and gated by the conditioning vector.
#[derive(Module, Debug)]
pub(crate) struct LightningBlock {
    norm_attention: RmsNorm,
    qkv: Qkv,
    output: Linear,
    norm_mlp: RmsNorm,
    mlp: GatedMlp,
    modulation: Linear,
}

impl LightningBlock {
    pub(crate) fn new([width, heads]: [usize; 2], qk_norm: bool, device: &Device) -> Self {
        let norm = qk_norm.then_some(1e-6);
        let mut qkv = QkvConfig::new(width, heads, width / heads).with_norm(norm).init(device);
        let third = || patches::xavier_of(3 * width, width, width, device);
        (qkv.query, qkv.key, qkv.value) = (third(), third(), third());
        let hidden = 8 * width / 3;
        let mut mlp = GatedMlpConfig::new(width, hidden).with_bias(true).init(device);
        let half = || patches::xavier_of(2 * hidden, width, hidden, device);
        (mlp.gate, mlp.up) = (half(), half());
        Self {
            norm_attention: rms_norm(width, device),
            qkv,
            output: xavier_linear(width, width, device),
            norm_mlp: rms_norm(width, device),
            mlp,
            modulation: zero_linear(width, 6 * width, device),
        }
    }

    /// `h`: `[B, N, W]`, `c`: `[B, 1 or N, W]`, output: `[B, N, W]`.
    pub(crate) fn forward(&self, h: Tensor<3>, c: Tensor<3>, rope: &Rope) -> Tensor<3> {
        let all = trace::tap(|| "modulation".into(), dense(&self.modulation, silu(c))); // [B, 1 or N, 6 W]
        let [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m] = modulate::cut(all);
        let a = modulate::apply(self.norm_attention.forward(h.clone()), shift_a, scale_a);
        let own = trace::scope(
            || "attention".into(),
            || {
                let [read] = attend_jointly([self.qkv.forward(a, Some(rope))], &Scores::default());
                dense(&self.output, read) // [B, N, W]
            },
        );
        let h = residual(h, gate_a, own);
        let m = modulate::apply(self.norm_mlp.forward(h.clone()), shift_m, scale_m);
        residual(h, gate_m, self.mlp.forward(m))
    }
}

/// From tokens to what a patch holds: a norm, shifted and scaled, and a linear layer that starts at zero.
#[derive(Module, Debug)]
pub(crate) struct LightningEnd {
    norm: RmsNorm,
    modulation: Linear,
    unembed: Linear,
}

impl LightningEnd {
    pub(crate) fn new(width: usize, outputs: usize, device: &Device) -> Self {
        Self {
            norm: rms_norm(width, device),
            modulation: zero_linear(width, 2 * width, device),
            unembed: zero_linear(width, outputs, device),
        }
    }

    /// `h`: `[B, N, W]`, `c`: `[B, 1 or N, W]`, output: `[B, N, O]`.
    pub(crate) fn forward(&self, h: Tensor<3>, c: Tensor<3>) -> Tensor<3> {
        let all = trace::tap(|| "final_modulation".into(), dense(&self.modulation, silu(c)));
        let [shift, scale] = modulate::cut(all);
        dense(&self.unembed, modulate::apply(self.norm.forward(h), shift, scale))
    }
}

fn rms_norm(width: usize, device: &Device) -> RmsNorm {
    RmsNormConfig::new(width).with_epsilon(1e-6).init(device)
}
