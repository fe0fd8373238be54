//! diffusers' `SanaTransformer2DModel`: its configuration and its names.

use super::SanaConfig;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

const CLASS: &str = "SanaTransformer2DModel";

impl SanaConfig {
    /// Reads a `transformer/config.json` of class `SanaTransformer2DModel`.
    ///
    /// diffusers' pipelines tell the network `1000 time * timestep_scale`, but one with `guidance_embeds` (Sana-Sprint) the
    /// time itself: that is [`time_scale`](Self::time_scale).
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, CLASS)?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, CLASS)?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let number = |field: &str, default: usize| fields.number(field).map(|found| found.unwrap_or(default));
        let real = |field: &str, default: f64| fields.real(field).map(|found| found.unwrap_or(default));
        only_sana(fields)?;
        let (channels, patch) = (number("in_channels", 32)?, number("patch_size", 1)?);
        let (heads, cross) = (number("num_attention_heads", 70)?, number("num_cross_attention_heads", 20)?);
        let (steps, strength) = (real("timestep_scale", 1.0)?, real("guidance_embeds_scale", 0.1)?);
        let told = fields.flag("guidance_embeds", false)?;
        let config = Self::new(number("num_layers", 20)?, heads, cross)
            .with_head(number("attention_head_dim", 32)?)
            .with_channels(channels)
            .with_patch(patch)
            .with_context(number("caption_channels", 2304)?)
            .with_mlp_ratio(real("mlp_ratio", 2.5)?)
            .with_bias(fields.flag("attention_bias", false)?)
            .with_qk_norm(fields.word("qk_norm")?.is_some())
            .with_base(number("sample_size", 32)? / patch.max(1))
            .with_interpolation(fields.real("interpolation_scale")?)
            .with_time_scale(if told { 1.0 } else { 1000.0 * steps })
            .with_guidance_scale(told.then_some(strength));
        let width = config.width();
        for (field, found) in [
            ("cross_attention_dim", number("cross_attention_dim", 2240)?),
            ("cross_attention_head_dim", cross * number("cross_attention_head_dim", 112)?),
        ] {
            if found != width {
                return Err(fields.refuse(field, &format!("what makes the model's width, {width}")));
            }
        }
        // diffusers takes 0 for `null`, and both for as many as come in.
        let absent = if fields.has("out_channels") { channels } else { 32 };
        if ![channels, 0].contains(&number("out_channels", absent)?) {
            return Err(fields.refuse("out_channels", &format!("in_channels, {channels}")));
        }
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `SanaTransformer2DModel` (`transformer/diffusion_pytorch_model.safetensors`), for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let time = if self.guidance_scale.is_some() { "time_embed" } else { "time_embed.emb" };
        let rules = Rules::new()
            .prefix("patch_embed.proj", "embed")
            .prefix(&format!("{time}.timestep_embedder.linear_1"), "time.input")
            .prefix(&format!("{time}.timestep_embedder.linear_2"), "time.output")
            .prefix("time_embed.guidance_embedder.linear_1", "guidance.input")
            .prefix("time_embed.guidance_embedder.linear_2", "guidance.output")
            .prefix("time_embed.linear", "modulation")
            .prefix("caption_projection.linear_1", "caption.up")
            .prefix("caption_projection.linear_2", "caption.down")
            .exact("scale_shift_table", "final_table")
            .prefix("proj_out", "unembed")
            .pointwise("ff.conv_inverted.weight")
            .pointwise("ff.conv_point.weight");
        let parts = [
            ("scale_shift_table", "table"),
            ("ff.conv_inverted", "mlp.inverted"),
            ("ff.conv_depth", "mlp.depth"),
            ("ff.conv_point", "mlp.point"),
        ];
        let attention =
            [("attn1", "attention"), ("attn2", "cross")].into_iter().flat_map(|(published, ours)| {
                let layers = [
                    ("to_q", "query"),
                    ("to_k", "key"),
                    ("to_v", "value"),
                    ("norm_q", "query_norm"),
                    ("norm_k", "key_norm"),
                    ("to_out.0", "output"),
                ];
                layers.map(|(theirs, layer)| (format!("{published}.{theirs}"), format!("{ours}.{layer}")))
            });
        let parts = parts.map(|(published, ours)| (published.to_owned(), ours.to_owned()));
        parts.into_iter().chain(attention).fold(rules, |rules, (published, ours)| {
            rules.prefix(&format!("transformer_blocks.{{i}}.{published}"), &format!("blocks.{{i}}.{ours}"))
        })
    }
}

/// What no released Sana has otherwise.
fn only_sana(fields: &Fields) -> Result<(), ConfigFileError> {
    fields.only("dropout", &[0.into()])?;
    fields.only("norm_elementwise_affine", &[false.into()])?;
    fields.only("norm_eps", &[1e-6.into()])?;
    fields.only("qk_norm", &["rms_norm_across_heads".into()])
}
