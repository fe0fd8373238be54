//! The text-conditioned UNet of latent diffusion and Stable Diffusion: 1.x, 2.x, XL and their variants.
//!
//! Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2021,
//! <https://arxiv.org/abs/2112.10752>, section 3.3 and appendix E; Podell et al., "SDXL", 2023,
//! <https://arxiv.org/abs/2307.01952>. The presets are the sizes of the released weights.
//!
//! # Differs from the original
//! - Time is in `[0, 1]` and multiplied by [`UnetConfig::time_scale`]; the original counts steps to 1000.
//! - Padding tokens are masked where the text says so; the original attends to all 77 tokens. A mask of all
//!   true is the original.
//!
//! # Names
//! What [`trace`] knows of a network; those of a [`ControlNet`](crate::ControlNet) stand behind `control.`.
//! - `input`, `embedding`; `hint` in a ControlNet.
//! - `down.{i}` and `up.{i}`, with `stages.{j}` inside, and in these `res` and, where the level attends, `transformer`.
//! - `middle`, with `first` (a stage as those) and `second` inside.
//! - In a transformer `blocks.{k}`, with `attention`, `cross` and `feed` inside; in the first two `query`, `map` and
//!   `heads`: `down.0.stages.1.transformer.blocks.0.cross.map` is a map over the text.
//!
//! `middle`, `second`, `transformer` and `blocks.{k}` can be left out by a hook.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `T` text tokens, `K` context width,
//! `P` pooled width, `E` embedding width.

mod config;

pub use config::UnetConfig;

use crate::embed::{Conditions, Extra};
use crate::levels::{Down, Middle, Up};
use crate::residuals::Residuals;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::prelude::*;
use canvas_core::nn::{Activation, GroupNorm, TimeEmbed, conv2d, linear};
use canvas_core::ops::silu;
use canvas_core::{Backbone, Text, trace};

/// The UNet: down through the levels, a middle, and up again, each step up reading what a step down left.
///
/// As a [`Backbone`] it reads text alone; [`told`](Self::told) is the one that reads [`Conditions`].
///
/// # Reference
/// Rombach et al., 2021, <https://arxiv.org/abs/2112.10752>.
#[derive(Module, Debug)]
pub struct Unet {
    input: Conv2d,
    time: TimeEmbed,
    pooled: Option<Linear>,
    extra: Extra,
    down: Vec<Down>,
    middle: Middle,
    up: Vec<Up>,
    norm: GroupNorm,
    output: Conv2d,
    in_channels: usize,
    context_width: usize,
    #[module(skip)]
    activation: Activation,
}

impl Backbone<4> for Unet {
    type Cond = Text;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`; any `H` and `S`: all levels but the last halve them, rounding up
    /// - `time`: `[B]`; `text`: tokens `[B, T, K]`, mask `[B, T]`, pooled `[B, P]`
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If channels, height, width or the width of the tokens do not fit the configuration, or the batches
    /// differ, or if the UNet reads more than text.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, text: &Text) -> Tensor<4> {
        self.run(x, time, &text.clone().into(), None)
    }
}

/// A [`Unet`] that reads [`Conditions`]; made by [`Unet::told`].
#[derive(Clone, Copy, Debug)]
pub struct Told<'a>(&'a Unet);

impl Backbone<4> for Told<'_> {
    type Cond = Conditions;

    /// # Shapes
    /// As [`Unet::run`].
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Conditions) -> Tensor<4> {
        self.0.run(x, time, cond, None)
    }
}

impl Unet {
    /// This network as one that reads sizes and labels, as SDXL needs.
    pub fn told(&self) -> Told<'_> {
        Told(self)
    }

    /// The network with all it can be told, and what [`ControlNet`](crate::ControlNet)s and
    /// [`T2iAdapter`](crate::T2iAdapter)s add on the way.
    ///
    /// # Shapes
    /// - `x`: `[B, C, H, S]`; any `H` and `S`: all levels but the last halve them, rounding up
    /// - `time`: `[B]`; `cond`: text as in [`forward`](Backbone::forward), sizes `[B, I]`, label `[B]` or `[B, L]`
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If channels, height, width, sizes, label, residuals or the width of the tokens do not fit the
    /// configuration, or the batches differ.
    pub fn run(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        cond: &Conditions,
        added: Option<&Residuals>,
    ) -> Tensor<4> {
        let text = &cond.text;
        check_shapes(&x, &time, text, [self.in_channels, self.context_width]);
        let embedding = embed(self.time.forward(time), self.pooled.as_ref(), &self.extra, cond); // [B, E]
        let h = trace::tap(|| "input".into(), conv2d(&self.input, x)); // [B, C0, H, S]
        let levels = added.map_or(&[][..], |added| &added.levels);
        let (h, mut skips) = Down::all(&self.down, h, &embedding, text, levels); // [B, Cn, H / 2^n, S / 2^n]
        let mut h = trace::block(|| "middle".into(), h, |h| self.middle.forward(h, &embedding, text));
        if let Some(added) = added {
            h = added.join(h, &mut skips, self.down.len());
        }
        for (i, level) in self.up.iter().enumerate() {
            let run = || level.forward(h, &embedding, text, &mut skips); // [B, Ci, H / 2^(i-1), S / 2^(i-1)]
            h = trace::part(|| format!("up.{i}"), run);
        }
        conv2d(&self.output, self.norm.forward_then(self.activation, h)) // [B, C, H, S]
    }
}

/// The embedding of time and all that is added to it, ready for the blocks: `[B, E]`.
pub(crate) fn embed(time: Tensor<2>, pooled: Option<&Linear>, extra: &Extra, cond: &Conditions) -> Tensor<2> {
    let embedding = extra.add(time, cond); // [B, E]
    let embedding = match pooled {
        Some(pooled) => silu(embedding + linear(pooled, cond.text.pooled.clone())),
        None => silu(embedding),
    };
    trace::tap(|| "embedding".into(), embedding)
}

pub(crate) fn check_shapes(
    x: &Tensor<4>,
    time: &Tensor<1>,
    text: &Text,
    [in_channels, context_width]: [usize; 2],
) {
    let [batch, channels, _, _] = x.dims();
    assert_eq!(channels, in_channels, "x has {channels} channels, the UNet takes {in_channels}");
    let [texts, _, context] = text.tokens.dims();
    assert_eq!(context, context_width, "tokens of width {context}, the UNet reads {context_width}");
    let times = time.dims()[0];
    assert!(times == batch && texts == batch, "{times} times and {texts} texts for a batch of {batch}");
}
