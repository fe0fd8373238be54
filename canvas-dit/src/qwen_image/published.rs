//! What diffusers calls the parts of Qwen-Image: its configuration and its parameters.

use super::QwenImageConfig;
use crate::flux::published::axes;
use crate::streams::published::double;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

impl QwenImageConfig {
    /// Reads a `transformer/config.json` of class `QwenImageTransformer2DModel`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "QwenImageTransformer2DModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "QwenImageTransformer2DModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        // diffusers has no embedding for it, whatever the field says.
        fields.only("guidance_embeds", &[false.into()])?;
        // Of Qwen-Image-Layered.
        fields.only("use_additional_t_cond", &[false.into()])?;
        fields.only("use_layer3d_rope", &[false.into()])?;
        // Its pipelines pack 2x2 latents whatever stands here; the last layer goes by it.
        fields.only("patch_size", &[2.into()])?;
        let count = |field: &str, default: usize| Ok(fields.number(field)?.unwrap_or(default));
        let channels = count("out_channels", 16)?;
        if count("in_channels", 64)? != 4 * channels {
            return Err(fields.refuse("in_channels", &format!("4 times out_channels ({channels})")));
        }
        let config = Self::new(
            count("num_layers", 60)?,
            count("num_attention_heads", 24)?,
            count("joint_attention_dim", 3584)?,
        )
        .with_axes(axes(fields, [16, 56, 56])?)
        .with_channels(channels)
        .with_clean_references(fields.flag("zero_cond_t", false)?);
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `QwenImageTransformer2DModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .prefix("time_text_embed.timestep_embedder.linear_1", "time.input")
            .prefix("time_text_embed.timestep_embedder.linear_2", "time.output")
            .prefix("txt_norm", "text_norm")
            .prefix("txt_in", "text_in")
            .prefix("img_in", "image_in")
            .prefix("transformer_blocks.{i}.txt_mod.1", "blocks.{i}.text_modulation")
            .prefix("transformer_blocks.{i}.img_mod.1", "blocks.{i}.image_modulation")
            .prefix("norm_out.linear", "final_modulation")
            .prefix("proj_out", "unembed");
        double(rules, "transformer_blocks.{i}", "blocks.{i}.streams", ["txt_mlp", "img_mlp"])
    }
}
