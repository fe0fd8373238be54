//! Stable Diffusion 3: text and image are two streams with weights of their own that attend to one another (MMDiT).
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, Figure 2,
//! <https://arxiv.org/abs/2403.03206>. Stable Diffusion 3.5 normalises queries and keys (section 5.3.2 of the paper); in
//! the first blocks of its medium model the image also attends to itself alone (MMDiT-X).
//!
//! Padded text is read like any other, as the released models were trained: [`Text::mask`] is not looked at.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `T` text tokens, `W` model width.

mod published;

use crate::{latents, patches, prompt::Expected};
use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{xavier_linear, zero_linear};
use canvas_core::nn::{
    Activation, Mlp, MlpConfig, Qkv, QkvConfig, Scores, TimeEmbed, TimeEmbedConfig, attend_jointly, dense,
    linear,
};
use canvas_core::nn::{modulate, patch, position};
use canvas_core::ops::{residual, silu};
use canvas_core::{Backbone, ConfigError, Text, check, trace};

/// Sizes of an [`Sd3`].
#[derive(Config, Debug)]
pub struct Sd3Config {
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of a head; the model's width is `heads * head`, and 4 must divide it.
    #[config(default = 64)]
    pub head: usize,
    /// Channels in.
    #[config(default = 16)]
    pub channels: usize,
    /// Channels out, where they are not as many.
    pub out_channels: Option<usize>,
    /// Side of a patch; must divide both sides of an input.
    #[config(default = 2)]
    pub patch: usize,
    /// Width of the text tokens.
    #[config(default = 4096)]
    pub context: usize,
    /// Width of the pooled prompt.
    #[config(default = 2048)]
    pub pooled: usize,
    /// Side of the position table in patches: no input may be larger.
    #[config(default = 192)]
    pub table: usize,
    /// How far positions count along the table: from 0 to below `base` in `table` places.
    #[config(default = 64)]
    pub base: usize,
    /// Blocks in which the image also attends to itself alone.
    #[config(default = "Vec::new()")]
    pub dual: Vec<usize>,
    /// Whether queries and keys are normalised.
    #[config(default = false)]
    pub qk_norm: bool,
}

impl Sd3Config {
    /// Stable Diffusion 3 medium.
    pub fn medium() -> Self {
        Self::new(24, 24)
    }

    /// Stable Diffusion 3.5 medium.
    pub fn medium_35() -> Self {
        Self::new(24, 24).with_qk_norm(true).with_dual((0..13).collect()).with_table(384)
    }

    /// Stable Diffusion 3.5 large.
    pub fn large_35() -> Self {
        Self::new(38, 38).with_qk_norm(true)
    }

    /// Model width.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// # Errors
    /// Names the values that do not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes =
            [("depth", self.depth), ("patch", self.patch), ("table", self.table), ("base", self.base)];
        sizes.into_iter().try_for_each(check::positive)?;
        check::positive(("width", self.width()))?;
        check::divides(("4, of the position table,", 4), ("width", self.width()))?;
        let outside = self.dual.iter().find(|&&block| block >= self.depth);
        outside.map_or(Ok(()), |block| {
            Err(ConfigError::new(format!("dual block {block} must be one of depth ({})", self.depth)))
        })
    }

    /// As the paper's code: Xavier-uniform weights, zero biases, a normal time embedding; modulation and the last layer
    /// are zero, so that blocks begin as the identity.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Sd3 {
        self.validate().unwrap_or_else(|error| panic!("Sd3Config: {error}"));
        let (width, out) = (self.width(), self.out_channels.unwrap_or(self.channels));
        Sd3 {
            embed: latents::embedding(self.channels, width, self.patch, device),
            position: self.positions(device),
            time: TimeEmbedConfig::new(width).init(device),
            prompt: latents::projection(self.pooled, width, Activation::Silu, device),
            text: xavier_linear(self.context, width, device),
            blocks: (0..self.depth).map(|i| JointBlock::new(self, i, device)).collect(),
            final_modulation: zero_linear(width, 2 * width, device),
            unembed: zero_linear(width, out * self.patch * self.patch, device),
            channels: self.channels,
            patch: self.patch,
            context: self.context,
            pooled: self.pooled,
            table: self.table,
        }
    }

    /// A parameter that is never trained: published files hold it, and it is what they hold.
    fn positions(&self, device: &Device) -> Param<Tensor<3>> {
        let (table, base, width) = (self.table, self.base, self.width());
        let make = move |device: &Device, _: bool| {
            let places: Vec<f64> = (0..table).map(|i| i as f64 * base as f64 / table as f64).collect();
            position::sincos_2d_at(&places, &places, width, device)
        };
        let shape = Shape::new([1, table * table, width]);
        Param::uninitialized(ParamId::new(), make, device.clone(), false, shape)
    }
}

/// The transformer of Stable Diffusion 3 and 3.5: answers the velocity `noise - data` for times that are fractions of noise.
#[derive(Module, Debug)]
pub struct Sd3 {
    embed: Conv2d,
    position: Param<Tensor<3>>, // [1, table^2, W]
    time: TimeEmbed,
    prompt: Mlp,
    text: Linear,
    blocks: Vec<JointBlock>,
    final_modulation: Linear, // scale first
    unembed: Linear,
    channels: usize,
    patch: usize,
    context: usize,
    pooled: usize,
    table: usize,
}

impl Backbone<4> for Sd3 {
    type Cond = Text;

    /// # Panics
    /// If `x` or the text is not of the configured size, if the patch does not divide `x` or the position table is too
    /// small for it, or if times or texts are not one a sample.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, text: &Text) -> Tensor<4> {
        Expected { channels: self.channels, text: self.context, pooled: Some(self.pooled) }
            .check(&x, &time, text);
        let grid = latents::grid(&x, self.patch);
        let [_, _, height, width] = x.dims();
        let prompt = || self.prompt.forward(text.pooled.clone().unsqueeze_dim(1)).squeeze_dim::<2>(1);
        let c = keep(|| "time".into(), Constant::Time, || self.time.forward(time))
            + keep(|| "prompt".into(), Constant::Condition, prompt); // [B, W]
        let positions = latents::cut(&self.position, self.table, grid, |side| (self.table - side) / 2);
        let mut h = patches::tokens(&self.embed, x) + positions; // [B, N, W]
        let tokens = || dense(&self.text, text.tokens.clone());
        let mut context = keep(|| "text".into(), Constant::Condition, tokens); // [B, T, W]
        for (i, block) in self.blocks.iter().enumerate() {
            let run = |(h, context)| block.forward(h, context, c.clone());
            (h, context) = trace::block(|| format!("blocks.{i}"), (h, context), run); // [B, N, W], [B, T, W]
        }
        let [scale, shift] = modulate::chunks("final_modulation", &self.final_modulation, c); // 2 x [B, 1, W]
        let h = dense(&self.unembed, modulate::normed(h, shift, scale));
        patch::join_channels_last(h, self.patch, height, width) // [B, C, H, S]
    }
}

/// Both streams attend to both, and each has its own perceptron.
#[derive(Module, Debug)]
struct JointBlock {
    image: Stream,
    context: Stream,
    dual: Option<Dual>,
}

impl JointBlock {
    fn new(config: &Sd3Config, index: usize, device: &Device) -> Self {
        let ends = index + 1 == config.depth;
        let dual = config.dual.contains(&index);
        Self {
            image: Stream::new(config, if dual { 9 } else { 6 }, device),
            context: Stream::new(config, if ends { 2 } else { 6 }, device),
            dual: dual.then(|| Dual {
                qkv: qkv(config).init(device),
                output: xavier_linear(config.width(), config.width(), device),
            }),
        }
    }

    /// `x`: `[B, N, W]`, `context`: `[B, T, W]`, `c`: `[B, W]`; both streams.
    fn forward(&self, x: Tensor<3>, context: Tensor<3>, c: Tensor<2>) -> (Tensor<3>, Tensor<3>) {
        let m = trace::tap(|| "modulation".into(), self.image.modulate(c.clone())); // [B, 1, 6 W or 9 W]
        let n = trace::tap(|| "context_modulation".into(), self.context.modulate(c)); // [B, 1, 6 W or 2 W]
        let streams = [self.image.start(x.clone(), &m), self.context.start(context.clone(), &n)];
        let [read, context_read] =
            trace::scope(|| "attention".into(), || attend_jointly(streams, &Scores::default()));
        let again = self.dual.as_ref().map(|dual| dual.forward(x.clone(), &m));
        let context = self.context.finish(context, context_read, None, &n);
        (self.image.finish(x, read, again, &m), context)
    }
}

fn qkv(config: &Sd3Config) -> QkvConfig {
    QkvConfig::new(config.width(), config.heads, config.head).with_norm(config.qk_norm.then_some(1e-6))
}

/// One stream's layers. The text ends in the last block, where it is only read: it has no output and no perceptron there.
#[derive(Module, Debug)]
struct Stream {
    modulation: Linear,
    qkv: Qkv,
    output: Option<Linear>,
    mlp: Option<Mlp>,
}

impl Stream {
    /// A stream with so many modulation vectors; with two it ends here.
    fn new(config: &Sd3Config, vectors: usize, device: &Device) -> Self {
        let (width, goes_on) = (config.width(), vectors > 2);
        Self {
            modulation: zero_linear(width, vectors * width, device),
            qkv: qkv(config).init(device),
            output: goes_on.then(|| xavier_linear(width, width, device)),
            mlp: goes_on.then(|| MlpConfig::new(width, 4 * width).init(device)),
        }
    }

    /// All modulation vectors in a row: `[B, W]` to `[B, 1, K W]`.
    fn modulate(&self, c: Tensor<2>) -> Tensor<3> {
        linear(&self.modulation, silu(c)).unsqueeze_dim(1)
    }

    /// Queries, keys and values of the modulated stream.
    fn start(&self, x: Tensor<3>, m: &Tensor<3>) -> [Tensor<4>; 3] {
        let width = x.dims()[2];
        let [shift, scale] = match &self.mlp {
            Some(_) => modulate::cut(m.clone().narrow(2, 0, 2 * width)),
            None => {
                let [scale, shift] = modulate::cut(m.clone()); // the other way round, as at the end of the model
                [shift, scale]
            }
        };
        self.qkv.forward(modulate::normed(x, shift, scale), None)
    }

    /// Adds what was read, and again what was read alone, and the perceptron; a stream that ends stays as it is.
    fn finish(&self, x: Tensor<3>, read: Tensor<3>, again: Option<Tensor<3>>, m: &Tensor<3>) -> Tensor<3> {
        let (Some(output), Some(mlp)) = (&self.output, &self.mlp) else { return x };
        let width = x.dims()[2];
        let [gate, shift, scale, gate_m] = modulate::cut(m.clone().narrow(2, 2 * width, 4 * width));
        let x = residual(x, gate, dense(output, read));
        let x = match again {
            Some(again) => x + again,
            None => x,
        };
        let fed = mlp.forward(modulate::normed(x.clone(), shift, scale));
        residual(x, gate_m, fed)
    }
}

/// The image's attention to itself alone.
#[derive(Module, Debug)]
struct Dual {
    qkv: Qkv,
    output: Linear,
}

impl Dual {
    /// Gated, to be added: modulated by the last three of nine vectors.
    fn forward(&self, x: Tensor<3>, m: &Tensor<3>) -> Tensor<3> {
        let width = x.dims()[2];
        let [shift, scale, gate] = modulate::cut(m.clone().narrow(2, 6 * width, 3 * width));
        let own = self.qkv.forward(modulate::normed(x, shift, scale), None);
        let [read] = trace::scope(|| "dual".into(), || attend_jointly([own], &Scores::default()));
        gate * dense(&self.output, read)
    }
}
