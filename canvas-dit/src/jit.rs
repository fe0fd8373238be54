//! JiT, "just image transformers": large patches of plain pixels, and a network that predicts the clean image.
//!
//! Li and He, "Back to Basics: Let Denoising Generative Models Denoise", 2025, section 4 and Table 9,
//! <https://arxiv.org/abs/2511.13720>.
//!
//! A patch of 16 by 16 pixels goes through a narrow linear layer (a bottleneck of 128 features of 768 pixels), blocks are
//! LightningDiT's with normed queries and keys, and from a block of the first third on, 32 tokens of the class stand
//! before the image's; they are not rotated, and are dropped before the last layer.
//!
//! The answer is the clean image itself. Its error is weighted as the velocity's, with the noise fraction held above 0.05,
//! and so is a sampler's step: that is the prediction's affair (`canvas_sched::predict::JustImage`). Times run from data (0) to noise
//! (1); the network itself is told `1 - time`, as its authors count.
//!
//! # Differs from the paper
//! No dropout in the middle blocks, which only the authors' largest networks have in training.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `T` class tokens, `W` model width.

mod published;

use crate::lightning::{LightningBlock, LightningEnd};
use crate::{Embed, patches};
use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::nn::{Embedding, Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{normal_embedding, xavier_linear};
use canvas_core::nn::{TimeEmbed, TimeEmbedConfig, dense, patch, position};
use canvas_core::{Backbone, Condition, ConfigError, check, trace};

/// Sizes of a [`Jit`].
#[derive(Config, Debug)]
pub struct JitConfig {
    /// Height and width of the image.
    pub size: [usize; 2],
    /// Model width; `heads` must divide it, and 4 the width of a head.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// The block before which the class tokens join; below `depth` where there are any.
    pub start: usize,
    /// Features between a patch's pixels and the model width.
    #[config(default = 128)]
    pub bottleneck: usize,
    /// Class tokens.
    #[config(default = 32)]
    pub tokens: usize,
    /// Side of a patch; must divide both sides.
    #[config(default = 16)]
    pub patch: usize,
    /// Channels in and out.
    #[config(default = 3)]
    pub channels: usize,
    /// Classes; label `classes` stands for "no class".
    #[config(default = 1000)]
    pub classes: usize,
}

impl JitConfig {
    /// JiT-B for images of `side` by `side`, in 16 by 16 patches: `patch` is the side over 16, as in the paper's JiT-B/16
    /// of 256 px and JiT-B/32 of 512.
    pub fn base(side: usize) -> Self {
        Self::new([side, side], 768, 12, 12, 4).with_patch(side / 16)
    }

    /// JiT-L, as [`base`](Self::base).
    pub fn large(side: usize) -> Self {
        Self::new([side, side], 1024, 24, 16, 8).with_patch(side / 16)
    }

    /// JiT-H, as [`base`](Self::base).
    pub fn huge(side: usize) -> Self {
        Self::new([side, side], 1280, 32, 16, 10).with_patch(side / 16).with_bottleneck(256)
    }

    /// # Errors
    /// Names the two sizes that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("channels", self.channels))?;
        check::positive(("bottleneck", self.bottleneck))?;
        patches::divide(self.size, self.patch, [self.width, self.heads])?;
        patches::rotates([self.width, self.heads])?;
        if self.tokens > 0 && self.start >= self.depth {
            let (start, depth) = (self.start, self.depth);
            return Err(ConfigError::new(format!("start ({start}) must lie below depth ({depth})")));
        }
        Ok(())
    }

    /// A network that is told classes, drawn as the paper's: what changes a block's input starts at zero.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Jit {
        self.init_with(normal_embedding(0.02, self.classes + 1, self.width, device), device)
    }

    /// A network that is told pooled prompts of this width.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_text(&self, pooled: usize, device: &Device) -> Jit<Linear> {
        self.init_with(xavier_linear(pooled, self.width, device), device)
    }

    /// A network whose conditions this layer reads.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_with<E: Embed>(&self, cond: E, device: &Device) -> Jit<E> {
        self.validate().unwrap_or_else(|error| panic!("JitConfig: {error}"));
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let places = Initializer::Normal { mean: 0.0, std: 0.02 };
        Jit {
            squeeze: patches::embedding(self.channels, self.bottleneck, self.patch, false, device),
            embed: xavier_linear(self.bottleneck, self.width, device),
            position: position::sincos_2d(rows, columns, self.width, device),
            time: TimeEmbedConfig::new(self.width).with_scale(1.0).init(device),
            cond,
            places: (self.tokens > 0).then(|| places.init([1, self.tokens, self.width], device)),
            blocks: (0..self.depth)
                .map(|_| LightningBlock::new([self.width, self.heads], true, device))
                .collect(),
            end: LightningEnd::new(self.width, self.channels * self.patch * self.patch, device),
            start: self.start,
            patch: self.patch,
            head: self.width / self.heads,
            input: [self.channels, self.size[0], self.size[1]],
        }
    }
}

/// A transformer from pixels to pixels, told a [`Class`](canvas_core::Class) or what else `E` reads.
#[derive(Module, Debug)]
pub struct Jit<E: Module = Embedding> {
    squeeze: Conv2d,
    embed: Linear,
    position: Tensor<3>, // fixed, so not a parameter
    time: TimeEmbed,
    cond: E,
    places: Option<Param<Tensor<3>>>, // of the class tokens, [1, T, W]
    blocks: Vec<LightningBlock>,
    end: LightningEnd,
    start: usize,
    patch: usize,
    head: usize,
    #[module(skip)]
    input: [usize; 3],
}

impl<E: Module> Jit<E> {
    /// The class tokens before the image's: `class` `[B, W]`, `h` `[B, N, W]`, output `[B, T + N, W]`.
    fn joined(&self, class: &Tensor<2>, h: Tensor<3>) -> Tensor<3> {
        match &self.places {
            Some(places) => Tensor::cat(vec![class.clone().unsqueeze_dim::<3>(1) + places.val(), h], 1),
            None => h,
        }
    }
}

impl<E: Embed> Backbone<4> for Jit<E> {
    type Cond = E::Cond;

    /// # Panics
    /// If `x` is not of the configured size, or times or conditions are not one a sample.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        patches::check_input("JiT", self.input, &x, &time, cond.batch());
        let ([_, _, height, width], device) = (x.dims(), x.device());
        // The authors' time is 1 at the data.
        let time = keep(|| "time".into(), Constant::Time, || self.time.forward(1.0 - time)); // [B, W]
        let class = self.cond.vector(cond); // [B, W]
        let c = (time + class.clone()).unsqueeze_dim::<3>(1); // [B, 1, W]
        let grid = [height, width].map(|side| side / self.patch);
        let tokens = self.places.as_ref().map_or(0, |places| places.val().dims()[1]);
        let ropes = [0, tokens].map(|before| patches::rope(before, grid, self.head, &device));

        let mut h = dense(&self.embed, patches::tokens(&self.squeeze, x)) + self.position.clone(); // [B, N, W]
        for (i, block) in self.blocks.iter().enumerate() {
            if i == self.start {
                h = self.joined(&class, h); // [B, T + N, W]
            }
            let rope = &ropes[usize::from(i >= self.start)];
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, c.clone(), rope));
        }
        let count = grid[0] * grid[1];
        let before = h.dims()[1] - count;
        let h = self.end.forward(h.narrow(1, before, count), c); // [B, N, C p p]
        patch::join_channels_last(h, self.patch, height, width) // [B, C, H, S]
    }
}
