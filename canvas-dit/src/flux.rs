//! Flux.1: blocks of two streams, then blocks of one, with rotary positions and distilled guidance.
//!
//! Black Forest Labs, FLUX.1 (dev, schnell, Krea, Fill, Depth, Canny, Kontext), 2024, <https://github.com/black-forest-labs/flux>;
//! Kontext: Batifol et al., "FLUX.1 Kontext", 2025, <https://arxiv.org/abs/2506.15742>. The double block is that of Esser
//! et al., "Scaling Rectified Flow Transformers", 2024, <https://arxiv.org/abs/2403.03206>.
//!
//! Padding of the text is **not masked**: Flux was trained to read it. A text must therefore be padded as the published
//! pipelines do (512 tokens; 256 for schnell), and the same prompt with other padding draws another image.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` image tokens, `R` tokens of references, `T` text
//! tokens, `W` width.

mod fill;
pub(crate) mod published;

pub use fill::fill_channels;

use crate::Prompt;
use crate::prompt::Expected;
use crate::streams::{DoubleBlock, SingleBlock, check_heads};
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{xavier_linear, zero_linear};
use canvas_core::nn::{Pairs, Rope, Scores, TimeEmbed, TimeEmbedConfig, dense, linear, modulate, patch};
use canvas_core::ops::silu;
use canvas_core::{Backbone, ConfigError, check, trace};

/// Sizes of a [`Flux`].
#[derive(Config, Debug)]
pub struct FluxConfig {
    /// Blocks of two streams.
    pub double: usize,
    /// Blocks of one stream.
    pub single: usize,
    /// Attention heads; the width is that of all of them.
    pub heads: usize,
    /// Width of the text tokens (T5).
    pub text: usize,
    /// Width of the pooled text (CLIP).
    pub pooled: usize,
    /// Whether a guidance scale is embedded.
    #[config(default = true)]
    pub guidance: bool,
    /// Features of a head that each axis of positions rotates: reference, row, column; all together are a head.
    #[config(default = "[16, 56, 56]")]
    pub axes: [usize; 3],
    /// Channels of the latents.
    #[config(default = 16)]
    pub channels: usize,
    /// Channels that are read beside them: 80 for Fill, 16 for a depth or edge map.
    #[config(default = 0)]
    pub extra: usize,
    /// Side of a patch.
    #[config(default = 2)]
    pub patch: usize,
}

impl FluxConfig {
    /// FLUX.1 dev, Krea and Kontext: 11.9 billion parameters.
    pub fn dev() -> Self {
        Self::new(19, 38, 24, 4096, 768)
    }

    /// FLUX.1 schnell, which embeds no guidance scale.
    pub fn schnell() -> Self {
        Self::dev().with_guidance(false)
    }

    /// FLUX.1 Fill, which reads [`fill_channels`] beside the latents.
    pub fn fill() -> Self {
        Self::dev().with_extra(80)
    }

    /// FLUX.1 Depth and Canny, which read the latents of a map.
    pub fn control() -> Self {
        Self::dev().with_extra(16)
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.heads * self.axes.iter().sum::<usize>()
    }

    /// # Errors
    /// Names the value that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_heads(self.heads, &self.axes)?;
        check::positive(("channels", self.channels))?;
        check::positive(("patch", self.patch))
    }

    /// Xavier-uniform weights and zero biases, but zeros for all modulation and the last layer (adaLN-Zero), and DiT's for
    /// the embeddings of time and guidance.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Flux {
        self.validate().unwrap_or_else(|error| panic!("FluxConfig: {error}"));
        let (width, token) = (self.width(), self.patch * self.patch);
        let embed = || TimeEmbedConfig::new(width).init(device);
        Flux {
            time: embed(),
            guidance: self.guidance.then(embed),
            pooled_in: xavier_linear(self.pooled, width, device),
            pooled_out: xavier_linear(width, width, device),
            text_in: xavier_linear(self.text, width, device),
            image_in: xavier_linear((self.channels + self.extra) * token, width, device),
            double: (0..self.double).map(|_| FluxDouble::new(width, self.heads, device)).collect(),
            single: (0..self.single).map(|_| FluxSingle::new(width, self.heads, device)).collect(),
            final_modulation: zero_linear(width, 2 * width, device),
            unembed: zero_linear(width, self.channels * token, device),
            config: self.clone(),
        }
    }
}

/// The transformer of Flux.1: noise fraction in `[0, 1]` as time, `noise - data` as answer.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Concatenated, Text};
/// use canvas_dit::{FluxConfig, Prompt, fill_channels};
///
/// let device = Device::flex();
/// # let mask = Tensor::<2, Int>::ones([1, 3], &device).bool();
/// # let text = Text { tokens: Tensor::ones([1, 3, 8], &device), mask, pooled: Tensor::ones([1, 4], &device) };
/// let config = FluxConfig::new(1, 1, 2, 8, 4).with_axes([2, 2, 4]).with_channels(4);
/// let (x, time) = (Tensor::ones([1, 4, 6, 8], &device), Tensor::from_floats([0.7], &device));
/// let flux = config.init(&device);
/// let prompt = Prompt::from(text).with_guidance(3.5);
/// assert_eq!(flux.forward(x.clone(), time.clone(), &prompt).dims(), [1, 4, 6, 8]);
/// // Kontext: with a picture to look at, of any size.
/// let edit = prompt.clone().with_reference(Tensor::ones([1, 4, 2, 4], &device));
/// assert_eq!(flux.forward(x.clone(), time.clone(), &edit).dims(), [1, 4, 6, 8]);
/// // Fill: with a masked picture's latents and the mask's pixels beside the latents.
/// let fill = config.with_extra(4 + 64).init(&device);
/// let beside = fill_channels(Tensor::zeros([1, 4, 6, 8], &device), Tensor::ones([1, 1, 48, 64], &device));
/// let drawn = Concatenated { backbone: &fill }.forward(x, time, &(prompt, beside));
/// assert_eq!(drawn.dims(), [1, 4, 6, 8]);
/// ```
#[derive(Module, Debug)]
pub struct Flux {
    time: TimeEmbed,
    guidance: Option<TimeEmbed>,
    pooled_in: Linear,
    pooled_out: Linear,
    text_in: Linear,
    image_in: Linear,
    double: Vec<FluxDouble>,
    single: Vec<FluxSingle>,
    final_modulation: Linear,
    unembed: Linear,
    #[module(skip)]
    config: FluxConfig,
}

impl Flux {
    fn check_shapes(&self, x: &Tensor<4>, time: &Tensor<1>, cond: &Prompt) {
        let FluxConfig { channels, extra, text, pooled, .. } = self.config;
        let expected = Expected { channels: channels + extra, text, pooled: Some(pooled) };
        expected.check(x, time, &cond.text);
        expected.check_references(x.dims()[0], &cond.references);
    }

    /// The vector that modulates all blocks, `[B, W]`: time, pooled text and guidance.
    fn vector(&self, time: Tensor<1>, cond: &Prompt) -> Tensor<2> {
        let pooled = || linear(&self.pooled_out, silu(linear(&self.pooled_in, cond.text.pooled.clone())));
        let c = keep(|| "time".into(), Constant::Time, || self.time.forward(time))
            + keep(|| "pooled".into(), Constant::Condition, pooled); // [B, W]
        match (&self.guidance, cond.guidance_for(self.guidance.is_some())) {
            (Some(embed), Some(scale)) => {
                c + keep(|| "guidance".into(), Constant::Condition, || embed.forward(scale))
            }
            _ => c,
        }
    }

    /// Rotations of text, image and references: `T + N + R` positions of `[reference, row, column]`.
    ///
    /// All of the text stands at the origin. Reference `k` (from 1) stands at `k` of the first axis: Kontext was trained with
    /// one; how several are told apart is not published, and here they are counted on.
    fn rope(&self, tokens: usize, sides: &[[usize; 2]], device: &Device) -> Rope {
        let mut positions = vec![[0.0; 3]; tokens];
        for (k, [height, width]) in sides.iter().enumerate() {
            let [rows, columns] = [height / self.config.patch, width / self.config.patch];
            let row = |y: usize| (0..columns).map(move |x| [k as f64, y as f64, x as f64]);
            positions.extend((0..rows).flat_map(row));
        }
        Rope::new(&positions, &self.config.axes, 10000.0, Pairs::Neighbours, device)
    }
}

impl Backbone<4> for Flux {
    type Cond = Prompt;

    /// # Shapes
    /// - `x`: `[B, C + X, H, S]`, where `X` are the [extra](FluxConfig::extra) channels; the patch divides `H` and `S`
    /// - `time`: `[B]`, the noise fraction; output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If sizes disagree, or exactly one of prompt and network has a guidance scale.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Prompt) -> Tensor<4> {
        self.check_shapes(&x, &time, cond);
        let ([_, _, height, width], device) = (x.dims(), x.device());
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
        let c = self.vector(time, cond); // [B, W]

        let split = images.into_iter().map(|image| patch::split(image, self.config.patch)).collect();
        let mut h = dense(&self.image_in, Tensor::cat(split, 1)); // [B, N + R, W]
        for (i, block) in self.double.iter().enumerate() {
            let run = |(h, text)| {
                let [text, h] = block.forward([text, h], c.clone(), &rope);
                (h, text)
            };
            (h, text) = trace::block(|| format!("double.{i}"), (h, text), run);
        }
        let mut h = Tensor::cat(vec![text, h], 1); // [B, T + N + R, W]
        for (i, block) in self.single.iter().enumerate() {
            h = trace::block(|| format!("single.{i}"), h, |h| block.forward(h, c.clone(), &rope));
        }
        let places = (height / self.config.patch) * (width / self.config.patch);
        let h = h.narrow(1, tokens, places); // [B, N, W]
        // The scale first, unlike in the blocks: so the published weights lie.
        let [scale, shift] = modulate::chunks("final_modulation", &self.final_modulation, c);
        let h = modulate::normed(h, shift, scale);
        patch::join(dense(&self.unembed, h), self.config.patch, height, width) // [B, C, H, S]
    }
}

/// A double block with modulation of its own.
#[derive(Module, Debug)]
struct FluxDouble {
    streams: DoubleBlock,
    text_modulation: Linear,
    image_modulation: Linear,
}

impl FluxDouble {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self {
            streams: DoubleBlock::new(width, heads, device),
            text_modulation: zero_linear(width, 6 * width, device),
            image_modulation: zero_linear(width, 6 * width, device),
        }
    }

    fn forward(&self, h: [Tensor<3>; 2], c: Tensor<2>, rope: &Rope) -> [Tensor<3>; 2] {
        let text = modulate::chunks("text_modulation", &self.text_modulation, c.clone());
        let image = modulate::chunks("modulation", &self.image_modulation, c);
        self.streams.forward(h, [text, image], rope, &Scores::default())
    }
}

/// A single block with modulation of its own.
#[derive(Module, Debug)]
struct FluxSingle {
    block: SingleBlock,
    modulation: Linear,
}

impl FluxSingle {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self {
            block: SingleBlock::new(width, heads, device),
            modulation: zero_linear(width, 3 * width, device),
        }
    }

    fn forward(&self, h: Tensor<3>, c: Tensor<2>, rope: &Rope) -> Tensor<3> {
        let [shift, scale, gate] = modulate::chunks("modulation", &self.modulation, c);
        self.block.forward(h, [shift, scale, gate], rope, &Scores::default())
    }
}
