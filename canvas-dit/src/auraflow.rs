//! AuraFlow: a few two-stream blocks, then many in which text and image are one sequence.
//!
//! Fal, "Introducing AuraFlow v0.1", 2024, <https://blog.fal.ai/auraflow/>, after Stable Diffusion 3 (Esser et al., 2024,
//! <https://arxiv.org/abs/2403.03206>). There are no biases but in the patch and time embeddings, perceptrons are gated
//! (SwiGLU), queries and keys are layer-normalised, and eight learned tokens stand before the text (Darcet et al., "Vision
//! Transformers Need Registers", 2023, <https://arxiv.org/abs/2309.16588>).
//!
//! A block's output is `x + gate MLP(LN(x + gate attention))`: what attention reads is seen by the perceptron, but not
//! added to the stream, unlike in other transformers. The last layer modulates without a norm.
//!
//! Padded text is set to zero, and read like any other.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `T` registers and text tokens,
//! `W` model width.

mod published;

use crate::{latents, prompt::Expected};
use burn::module::Param;
use burn::nn::{Initializer, Linear};
use burn::prelude::*;
use burn::tensor::{DType, module::layer_norm};
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{self, xavier_linear, zero_linear};
use canvas_core::nn::{
    GatedMlp, GatedMlpConfig, Qkv, QkvConfig, Scores, TimeEmbed, TimeEmbedConfig, attend_jointly, dense,
    linear,
};
use canvas_core::nn::{modulate, patch};
use canvas_core::ops::{residual, silu};
use canvas_core::{Backbone, ConfigError, Text, check, trace};

/// Learned tokens before the text.
const REGISTERS: usize = 8;

/// Sizes of an [`AuraFlow`].
#[derive(Config, Debug)]
pub struct AuraFlowConfig {
    /// Side of the learned position table in patches: no input may be larger.
    pub table: usize,
    /// Two-stream blocks.
    #[config(default = 4)]
    pub joint: usize,
    /// One-sequence blocks after them.
    #[config(default = 32)]
    pub single: usize,
    /// Attention heads.
    #[config(default = 12)]
    pub heads: usize,
    /// Width of a head; the model's width is `heads * head`.
    #[config(default = 256)]
    pub head: usize,
    /// Channels in and out.
    #[config(default = 4)]
    pub channels: usize,
    /// Side of a patch; must divide both sides of an input.
    #[config(default = 2)]
    pub patch: usize,
    /// Width of the text tokens.
    #[config(default = 2048)]
    pub context: usize,
}

impl AuraFlowConfig {
    /// AuraFlow 0.3, whose table of 96 patches a side is enough for 1536 pixels.
    pub fn v03() -> Self {
        Self::new(96)
    }

    /// Model width.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// Width inside the perceptrons: two thirds of four times the model's, up to the next multiple of 256.
    pub fn hidden(&self) -> usize {
        (8 * self.width() / 3).next_multiple_of(256)
    }

    /// # Errors
    /// Names the value that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [("table", self.table), ("patch", self.patch), ("width", self.width())];
        sizes.into_iter().try_for_each(check::positive)
    }

    /// Xavier-uniform weights; positions normal with deviation 0.1, registers with 0.02; modulation and the last layer are
    /// zero, so that blocks begin as the identity.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> AuraFlow {
        self.validate().unwrap_or_else(|error| panic!("AuraFlowConfig: {error}"));
        let (width, token) = (self.width(), self.channels * self.patch * self.patch);
        let normal = |std: f64, count| Initializer::Normal { mean: 0.0, std }.init([1, count, width], device);
        AuraFlow {
            embed: xavier_linear(token, width, device),
            position: normal(0.1, self.table * self.table),
            registers: normal(0.02, REGISTERS),
            time: TimeEmbedConfig::new(width).init(device),
            text: init::linear(self.context, width, false, device),
            joint: (0..self.joint).map(|_| JointBlock::new(self, device)).collect(),
            single: (0..self.single).map(|_| Stream::new(self, device)).collect(),
            final_modulation: latents::unbiased(zero_linear(width, 2 * width, device)),
            unembed: latents::unbiased(zero_linear(width, token, device)),
            channels: self.channels,
            patch: self.patch,
            context: self.context,
            table: self.table,
        }
    }
}

/// AuraFlow's transformer: answers the velocity `noise - data` for times that are fractions of noise.
#[derive(Module, Debug)]
pub struct AuraFlow {
    embed: Linear,
    position: Param<Tensor<3>>,  // [1, table^2, W]
    registers: Param<Tensor<3>>, // [1, 8, W]
    time: TimeEmbed,
    text: Linear,
    joint: Vec<JointBlock>,
    single: Vec<Stream>,
    final_modulation: Linear, // scale first
    unembed: Linear,
    channels: usize,
    patch: usize,
    context: usize,
    table: usize,
}

impl AuraFlow {
    /// Registers and text: `[B, T, W]`.
    fn context(&self, text: &Text) -> Tensor<3> {
        let [batch, length, _] = text.tokens.dims();
        let real = text.mask.clone().reshape([batch, length, 1]);
        let tokens = text.tokens.clone() * real.float().cast(text.tokens.dtype());
        Tensor::cat(vec![self.registers.val().repeat_dim(0, batch), dense(&self.text, tokens)], 1)
    }
}

impl Backbone<4> for AuraFlow {
    type Cond = Text;

    /// # Panics
    /// If `x` or the text is not of the configured size, if the patch does not divide `x` or the position table is too
    /// small for it, or if times or texts are not one a sample.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, text: &Text) -> Tensor<4> {
        Expected { channels: self.channels, text: self.context, pooled: None }.check(&x, &time, text);
        let grid = latents::grid(&x, self.patch);
        let [_, _, height, width] = x.dims();
        let c = keep(|| "time".into(), Constant::Time, || self.time.forward(time)); // [B, W]
        let positions = latents::cut(&self.position, self.table, grid, |side| self.table / 2 - side / 2);
        let mut h = dense(&self.embed, patch::split(x, self.patch)) + positions; // [B, N, W]
        let mut context = keep(|| "text".into(), Constant::Condition, || self.context(text)); // [B, T, W]
        for (i, block) in self.joint.iter().enumerate() {
            let run = |(h, context)| block.forward(h, context, &c);
            (h, context) = trace::block(|| format!("blocks.{i}"), (h, context), run); // [B, N, W], [B, T, W]
        }
        let (length, count) = (context.dims()[1], h.dims()[1]);
        let mut all = Tensor::cat(vec![context, h], 1); // [B, T + N, W]
        for (i, block) in self.single.iter().enumerate() {
            let name = || format!("blocks.{}", self.joint.len() + i);
            all = trace::block(name, all, |all| block.forward(all, &c)); // [B, T + N, W]
        }
        let h = all.narrow(1, length, count); // [B, N, W]
        let vectors = || linear(&self.final_modulation, silu(c)).unsqueeze_dim(1);
        let [scale, shift] = modulate::cut(modulate::of_time("final_modulation", vectors)); // 2 x [B, 1, W]
        let h = dense(&self.unembed, modulate::apply(h, shift, scale));
        patch::join_channels_last(h, self.patch, height, width) // [B, C, H, S]
    }
}

/// Layer norm without parameters, in 32 bits at least. Its epsilon is 1e-5, not DiT's.
fn norm<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (dtype, width) = (x.dtype(), x.dims()[D - 1]);
    let precise = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let ones = Tensor::<1>::ones([width], &x.device()).cast(precise);
    layer_norm(x.cast(precise), ones, None, 1e-5).cast(dtype)
}

/// Text and image attend to both, each with layers of its own.
#[derive(Module, Debug)]
struct JointBlock {
    image: Stream,
    context: Stream,
}

impl JointBlock {
    fn new(config: &AuraFlowConfig, device: &Device) -> Self {
        Self { image: Stream::new(config, device), context: Stream::new(config, device) }
    }

    /// `x`: `[B, N, W]`, `context`: `[B, T, W]`, `c`: `[B, W]`; both streams.
    fn forward(&self, x: Tensor<3>, context: Tensor<3>, c: &Tensor<2>) -> (Tensor<3>, Tensor<3>) {
        let m = self.image.modulate("modulation", c); // [B, 1, 6 W]
        let n = self.context.modulate("context_modulation", c);
        let streams = [self.context.start(context.clone(), &n), self.image.start(x.clone(), &m)];
        let [context_read, read] =
            trace::scope(|| "attention".into(), || attend_jointly(streams, &Scores::default()));
        let context = self.context.finish(context, context_read, &n);
        (self.image.finish(x, read, &m), context)
    }
}

/// The layers of one stream of a two-stream block, or of a block with one.
#[derive(Module, Debug)]
struct Stream {
    modulation: Linear,
    qkv: Qkv,
    output: Linear,
    mlp: GatedMlp,
}

impl Stream {
    fn new(config: &AuraFlowConfig, device: &Device) -> Self {
        let width = config.width();
        Self {
            modulation: latents::unbiased(zero_linear(width, 6 * width, device)),
            qkv: QkvConfig::new(width, config.heads, config.head).with_bias(false).init(device),
            output: init::linear(width, width, false, device),
            mlp: GatedMlpConfig::new(width, config.hidden()).init(device),
        }
    }

    /// Six modulation vectors in a row, which follow from the time alone: `[B, 1, 6 W]`.
    fn modulate(&self, name: &'static str, c: &Tensor<2>) -> Tensor<3> {
        modulate::of_time(name, || linear(&self.modulation, silu(c.clone())).unsqueeze_dim(1))
    }

    /// Queries, keys and values of the modulated stream.
    fn start(&self, x: Tensor<3>, m: &Tensor<3>) -> [Tensor<4>; 3] {
        let width = x.dims()[2];
        let [shift, scale] = modulate::cut(m.clone().narrow(2, 0, 2 * width));
        let [query, key, value] = self.qkv.forward(modulate::apply(norm(x), shift, scale), None);
        [norm(query), norm(key), value]
    }

    /// The perceptron of what was read and the stream, added to the stream alone.
    fn finish(&self, x: Tensor<3>, read: Tensor<3>, m: &Tensor<3>) -> Tensor<3> {
        let width = x.dims()[2];
        let [gate, shift, scale, gate_m] = modulate::cut(m.clone().narrow(2, 2 * width, 4 * width));
        let seen = norm(x.clone() + gate * dense(&self.output, read));
        residual(x, gate_m, self.mlp.forward(modulate::apply(seen, shift, scale)))
    }

    /// As a block by itself: `[B, T + N, W]` to the same.
    fn forward(&self, x: Tensor<3>, c: &Tensor<2>) -> Tensor<3> {
        let m = self.modulate("modulation", c);
        let own = self.start(x.clone(), &m);
        let [read] = trace::scope(|| "attention".into(), || attend_jointly([own], &Scores::default()));
        self.finish(x, read, &m)
    }
}
