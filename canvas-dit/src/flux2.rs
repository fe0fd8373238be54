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

mod blocks;
mod published;

use crate::Prompt;
use crate::latents::shared;
use crate::prompt::Expected;
use crate::streams::check_heads;
use blocks::{Double, Single};
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::{Pairs, Rope, TimeEmbed, TimeEmbedConfig, dense, init, modulate, patch};
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
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Text};
/// use canvas_dit::{Flux2Config, Prompt};
///
/// let device = Device::flex();
/// # let mask = Tensor::<2, Int>::ones([1, 3], &device).bool();
/// # let text = Text { tokens: Tensor::ones([1, 3, 8], &device), mask, pooled: Tensor::ones([1, 4], &device) };
/// let net = Flux2Config::new(1, 1, 2, 8).with_axes([2; 4]).with_channels(6).init(&device);
/// let prompt = Prompt::from(text).with_guidance(4.0).with_reference(Tensor::ones([1, 6, 2, 2], &device));
/// let x = Tensor::ones([1, 6, 3, 5], &device);
/// assert_eq!(net.forward(x, Tensor::from_floats([0.7], &device), &prompt).dims(), [1, 6, 3, 5]);
/// ```
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
        let c = keep(|| "time".into(), Constant::Time, || self.time.forward(time));
        match (&self.guidance, cond.guidance_for(self.guidance.is_some())) {
            (Some(embed), Some(scale)) => {
                c + keep(|| "guidance".into(), Constant::Condition, || embed.forward(scale))
            }
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
        let shared = |name: &str, layer: &Linear| shared(name, layer, &c, self.guidance.is_none()); // [B, 1, V]
        let of_text = shared("text_modulation", &self.text_modulation);
        let of_image = shared("image_modulation", &self.image_modulation);
        let of_single = shared("single_modulation", &self.single_modulation);

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
            let run = |(h, text)| {
                let modulation = [tapped("text_modulation", &of_text), tapped("modulation", &of_image)];
                let [text, h] = block.forward([text, h], modulation, &rope);
                (h, text)
            };
            (h, text) = trace::block(|| format!("double.{i}"), (h, text), run);
        }
        let mut h = Tensor::cat(vec![text, h], 1); // [B, T + N + R, W]
        for (i, block) in self.single.iter().enumerate() {
            let run = |h| block.forward(h, tapped("modulation", &of_single), &rope);
            h = trace::block(|| format!("single.{i}"), h, run);
        }
        let h = h.narrow(1, tokens, height * width); // [B, N, W]
        // The scale first, unlike in the blocks: so the published weights lie.
        let last = shared("final_modulation", &self.final_modulation);
        let [scale, shift] = tapped("final_modulation", &last);
        let h = modulate::normed(h, shift, scale);
        patch::join(dense(&self.unembed, h), 1, height, width) // [B, C, H, S]
    }
}

/// The same for all blocks, but tapped in each: a hook may replace that of one.
fn tapped<const K: usize>(name: &str, shared: &Tensor<3>) -> [Tensor<3>; K] {
    modulate::cut(trace::tap(|| name.into(), shared.clone()))
}
