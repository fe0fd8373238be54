//! What diffusers calls the parts of Lumina 2: its configuration and its parameters.

use super::Lumina2Config;
use crate::sandwich::published::block;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

impl Lumina2Config {
    /// Reads a `transformer/config.json` of class `Lumina2Transformer2DModel`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "Lumina2Transformer2DModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "Lumina2Transformer2DModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let count = |field: &str, default: usize| Ok(fields.number(field)?.unwrap_or(default));
        // Says how pipelines choose a size; the network has no use for it.
        count("sample_size", 128)?;
        // Of no effect in diffusers at any value.
        fields.only("scaling_factor", &[1.into()])?;
        let channels = count("in_channels", 16)?;
        fields.only("out_channels", &[channels.into()])?;
        let heads = count("num_attention_heads", 24)?;
        let axes = triple(fields, "axes_dim_rope", [32; 3])?;
        let width = heads * axes.iter().sum::<usize>();
        if count("hidden_size", 2304)? != width {
            let expected = format!("num_attention_heads times the sum of axes_dim_rope, {width}");
            return Err(fields.refuse("hidden_size", &expected));
        }
        let config = Self::new(
            count("num_layers", 26)?,
            heads,
            count("num_kv_heads", 8)?,
            count("cap_feat_dim", 1024)?,
        )
        .with_refiners(count("num_refiner_layers", 2)?)
        .with_hidden(hidden(fields, 4 * width)?)
        .with_axes(axes)
        .with_places(triple(fields, "axes_lens", [300, 512, 512])?)
        .with_channels(channels)
        .with_patch(count("patch_size", 2)?)
        .with_eps(fields.real("norm_eps")?.unwrap_or(1e-5));
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `Lumina2Transformer2DModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .prefix("time_caption_embed.timestep_embedder.linear_1", "time.input")
            .prefix("time_caption_embed.timestep_embedder.linear_2", "time.output")
            .prefix("time_caption_embed.caption_embedder.0", "text_norm")
            .prefix("time_caption_embed.caption_embedder.1", "text_in")
            .prefix("x_embedder", "image_in")
            .prefix("norm_out.linear_1", "final_modulation")
            .prefix("norm_out.linear_2", "unembed");
        let modulated =
            [("norm1.linear", "modulation"), ("norm1.norm", "attention_norm"), ("norm2", "read_norm")];
        let plain = [("norm1", "attention_norm"), ("norm2", "read_norm")];
        let blocks: [(&str, &str, &[_]); 3] = [
            ("context_refiner", "text_refiner", &plain),
            ("noise_refiner", "image_refiner", &modulated),
            ("layers", "blocks", &modulated),
        ];
        let mlp = ["linear_1", "linear_3", "linear_2"];
        blocks.iter().fold(rules, |rules, (theirs, ours, more)| block(rules, theirs, ours, "attn", mlp, more))
    }
}

/// Width inside the perceptrons, if it is not what it is by default.
fn hidden(fields: &Fields, default: usize) -> Result<Option<usize>, ConfigFileError> {
    let multiple = fields.number("multiple_of")?.unwrap_or(256);
    let times = fields.real("ffn_dim_multiplier")?.unwrap_or(1.0);
    if multiple == 0 {
        return Err(fields.refuse("multiple_of", "at least 1"));
    }
    let hidden = ((times * default as f64) as usize).next_multiple_of(multiple);
    Ok((hidden != default).then_some(hidden))
}

/// Three whole numbers, one an axis.
pub(crate) fn triple(
    fields: &Fields,
    field: &str,
    default: [usize; 3],
) -> Result<[usize; 3], ConfigFileError> {
    let found = fields.numbers(field, &default)?;
    found.try_into().map_err(|_| fields.refuse(field, "3 whole numbers"))
}
