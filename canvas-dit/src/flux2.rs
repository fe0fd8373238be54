//! Flux.2: Flux's two kinds of blocks with one modulation for all of them, no biases and gated perceptrons.
//!
//! Black Forest Labs, FLUX.2 (dev, klein), 2025, <https://github.com/black-forest-labs/flux2>.
//!
//! Its latents come from [its autoencoder](https://huggingface.co/black-forest-labs/FLUX.2-dev) in patches already: 128
//! channels on a sixteenth of the side, normalised by measured statistics. Padding of the text is **not masked**: the network
//! was trained to read it, so a text must be padded as the published pipelines do (512 tokens).
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` image tokens, `R` tokens of references, `T` text
//! tokens, `L` all of them, `W` width.

mod published;

use crate::Prompt;
use crate::prompt::Expected;
use crate::streams::{Modulation, answer, attend_both, check_heads, modulation};
use burn::nn::{Linear, RmsNorm, RmsNormConfig};
use burn::prelude::*;
use burn::tensor::activation::silu;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::{
    GatedMlp, GatedMlpConfig, Pairs, Qkv, QkvConfig, Rope, Scores, TimeEmbed, TimeEmbedConfig,
    attend_jointly, attention, dense, init, modulate, patch,
};
use canvas_core::{Backbone, ConfigError, check, trace};

/// Sizes of a [`Flux2`].
#[derive(Config, Debug)]
pub struct Flux2Config {
    /// Blocks of two streams.
    pub double: usize,
    /// Blocks of one stream.
    pub single: usize,
    /// Attention heads; the width is that of all of them.
    pub heads: usize,
    /// Width of the text tokens: three layers of a language model side by side.
    pub text: usize,
    /// Whether a guidance scale is embedded.
    #[config(default = true)]
    pub guidance: bool,
    /// Hidden width of the perceptrons, as a multiple of the width.
    #[config(default = 3.0)]
    pub mlp_ratio: f64,
    /// Sinusoidal features of time and guidance.
    #[config(default = 256)]
    pub time_features: usize,
    /// Features of a head that each axis of positions rotates: picture, row, column, word; all together are a head.
    #[config(default = "[32, 32, 32, 32]")]
    pub axes: [usize; 4],
    /// Base of the rotations' frequencies.
    #[config(default = 2000.0)]
    pub theta: f64,
    /// Channels of the latents.
    #[config(default = 128)]
    pub channels: usize,
}

impl Flux2Config {
    /// FLUX.2 dev, which reads Mistral Small 3: 32 billion parameters.
    pub fn dev() -> Self {
        Self::new(8, 48, 48, 3 * 5120)
    }

    /// FLUX.2 klein 4B, which reads Qwen3 4B.
    pub fn klein_4b() -> Self {
        Self::new(5, 20, 24, 3 * 2560).with_guidance(false)
    }

    /// FLUX.2 klein 9B, which reads Qwen3 8B.
    pub fn klein_9b() -> Self {
        Self::new(8, 24, 32, 3 * 4096).with_guidance(false)
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.heads * self.axes.iter().sum::<usize>()
    }

    /// Width inside the perceptrons.
    pub fn hidden(&self) -> usize {
        (self.width() as f64 * self.mlp_ratio) as usize
    }

    /// # Errors
    /// Names the value that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_heads(self.heads, &self.axes)?;
        check::positive(("the hidden width, by mlp_ratio,", self.hidden()))?;
        check::divides(("2", 2), ("time_features", self.time_features))?;
        check::positive(("channels", self.channels))
    }

    /// Xavier-uniform weights, but zeros for all modulation and the last layer (adaLN-Zero), and DiT's for the embeddings of
    /// time and guidance.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Flux2 {
        self.validate().unwrap_or_else(|error| panic!("Flux2Config: {error}"));
        let width = self.width();
        let embed = || {
            let config = TimeEmbedConfig::new(width).with_features(self.time_features);
            let mut embed = config.init(device);
            (embed.input.bias, embed.output.bias) = (None, None);
            embed
        };
        let zero = |to: usize| Linear { bias: None, ..init::zero_linear(width, to, device) };
        Flux2 {
            time: embed(),
            guidance: self.guidance.then(embed),
            text_modulation: zero(6 * width),
            image_modulation: zero(6 * width),
            single_modulation: zero(3 * width),
            text_in: init::linear(self.text, width, false, device),
            image_in: init::linear(self.channels, width, false, device),
            double: (0..self.double).map(|_| Double::new(self, device)).collect(),
            single: (0..self.single).map(|_| Single::new(self, device)).collect(),
            final_modulation: zero(2 * width),
            unembed: zero(self.channels),
            config: self.clone(),
        }
    }
}

/// The transformer of Flux.2: noise fraction in `[0, 1]` as time, `noise - data` as answer.
#[derive(Module, Debug)]
pub struct Flux2 {
    time: TimeEmbed,
    guidance: Option<TimeEmbed>,
    text_modulation: Linear,
    image_modulation: Linear,
    single_modulation: Linear,
    text_in: Linear,
    image_in: Linear,
    double: Vec<Double>,
    single: Vec<Single>,
    final_modulation: Linear,
    unembed: Linear,
    #[module(skip)]
    config: Flux2Config,
}

impl Flux2 {
    /// Rotations of text, image and references: `T + N + R` positions of `[picture, row, column, word]`.
    ///
    /// Words are counted on an axis of their own; reference `k` (from 0) is picture `10 + 10 k`.
    fn rope(&self, tokens: usize, sides: &[[usize; 2]], device: &Device) -> Rope {
        let mut positions: Vec<[f64; 4]> = (0..tokens).map(|word| [0.0, 0.0, 0.0, word as f64]).collect();
        for (k, &[rows, columns]) in sides.iter().enumerate() {
            let picture = 10.0 * k as f64;
            let row = |y: usize| (0..columns).map(move |x| [picture, y as f64, x as f64, 0.0]);
            positions.extend((0..rows).flat_map(row));
        }
        Rope::new(&positions, &self.config.axes, self.config.theta, Pairs::Neighbours, device)
    }

    /// The vector that modulates all blocks, `[B, W]`.
    fn vector(&self, time: Tensor<1>, cond: &Prompt) -> Tensor<2> {
        let c = self.time.forward(time);
        match (&self.guidance, cond.guidance_for(self.guidance.is_some())) {
            (Some(embed), Some(scale)) => c + embed.forward(scale),
            _ => c,
        }
    }
}

impl Backbone<4> for Flux2 {
    type Cond = Prompt;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`; `time`: `[B]`, the noise fraction; output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If sizes disagree, or exactly one of prompt and network has a guidance scale.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Prompt) -> Tensor<4> {
        let Flux2Config { channels, text, .. } = self.config;
        let expected = Expected { channels, text, pooled: None };
        expected.check(&x, &time, &cond.text);
        expected.check_references(x.dims()[0], &cond.references);
        let ([_, _, height, width], device) = (x.dims(), x.device());
        let c = self.vector(time, cond); // [B, W]
        let of_text = modulation("text_modulation", &self.text_modulation, c.clone());
        let of_image = modulation("modulation", &self.image_modulation, c.clone());
        let of_single: [Tensor<3>; 3] = modulation("single_modulation", &self.single_modulation, c.clone());

        let mut text = keep(
            || "text".into(),
            Constant::Condition,
            || dense(&self.text_in, cond.text.tokens.clone()), // [B, T, W]
        );
        let tokens = text.dims()[1];
        let images: Vec<Tensor<4>> = std::iter::once(x).chain(cond.references.iter().cloned()).collect();
        let sides: Vec<[usize; 2]> = images.iter().map(|image| [image.dims()[2], image.dims()[3]]).collect();
        let rope =
            keep(|| format!("rope {sides:?}"), Constant::Condition, || self.rope(tokens, &sides, &device));
        let split = images.into_iter().map(|image| patch::split(image, 1)).collect();
        let mut h = dense(&self.image_in, Tensor::cat(split, 1)); // [B, N + R, W]
        for (i, block) in self.double.iter().enumerate() {
            h = trace::block(
                || format!("double.{i}"),
                h,
                |h| {
                    let [context, h] = block.forward([text.clone(), h], [&of_text, &of_image], &rope);
                    text = trace::tap(|| "context".into(), context);
                    h
                },
            );
        }
        let mut h = Tensor::cat(vec![text, h], 1); // [B, T + N + R, W]
        for (i, block) in self.single.iter().enumerate() {
            h = trace::block(|| format!("single.{i}"), h, |h| block.forward(h, of_single.clone(), &rope));
        }
        let h = h.narrow(1, tokens, height * width); // [B, N, W]
        // The scale first, unlike in the blocks: so the published weights lie.
        let [scale, shift] = modulation("final_modulation", &self.final_modulation, c);
        let h = modulate::apply(modulate::norm(h), shift, scale);
        patch::join(dense(&self.unembed, h), 1, height, width) // [B, C, H, S]
    }
}

/// A stream's own layers in a [`Double`].
#[derive(Module, Debug)]
struct Stream {
    qkv: Qkv,
    output: Linear,
    mlp: GatedMlp,
}

impl Stream {
    fn new(config: &Flux2Config, device: &Device) -> Self {
        let (width, heads) = (config.width(), config.heads);
        let qkv = QkvConfig::new(width, heads, width / heads).with_bias(false).with_norm(Some(1e-6));
        Self {
            qkv: qkv.init(device),
            output: init::linear(width, width, false, device),
            mlp: GatedMlpConfig::new(width, config.hidden()).init(device),
        }
    }
}

/// Text and image with layers of their own, which attend to each other.
#[derive(Module, Debug)]
struct Double {
    text: Stream,
    image: Stream,
}

impl Double {
    fn new(config: &Flux2Config, device: &Device) -> Self {
        Self { text: Stream::new(config, device), image: Stream::new(config, device) }
    }

    fn forward(
        &self,
        [text, image]: [Tensor<3>; 2],
        [of_text, of_image]: [&Modulation; 2],
        rope: &Rope,
    ) -> [Tensor<3>; 2] {
        let streams = [(&self.text.qkv, &text, of_text), (&self.image.qkv, &image, of_image)];
        let [read_text, read_image] = attend_both(streams, rope, &Scores::default());
        let after = |stream: &Stream, h, read, modulation: &Modulation| {
            answer(h, dense(&stream.output, read), modulation.clone(), |m| stream.mlp.forward(m))
        };
        [after(&self.text, text, read_text, of_text), after(&self.image, image, read_image, of_image)]
    }
}

/// Attention and gated perceptron side by side, with one layer before both and one behind.
#[derive(Module, Debug)]
struct Single {
    input: Linear,
    query_norm: RmsNorm,
    key_norm: RmsNorm,
    output: Linear,
    heads: usize,
    hidden: usize,
}

impl Single {
    fn new(config: &Flux2Config, device: &Device) -> Self {
        let (width, heads, hidden) = (config.width(), config.heads, config.hidden());
        let norm = || RmsNormConfig::new(width / heads).with_epsilon(1e-6).init(device);
        Self {
            input: init::linear(width, 3 * width + 2 * hidden, false, device),
            query_norm: norm(),
            key_norm: norm(),
            output: init::linear(width + hidden, width, false, device),
            heads,
            hidden,
        }
    }

    /// `[B, L, W]` to `[B, L, W]`.
    fn forward(&self, h: Tensor<3>, [shift, scale, gate]: [Tensor<3>; 3], rope: &Rope) -> Tensor<3> {
        let (width, hidden) = (h.dims()[2], self.hidden);
        let all = dense(&self.input, modulate::apply(modulate::norm(h.clone()), shift, scale));
        let [query, key, value] =
            [0, 1, 2].map(|k| attention::split(all.clone().narrow(2, k * width, width), self.heads));
        let query = rope.rotate(self.query_norm.forward(query)); // [B, H, L, W/H]
        let key = rope.rotate(self.key_norm.forward(key));
        let [read] =
            trace::scope(|| "attention".into(), || attend_jointly([[query, key, value]], &Scores::default()));
        let [open, up] = [0, 1].map(|k| all.clone().narrow(2, 3 * width + k * hidden, hidden));
        h + gate * dense(&self.output, Tensor::cat(vec![read, silu(open) * up], 2))
    }
}
