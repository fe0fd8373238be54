//! What diffusers calls the parts of Flux.2: its configuration and its parameters.

use super::Flux2Config;
use crate::flux::published::{axes, ends};
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

impl Flux2Config {
    /// Reads a `transformer/config.json` of class `Flux2Transformer2DModel`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "Flux2Transformer2DModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "Flux2Transformer2DModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        fields.only("patch_size", &[1.into()])?;
        fields.only("eps", &[1e-6.into()])?;
        let count = |field: &str, default: usize| Ok(fields.number(field)?.unwrap_or(default));
        let channels = count("in_channels", 128)?;
        fields.only("out_channels", &[channels.into()])?;
        let config = Self::new(
            count("num_layers", 8)?,
            count("num_single_layers", 48)?,
            count("num_attention_heads", 48)?,
            count("joint_attention_dim", 15360)?,
        )
        .with_guidance(fields.flag("guidance_embeds", true)?)
        .with_mlp_ratio(fields.real("mlp_ratio")?.unwrap_or(3.0))
        .with_time_features(count("timestep_guidance_channels", 256)?)
        .with_axes(axes(fields, [32; 4])?)
        .with_theta(fields.real("rope_theta")?.unwrap_or(2000.0))
        .with_channels(channels);
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `Flux2Transformer2DModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .prefix("time_guidance_embed.timestep_embedder.linear_1", "time.input")
            .prefix("time_guidance_embed.timestep_embedder.linear_2", "time.output")
            .prefix("time_guidance_embed.guidance_embedder.linear_1", "guidance.input")
            .prefix("time_guidance_embed.guidance_embedder.linear_2", "guidance.output")
            .prefix("double_stream_modulation_txt.linear", "text_modulation")
            .prefix("double_stream_modulation_img.linear", "image_modulation")
            .prefix("single_stream_modulation.linear", "single_modulation")
            .prefix("norm_out.linear", "final_modulation");
        let rules = [("add_", "_proj", "added_", "text"), ("to_", "", "", "image")].iter().fold(
            rules,
            |rules, (before, behind, norm, stream)| {
                let (block, ours) = ("transformer_blocks.{i}.attn", format!("double.{{i}}.{stream}"));
                let rules =
                    [("q", "query"), ("k", "key"), ("v", "value")].iter().fold(rules, |rules, (x, name)| {
                        rules.prefix(&format!("{block}.{before}{x}{behind}"), &format!("{ours}.qkv.{name}"))
                    });
                rules
                    .prefix(&format!("{block}.norm_{norm}q"), &format!("{ours}.qkv.query_norm"))
                    .prefix(&format!("{block}.norm_{norm}k"), &format!("{ours}.qkv.key_norm"))
            },
        );
        let rules = rules
            .prefix("transformer_blocks.{i}.attn.to_add_out", "double.{i}.text.output")
            .prefix("transformer_blocks.{i}.attn.to_out.0", "double.{i}.image.output");
        let rules = [("ff_context", "text"), ("ff", "image")].iter().fold(rules, |rules, (ff, stream)| {
            let (block, ours) =
                (format!("transformer_blocks.{{i}}.{ff}"), format!("double.{{i}}.{stream}.mlp"));
            rules
                .prefix(&format!("{block}.linear_out"), &format!("{ours}.down"))
                .prefix(&format!("{block}.linear_in"), &format!("{ours}.gate_up"))
        });
        let rules = rules
            .split("mlp.gate_up", &["mlp.gate", "mlp.up"])
            .prefix("single_transformer_blocks.{i}.attn.to_qkv_mlp_proj", "single.{i}.input")
            .prefix("single_transformer_blocks.{i}.attn.to_out", "single.{i}.output")
            .prefix("single_transformer_blocks.{i}.attn.norm_q", "single.{i}.query_norm")
            .prefix("single_transformer_blocks.{i}.attn.norm_k", "single.{i}.key_norm");
        ends(rules)
    }
}
