//! The networks that the programs train: every one on the same latents, conditioned on the same text.

use crate::model::BackboneSizes;
use anyhow::Result;
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::nn::init::xavier_linear;
use canvas_core::{Backbone, Text};
use canvas_dit::{
    Dit, DitConfig, LightningDit, LightningDitConfig, Sd3, Sd3Config, TextDit, TextDitConfig, UVit,
    UVitConfig,
};
use canvas_unet::{Unet, UnetConfig};

/// A backbone chosen at run time.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value lives for the whole run")]
pub enum AnyBackbone {
    /// `--backbone dit`: modulation by time and prompt, and cross-attention to the prompt's tokens.
    TextDit(TextDit),
    /// `--backbone unet`.
    Unet(Unet),
    /// `--backbone adaln`: DiT as in its paper, with the pooled prompt in the class's place.
    Dit(Dit<Linear>),
    /// `--backbone u-vit`.
    UVit(UVit<Linear>),
    /// `--backbone lightning`: LightningDiT with the pooled prompt in the class's place.
    Lightning(LightningDit<Linear>),
    /// `--backbone mmdit`: Stable Diffusion 3's.
    MmDit(Sd3),
}

/// Names that [`AnyBackbone::new`] knows.
pub const BACKBONES: [&str; 6] = ["dit", "unet", "adaln", "u-vit", "lightning", "mmdit"];

/// Those of them that take pictures of any proportions.
pub const OF_ANY_SIZE: [&str; 2] = ["unet", "mmdit"];

impl AnyBackbone {
    /// A new backbone of this name: about four million parameters, two of the UNet more.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn new(name: &str, sizes: BackboneSizes, device: &Device) -> Result<Self> {
        let BackboneSizes { latent: [channels, height, width], text, context, smoke } = sizes;
        let side = [height, width];
        let (model, heads) = if smoke { (32, 2) } else { (192, 4) };
        let depth = |blocks: usize| if smoke { 2 } else { blocks };
        Ok(match name {
            "dit" => Self::TextDit(text_dit(sizes).init(device)),
            "unet" => Self::Unet(unet(sizes).init(device)),
            "adaln" => {
                let config = DitConfig::new(side, model, depth(6), heads).with_channels(channels);
                let prompt = xavier_linear(text, model, device);
                Self::Dit(config.with_learn_variance(false).init_with(prompt, device))
            }
            "u-vit" => {
                let blocks = if smoke { 2 } else { 8 };
                let config = UVitConfig::new(side, model, blocks, heads).with_channels(channels);
                Self::UVit(config.init_with(xavier_linear(text, model, device), context, device))
            }
            "lightning" => {
                let config = LightningDitConfig::new(side, model, depth(6), heads).with_channels(channels);
                Self::Lightning(config.init_with(xavier_linear(text, model, device), device))
            }
            "mmdit" => Self::MmDit(mmdit(sizes, model / heads, heads, depth(4)).init(device)),
            _ => return Err(crate::config::unknown("--backbone", name, &BACKBONES)),
        })
    }
}

fn text_dit(sizes: BackboneSizes) -> TextDitConfig {
    let [channels, height, width] = sizes.latent;
    let (model_width, depth, heads) = if sizes.smoke { (32, 2, 2) } else { (192, 6, 4) };
    TextDitConfig::new([height, width], channels, model_width, depth, heads, sizes.text, sizes.text)
        .with_activation(Activation::ReluSquared)
}

/// As many parameters as the others with half of their blocks and more: each has two streams.
fn mmdit(sizes: BackboneSizes, head: usize, heads: usize, depth: usize) -> Sd3Config {
    let [channels, height, width] = sizes.latent;
    let side = height.max(width) / 2;
    Sd3Config::new(depth, heads)
        .with_head(head)
        .with_channels(channels)
        .with_context(sizes.text)
        .with_pooled(sizes.text)
        .with_table(side)
        .with_base(side)
        .with_qk_norm(true)
}

/// The UNet of `--backbone unet`.
pub fn unet(sizes: BackboneSizes) -> UnetConfig {
    let mut config = UnetConfig::small(sizes.latent[0], sizes.text).with_pooled_width(Some(sizes.text));
    if sizes.smoke {
        (config.channels, config.heads) = (vec![16, 16], vec![2, 2]);
    }
    config
}

impl Backbone<4> for AnyBackbone {
    type Cond = Text;

    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Text) -> Tensor<4> {
        match self {
            Self::TextDit(net) => net.forward(x, time, cond),
            Self::Unet(net) => net.forward(x, time, cond),
            Self::Dit(net) => net.forward(x, time, cond),
            Self::UVit(net) => net.forward(x, time, cond),
            Self::Lightning(net) => net.forward(x, time, cond),
            Self::MmDit(net) => net.forward(x, time, cond),
        }
    }
}
