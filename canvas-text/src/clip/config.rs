//! Sizes of CLIP's text transformer: the published ones, and those of a `config.json`.

use super::{ClipText, Encoder, Layer, TextModel};
use crate::ClipConfigError;
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::init::{normal_embedding, normal_linear};
use canvas_core::nn::{Activation, LayerNormConfig};
use canvas_core::{ConfigError, check};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Sizes of a [`ClipText`].
#[derive(Config, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Width of the token states.
    pub width: usize,
    /// Width between the two layers of a perceptron.
    pub hidden: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads of each block; must divide the width.
    pub heads: usize,
    /// Nonlinearity of the perceptrons.
    pub activation: Activation,
    /// Tokens it knows.
    #[config(default = 49408)]
    pub vocabulary: usize,
    /// The most tokens of a row.
    #[config(default = 77)]
    pub context: usize,
    /// Added to variances by the norms.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Width of the projected prompt vector, if there is a projection.
    pub projection: Option<usize>,
    /// Which token's state is the prompt's vector.
    #[config(default = "Pool::LargestId")]
    pub pool: Pool,
    /// Whether padding is hidden from the tokens behind it. It is not in any published diffusion model.
    #[config(default = false)]
    pub use_attention_mask: bool,
}

/// Which token's state is the prompt's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Pool {
    /// The first of the largest id: the end token of CLIP's own vocabulary. transformers does this where a file
    /// says `eos_token_id: 2`, as all of the Stable Diffusion family do.
    LargestId,
    /// The first token of this id, which need not be the largest: the vocabulary may have grown. The first token
    /// of the row where there is none, as in transformers.
    First(u32),
}

impl ClipTextConfig {
    /// CLIP ViT-L/14's text transformer: Stable Diffusion 1.x, and the first of SDXL. 123,060,480 parameters.
    pub fn clip_l() -> Self {
        Self::new(768, 3072, 12, 12, Activation::QuickGelu)
    }

    /// The 23 blocks of OpenCLIP ViT-H/14's text transformer that Stable Diffusion 2.x keeps, unprojected.
    /// 340,387,840 parameters.
    pub fn open_clip_h() -> Self {
        Self::new(1024, 4096, 23, 16, Activation::Gelu)
    }

    /// OpenCLIP ViT-bigG/14's text transformer with its projection, the second of SDXL. 694,659,840 parameters.
    pub fn open_clip_big_g() -> Self {
        Self::new(1280, 5120, 32, 20, Activation::Gelu).with_projection(Some(1280))
    }

    /// # Errors
    /// Names the fields that are zero or do not divide.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for field in [
            ("width", self.width),
            ("hidden", self.hidden),
            ("depth", self.depth),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
            ("projection", self.projection.unwrap_or(1)),
        ] {
            check::positive(field)?;
        }
        check::divides(("heads", self.heads), ("width", self.width))
    }

    /// Draws weights as transformers does for a fresh model, but for the scale by depth.
    ///
    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> ClipText {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let norm = LayerNormConfig::new(self.width).with_epsilon(self.epsilon);
        let blocks =
            Blocks { width: self.width, hidden: self.hidden, heads: self.heads, activation: self.activation };
        let text_model = TextModel {
            embeddings: super::Embeddings {
                token_embedding: normal_embedding(0.02, self.vocabulary, self.width, device),
                position_embedding: normal_embedding(0.02, self.context, self.width, device),
            },
            encoder: Encoder { layers: (0..self.depth).map(|_| blocks.init(&norm, device)).collect() },
            final_layer_norm: norm.init(device),
        };
        let project = |width| LinearConfig::new(self.width, width).with_bias(false).init(device);
        ClipText {
            text_model,
            text_projection: self.projection.map(project),
            pool: self.pool,
            use_attention_mask: self.use_attention_mask,
            output: super::ClipLayer::last(),
        }
    }

    /// Reads a transformers `config.json` of a `CLIPTextModel` or a `CLIPTextModelWithProjection`.
    ///
    /// What the file leaves out is transformers' default. Fields that do not change the result are not read:
    /// dropout, initial values, ids that only a tokenizer needs, library versions.
    ///
    /// # Errors
    /// Names the file, the key, what was expected and what was found: another class of model, another
    /// activation, a size that is no positive number, heads that do not divide.
    pub fn from_file(path: &Path) -> Result<Self, ClipConfigError> {
        read(path, Self::parse)
    }

    fn parse(json: &Value) -> Result<Self, String> {
        let (width, projection) = (size(json, "hidden_size", 512)?, size(json, "projection_dim", 512)?);
        let config = Self {
            width,
            hidden: size(json, "intermediate_size", 2048)?,
            depth: size(json, "num_hidden_layers", 12)?,
            heads: size(json, "num_attention_heads", 8)?,
            activation: activation(json)?,
            vocabulary: size(json, "vocab_size", 49408)?,
            context: size(json, "max_position_embeddings", 77)?,
            epsilon: epsilon(json)?,
            projection: is_projected(json, "clip_text_model", "CLIPTextModel")?.then_some(projection),
            pool: pool(json)?,
            use_attention_mask: flag(json, "use_attention_mask")?,
        };
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// Sizes of a block.
pub(crate) struct Blocks {
    pub(crate) width: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) activation: Activation,
}

impl Blocks {
    pub(crate) fn init(&self, norm: &LayerNormConfig, device: &Device) -> Layer {
        let square = || linear(self.width, self.width, device);
        Layer {
            self_attn: super::SelfAttention {
                q_proj: square(),
                k_proj: square(),
                v_proj: square(),
                out_proj: square(),
                heads: self.heads,
            },
            layer_norm1: norm.init(device),
            mlp: self.perceptron(device),
            layer_norm2: norm.init(device),
        }
    }

    pub(crate) fn perceptron(&self, device: &Device) -> super::Perceptron {
        super::Perceptron {
            fc1: linear(self.width, self.hidden, device),
            fc2: linear(self.hidden, self.width, device),
            activation: self.activation,
        }
    }
}

fn linear(from: usize, to: usize, device: &Device) -> Linear {
    normal_linear((from as f64).sqrt().recip(), from, to, device)
}

/// Reads a file of settings.
pub(crate) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&Value) -> Result<T, String>,
) -> Result<T, ClipConfigError> {
    let wrong = |message| ClipConfigError::Format { path: path.to_owned(), message };
    let text =
        fs::read_to_string(path).map_err(|source| ClipConfigError::Read { path: path.to_owned(), source })?;
    let json: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if !json.is_object() {
        return Err(wrong("expected an object of settings".into()));
    }
    parse(&json).map_err(wrong)
}

pub(crate) fn expected(key: &str, what: &str, found: &Value) -> String {
    format!("{key}: expected {what}, found {found}")
}

pub(crate) fn size(json: &Value, key: &str, default: usize) -> Result<usize, String> {
    match &json[key] {
        Value::Null => Ok(default),
        found => match found.as_u64() {
            Some(size) if (1..1 << 24).contains(&size) => Ok(size as usize),
            _ => Err(expected(key, "a positive size", found)),
        },
    }
}

fn flag(json: &Value, key: &str) -> Result<bool, String> {
    match &json[key] {
        Value::Null => Ok(false),
        found => found.as_bool().ok_or_else(|| expected(key, "true or false", found)),
    }
}

pub(super) fn epsilon(json: &Value) -> Result<f64, String> {
    match &json["layer_norm_eps"] {
        Value::Null => Ok(1e-5),
        found => match found.as_f64() {
            Some(epsilon) if epsilon > 0.0 && epsilon < 1.0 => Ok(epsilon),
            _ => Err(expected("layer_norm_eps", "a small positive number", found)),
        },
    }
}

pub(super) fn activation(json: &Value) -> Result<Activation, String> {
    match &json["hidden_act"] {
        Value::Null => Ok(Activation::QuickGelu),
        found => match found.as_str() {
            Some("quick_gelu") => Ok(Activation::QuickGelu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            _ => Err(expected("hidden_act", "quick_gelu, gelu, gelu_new or gelu_pytorch_tanh", found)),
        },
    }
}

fn pool(json: &Value) -> Result<Pool, String> {
    match &json["eos_token_id"] {
        Value::Null => Ok(Pool::First(49407)),
        found => match found.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(2) => Ok(Pool::LargestId),
            Some(id) => Ok(Pool::First(id)),
            None => Err(expected("eos_token_id", "one token id", found)),
        },
    }
}

/// The class decides whether there is a projection; both kinds state its width.
pub(super) fn is_projected(json: &Value, kind: &str, class: &str) -> Result<bool, String> {
    match &json["model_type"] {
        Value::String(found) if found == kind => {}
        found => return Err(expected("model_type", &format!("{kind:?}"), found)),
    }
    let projected = format!("{class}WithProjection");
    match json["architectures"].as_array().map(Vec::as_slice) {
        Some([one]) if one == class => Ok(false),
        Some([one]) if *one == projected => Ok(true),
        _ => {
            Err(expected("architectures", &format!("[{class:?}] or [{projected:?}]"), &json["architectures"]))
        }
    }
}
