//! DDT: a transformer that reads the noised latents, and a short, wide one behind it that denoises them.
//!
//! Wang et al., "DDT: Decoupled Diffusion Transformer", 2025, section 3.1, <https://arxiv.org/abs/2504.05741>; here as
//! `DiT^DH`, the wide head of Zheng et al., "Diffusion Transformers with Representation Autoencoders", 2025, section 5,
//! <https://arxiv.org/abs/2510.11690>.
//!
//! The condition encoder, blocks of LightningDiT, turns latents, time and class into one vector a patch, `s`. The head
//! embeds the same latents again, at a width of its own, and is modulated patch by patch by `s`, as blocks of DiT are by one
//! vector a sample. So latents of many channels, such as the 768 of DINOv2, pass a wide layer without a wide network.
//! Time is told by random Fourier features, drawn once: `sin` and `cos` of `2 pi f time`, `f` normal.
//!
//! The authors of `DiT^DH` count time from data (0) to noise (1) and predict `noise - data`, as this workspace does.
//!
//! # Differs from the paper
//! Both parts have the same patches. What the encoder has made of one time is not used again for the next (section 3.3).
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `W` width of the encoder, `V` of the head.

mod published;

use crate::lightning::{LightningBlock, LightningEnd};
use crate::{Embed, patches};
use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::nn::{Embedding, Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{normal_embedding, normal_linear, xavier_linear};
use canvas_core::nn::{dense, linear, patch, position};
use canvas_core::ops::silu;
use canvas_core::{Backbone, Condition, ConfigError, check, trace};
use std::f64::consts::TAU;

/// Sizes of a [`Ddt`].
#[derive(Config, Debug)]
pub struct DdtConfig {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Channels in and out.
    pub channels: usize,
    /// Widths of encoder and head; the heads must divide them, and 4 the width of a head.
    pub width: [usize; 2],
    /// Blocks of encoder and head.
    pub depth: [usize; 2],
    /// Attention heads of encoder and head.
    pub heads: [usize; 2],
    /// Side of a patch; must divide both sides.
    #[config(default = 1)]
    pub patch: usize,
    /// Classes; label `classes` stands for "no class".
    #[config(default = 1000)]
    pub classes: usize,
    /// Norms of queries and keys.
    #[config(default = false)]
    pub qk_norm: bool,
    /// Frequencies of the time's features.
    #[config(default = 256)]
    pub frequencies: usize,
}

impl DdtConfig {
    /// `DiT^DH-XL` for representations of DINOv2-B: 768 channels, `side` by `side` of them, 16 for an image of 256 px.
    pub fn xl(side: usize) -> Self {
        Self::new([side, side], 768, [1152, 2048], [28, 2], [16, 16])
    }

    /// # Errors
    /// Names the two sizes that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("channels", self.channels))?;
        check::positive(("frequencies", self.frequencies))?;
        for part in [0, 1] {
            patches::divide(self.size, self.patch, [self.width[part], self.heads[part]])?;
            patches::rotates([self.width[part], self.heads[part]])?;
        }
        Ok(())
    }

    /// A network that is told classes, drawn as the paper's: what changes a block's input starts at zero.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Ddt {
        self.init_with(normal_embedding(0.02, self.classes + 1, self.width[0], device), device)
    }

    /// A network that is told pooled prompts of this width.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_text(&self, pooled: usize, device: &Device) -> Ddt<Linear> {
        self.init_with(xavier_linear(pooled, self.width[0], device), device)
    }

    /// A network whose conditions this layer reads.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_with<E: Embed>(&self, cond: E, device: &Device) -> Ddt<E> {
        self.validate().unwrap_or_else(|error| panic!("DdtConfig: {error}"));
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let [own, wide] = self.width;
        let embed = |width| patches::embedding(self.channels, width, self.patch, true, device);
        let blocks = |part: usize| {
            let sizes = [self.width[part], self.heads[part]];
            (0..self.depth[part]).map(move |_| LightningBlock::new(sizes, self.qk_norm, device))
        };
        Ddt {
            embed: embed(own),
            position: position::sincos_2d(rows, columns, own, device),
            time: FourierEmbed::new(self.frequencies, own, device),
            cond,
            blocks: blocks(0).chain(blocks(1)).collect(),
            head_embed: embed(wide),
            widen: (own != wide).then(|| xavier_linear(own, wide, device)),
            end: LightningEnd::new(wide, self.channels * self.patch * self.patch, device),
            encoder: self.depth[0],
            patch: self.patch,
            heads: [0, 1].map(|part| self.width[part] / self.heads[part]),
            input: [self.channels, self.size[0], self.size[1]],
        }
    }
}

/// A condition encoder and a denoising head, told a [`Class`](canvas_core::Class) or what else `E` reads.
#[derive(Module, Debug)]
pub struct Ddt<E: Module = Embedding> {
    embed: Conv2d,
    position: Tensor<3>, // fixed, so not a parameter
    time: FourierEmbed,
    cond: E,
    blocks: Vec<LightningBlock>, // the encoder's, then the head's
    head_embed: Conv2d,
    widen: Option<Linear>,
    end: LightningEnd,
    encoder: usize,
    patch: usize,
    #[module(skip)]
    heads: [usize; 2],
    #[module(skip)]
    input: [usize; 3],
}

impl<E: Embed> Ddt<E> {
    /// What the encoder makes of noised latents: one vector a patch, `[B, N, V]`, by which the head is modulated.
    fn encode(&self, x: Tensor<4>, time: Tensor<2>, cond: &E::Cond) -> Tensor<3> {
        let [_, _, height, width] = x.dims();
        let rope = self.rope(0, [height, width], &x.device());
        // The blocks apply their own SiLU to this one's result, in the authors' code as well.
        let c = silu(time.clone() + self.cond.vector(cond)).unsqueeze_dim::<3>(1); // [B, 1, W]
        let mut s = patches::placed(patches::tokens(&self.embed, x), &self.position); // [B, N, W]
        for (i, block) in self.blocks[..self.encoder].iter().enumerate() {
            s = trace::block(|| format!("blocks.{i}"), s, |s| block.forward(s, c.clone(), &rope));
        }
        let s = silu(s + time.unsqueeze_dim::<3>(1));
        let s = match &self.widen {
            Some(layer) => dense(layer, s),
            None => s,
        };
        trace::tap(|| "context".into(), s)
    }

    fn rope(&self, part: usize, size: [usize; 2], device: &Device) -> canvas_core::nn::Rope {
        patches::rope(0, size.map(|side| side / self.patch), self.heads[part], device)
    }
}

impl<E: Embed> Backbone<4> for Ddt<E> {
    type Cond = E::Cond;

    /// # Panics
    /// If `x` is not of the configured size, or times or conditions are not one a sample.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        patches::check_input("DDT", self.input, &x, &time, cond.batch());
        let [_, _, height, width] = x.dims();
        let time = keep(|| "time".into(), Constant::Time, || self.time.forward(time)); // [B, W]
        let s = self.encode(x.clone(), time, cond); // [B, N, V]
        let rope = self.rope(1, [height, width], &x.device());
        let mut h = patches::tokens(&self.head_embed, x); // [B, N, V]
        for (i, block) in self.blocks.iter().enumerate().skip(self.encoder) {
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, s.clone(), &rope));
        }
        patch::join_channels_last(self.end.forward(h, s), self.patch, height, width) // [B, C, H, S]
    }
}

/// Random Fourier features of the time, through a two-layer perceptron with SiLU.
#[derive(Module, Debug)]
struct FourierEmbed {
    frequencies: Param<Tensor<1>>, // drawn once, not trained
    input: Linear,
    output: Linear,
}

impl FourierEmbed {
    fn new(frequencies: usize, width: usize, device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: 1.0 };
        Self {
            frequencies: normal.init([frequencies], device).set_require_grad(false),
            input: normal_linear(0.02, 2 * frequencies, width, device),
            output: normal_linear(0.02, width, width, device),
        }
    }

    /// `[B]` to `[B, W]`.
    fn forward(&self, time: Tensor<1>) -> Tensor<2> {
        let frequencies = self.frequencies.val().cast(time.dtype()) * TAU;
        let angles = time.unsqueeze_dim::<2>(1) * frequencies.unsqueeze_dim::<2>(0); // [B, F]
        let features = Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1);
        let features = features.cast(self.input.weight.val().dtype());
        linear(&self.output, silu(linear(&self.input, features)))
    }
}
