//! What diffusers calls the parts of PRX: its configuration and its parameters.

use super::PrxConfig;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

impl PrxConfig {
    /// Reads a `transformer/config.json` of class `PRXTransformer2DModel`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "PRXTransformer2DModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "PRXTransformer2DModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let count = |field: &str, default: usize| Ok(fields.number(field)?.unwrap_or(default));
        fields.only("time_max_period", &[10000.into()])?;
        let heads = count("num_heads", 28)?;
        let axes: [usize; 2] = fields
            .numbers("axes_dim", &[32, 32])?
            .try_into()
            .map_err(|_| fields.refuse("axes_dim", "2 whole numbers"))?;
        let width = heads * axes.iter().sum::<usize>();
        if count("hidden_size", 1792)? != width {
            return Err(
                fields.refuse("hidden_size", &format!("num_heads times the sum of axes_dim, {width}"))
            );
        }
        let config = Self::new(count("depth", 16)?, heads, count("context_in_dim", 2304)?)
            .with_mlp_ratio(fields.real("mlp_ratio")?.unwrap_or(3.5))
            .with_axes(axes)
            .with_theta(fields.real("theta")?.unwrap_or(10000.0))
            .with_channels(count("in_channels", 16)?)
            .with_patch(count("patch_size", 2)?)
            .with_bottleneck(fields.number("bottleneck_size")?)
            .with_told_size(fields.flag("resolution_embeds", false)?)
            .with_time_scale(fields.real("time_factor")?.unwrap_or(1000.0));
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `PRXTransformer2DModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .prefix("time_in.in_layer", "time.input")
            .prefix("time_in.out_layer", "time.output")
            .prefix("resolution_embedder.mlp.in_layer", "size.input")
            .prefix("resolution_embedder.mlp.out_layer", "size.output")
            .prefix("txt_in", "text_in")
            .prefix("final_layer.adaLN_modulation.1", "final_modulation")
            .prefix("final_layer.linear", "unembed")
            .split("attention.img_qkv_proj", &["qkv.query", "qkv.key", "qkv.value"])
            .split("attention.txt_kv_proj", &["text_key", "text_value"]);
        let rules = match self.bottleneck {
            Some(_) => rules.prefix("img_in.0", "bottleneck").prefix("img_in.1", "image_in"),
            None => rules.prefix("img_in", "image_in"),
        };
        let parts = [
            ("modulation.lin", "modulation"),
            ("attention.norm_q", "qkv.query_norm"),
            ("attention.norm_k", "qkv.key_norm"),
            ("attention.norm_added_k", "text_key_norm"),
            ("attention.to_out.0", "output"),
            ("gate_proj", "mlp.gate"),
            ("up_proj", "mlp.up"),
            ("down_proj", "mlp.down"),
        ];
        parts.iter().fold(rules, |rules, (theirs, ours)| {
            rules.prefix(&format!("blocks.{{i}}.{theirs}"), &format!("blocks.{{i}}.{ours}"))
        })
    }
}
