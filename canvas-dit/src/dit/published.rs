//! diffusers' configuration and names, and those of the authors' files.

use super::{Dit, DitConfig};
use burn::prelude::*;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::{Report, Rules, Source, WeightsError, load_published};
use serde_json::Value;
use std::path::Path;

/// Today's class, and that of the files which the authors' weights were published in.
const CLASSES: [&str; 2] = ["DiTTransformer2DModel", "Transformer2DModel"];

/// What every block of diffusers' has for itself.
const EMBEDDER: &str = "norm1.emb";

impl DitConfig {
    /// Reads a `transformer/config.json` of class `DiTTransformer2DModel`, or of `Transformer2DModel` with `ada_norm_zero`.
    ///
    /// The network answers as diffusers' does: the time's frequencies end at 1/10000
    /// ([`time_period`](Self::time_period)), and the norm before the MLP has the file's epsilon.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        let read = |class| Fields::open(path, class);
        Self::read(&read(CLASSES[0]).or_else(|error| read(CLASSES[1]).map_err(|_| error))?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        let read = |class| Fields::parse(json, class);
        Self::read(&read(CLASSES[0]).or_else(|error| read(CLASSES[1]).map_err(|_| error))?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        only(fields)?;
        let number = |field, default| Ok::<_, ConfigFileError>(fields.number(field)?.unwrap_or(default));
        let (heads, channels) = (number("num_attention_heads", 16)?, number("in_channels", 4)?);
        let width = heads * number("attention_head_dim", 72)?;
        let outputs = number("out_channels", channels)?;
        if outputs != channels && outputs != 2 * channels {
            return Err(fields.refuse("out_channels", "in_channels, or twice as many for a learned variance"));
        }
        let side = number("sample_size", 32)?;
        let config = Self::new([side, side], width, number("num_layers", 28)?, heads)
            .with_patch(number("patch_size", 2)?)
            .with_channels(channels)
            .with_classes(number("num_embeds_ada_norm", 1000)?)
            .with_learn_variance(outputs == 2 * channels)
            .with_time_period(10000f64.powf(128.0 / 127.0))
            .with_mlp_norm_eps(fields.real("norm_eps")?.unwrap_or(1e-5));
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `DiTTransformer2DModel`, whose every block has a copy of the one embedder of time and class.
    ///
    /// Block 0's is read, as the last layer reads it in diffusers, and written. Whether the others equal it, rules cannot
    /// say: [`load_diffusers`](Self::load_diffusers) does.
    pub fn published(&self) -> Rules {
        let first = format!("transformer_blocks.0.{EMBEDDER}");
        let parts = [
            ("norm1.linear", "modulation"),
            ("attn1.to_q", "attention.query"),
            ("attn1.to_k", "attention.key"),
            ("attn1.to_v", "attention.value"),
            ("attn1.to_out.0", "attention.output"),
            ("ff.net.0.proj", "mlp.up"),
            ("ff.net.2", "mlp.down"),
        ];
        let rules = Rules::new()
            .prefix("pos_embed.proj", "embed")
            .prefix(&format!("{first}.timestep_embedder.linear_1"), "time.input")
            .prefix(&format!("{first}.timestep_embedder.linear_2"), "time.output")
            .prefix(&format!("{first}.class_embedder.embedding_table"), "cond")
            .prefix("proj_out_1", "final_modulation")
            .prefix("proj_out_2", "unembed")
            .ignore_prefix("pos_embed.pos_embed", "the table of sines, which is computed");
        let rules = parts.iter().fold(rules, |rules, (published, ours)| {
            rules.prefix(&format!("transformer_blocks.{{i}}.{published}"), &format!("blocks.{{i}}.{ours}"))
        });
        (1..self.depth).fold(rules, |rules, block| {
            let copy = format!("transformer_blocks.{block}.{EMBEDDER}");
            rules.ignore_prefix(&copy, "a copy of block 0's embedder of time and class")
        })
    }

    /// Loads diffusers' weights, after it has seen that all blocks have the same embedder of time and class: else it is
    /// another network than DiT, with a condition for each block.
    ///
    /// # Errors
    /// Names the file and the first tensor that is not block 0's, or is not there; otherwise as
    /// [`load_published`](fn@load_published).
    pub fn load_diffusers(&self, source: &Source, device: &Device) -> Result<(Dit, Report), WeightsError> {
        let names = ["timestep_embedder.linear_1.weight", "timestep_embedder.linear_1.bias"]
            .into_iter()
            .chain(["timestep_embedder.linear_2.weight", "timestep_embedder.linear_2.bias"])
            .chain(["class_embedder.embedding_table.weight"]);
        for name in names {
            let key = |block| format!("transformer_blocks.{block}.{EMBEDDER}.{name}");
            let first = source.read(&key(0))?;
            for block in 1..self.depth {
                if source.read(&key(block))? != first {
                    let expected = format!("the values of {}", source.whole(&key(0)));
                    return Err(source.refuse(&key(block), &expected, "others"));
                }
            }
        }
        load_published(self.init(device), source, &self.published())
    }

    /// The names in the authors' files, DiT's and SiT's.
    pub fn original(&self) -> Rules {
        let parts = [
            ("attn.proj", "attention.output"),
            ("mlp.fc1", "mlp.up"),
            ("mlp.fc2", "mlp.down"),
            ("adaLN_modulation.1", "modulation"),
        ];
        let qkv = ["attention.query", "attention.key", "attention.value"]
            .map(|part| format!("blocks.{{i}}.{part}"));
        let rules = Rules::new()
            .prefix("x_embedder.proj", "embed")
            .prefix("t_embedder.mlp.0", "time.input")
            .prefix("t_embedder.mlp.2", "time.output")
            .prefix("y_embedder.embedding_table", "cond")
            .prefix("final_layer.linear", "unembed")
            .prefix("final_layer.adaLN_modulation.1", "final_modulation")
            .ignore_prefix("pos_embed", "the table of sines, which is computed")
            .split("blocks.{i}.attn.qkv", &qkv.each_ref().map(String::as_str));
        parts.iter().fold(rules, |rules, (published, ours)| {
            rules.prefix(&format!("blocks.{{i}}.{published}"), &format!("blocks.{{i}}.{ours}"))
        })
    }
}

/// Fields with one honoured value, and those that change nothing here.
fn only(fields: &Fields) -> Result<(), ConfigFileError> {
    fields.only("norm_type", &["ada_norm_zero".into()])?;
    if fields.word("_class_name")? == Some(CLASSES[1]) && fields.word("norm_type")?.is_none() {
        return Err(fields.refuse("norm_type", "\"ada_norm_zero\""));
    }
    fields.only("activation_fn", &["gelu-approximate".into()])?;
    fields.only("attention_bias", &[true.into()])?;
    let off =
        ["norm_elementwise_affine", "upcast_attention", "double_self_attention", "only_cross_attention"];
    for field in off.into_iter().chain(["use_linear_projection", "use_additional_conditions"]) {
        fields.only(field, &[false.into()])?;
    }
    fields.only("dropout", &[0.into()])?;
    fields.only("attention_type", &["default".into()])?;
    for field in ["cross_attention_dim", "num_vector_embeds", "caption_channels", "interpolation_scale"] {
        fields.only(field, &[] as &[Value])?;
    }
    fields.get("norm_num_groups"); // of a norm that this class does not have
    Ok(())
}
