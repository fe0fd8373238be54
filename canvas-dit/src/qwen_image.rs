//! Qwen-Image: Flux's double blocks and no others, with a large language model's states as text.
//!
//! Wu et al., "Qwen-Image Technical Report", 2025, Figure 6 and section 2.4, <https://arxiv.org/abs/2508.02324>. Its positions
//! (MSRoPE) count rows and columns from the image's centre, and the text on along the diagonal from the image's corner.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` image tokens, `R` tokens of references, `T` text
//! tokens, `W` width.

mod published;

use crate::Prompt;
use crate::prompt::Expected;
use crate::streams::{DoubleBlock, Modulation, check_heads};
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{xavier_linear, zero_linear};
use canvas_core::nn::{
    Pairs, RmsNorm, RmsNormConfig, Rope, Scores, TimeEmbed, TimeEmbedConfig, dense, linear, modulate, patch,
};
use canvas_core::ops::silu;
use canvas_core::{Backbone, ConfigError, check, trace};

/// Sizes of a [`QwenImage`].
#[derive(Config, Debug)]
pub struct QwenImageConfig {
    /// Blocks.
    pub depth: usize,
    /// Attention heads; the width is that of all of them.
    pub heads: usize,
    /// Width of the text tokens (Qwen2.5-VL).
    pub text: usize,
    /// Features of a head that each axis of positions rotates: picture, row, column; all together are a head.
    #[config(default = "[16, 56, 56]")]
    pub axes: [usize; 3],
    /// Channels of the latents.
    #[config(default = 16)]
    pub channels: usize,
    /// Side of a patch.
    #[config(default = 2)]
    pub patch: usize,
    /// Whether pictures to look at are modulated as at time 0, since they bear no noise (Qwen-Image-Edit 2511).
    #[config(default = false)]
    pub clean_references: bool,
}

impl QwenImageConfig {
    /// Qwen-Image and Qwen-Image-Edit: 20 billion parameters.
    pub fn qwen_image() -> Self {
        Self::new(60, 24, 3584)
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
    /// the embedding of time.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> QwenImage {
        self.validate().unwrap_or_else(|error| panic!("QwenImageConfig: {error}"));
        let (width, token) = (self.width(), self.channels * self.patch * self.patch);
        QwenImage {
            time: TimeEmbedConfig::new(width).init(device),
            text_norm: RmsNormConfig::new(self.text).with_epsilon(1e-6).init(device),
            text_in: xavier_linear(self.text, width, device),
            image_in: xavier_linear(token, width, device),
            blocks: (0..self.depth).map(|_| QwenBlock::new(width, self.heads, device)).collect(),
            final_modulation: zero_linear(width, 2 * width, device),
            unembed: zero_linear(width, token, device),
            config: self.clone(),
        }
    }
}

/// The transformer of Qwen-Image: noise fraction in `[0, 1]` as time, `noise - data` as answer.
///
/// Nothing reads the text behind the last block's attention: the layers there have no gradient, and stay as they are.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Text};
/// use canvas_dit::{Prompt, QwenImageConfig};
///
/// let device = Device::flex();
/// # let mask = Tensor::<2, Int>::ones([1, 3], &device).bool();
/// # let text = Text { tokens: Tensor::ones([1, 3, 8], &device), mask, pooled: Tensor::ones([1, 4], &device) };
/// let net = QwenImageConfig::new(1, 2, 8).with_axes([2, 2, 4]).with_channels(4).init(&device);
/// // Qwen-Image-Edit: with pictures to look at, of any size.
/// let prompt = Prompt::from(text).with_reference(Tensor::ones([1, 4, 2, 4], &device));
/// let x = Tensor::ones([1, 4, 6, 8], &device);
/// assert_eq!(net.forward(x, Tensor::from_floats([0.7], &device), &prompt).dims(), [1, 4, 6, 8]);
/// ```
#[derive(Module, Debug)]
pub struct QwenImage {
    time: TimeEmbed,
    text_norm: RmsNorm,
    text_in: Linear,
    image_in: Linear,
    blocks: Vec<QwenBlock>,
    final_modulation: Linear,
    unembed: Linear,
    #[module(skip)]
    config: QwenImageConfig,
}

impl QwenImage {
    /// Rotations of text, image and references: `T + N + R` positions of `[picture, row, column]`.
    fn rope(&self, tokens: usize, sides: &[[usize; 2]], device: &Device) -> Rope {
        let grids = sides.iter().map(|side| side.map(|side| side / self.config.patch));
        // Behind the largest picture's corner.
        let start = grids.clone().flatten().map(|side| side / 2).max().unwrap_or(0);
        let mut positions: Vec<[f64; 3]> = (start..start + tokens).map(|place| [place as f64; 3]).collect();
        for (k, [rows, columns]) in grids.enumerate() {
            let centred = |place: usize, count: usize| place as f64 - (count - count / 2) as f64;
            let row = |y: usize| (0..columns).map(move |x| [k as f64, centred(y, rows), centred(x, columns)]);
            positions.extend((0..rows).flat_map(row));
        }
        Rope::new(&positions, &self.config.axes, 10000.0, Pairs::Neighbours, device)
    }

    /// Modulation of a block's text and of its image tokens, `counts` of them that are drawn and looked at; by the vector of
    /// the time and that of time 0, both `[B, W]` after their activation.
    fn modulation(
        &self,
        block: &QwenBlock,
        [c, still]: &[Tensor<2>; 2],
        counts: [usize; 2],
    ) -> [Modulation; 2] {
        let by = |layer: &Linear, c: &Tensor<2>| linear(layer, c.clone()).unsqueeze_dim::<3>(1); // [B, 1, 6 W]
        let text = modulate::of_time("text_modulation", || by(&block.text_modulation, c));
        let image = modulate::of_time("modulation", || by(&block.image_modulation, c));
        let [drawn, seen] = counts;
        let image = if self.config.clean_references && seen > 0 {
            let still = keep(|| "still".into(), Constant::Time, || by(&block.image_modulation, still));
            Tensor::cat(vec![image.repeat_dim(1, drawn), still.repeat_dim(1, seen)], 1) // [B, N + R, 6 W]
        } else {
            image
        };
        [modulate::cut(text), modulate::cut(image)]
    }
}

impl Backbone<4> for QwenImage {
    type Cond = Prompt;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`, where the patch divides `H` and `S`; `time`: `[B]`, the noise fraction
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If sizes disagree, or the prompt holds a guidance scale.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Prompt) -> Tensor<4> {
        let QwenImageConfig { channels, text, patch, .. } = self.config;
        let expected = Expected { channels, text, pooled: None };
        expected.check(&x, &time, &cond.text);
        expected.check_references(x.dims()[0], &cond.references);
        cond.guidance_for(false);
        let ([batch, _, height, width], device) = (x.dims(), x.device());
        let vectors = || [time.clone(), time.zeros_like()].map(|time| silu(self.time.forward(time))); // 2 x [B, W]
        let vectors = keep(|| "time".into(), Constant::Time, vectors);
        let mut text = keep(
            || "text".into(),
            Constant::Condition,
            || dense(&self.text_in, self.text_norm.forward(cond.text.tokens.clone())), // [B, T, W]
        );
        let tokens = text.dims()[1];
        let images: Vec<Tensor<4>> = std::iter::once(x).chain(cond.references.iter().cloned()).collect();
        let sides: Vec<[usize; 2]> = images.iter().map(|image| [image.dims()[2], image.dims()[3]]).collect();
        let rope =
            keep(|| format!("rope {sides:?}"), Constant::Condition, || self.rope(tokens, &sides, &device));
        let split = images.into_iter().map(|image| patch::split(image, patch)).collect();
        let mut h = dense(&self.image_in, Tensor::cat(split, 1)); // [B, N + R, W]
        let noised = (height / patch) * (width / patch);
        let counts = [noised, h.dims()[1] - noised];
        let seen = Tensor::<2, Int>::ones([batch, h.dims()[1]], &device).bool();
        let scores = Scores::seen(Some(Tensor::cat(vec![cond.text.mask.clone(), seen], 1)));
        for (i, block) in self.blocks.iter().enumerate() {
            let run = |(h, text)| {
                let modulation = self.modulation(block, &vectors, counts);
                let [text, h] = block.streams.forward([text, h], modulation, &rope, &scores);
                (h, text)
            };
            (h, text) = trace::block(|| format!("blocks.{i}"), (h, text), run);
        }
        let [c, _] = vectors;
        // The scale first, unlike in the blocks: so the published weights lie.
        let last = || linear(&self.final_modulation, c).unsqueeze_dim(1);
        let [scale, shift] = modulate::cut(modulate::of_time("final_modulation", last));
        let h = modulate::normed(h.narrow(1, 0, noised), shift, scale); // [B, N, W]
        patch::join(dense(&self.unembed, h), patch, height, width) // [B, C, H, S]
    }
}

/// A double block with modulation of its own.
#[derive(Module, Debug)]
struct QwenBlock {
    streams: DoubleBlock,
    text_modulation: Linear,
    image_modulation: Linear,
}

impl QwenBlock {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self {
            streams: DoubleBlock::new(width, heads, device),
            text_modulation: zero_linear(width, 6 * width, device),
            image_modulation: zero_linear(width, 6 * width, device),
        }
    }
}
