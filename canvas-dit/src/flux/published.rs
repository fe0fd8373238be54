//! What diffusers calls the parts of Flux.1: its configuration and its parameters.

use super::FluxConfig;
use crate::streams::published::{double, single};
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

impl FluxConfig {
    /// Reads a `transformer/config.json` of class `FluxTransformer2DModel`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "FluxTransformer2DModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "FluxTransformer2DModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let Packed { channels, extra, patch } = Packed::read(fields)?;
        let count = |field: &str, default: usize| Ok(fields.number(field)?.unwrap_or(default));
        let config = Self::new(
            count("num_layers", 19)?,
            count("num_single_layers", 38)?,
            count("num_attention_heads", 24)?,
            count("joint_attention_dim", 4096)?,
            count("pooled_projection_dim", 768)?,
        )
        .with_guidance(fields.flag("guidance_embeds", false)?)
        .with_axes(axes(fields, [16, 56, 56])?)
        .with_channels(channels)
        .with_extra(extra)
        .with_patch(patch);
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `FluxTransformer2DModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .prefix("time_text_embed.timestep_embedder.linear_1", "time.input")
            .prefix("time_text_embed.timestep_embedder.linear_2", "time.output")
            .prefix("time_text_embed.guidance_embedder.linear_1", "guidance.input")
            .prefix("time_text_embed.guidance_embedder.linear_2", "guidance.output")
            .prefix("time_text_embed.text_embedder.linear_1", "pooled_in")
            .prefix("time_text_embed.text_embedder.linear_2", "pooled_out")
            .prefix("transformer_blocks.{i}.norm1.linear", "double.{i}.image_modulation")
            .prefix("transformer_blocks.{i}.norm1_context.linear", "double.{i}.text_modulation")
            .prefix("single_transformer_blocks.{i}.norm.linear", "single.{i}.modulation");
        let rules = double(rules, "transformer_blocks.{i}", "double.{i}.streams", ["ff_context", "ff"]);
        ends(single(rules, "single_transformer_blocks.{i}", "single.{i}.block"))
            .prefix("norm_out.linear", "final_modulation")
    }
}

/// First and last layers, which diffusers calls alike in this family.
pub(crate) fn ends(rules: Rules) -> Rules {
    rules.prefix("context_embedder", "text_in").prefix("x_embedder", "image_in").prefix("proj_out", "unembed")
}

/// Channels of latents, as told by those of diffusers' tokens: its pipelines pack 2x2 of them.
pub(crate) struct Packed {
    pub channels: usize,
    pub extra: usize,
    pub patch: usize,
}

impl Packed {
    pub(crate) fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        // Packed a second time where it is not 1, which no pipeline expects.
        fields.only("patch_size", &[1.into()])?;
        let patch = 2;
        let area = patch * patch;
        let input = fields.number("in_channels")?.unwrap_or(64);
        let output = fields.number("out_channels")?.unwrap_or(input);
        if !input.is_multiple_of(area) {
            return Err(
                fields.refuse("in_channels", "4 times the channels of latents and what is read beside")
            );
        }
        if output > input || !output.is_multiple_of(area) {
            return Err(
                fields.refuse("out_channels", &format!("4 times the channels of latents, at most {input}"))
            );
        }
        Ok(Self { channels: output / area, extra: (input - output) / area, patch })
    }
}

/// The axes of rotary positions, which together are a head.
pub(crate) fn axes<const K: usize>(
    fields: &Fields,
    default: [usize; K],
) -> Result<[usize; K], ConfigFileError> {
    let found = fields.numbers("axes_dims_rope", &default)?;
    let axes: [usize; K] =
        found.try_into().map_err(|_| fields.refuse("axes_dims_rope", &format!("{K} whole numbers")))?;
    let (head, sum) = (fields.number("attention_head_dim")?.unwrap_or(128), axes.iter().sum::<usize>());
    if head != sum {
        return Err(fields.refuse("attention_head_dim", &format!("the sum of axes_dims_rope, {sum}")));
    }
    Ok(axes)
}
