//! Lumina 2: one stream of text and image tokens after a few blocks for each alone.
//!
//! Qin et al., "Lumina-Image 2.0: A Unified and Efficient Image Generative Framework", 2025, section 3.2,
//! <https://arxiv.org/abs/2503.21758>. Positions count the words on the first axis; the image follows them as one more word,
//! with rows and columns on the others. So they depend on each text's own length.
//!
//! The published network counts its time from noise to data and answers `data - noise`; here both are turned round inside.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` image tokens, `T` text tokens, `W` width.

pub(crate) mod published;

use crate::prompt::Expected;
use crate::sandwich::{self, SandwichBlock, Sequence, Sizes, check_places, grid, lengths, run};
use crate::streams::check_heads;
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{xavier_linear, zero_linear};
use canvas_core::nn::{
    RmsNorm, RmsNormConfig, Scores, TimeEmbed, TimeEmbedConfig, dense, linear, modulate, patch,
};
use canvas_core::ops::silu;
use canvas_core::{Backbone, ConfigError, Text, check};

/// Sizes of a [`Lumina2`].
#[derive(Config, Debug)]
pub struct Lumina2Config {
    /// Blocks of text and image together.
    pub depth: usize,
    /// Attention heads; the width is that of all of them.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Width of the text's tokens (Gemma 2).
    pub text: usize,
    /// Blocks of each of text and image alone, before.
    #[config(default = 2)]
    pub refiners: usize,
    /// Width inside the perceptrons; four times the width if nothing is said.
    pub hidden: Option<usize>,
    /// Features of a head that each axis of positions rotates: word, row, column; all together are a head.
    #[config(default = "[32, 32, 32]")]
    pub axes: [usize; 3],
    /// Positions on each axis that the model was trained for; the image takes one on the first.
    #[config(default = "[300, 512, 512]")]
    pub places: [usize; 3],
    /// Channels of the latents.
    #[config(default = 16)]
    pub channels: usize,
    /// Side of a patch.
    #[config(default = 2)]
    pub patch: usize,
    /// Epsilon of the norms.
    #[config(default = 1e-5)]
    pub eps: f64,
}

impl Lumina2Config {
    /// Lumina-Image 2.0, which reads Gemma 2 2B: 2.6 billion parameters.
    pub fn lumina_image_2() -> Self {
        Self::new(26, 24, 8, 2304)
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.heads * self.axes.iter().sum::<usize>()
    }

    /// # Errors
    /// Names the value that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_heads(self.heads, &self.axes)?;
        check::divides(("key_heads", self.key_heads), ("heads", self.heads))?;
        check::positive(("text", self.text))?;
        check::positive(("channels", self.channels))?;
        check::positive(("patch", self.patch))
    }

    fn sizes(&self) -> Sizes {
        let width = self.width();
        Sizes {
            width,
            heads: self.heads,
            key_heads: self.key_heads,
            hidden: self.hidden.unwrap_or(4 * width),
            vector: width.min(1024),
            eps: self.eps,
        }
    }

    /// Xavier-uniform weights and zero biases, but zeros for all modulation and the last layer, and DiT's for the embedding of
    /// time.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Lumina2 {
        self.validate().unwrap_or_else(|error| panic!("Lumina2Config: {error}"));
        let (sizes, token) = (self.sizes(), self.channels * self.patch * self.patch);
        let Sizes { width, vector, .. } = sizes;
        Lumina2 {
            time: TimeEmbedConfig::new(vector).with_scale(1.0).init(device),
            text_norm: RmsNormConfig::new(self.text).with_epsilon(self.eps).init(device),
            text_in: xavier_linear(self.text, width, device),
            image_in: xavier_linear(token, width, device),
            text_refiner: sizes.blocks(self.refiners, false, device),
            image_refiner: sizes.blocks(self.refiners, true, device),
            blocks: sizes.blocks(self.depth, true, device),
            final_modulation: zero_linear(vector, width, device),
            unembed: zero_linear(width, token, device),
            config: self.clone(),
        }
    }
}

/// The transformer of Lumina 2: noise fraction in `[0, 1]` as time, `noise - data` as answer.
///
/// A text's mask says which of its tokens are real; they stand first. The others are never seen.
#[derive(Module, Debug)]
pub struct Lumina2 {
    time: TimeEmbed,
    text_norm: RmsNorm,
    text_in: Linear,
    image_in: Linear,
    text_refiner: Vec<SandwichBlock>,
    image_refiner: Vec<SandwichBlock>,
    blocks: Vec<SandwichBlock>,
    final_modulation: Linear,
    unembed: Linear,
    #[module(skip)]
    config: Lumina2Config,
}

impl Lumina2 {
    /// Text after its own blocks, cut to the longest, and where it and so many rows and columns of the image stand.
    fn read(&self, text: &Text, [rows, columns]: [usize; 2]) -> Sequence {
        let Lumina2Config { axes, places, .. } = &self.config;
        let (lengths, device) = (lengths(&text.mask), text.tokens.device());
        let longest = lengths.iter().copied().max().unwrap_or(0);
        check_places([longest + 1, rows, columns], *places);
        let positions = |length: usize| {
            let words = (0..longest).map(|word| [word as f64, 0.0, 0.0]);
            words.chain(grid(length, [rows, columns])).collect()
        };
        let rope = sandwich::rope(&lengths, positions, axes, 10000.0, &device);
        let tokens = self.text_norm.forward(text.tokens.clone().narrow(1, 0, longest));
        let h = dense(&self.text_in, tokens); // [B, T, W]
        let scores = Scores::seen(sandwich::seen(&lengths, longest, 0, &device));
        let text = run(&self.text_refiner, "text_refiner", h, None, &rope.narrow(0, longest), &scores);
        Sequence { text, rope, seen: sandwich::seen(&lengths, longest, rows * columns, &device) }
    }
}

impl Backbone<4> for Lumina2 {
    type Cond = Text;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`, where the patch divides `H` and `S`; `time`: `[B]`, the noise fraction
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If sizes disagree, if a row of the text has no real token or one behind padding, or if there are more words, rows or
    /// columns than positions.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Text) -> Tensor<4> {
        let Lumina2Config { channels, text, patch, .. } = self.config;
        Expected { channels, text, pooled: None }.check(&x, &time, cond);
        let [_, _, height, width] = x.dims();
        let tokens = patch::split_channels_last(x, patch);
        let sides = [height / patch, width / patch];
        let c = keep(|| "time".into(), Constant::Time, || silu(self.time.forward(-time + 1.0))); // [B, V]
        let name = || format!("text before {sides:?}");
        let Sequence { text, rope, seen } = keep(name, Constant::Condition, || self.read(cond, sides));

        let (words, count) = (text.dims()[1], tokens.dims()[1]);
        let h = dense(&self.image_in, tokens); // [B, N, W]
        let of_image = rope.narrow(words, count);
        let h = run(&self.image_refiner, "image_refiner", h, Some(&c), &of_image, &Scores::default());
        let h = Tensor::cat(vec![text, h], 1); // [B, T + N, W]
        let h = run(&self.blocks, "blocks", h, Some(&c), &rope, &Scores::seen(seen));
        let h = modulate::norm(h.narrow(1, words, count));
        let scale =
            modulate::of_time("final_modulation", || linear(&self.final_modulation, c).unsqueeze_dim(1));
        let data = dense(&self.unembed, h * (scale + 1.0));
        -patch::join_channels_last(data, patch, height, width) // [B, C, H, S]
    }
}
