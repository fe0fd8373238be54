//! SigLIP's vision transformer, the image encoder of Flux Redux.

use crate::clip::Encoder;
use crate::clip::config::Blocks;
use crate::clip::published::inside;
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, Initializer};
use burn::prelude::*;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::nn::init::normal_embedding;
use canvas_core::nn::{Activation, Attention, AttentionConfig, LayerNorm, LayerNormConfig};
use canvas_core::weights::Rules;
use canvas_core::{ConfigError, check, trace};
use std::path::Path;

/// Sizes of a [`SiglipVision`].
#[derive(Config, Debug, PartialEq)]
pub struct SiglipVisionConfig {
    /// Width of the patch states.
    pub width: usize,
    /// Width between the two layers of a perceptron.
    pub hidden: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads of each block; must divide the width.
    pub heads: usize,
    /// Nonlinearity of the perceptrons.
    #[config(default = "Activation::GeluTanh")]
    pub activation: Activation,
    /// Pixels of a patch's edge; what it leaves of the image's edge is not read.
    #[config(default = 16)]
    pub patch: usize,
    /// Pixels of the square image's edge.
    #[config(default = 224)]
    pub image: usize,
    /// Channels of the image.
    #[config(default = 3)]
    pub channels: usize,
    /// Added to variances by the norms.
    #[config(default = 1e-6)]
    pub epsilon: f64,
    /// Whether there is a head that pools the states.
    #[config(default = true)]
    pub head: bool,
}

impl SiglipVisionConfig {
    /// SigLIP SO400M with patches of 14 at 384 pixels: Flux Redux. 428,225,600 parameters.
    pub fn so400m_384() -> Self {
        Self::new(1152, 4304, 27, 16).with_patch(14).with_image(384)
    }

    /// # Errors
    /// Names the fields that are zero or do not fit together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for field in [
            ("width", self.width),
            ("hidden", self.hidden),
            ("depth", self.depth),
            ("patch", self.patch),
            ("image", self.image),
            ("channels", self.channels),
        ] {
            check::positive(field)?;
        }
        if self.patch > self.image {
            let (patch, image) = (self.patch, self.image);
            return Err(ConfigError::new(format!("patch ({patch}) must not be larger than image ({image})")));
        }
        check::divides(("heads", self.heads), ("width", self.width))
    }

    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> SiglipVision {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let norm = LayerNormConfig::new(self.width).with_epsilon(self.epsilon);
        let (width, edge) = (self.width, [self.patch; 2]);
        let blocks = Blocks { width, hidden: self.hidden, heads: self.heads, activation: self.activation };
        let std = (width as f64).sqrt().recip();
        let head = || Head {
            probe: Initializer::Normal { mean: 0.0, std: 1.0 }.init([1, 1, width], device),
            attention: AttentionConfig::new(width, self.heads).init(device),
            layernorm: norm.init(device),
            mlp: blocks.perceptron(device),
        };
        let vision_model = VisionModel {
            embeddings: Embeddings {
                patch_embedding: Conv2dConfig::new([self.channels, width], edge)
                    .with_stride(edge)
                    .init(device),
                position_embedding: normal_embedding(std, (self.image / self.patch).pow(2), width, device),
            },
            encoder: Encoder { layers: (0..self.depth).map(|_| blocks.init(&norm, device)).collect() },
            post_layernorm: norm.init(device),
            head: self.head.then(head),
        };
        SiglipVision { vision_model, image: self.image }
    }

    /// Reads a transformers `config.json` of a `SiglipVisionModel`, or of a whole `SiglipModel`.
    ///
    /// # Errors
    /// Names the file, the field, what was expected and what was found.
    pub fn from_transformers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "SiglipVisionConfig")?)
    }

    /// As [`from_transformers_file`](Self::from_transformers_file), from the file's text.
    ///
    /// # Errors
    /// As there.
    pub fn from_transformers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "SiglipVisionConfig")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        if fields.word("model_type")? == Some("siglip") {
            let vision = fields.get("vision_config").filter(|vision| vision.is_object());
            let vision = vision.ok_or_else(|| fields.refuse("vision_config", "an object"))?;
            return Self::from_transformers(&vision.to_string());
        }
        fields.only("model_type", &["siglip_vision_model".into()])?;
        // Notes and training.
        for field in ["architectures", "attention_dropout", "dtype", "torch_dtype", "transformers_version"] {
            fields.get(field);
        }
        let size = |field, default| Ok(fields.number(field)?.unwrap_or(default));
        let activation = match fields.word_or("hidden_act", "gelu_pytorch_tanh")? {
            "gelu_pytorch_tanh" | "gelu_new" => Activation::GeluTanh,
            "gelu" => Activation::Gelu,
            "quick_gelu" => Activation::QuickGelu,
            _ => return Err(fields.refuse("hidden_act", "gelu_pytorch_tanh, gelu_new, gelu or quick_gelu")),
        };
        let config = Self {
            width: size("hidden_size", 768)?,
            hidden: size("intermediate_size", 3072)?,
            depth: size("num_hidden_layers", 12)?,
            heads: size("num_attention_heads", 12)?,
            activation,
            patch: size("patch_size", 16)?,
            image: size("image_size", 224)?,
            channels: size("num_channels", 3)?,
            epsilon: fields.real("layer_norm_eps")?.unwrap_or(1e-6),
            head: fields.flag("vision_use_head", true)?,
        };
        fields.finish(config, Self::validate)
    }

    /// The names of transformers' `SiglipVisionModel`, with or without the `vision_model.` in front that versions before
    /// 5.6 write; saved with it, which every version reads. Of a whole `SiglipModel` the text's side is left out.
    pub fn published(&self) -> Rules {
        let head = |part: &str| format!("vision_model.head.attention.{part}");
        let [weights, biases] = ["weight", "bias"]
            .map(|kind| ["query", "key", "value"].map(|part| head(&format!("{part}.{kind}"))));
        let rules = inside("vision_model", &["embeddings", "encoder", "post_layernorm", "head"])
            .split(&head("in_proj_weight"), &weights.each_ref().map(String::as_str))
            .split(&head("in_proj_bias"), &biases.each_ref().map(String::as_str))
            .prefix(&head("out_proj"), &head("output"))
            .ignore("position_ids", "the numbers 0, 1, 2, ...")
            .ignore_prefix("text_model", "SigLIP's text encoder")
            .ignore_prefix("logit_scale", "SigLIP's scale for comparing texts with pictures")
            .ignore_prefix("logit_bias", "SigLIP's offset for comparing texts with pictures");
        let why = "this encoder pools nothing";
        if self.head {
            rules
        } else {
            rules.ignore_prefix("vision_model.head", why).ignore_prefix("head", why)
        }
    }
}

/// SigLIP's vision transformer: patches with learned positions and no class token, pre-norm blocks, a norm; and a head
/// that pools the states by the attention of one learned query.
///
/// Flux Redux reads the [states](Self::states).
///
/// Parameters are named as in transformers, but for the norms' `gamma` and `beta` and the head's separate queries, keys
/// and values.
///
/// # Reference
/// Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023, <https://arxiv.org/abs/2303.15343>; transformers'
/// `SiglipVisionModel`.
///
/// # Differs from transformers
/// No dropout in training, and no interpolation of positions to other image sizes.
#[derive(Module, Debug)]
pub struct SiglipVision {
    vision_model: VisionModel,
    image: usize,
}

#[derive(Module, Debug)]
struct VisionModel {
    embeddings: Embeddings,
    encoder: Encoder,
    post_layernorm: LayerNorm,
    head: Option<Head>,
}

#[derive(Module, Debug)]
struct Embeddings {
    patch_embedding: Conv2d,
    position_embedding: Embedding,
}

#[derive(Module, Debug)]
struct Head {
    probe: Param<Tensor<3>>,
    attention: Attention,
    layernorm: LayerNorm,
    mlp: crate::clip::Perceptron,
}

impl SiglipVision {
    /// Blocks.
    pub fn depth(&self) -> usize {
        self.vision_model.encoder.layers.len()
    }

    /// Width of the states.
    pub fn width(&self) -> usize {
        self.vision_model.embeddings.position_embedding.weight.dims()[1]
    }

    /// Pixels of the square image's edge.
    pub fn image(&self) -> usize {
        self.image
    }

    /// The normed states of the last block: transformers' `last_hidden_state`. Blocks are tapped as `vision.blocks.N`.
    ///
    /// # Shapes
    /// - `images`: `[B, C, S, S]`, normalised as [`SiglipImageProcessor`](crate::SiglipImageProcessor) does
    /// - output: `[B, (S / patch)^2, W]`, row by row
    ///
    /// # Panics
    /// If the images have another size.
    pub fn states(&self, images: Tensor<4>) -> Tensor<3> {
        let [_, _, height, width] = images.dims();
        let edge = self.image;
        assert!([height, width] == [edge; 2], "images of {height}x{width} for an encoder of {edge}x{edge}");
        let Embeddings { patch_embedding, position_embedding } = &self.vision_model.embeddings;
        let images = images.cast(patch_embedding.weight.val().dtype());
        let patches = patch_embedding.forward(images).flatten::<3>(2, 3).swap_dims(1, 2); // [B, T, W]
        let mut x = patches + position_embedding.weight.val().unsqueeze::<3>();
        for (i, layer) in self.vision_model.encoder.layers.iter().enumerate() {
            x = trace::block(|| format!("vision.blocks.{i}"), x, |x| layer.forward(x, None));
        }
        self.vision_model.post_layernorm.forward(x) // [B, T, W]
    }

    /// One vector a picture, if there is a head: transformers' `pooler_output`.
    ///
    /// # Shapes
    /// - `states`: `[B, T, W]`, output: `[B, W]`
    pub fn pooled(&self, states: Tensor<3>) -> Option<Tensor<2>> {
        let head = self.vision_model.head.as_ref()?;
        let [batch, _, width] = states.dims();
        let probe = head.probe.val().expand([batch, 1, width]);
        let x = trace::scope(|| "head".into(), || head.attention.forward(probe, states, None)); // [B, 1, W]
        let x = x.clone() + head.mlp.forward(head.layernorm.forward(x));
        Some(x.squeeze_dim(1))
    }
}
