//! PixArt: a DiT that reads text by cross-attention, with one modulation for all blocks (adaLN-single).
//!
//! Chen et al., "PixArt-alpha: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis", 2023,
//! Figure 4 and section 2.3, <https://arxiv.org/abs/2310.00426>; "PixArt-Sigma", 2024, <https://arxiv.org/abs/2403.04692>,
//! which is the same network without micro-conditions. (Its compression of keys and values is in no released model that
//! diffusers reads, and not here.)
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `T` text tokens, `W` model width.

mod condition;
mod published;

pub use condition::PixArtCondition;

use crate::{cross::Cross, latents, patches, prompt::Expected};
use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::nn::{Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{normal_linear, zero_linear};
use canvas_core::nn::{Activation, Attention, AttentionConfig, Mlp, MlpConfig, TimeEmbed, TimeEmbedConfig};
use canvas_core::nn::{dense, modulate, patch, position};
use canvas_core::ops::residual;
use canvas_core::{Backbone, ConfigError, check, trace};

/// Sizes of a [`PixArt`].
#[derive(Config, Debug)]
pub struct PixArtConfig {
    /// Side, in patches, of the inputs for which positions count `0, 1, 2, ..`, before `interpolation`.
    pub base: usize,
    /// By what positions are divided: 1 for models of 512 pixels, 2 for those of 1024.
    #[config(default = 1.0)]
    pub interpolation: f64,
    /// Number of blocks.
    #[config(default = 28)]
    pub depth: usize,
    /// Attention heads.
    #[config(default = 16)]
    pub heads: usize,
    /// Width of a head; the model's width is `heads * head`, and 4 must divide it.
    #[config(default = 72)]
    pub head: usize,
    /// Channels in, and of the prediction.
    #[config(default = 4)]
    pub channels: usize,
    /// Predict a variance beside each channel: [`PixArt::forward_with_variance`] returns it.
    #[config(default = true)]
    pub learn_variance: bool,
    /// Side of a patch; must divide both sides of an input.
    #[config(default = 2)]
    pub patch: usize,
    /// Width of the text tokens.
    #[config(default = 4096)]
    pub context: usize,
    /// Whether the network is told each picture's size and aspect ratio; 3 must then divide the model's width.
    #[config(default = false)]
    pub micro_conditions: bool,
}

impl PixArtConfig {
    /// PixArt-alpha XL/2 for pictures of 512 pixels.
    pub fn alpha_512() -> Self {
        Self::new(32)
    }

    /// PixArt-alpha XL/2 for pictures of 1024 pixels, which is told their sizes.
    pub fn alpha_1024() -> Self {
        Self::sigma_1024().with_micro_conditions(true)
    }

    /// PixArt-Sigma XL/2 for pictures of 1024 pixels.
    pub fn sigma_1024() -> Self {
        Self::new(64).with_interpolation(2.0)
    }

    /// Model width.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// # Errors
    /// Names the values that do not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("base", self.base))?;
        check::positive(("patch", self.patch))?;
        check::positive(("width", self.width()))?;
        check::divides(("4, of the position table,", 4), ("width", self.width()))?;
        if self.micro_conditions {
            check::divides(("3, of the micro-conditions,", 3), ("width", self.width()))?;
        }
        match self.interpolation > 0.0 {
            true => Ok(()),
            false => {
                Err(ConfigError::new(format!("interpolation must be above 0, found {}", self.interpolation)))
            }
        }
    }

    /// As the paper's code: Xavier-uniform weights, zero biases, normal embeddings of time and text, tables of normal
    /// numbers over `sqrt(W)`; cross-attention and the last layer begin at zero.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> PixArt {
        self.validate().unwrap_or_else(|error| panic!("PixArtConfig: {error}"));
        let width = self.width();
        let outputs = self.channels * if self.learn_variance { 2 } else { 1 };
        let told = || TimeEmbedConfig::new(width / 3).with_scale(1.0).init(device);
        PixArt {
            embed: latents::embedding(self.channels, width, self.patch, device),
            time: TimeEmbedConfig::new(width).init(device),
            size: self.micro_conditions.then(told),
            aspect: self.micro_conditions.then(told),
            modulation: normal_linear(0.02, width, 6 * width, device),
            caption: caption(self.context, width, device),
            blocks: (0..self.depth).map(|_| PixArtBlock::new(width, self.heads, device)).collect(),
            final_table: table(2, width, device),
            unembed: zero_linear(width, outputs * self.patch * self.patch, device),
            channels: self.channels,
            patch: self.patch,
            context: self.context,
            base: self.base,
            interpolation: self.interpolation,
        }
    }
}

/// Two layers from the text encoder's width to the model's, normal with deviation 0.02.
pub(crate) fn caption(context: usize, width: usize, device: &Device) -> Mlp {
    let mut mlp = MlpConfig::new(width, width).with_activation(Activation::GeluTanh).init(device);
    (mlp.up, mlp.down) =
        (normal_linear(0.02, context, width, device), normal_linear(0.02, width, width, device));
    mlp
}

/// Modulation vectors that are learned as they are: `[K, W]`.
pub(crate) fn table(vectors: usize, width: usize, device: &Device) -> Param<Tensor<2>> {
    Initializer::Normal { mean: 0.0, std: (width as f64).sqrt().recip() }.init([vectors, width], device)
}

/// Those vectors added to what all blocks share, `[B, 1, K W]`, tapped under this name and cut.
pub(crate) fn tabled<const K: usize>(
    name: &str,
    table: &Param<Tensor<2>>,
    shared: Tensor<3>,
) -> [Tensor<3>; K] {
    let [vectors, width] = table.lazy_shape().dims();
    let m = shared + table.val().reshape([1, 1, vectors * width]);
    modulate::cut(trace::tap(|| name.into(), m))
}

/// Sine-cosine positions of `rows` by `columns` patches, each axis stretched to span what `base` patches do:
/// `i * base / count / interpolation`. Kept over a run: `[1, N, W]`.
pub(crate) fn positions(
    [rows, columns]: [usize; 2],
    base: usize,
    interpolation: f64,
    like: &Tensor<3>,
) -> Tensor<3> {
    let places = |count: usize| -> Vec<f64> {
        (0..count).map(|i| i as f64 / (count as f64 / base as f64) / interpolation).collect()
    };
    let (device, width) = (like.device(), like.dims()[2]);
    let make = || position::sincos_2d_at(&places(rows), &places(columns), width, &device).cast(like.dtype());
    keep(|| format!("position.{rows}x{columns}"), Constant::Condition, make)
}

/// PixArt-alpha or PixArt-Sigma; predicts noise.
#[derive(Module, Debug)]
pub struct PixArt {
    embed: Conv2d,
    time: TimeEmbed,
    size: Option<TimeEmbed>,
    aspect: Option<TimeEmbed>,
    modulation: Linear,
    caption: Mlp,
    blocks: Vec<PixArtBlock>,
    final_table: Param<Tensor<2>>, // [2, W], shift first
    unembed: Linear,
    channels: usize,
    patch: usize,
    context: usize,
    base: usize,
    interpolation: f64,
}

impl PixArt {
    /// What all is modulated by: the time, and where the model is told them, sizes `[B, 2]`. Output: `[B, W]`.
    fn vector(&self, time: Tensor<1>, sizes: Option<&Tensor<2>>) -> Tensor<2> {
        let c = keep(|| "time".into(), Constant::Time, || self.time.forward(time));
        let (Some(size), Some(aspect)) = (&self.size, &self.aspect) else { return c };
        let sizes =
            sizes.expect("this PixArt is told each picture's size, and the condition has none").clone();
        let batch = sizes.dims()[0];
        let told = || {
            let [height, width] = [0, 1].map(|at| sizes.clone().narrow(1, at, 1).reshape([batch]));
            let sides = size.forward(sizes.clone().reshape([2 * batch])); // [2 B, W/3]
            let third = sides.dims()[1];
            Tensor::cat(vec![sides.reshape([batch, 2 * third]), aspect.forward(height / width)], 1)
        };
        c + keep(|| "size".into(), Constant::Condition, told)
    }

    /// All output channels: the prediction and, with `learn_variance`, as many again for the variance.
    ///
    /// # Shapes
    /// As [`Backbone::forward`]; output `[B, C or 2C, H, S]`.
    ///
    /// # Panics
    /// As [`Backbone::forward`].
    pub fn forward_with_variance(&self, x: Tensor<4>, time: Tensor<1>, cond: &PixArtCondition) -> Tensor<4> {
        Expected { channels: self.channels, text: self.context, pooled: None }.check(&x, &time, &cond.text);
        let grid = latents::grid(&x, self.patch);
        let [_, _, height, width] = x.dims();
        let h = patches::tokens(&self.embed, x); // [B, N, W]
        let mut h = h.clone() + positions(grid, self.base, self.interpolation, &h);
        let c = self.vector(time, cond.size.as_ref()); // [B, W]
        let shared = latents::shared("shared", &self.modulation, &c, self.size.is_none()); // [B, 1, 6 W]
        let tokens = || self.caption.forward(cond.text.tokens.clone());
        let text = keep(|| "text".into(), Constant::Condition, tokens); // [B, T, W]
        for (i, block) in self.blocks.iter().enumerate() {
            let run = |h| block.forward(h, shared.clone(), &text, &cond.text.mask);
            h = trace::block(|| format!("blocks.{i}"), h, run); // [B, N, W]
        }
        let c = c.unsqueeze_dim::<3>(1);
        let both = Tensor::cat(vec![c.clone(), c], 2); // [B, 1, 2 W]
        let [shift, scale] = tabled("final_modulation", &self.final_table, both); // 2 x [B, 1, W]
        let h = dense(&self.unembed, modulate::normed(h, shift, scale));
        patch::join_channels_last(h, self.patch, height, width) // [B, C or 2C, H, S]
    }
}

impl Backbone<4> for PixArt {
    type Cond = PixArtCondition;

    /// # Panics
    /// If `x` or the text is not of the configured size, if the patch does not divide `x`, if times or texts are not
    /// one a sample, or if the model is told sizes and the condition has none.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &PixArtCondition) -> Tensor<4> {
        self.forward_with_variance(x, time, cond).narrow(1, 0, self.channels) // [B, C, H, S]
    }
}

/// DiT's block with cross-attention between attention and perceptron; that is neither modulated nor gated.
#[derive(Module, Debug)]
struct PixArtBlock {
    attention: Attention,
    cross: Cross,
    mlp: Mlp,
    table: Param<Tensor<2>>, // [6, W]
}

impl PixArtBlock {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self {
            attention: AttentionConfig::new(width, heads).init(device),
            cross: Cross::new(width, heads, None, device),
            mlp: MlpConfig::new(width, 4 * width).init(device),
            table: table(6, width, device),
        }
    }

    /// `h`: `[B, N, W]`, `shared`: `[B, 1, 6 W]`, `text`: `[B, T, W]`; output: `[B, N, W]`.
    fn forward(
        &self,
        h: Tensor<3>,
        shared: Tensor<3>,
        text: &Tensor<3>,
        mask: &Tensor<2, Bool>,
    ) -> Tensor<3> {
        let [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m] = tabled("modulation", &self.table, shared);
        let a = modulate::normed(h.clone(), shift_a, scale_a);
        let own = trace::scope(|| "attention".into(), || self.attention.forward(a.clone(), a, None));
        let h = residual(h, gate_a, own);
        let read = trace::scope(|| "cross".into(), || self.cross.forward(h.clone(), text, mask));
        let h = h + read;
        let m = modulate::normed(h.clone(), shift_m, scale_m);
        residual(h, gate_m, self.mlp.forward(m))
    }
}
