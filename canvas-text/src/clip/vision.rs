//! CLIP's vision transformer, the image encoder of IP-Adapter.

use super::config::{self, Blocks};
use super::{ClipStates, Encoder};
use crate::ClipConfigError;
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, Initializer, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::init::normal_embedding;
use canvas_core::nn::{Activation, LayerNorm, LayerNormConfig};
use canvas_core::{ConfigError, check, trace};
use serde_json::Value;
use std::path::Path;

/// Sizes of a [`ClipVision`].
#[derive(Config, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Width of the patch states.
    pub width: usize,
    /// Width between the two layers of a perceptron.
    pub hidden: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads of each block; must divide the width.
    pub heads: usize,
    /// Nonlinearity of the perceptrons.
    pub activation: Activation,
    /// Pixels of a patch's edge; must divide the image's.
    #[config(default = 14)]
    pub patch: usize,
    /// Pixels of the square image's edge.
    #[config(default = 224)]
    pub image: usize,
    /// Channels of the image.
    #[config(default = 3)]
    pub channels: usize,
    /// Added to variances by the norms.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Width of the projected picture vector, if there is a projection.
    pub projection: Option<usize>,
}

impl ClipVisionConfig {
    /// OpenCLIP ViT-H/14's vision transformer with its projection: IP-Adapter's image encoder for Stable Diffusion
    /// 1.x. 632,076,800 parameters.
    pub fn open_clip_h() -> Self {
        Self::new(1280, 5120, 32, 16, Activation::Gelu).with_projection(Some(1024))
    }

    /// OpenCLIP ViT-bigG/14's vision transformer with its projection: IP-Adapter's image encoder for SDXL.
    /// 1,844,907,264 parameters.
    pub fn open_clip_big_g() -> Self {
        Self::new(1664, 8192, 48, 16, Activation::Gelu).with_projection(Some(1280))
    }

    /// # Errors
    /// Names the fields that are zero or do not divide.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for field in [
            ("width", self.width),
            ("hidden", self.hidden),
            ("depth", self.depth),
            ("image", self.image),
            ("channels", self.channels),
            ("projection", self.projection.unwrap_or(1)),
        ] {
            check::positive(field)?;
        }
        check::divides(("heads", self.heads), ("width", self.width))?;
        check::divides(("patch", self.patch), ("image", self.image))
    }

    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> ClipVision {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let norm = LayerNormConfig::new(self.width).with_epsilon(self.epsilon);
        let blocks =
            Blocks { width: self.width, hidden: self.hidden, heads: self.heads, activation: self.activation };
        let (edge, positions) = ([self.patch; 2], (self.image / self.patch).pow(2) + 1);
        let vision_model = VisionModel {
            embeddings: Embeddings {
                class_embedding: Initializer::Normal { mean: 0.0, std: 0.02 }.init([self.width], device),
                patch_embedding: Conv2dConfig::new([self.channels, self.width], edge)
                    .with_stride(edge)
                    .with_bias(false)
                    .init(device),
                position_embedding: normal_embedding(0.02, positions, self.width, device),
            },
            pre_layrnorm: norm.init(device),
            encoder: Encoder { layers: (0..self.depth).map(|_| blocks.init(&norm, device)).collect() },
            post_layernorm: norm.init(device),
        };
        let project = |width| LinearConfig::new(self.width, width).with_bias(false).init(device);
        ClipVision { vision_model, visual_projection: self.projection.map(project), image: self.image }
    }

    /// Reads a transformers `config.json` of a `CLIPVisionModel` or a `CLIPVisionModelWithProjection`.
    ///
    /// # Errors
    /// As [`ClipTextConfig::from_file`](super::ClipTextConfig::from_file).
    pub fn from_file(path: &Path) -> Result<Self, ClipConfigError> {
        config::read(path, Self::parse)
    }

    fn parse(json: &Value) -> Result<Self, String> {
        let size = |key, default| config::size(json, key, default);
        let projection = size("projection_dim", 512)?;
        let config = Self {
            width: size("hidden_size", 768)?,
            hidden: size("intermediate_size", 3072)?,
            depth: size("num_hidden_layers", 12)?,
            heads: size("num_attention_heads", 12)?,
            activation: config::activation(json)?,
            patch: size("patch_size", 32)?,
            image: size("image_size", 224)?,
            channels: size("num_channels", 3)?,
            epsilon: config::epsilon(json)?,
            projection: config::is_projected(json, "clip_vision_model", "CLIPVisionModel")?
                .then_some(projection),
        };
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// CLIP's vision transformer: patches and a class token with learned positions, pre-norm blocks, and the class
/// token's state, normed and perhaps projected, as the picture's vector.
///
/// IP-Adapter takes the vector, IP-Adapter Plus the penultimate states, `hidden[depth - 1]`.
///
/// Parameters are named as in transformers (norms have `gamma` and `beta` for `weight` and `bias`).
///
/// # Reference
/// Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 2.4,
/// <https://arxiv.org/abs/2103.00020>; transformers' `CLIPVisionModel` and `CLIPVisionModelWithProjection`.
///
/// # Differs from transformers
/// No dropout in training, and no interpolation of positions to other image sizes.
#[derive(Module, Debug)]
pub struct ClipVision {
    vision_model: VisionModel,
    visual_projection: Option<Linear>,
    image: usize,
}

#[derive(Module, Debug)]
struct VisionModel {
    embeddings: Embeddings,
    // So spelled in every published file.
    pre_layrnorm: LayerNorm,
    encoder: Encoder,
    post_layernorm: LayerNorm,
}

#[derive(Module, Debug)]
struct Embeddings {
    class_embedding: Param<Tensor<1>>,
    patch_embedding: Conv2d,
    position_embedding: Embedding,
}

impl ClipVision {
    /// Blocks.
    pub fn depth(&self) -> usize {
        self.vision_model.encoder.layers.len()
    }

    /// Pixels of the square image's edge.
    pub fn image(&self) -> usize {
        self.image
    }

    /// All states and the picture vectors. Blocks are tapped as `vision.blocks.N`.
    ///
    /// # Shapes
    /// - `images`: `[B, C, S, S]`, normalised as the model's image processor does
    /// - states: `1 + (S / patch)^2` tokens, the class token first
    ///
    /// # Panics
    /// If the images have another size.
    pub fn states(&self, images: Tensor<4>) -> ClipStates {
        let [_, _, height, width] = images.dims();
        let edge = self.image;
        assert!([height, width] == [edge; 2], "images of {height}x{width} for an encoder of {edge}x{edge}");
        let mut x = self.vision_model.pre_layrnorm.forward(self.embed(images)); // [B, T, W]
        let mut hidden = vec![x.clone()];
        for (i, layer) in self.vision_model.encoder.layers.iter().enumerate() {
            x = trace::block(|| format!("vision.blocks.{i}"), x, |x| layer.forward(x, None));
            hidden.push(x.clone());
        }
        let class = x.clone().narrow(1, 0, 1).squeeze_dim::<2>(1); // [B, W]
        let mut pooled = self.vision_model.post_layernorm.forward(class);
        if let Some(projection) = &self.visual_projection {
            pooled = projection.forward(pooled); // [B, P]
        }
        ClipStates { hidden, last: x, pooled }
    }

    /// Class token and patches plus positions: `[B, T, W]`.
    fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let Embeddings { class_embedding, patch_embedding, position_embedding } =
            &self.vision_model.embeddings;
        let patches = patch_embedding.forward(images).flatten::<3>(2, 3).swap_dims(1, 2); // [B, T - 1, W]
        let [batch, _, width] = patches.dims();
        let class = class_embedding.val().reshape([1, 1, width]).expand([batch, 1, width]);
        Tensor::cat(vec![class, patches], 1) + position_embedding.weight.val().unsqueeze::<3>()
    }
}
