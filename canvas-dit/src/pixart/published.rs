//! diffusers' `PixArtTransformer2DModel`: its configuration and its names.

use super::PixArtConfig;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

const CLASS: &str = "PixArtTransformer2DModel";
/// What files of PixArt-alpha say, which are older than that class.
const OLD_CLASS: &str = "Transformer2DModel";

impl PixArtConfig {
    /// Reads a `transformer/config.json` of class `PixArtTransformer2DModel`, or `Transformer2DModel` as PixArt-alpha's
    /// files have it.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        match Fields::open(path, OLD_CLASS) {
            Ok(fields) if fields.has("_class_name") => Self::read_old(&fields),
            _ => Self::read(&Fields::open(path, CLASS)?),
        }
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        match Fields::parse(json, OLD_CLASS) {
            Ok(fields) if fields.has("_class_name") => Self::read_old(&fields),
            _ => Self::read(&Fields::parse(json, CLASS)?),
        }
    }

    /// The older class has other defaults, so its files must say what matters, and has more that is not here.
    fn read_old(fields: &Fields) -> Result<Self, ConfigFileError> {
        let needed = [
            "num_attention_heads",
            "attention_head_dim",
            "in_channels",
            "out_channels",
            "num_layers",
            "cross_attention_dim",
            "attention_bias",
            "sample_size",
            "patch_size",
            "activation_fn",
            "norm_type",
            "norm_elementwise_affine",
            "norm_eps",
            "caption_channels",
        ];
        if let Some(field) = needed.iter().find(|field| fields.get(field).is_none()) {
            return Err(fields.refuse(field, "a value: files of class Transformer2DModel must say it"));
        }
        for field in ["double_self_attention", "only_cross_attention", "use_linear_projection"] {
            fields.only(field, &[false.into()])?;
        }
        fields.only("num_vector_embeds", &[])?;
        Self::read(fields)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let number = |field: &str, default: usize| fields.number(field).map(|found| found.unwrap_or(default));
        only_pixart(fields)?;
        let (channels, patch) = (number("in_channels", 4)?, number("patch_size", 2)?);
        let side = number("sample_size", 128)?;
        let scale = fields.real("interpolation_scale")?.unwrap_or((side / 64).max(1) as f64);
        let Some(context) = fields.number("caption_channels")? else {
            return Err(fields.refuse("caption_channels", "the width of the text tokens"));
        };
        let config = Self::new(side / patch.max(1))
            .with_interpolation(scale)
            .with_depth(number("num_layers", 28)?)
            .with_heads(number("num_attention_heads", 16)?)
            .with_head(number("attention_head_dim", 72)?)
            .with_channels(channels)
            .with_patch(patch)
            .with_context(context)
            .with_micro_conditions(fields.flag("use_additional_conditions", side == 128)?);
        if number("cross_attention_dim", 1152)? != config.width() {
            return Err(
                fields.refuse("cross_attention_dim", &format!("the model's width, {}", config.width()))
            );
        }
        // `null`, unlike a field that is not there, is as many as come in.
        let absent = if fields.has("out_channels") { channels } else { 8 };
        let learns = match number("out_channels", absent)? {
            out if out == channels => false,
            out if out == 2 * channels => true,
            _ => return Err(fields.refuse("out_channels", "as many as in_channels, or twice as many")),
        };
        fields.finish(config.with_learn_variance(learns), Self::validate)
    }

    /// The names of diffusers' `PixArtTransformer2DModel` (`transformer/diffusion_pytorch_model.safetensors`), for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .prefix("pos_embed.proj", "embed")
            .prefix("adaln_single.emb.timestep_embedder.linear_1", "time.input")
            .prefix("adaln_single.emb.timestep_embedder.linear_2", "time.output")
            .prefix("adaln_single.emb.resolution_embedder.linear_1", "size.input")
            .prefix("adaln_single.emb.resolution_embedder.linear_2", "size.output")
            .prefix("adaln_single.emb.aspect_ratio_embedder.linear_1", "aspect.input")
            .prefix("adaln_single.emb.aspect_ratio_embedder.linear_2", "aspect.output")
            .prefix("adaln_single.linear", "modulation")
            .prefix("caption_projection.linear_1", "caption.up")
            .prefix("caption_projection.linear_2", "caption.down")
            .exact("scale_shift_table", "final_table")
            .prefix("proj_out", "unembed")
            .ignore(
                "caption_projection.y_embedding",
                "the empty caption of training, which diffusers does not read",
            );
        let parts = [
            ("scale_shift_table", "table"),
            ("attn1.to_q", "attention.query"),
            ("attn1.to_k", "attention.key"),
            ("attn1.to_v", "attention.value"),
            ("attn1.to_out.0", "attention.output"),
            ("attn2.to_q", "cross.query"),
            ("attn2.to_k", "cross.key"),
            ("attn2.to_v", "cross.value"),
            ("attn2.to_out.0", "cross.output"),
            ("ff.net.0.proj", "mlp.up"),
            ("ff.net.2", "mlp.down"),
        ];
        parts.iter().fold(rules, |rules, (published, ours)| {
            rules.prefix(&format!("transformer_blocks.{{i}}.{published}"), &format!("blocks.{{i}}.{ours}"))
        })
    }
}

/// What no PixArt has otherwise.
fn only_pixart(fields: &Fields) -> Result<(), ConfigFileError> {
    fields.only("norm_type", &["ada_norm_single".into()])?;
    fields.only("norm_elementwise_affine", &[false.into()])?;
    fields.only("norm_eps", &[1e-6.into()])?;
    fields.only("activation_fn", &["gelu-approximate".into()])?;
    fields.only("attention_bias", &[true.into()])?;
    fields.only("attention_type", &["default".into()])?;
    fields.only("dropout", &[0.into()])?;
    fields.only("upcast_attention", &[false.into()])?;
    // Of layers that a PixArt has not; diffusers does not look at their values either.
    fields.number("norm_num_groups")?;
    fields.number("num_embeds_ada_norm")?;
    Ok(())
}
