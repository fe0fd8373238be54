//! Z-Image: Lumina 2's recipe with text and image each filled up to 32 tokens by learned ones.
//!
//! Cai et al., "Z-Image: An Efficient Image Generation Foundation Model with Single-Stream Diffusion Transformer", 2025,
//! section 4.1, <https://arxiv.org/abs/2511.22699>. What fills up is seen as any other token: behind a text it stands where the
//! next words would, behind an image at the origin.
//!
//! The published network counts its time from noise to data and answers `data - noise`; here both are turned round inside.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` image tokens, filled up, `T` text tokens, filled
//! up, `W` width.

mod published;

use crate::prompt::Expected;
use crate::sandwich::{self, SandwichBlock, Sequence, Sizes, check_places, grid, lengths, run};
use crate::streams::check_heads;
use burn::module::Param;
use burn::nn::{Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{normal_linear, xavier_linear, zero_linear};
use canvas_core::nn::{RmsNorm, RmsNormConfig, Scores, dense, linear, modulate, patch, sinusoidal};
use canvas_core::ops::silu;
use canvas_core::{Backbone, ConfigError, Text, check};

/// Text and image are filled up to a multiple of so many tokens.
const MULTIPLE: usize = 32;
/// Sinusoidal features of the time, and the width of the vector that modulates, if the tokens are not narrower.
const VECTOR: usize = 256;
/// Width inside the embedding of the time.
const TIME: usize = 1024;

/// Sizes of a [`ZImage`].
#[derive(Config, Debug)]
pub struct ZImageConfig {
    /// Blocks of text and image together.
    pub depth: usize,
    /// Attention heads; the width is that of all of them.
    pub heads: usize,
    /// Width of the text's tokens (Qwen3).
    pub text: usize,
    /// Blocks of each of text and image alone, before.
    #[config(default = 2)]
    pub refiners: usize,
    /// Features of a head that each axis of positions rotates: word, row, column; all together are a head.
    #[config(default = "[32, 48, 48]")]
    pub axes: [usize; 3],
    /// Positions on each axis that the model was trained for; on the first one is before the words, one the image's.
    #[config(default = "[1536, 512, 512]")]
    pub places: [usize; 3],
    /// Base of the rotations' frequencies.
    #[config(default = 256.0)]
    pub theta: f64,
    /// Channels of the latents.
    #[config(default = 16)]
    pub channels: usize,
    /// Side of a patch.
    #[config(default = 2)]
    pub patch: usize,
    /// Factor on the time.
    #[config(default = 1000.0)]
    pub time_scale: f64,
    /// Epsilon of the norms.
    #[config(default = 1e-5)]
    pub eps: f64,
}

impl ZImageConfig {
    /// Z-Image and Z-Image-Turbo, which read Qwen3 4B: 6 billion parameters.
    pub fn z_image() -> Self {
        Self::new(30, 30, 2560)
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.heads * self.axes.iter().sum::<usize>()
    }

    /// # Errors
    /// Names the value that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_heads(self.heads, &self.axes)?;
        check::positive(("text", self.text))?;
        check::positive(("channels", self.channels))?;
        check::positive(("patch", self.patch))
    }

    fn sizes(&self) -> Sizes {
        let (width, heads) = (self.width(), self.heads);
        let hidden = (width as f64 / 3.0 * 8.0) as usize;
        Sizes { width, heads, key_heads: heads, hidden, vector: width.min(VECTOR), eps: self.eps }
    }

    /// Xavier-uniform weights and zero biases, but zeros for all modulation and the last layer, and normal ones of deviation
    /// 0.02 for the embedding of time and the tokens that fill up.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> ZImage {
        self.validate().unwrap_or_else(|error| panic!("ZImageConfig: {error}"));
        let (sizes, token) = (self.sizes(), self.channels * self.patch * self.patch);
        let Sizes { width, vector, .. } = sizes;
        let filling = || Initializer::Normal { mean: 0.0, std: 0.02 }.init([1, width], device);
        ZImage {
            time_in: normal_linear(0.02, VECTOR, TIME, device),
            time_out: normal_linear(0.02, TIME, vector, device),
            text_norm: RmsNormConfig::new(self.text).with_epsilon(self.eps).init(device),
            text_in: xavier_linear(self.text, width, device),
            text_filling: filling(),
            image_in: xavier_linear(token, width, device),
            image_filling: filling(),
            text_refiner: sizes.blocks(self.refiners, false, device),
            image_refiner: sizes.blocks(self.refiners, true, device),
            blocks: sizes.blocks(self.depth, true, device),
            final_modulation: zero_linear(vector, width, device),
            unembed: zero_linear(width, token, device),
            config: self.clone(),
        }
    }
}

/// The transformer of Z-Image: noise fraction in `[0, 1]` as time, `noise - data` as answer.
///
/// A text's mask says which of its tokens are real; they stand first. The others are never seen, and a text of a batch is
/// filled up as if it were alone.
#[derive(Module, Debug)]
pub struct ZImage {
    time_in: Linear,
    time_out: Linear,
    text_norm: RmsNorm,
    text_in: Linear,
    text_filling: Param<Tensor<2>>, // [1, W]
    image_in: Linear,
    image_filling: Param<Tensor<2>>,
    text_refiner: Vec<SandwichBlock>,
    image_refiner: Vec<SandwichBlock>,
    blocks: Vec<SandwichBlock>,
    final_modulation: Linear,
    unembed: Linear,
    #[module(skip)]
    config: ZImageConfig,
}

impl ZImage {
    /// `[B]` to `[B, V]`.
    fn vector(&self, time: Tensor<1>) -> Tensor<2> {
        let features = sinusoidal((-time + 1.0) * self.config.time_scale, VECTOR, 10000.0);
        let features = features.cast(self.time_in.weight.val().dtype());
        linear(&self.time_out, silu(linear(&self.time_in, features)))
    }

    /// Text filled up and after its own blocks, and where it and so many rows and columns of the image stand.
    fn read(&self, text: &Text, [rows, columns]: [usize; 2]) -> Sequence {
        let ZImageConfig { axes, places, theta, .. } = &self.config;
        let (real, device) = (lengths(&text.mask), text.tokens.device());
        let filled: Vec<usize> = real.iter().map(|real| real.next_multiple_of(MULTIPLE)).collect();
        let (longest, words) =
            (real.iter().copied().max().unwrap_or(0), filled.iter().copied().max().unwrap_or(0));
        check_places([words + 2, rows, columns], *places);
        let image = (rows * columns).next_multiple_of(MULTIPLE);
        let positions = |length: usize| {
            let words = (1..=words).map(|word| [word as f64, 0.0, 0.0]);
            let filling = std::iter::repeat_n([0.0; 3], image - rows * columns);
            words.chain(grid(length + 1, [rows, columns])).chain(filling).collect()
        };
        let rope = sandwich::rope(&filled, positions, axes, *theta, &device);
        let tokens = self.text_norm.forward(text.tokens.clone().narrow(1, 0, longest));
        let h = fill(dense(&self.text_in, tokens), self.text_filling.val(), words);
        let h = match sandwich::seen(&real, words, 0, &device) {
            Some(real) => {
                let filling = self.text_filling.val().unsqueeze::<3>().expand(h.dims());
                h.mask_where(real.bool_not().unsqueeze_dim::<3>(2).expand(filling.dims()), filling)
            }
            None => h,
        }; // [B, T, W]
        let scores = Scores::seen(sandwich::seen(&filled, words, 0, &device));
        let text = run(&self.text_refiner, "text_refiner", h, None, &rope.narrow(0, words), &scores);
        Sequence { text, rope, seen: sandwich::seen(&filled, words, image, &device) }
    }
}

/// `[B, L, W]` to `[B, to, W]` by the token `[1, W]`.
fn fill(h: Tensor<3>, filling: Tensor<2>, to: usize) -> Tensor<3> {
    let [batch, length, width] = h.dims();
    if length == to {
        return h;
    }
    Tensor::cat(vec![h, filling.unsqueeze::<3>().expand([batch, to - length, width])], 1)
}

impl Backbone<4> for ZImage {
    type Cond = Text;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`, where the patch divides `H` and `S`; `time`: `[B]`, the noise fraction
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If sizes disagree, if a row of the text has no real token or one behind padding, or if there are more words, rows or
    /// columns than positions.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Text) -> Tensor<4> {
        let ZImageConfig { channels, text, patch, .. } = self.config;
        Expected { channels, text, pooled: None }.check(&x, &time, cond);
        let [_, _, height, width] = x.dims();
        let tokens = patch::split_channels_last(x, patch);
        let sides = [height / patch, width / patch];
        let c = keep(|| "time".into(), Constant::Time, || self.vector(time)); // [B, V]
        let name = || format!("text before {sides:?}");
        let Sequence { text, rope, seen } = keep(name, Constant::Condition, || self.read(cond, sides));

        let (words, count) = (text.dims()[1], tokens.dims()[1]);
        let filled = count.next_multiple_of(MULTIPLE);
        let h = fill(dense(&self.image_in, tokens), self.image_filling.val(), filled); // [B, N, W]
        let of_image = rope.narrow(words, filled);
        let h = run(&self.image_refiner, "image_refiner", h, Some(&c), &of_image, &Scores::default());
        let h = Tensor::cat(vec![text, h], 1); // [B, T + N, W]
        let h = run(&self.blocks, "blocks", h, Some(&c), &rope, &Scores::seen(seen));
        let h = modulate::norm(h.narrow(1, words, count));
        let scale = modulate::of_time("final_modulation", || {
            linear(&self.final_modulation, silu(c)).unsqueeze_dim(1)
        });
        let data = dense(&self.unembed, h * (scale + 1.0));
        -patch::join_channels_last(data, patch, height, width) // [B, C, H, S]
    }
}
