//! diffusers' `AuraFlowTransformer2DModel`: its configuration and its names.

use super::AuraFlowConfig;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

const CLASS: &str = "AuraFlowTransformer2DModel";

impl AuraFlowConfig {
    /// Reads a `transformer/config.json` of class `AuraFlowTransformer2DModel`.
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
        fields.number("sample_size")?; // a note: positions are learned, and cut from the table's middle
        let places = number("pos_embed_max_size", 1024)?;
        let table = places.isqrt();
        if table * table != places {
            return Err(fields.refuse("pos_embed_max_size", "the square of a side"));
        }
        let channels = number("in_channels", 4)?;
        let config = Self::new(table)
            .with_joint(number("num_mmdit_layers", 4)?)
            .with_single(number("num_single_dit_layers", 32)?)
            .with_heads(number("num_attention_heads", 12)?)
            .with_head(number("attention_head_dim", 256)?)
            .with_channels(channels)
            .with_patch(number("patch_size", 2)?)
            .with_context(number("joint_attention_dim", 2048)?);
        // `null`, unlike a field that is not there, is as many as come in.
        let absent = if fields.has("out_channels") { channels } else { 4 };
        if number("out_channels", absent)? != channels {
            return Err(fields.refuse("out_channels", &format!("in_channels, {channels}")));
        }
        if number("caption_projection_dim", 3072)? != config.width() {
            let expected = format!("the model's width, {}", config.width());
            return Err(fields.refuse("caption_projection_dim", &expected));
        }
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `AuraFlowTransformer2DModel` (`transformer/diffusion_pytorch_model.safetensors`), for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .exact("pos_embed.pos_embed", "position")
            .prefix("pos_embed.proj", "embed")
            .exact("register_tokens", "registers")
            .prefix("time_step_proj.linear_1", "time.input")
            .prefix("time_step_proj.linear_2", "time.output")
            .prefix("context_embedder", "text")
            .prefix("norm_out.linear", "final_modulation")
            .prefix("proj_out", "unembed");
        let joint = [
            ("attn.add_q_proj", "context.qkv.query"),
            ("attn.add_k_proj", "context.qkv.key"),
            ("attn.add_v_proj", "context.qkv.value"),
            ("attn.to_add_out", "context.output"),
        ];
        let rules = joint.iter().fold(rules, |rules, (published, ours)| {
            rules.prefix(
                &format!("joint_transformer_blocks.{{i}}.{published}"),
                &format!("joint.{{i}}.{ours}"),
            )
        });
        let streams = [
            ("joint_transformer_blocks", "_context", "joint.{i}.context"),
            ("joint_transformer_blocks", "", "joint.{i}.image"),
            ("single_transformer_blocks", "", "single.{i}"),
        ];
        streams.iter().fold(rules, |rules, (blocks, suffix, ours)| {
            stream(rules, &format!("{blocks}.{{i}}"), suffix, ours)
        })
    }
}

/// One stream of a block; what is the image's or the only one's has no suffix.
fn stream(rules: Rules, block: &str, suffix: &str, ours: &str) -> Rules {
    let layers = [
        (format!("norm1{suffix}.linear"), "modulation"),
        (format!("ff{suffix}.linear_1"), "mlp.gate"),
        (format!("ff{suffix}.linear_2"), "mlp.up"),
        (format!("ff{suffix}.out_projection"), "mlp.down"),
    ];
    let attention = [
        ("attn.to_q", "qkv.query"),
        ("attn.to_k", "qkv.key"),
        ("attn.to_v", "qkv.value"),
        ("attn.to_out.0", "output"),
    ];
    let attention = attention.iter().filter(|_| suffix.is_empty());
    let attention = attention.map(|&(published, ours)| (published.to_owned(), ours));
    layers.into_iter().chain(attention).fold(rules, |rules, (published, layer)| {
        rules.prefix(&format!("{block}.{published}"), &format!("{ours}.{layer}"))
    })
}
