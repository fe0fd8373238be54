//! What diffusers calls the parts of Chroma: its configuration and its parameters.

use super::ChromaConfig;
use crate::flux::published::{Packed, axes, ends};
use crate::streams::published::{double, single};
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

impl ChromaConfig {
    /// Reads a `transformer/config.json` of class `ChromaTransformer2DModel`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "ChromaTransformer2DModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "ChromaTransformer2DModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let Packed { channels, extra, patch } = Packed::read(fields)?;
        if extra > 0 {
            return Err(fields.refuse("in_channels", "out_channels"));
        }
        let count = |field: &str, default: usize| Ok(fields.number(field)?.unwrap_or(default));
        let config = Self::new(
            count("num_layers", 19)?,
            count("num_single_layers", 38)?,
            count("num_attention_heads", 24)?,
            count("joint_attention_dim", 4096)?,
        )
        .with_features(count("approximator_num_channels", 64)?)
        .with_hidden(count("approximator_hidden_dim", 5120)?)
        .with_layers(count("approximator_layers", 5)?)
        .with_axes(axes(fields, [16, 56, 56])?)
        .with_channels(channels)
        .with_patch(patch);
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `ChromaTransformer2DModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .prefix("distilled_guidance_layer.in_proj", "approximator.input")
            .prefix("distilled_guidance_layer.out_proj", "approximator.output")
            .prefix("distilled_guidance_layer.norms", "approximator.norms")
            .prefix("distilled_guidance_layer.layers.{i}.linear_1", "approximator.layers.{i}.up")
            .prefix("distilled_guidance_layer.layers.{i}.linear_2", "approximator.layers.{i}.down");
        let rules = double(rules, "transformer_blocks.{i}", "double.{i}", ["ff_context", "ff"]);
        ends(single(rules, "single_transformer_blocks.{i}", "single.{i}"))
    }
}
