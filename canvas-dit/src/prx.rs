//! PRX: image tokens that read the text's keys and values beside their own.
//!
//! Photoroom, PRX, 2025, <https://huggingface.co/Photoroom/prx-512-t2i>. The text is projected once and changes no more, so what
//! every block makes of it is the same at all times.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` image tokens, `T` text tokens, `W` width.

mod published;

use crate::prompt::Expected;
use crate::streams::check_heads;
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{self, normal_linear, xavier_linear, zero_linear};
use canvas_core::nn::{
    Activation, GatedMlp, GatedMlpConfig, Pairs, Qkv, QkvConfig, RmsNorm, RmsNormConfig, Rope, Scores,
    TimeEmbed, TimeEmbedConfig, attend_jointly, attention, dense, linear, modulate, patch, sinusoidal,
};
use canvas_core::ops::{residual, silu};
use canvas_core::{Backbone, ConfigError, Text, check, trace};

/// Sinusoidal features of a side.
const SIDE: usize = 128;

/// Sizes of a [`Prx`].
#[derive(Config, Debug)]
pub struct PrxConfig {
    /// Blocks.
    pub depth: usize,
    /// Attention heads; the width is that of all of them.
    pub heads: usize,
    /// Width of the text's tokens (T5Gemma).
    pub text: usize,
    /// Hidden width of the perceptrons, as a multiple of the width.
    #[config(default = 3.5)]
    pub mlp_ratio: f64,
    /// Features of a head that each axis of positions rotates: row, column; both together are a head.
    #[config(default = "[32, 32]")]
    pub axes: [usize; 2],
    /// Base of the rotations' frequencies.
    #[config(default = 10000.0)]
    pub theta: f64,
    /// Channels of the latents.
    #[config(default = 16)]
    pub channels: usize,
    /// Side of a patch.
    #[config(default = 2)]
    pub patch: usize,
    /// Width of a layer between patches and tokens, where patches are wide (of pixels, in PRX 7B).
    pub bottleneck: Option<usize>,
    /// Whether the network is told the latents' sides.
    #[config(default = false)]
    pub told_size: bool,
    /// Factor on the time.
    #[config(default = 1000.0)]
    pub time_scale: f64,
}

impl PrxConfig {
    /// PRX with the autoencoder of Flux.1: 1.2 billion parameters.
    pub fn prx() -> Self {
        Self::new(16, 28, 2304)
    }

    /// PRX with the deep-compression autoencoder, of 32 pixels a latent.
    pub fn prx_dc_ae() -> Self {
        Self::prx().with_channels(32).with_patch(1)
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.heads * self.axes.iter().sum::<usize>()
    }

    /// # Errors
    /// Names the value that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_heads(self.heads, &self.axes)?;
        check::positive(("the hidden width, by mlp_ratio,", self.hidden()))?;
        check::positive(("text", self.text))?;
        check::positive(("channels", self.channels))?;
        check::positive(("patch", self.patch))?;
        check::positive(("bottleneck", self.bottleneck.unwrap_or(1)))
    }

    fn hidden(&self) -> usize {
        (self.width() as f64 * self.mlp_ratio) as usize
    }

    /// Xavier-uniform weights and zero biases, but zeros for all modulation and the last layer (adaLN-Zero), and DiT's for the
    /// embeddings of time and size.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Prx {
        self.validate().unwrap_or_else(|error| panic!("PrxConfig: {error}"));
        let (width, token) = (self.width(), self.channels * self.patch * self.patch);
        Prx {
            time: TimeEmbedConfig::new(width).with_scale(self.time_scale).init(device),
            size: self.told_size.then(|| SizeEmbed::new(width, device)),
            text_in: xavier_linear(self.text, width, device),
            bottleneck: self.bottleneck.map(|narrow| xavier_linear(token, narrow, device)),
            image_in: xavier_linear(self.bottleneck.unwrap_or(token), width, device),
            blocks: (0..self.depth).map(|_| Block::new(self, device)).collect(),
            final_modulation: zero_linear(width, 2 * width, device),
            unembed: zero_linear(width, token, device),
            config: self.clone(),
        }
    }
}

/// The transformer of PRX: noise fraction in `[0, 1]` as time, `noise - data` as answer.
///
/// A text's mask says which of its tokens may be seen, wherever they stand.
#[derive(Module, Debug)]
pub struct Prx {
    time: TimeEmbed,
    size: Option<SizeEmbed>,
    text_in: Linear,
    bottleneck: Option<Linear>,
    image_in: Linear,
    blocks: Vec<Block>,
    final_modulation: Linear,
    unembed: Linear,
    #[module(skip)]
    config: PrxConfig,
}

impl Prx {
    fn rope(&self, [rows, columns]: [usize; 2], device: &Device) -> Rope {
        let row = |y: usize| (0..columns).map(move |x| [y as f64, x as f64]);
        let positions: Vec<[f64; 2]> = (0..rows).flat_map(row).collect();
        Rope::new(&positions, &self.config.axes, self.config.theta, Pairs::Neighbours, device)
    }

    /// The vector that modulates all blocks, `[B, W]`.
    fn vector(&self, time: Tensor<1>, sides: [usize; 2]) -> Tensor<2> {
        let c = self.time.forward(time);
        match &self.size {
            Some(size) => c + size.forward(sides), // [1, W]
            None => c,
        }
    }
}

impl Backbone<4> for Prx {
    type Cond = Text;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`, where the patch divides `H` and `S`; `time`: `[B]`, the noise fraction
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If sizes disagree.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Text) -> Tensor<4> {
        let PrxConfig { channels, text, patch, .. } = self.config;
        Expected { channels, text, pooled: None }.check(&x, &time, cond);
        let ([batch, _, height, width], device) = (x.dims(), x.device());
        let tokens = patch::split(x, patch);
        let sides = [height, width];
        let c = keep(|| format!("time {sides:?}"), Constant::Time, || silu(self.vector(time, sides))); // [B, W]
        let text = keep(|| "text".into(), Constant::Condition, || dense(&self.text_in, cond.tokens.clone()));
        let make = || self.rope(sides.map(|side| side / patch), &device);
        let rope = keep(|| format!("rope {sides:?}"), Constant::Condition, make);
        let seen = Tensor::<2, Int>::ones([batch, tokens.dims()[1]], &device).bool();
        let scores = Scores::seen(Some(Tensor::cat(vec![cond.mask.clone(), seen], 1)));

        let tokens = match &self.bottleneck {
            Some(layer) => dense(layer, tokens),
            None => tokens,
        };
        let mut h = dense(&self.image_in, tokens); // [B, N, W]
        for (i, block) in self.blocks.iter().enumerate() {
            let run = |h| {
                let all = of_time_at(sides, "modulation", &block.modulation, &c);
                block.forward(h, &text, all, &rope, &scores)
            };
            h = trace::block(|| format!("blocks.{i}"), h, run);
        }
        let [shift, scale] = of_time_at(sides, "final_modulation", &self.final_modulation, &c);
        let h = modulate::normed(h, shift, scale);
        patch::join(dense(&self.unembed, h), patch, height, width) // [B, C, H, S]
    }
}

/// Modulation vectors `[B, 1, W]` of the vector `[B, W]` after its activation, which follows from time and size.
fn of_time_at<const K: usize>(
    sides: [usize; 2],
    name: &str,
    layer: &Linear,
    c: &Tensor<2>,
) -> [Tensor<3>; K] {
    let make = || linear(layer, c.clone()).unsqueeze_dim::<3>(1);
    let all = keep(|| format!("{name} {sides:?}"), Constant::Time, make);
    modulate::cut(trace::tap(|| name.into(), all))
}

/// Height and width through a two-layer perceptron.
#[derive(Module, Debug)]
struct SizeEmbed {
    input: Linear,
    output: Linear,
}

impl SizeEmbed {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            input: normal_linear(0.02, 2 * SIDE, width, device),
            output: normal_linear(0.02, width, width, device),
        }
    }

    /// A vector `[1, W]`.
    fn forward(&self, sides: [usize; 2]) -> Tensor<2> {
        let weight = self.input.weight.val();
        let sides = sides.map(|side| {
            let side = Tensor::from_floats([side as f32], &weight.device());
            sinusoidal(side, SIDE, 10000.0)
        });
        let features = Tensor::cat(sides.to_vec(), 1).cast(weight.dtype());
        linear(&self.output, silu(linear(&self.input, features)))
    }
}

/// Attention of the image to the text and to itself, and GEGLU; each modulated.
#[derive(Module, Debug)]
struct Block {
    modulation: Linear,
    qkv: Qkv,
    text_key: Linear,
    text_value: Linear,
    text_key_norm: RmsNorm,
    output: Linear,
    mlp: GatedMlp,
    heads: usize,
}

impl Block {
    fn new(config: &PrxConfig, device: &Device) -> Self {
        let (width, heads) = (config.width(), config.heads);
        let layer = || init::linear(width, width, false, device);
        let qkv = QkvConfig::new(width, heads, width / heads).with_bias(false).with_norm(Some(1e-6));
        let mlp = GatedMlpConfig::new(width, config.hidden()).with_activation(Activation::GeluTanh);
        Self {
            modulation: zero_linear(width, 6 * width, device),
            qkv: qkv.init(device),
            text_key: layer(),
            text_value: layer(),
            text_key_norm: RmsNormConfig::new(width / heads).with_epsilon(1e-6).init(device),
            output: layer(),
            mlp: mlp.init(device),
            heads,
        }
    }

    /// Keys and values `[B, H, T, W/H]` of the text, which have no positions.
    fn of_text(&self, text: &Tensor<3>) -> [Tensor<4>; 2] {
        let [key, value] = [&self.text_key, &self.text_value]
            .map(|layer| attention::split(dense(layer, text.clone()), self.heads));
        [self.text_key_norm.forward(key), value]
    }

    /// `[B, N, W]` to `[B, N, W]`, by the text `[B, T, W]` and modulation vectors `[B, 1, W]`.
    fn forward(
        &self,
        h: Tensor<3>,
        text: &Tensor<3>,
        [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m]: [Tensor<3>; 6],
        rope: &Rope,
        scores: &Scores,
    ) -> Tensor<3> {
        let read = |x: Tensor<3>| {
            let [text_key, text_value] = keep(|| "kv".into(), Constant::Condition, || self.of_text(text));
            let [query, key, value] = self.qkv.forward(x, Some(rope));
            let [key, value] = [[text_key, key], [text_value, value]].map(|both| Tensor::cat(both.into(), 2));
            attend_jointly([[query, key, value]], scores)
        };
        let x = modulate::normed(h.clone(), shift_a, scale_a);
        let [read] = trace::scope(|| "attention".into(), || read(x));
        let h = residual(h, gate_a, dense(&self.output, read));
        let x = modulate::normed(h.clone(), shift_m, scale_m);
        residual(h, gate_m, self.mlp.forward(x))
    }
}
