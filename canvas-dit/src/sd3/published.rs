//! diffusers' `SD3Transformer2DModel`: its configuration and its names.

use super::Sd3Config;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

const CLASS: &str = "SD3Transformer2DModel";

impl Sd3Config {
    /// Reads a `transformer/config.json` of class `SD3Transformer2DModel`.
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
        let channels = number("in_channels", 16)?;
        let patch = number("patch_size", 2)?;
        let config = Self::new(number("num_layers", 18)?, number("num_attention_heads", 18)?)
            .with_head(number("attention_head_dim", 64)?)
            .with_channels(channels)
            .with_patch(patch)
            .with_context(number("joint_attention_dim", 4096)?)
            .with_pooled(number("pooled_projection_dim", 2048)?)
            .with_table(number("pos_embed_max_size", 96)?)
            .with_base(number("sample_size", 128)? / patch.max(1))
            .with_dual(fields.numbers("dual_attention_layers", &[])?);
        if fields.has("pos_embed_max_size") && fields.get("pos_embed_max_size").is_none() {
            return Err(fields.refuse("pos_embed_max_size", "the side of a position table"));
        }
        // `null`, unlike a field that is not there, is as many as come in.
        let absent = if fields.has("out_channels") { channels } else { 16 };
        let out = number("out_channels", absent)?;
        if number("caption_projection_dim", 1152)? != config.width() {
            let expected = format!("the model's width, {}", config.width());
            return Err(fields.refuse("caption_projection_dim", &expected));
        }
        fields.only("qk_norm", &["rms_norm".into()])?;
        let config = config
            .with_qk_norm(fields.word("qk_norm")?.is_some())
            .with_out_channels((out != channels).then_some(out));
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `SD3Transformer2DModel` (`transformer/diffusion_pytorch_model.safetensors`), for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .exact("pos_embed.pos_embed", "position")
            .prefix("pos_embed.proj", "embed")
            .prefix("time_text_embed.timestep_embedder.linear_1", "time.input")
            .prefix("time_text_embed.timestep_embedder.linear_2", "time.output")
            .prefix("time_text_embed.text_embedder.linear_1", "prompt.up")
            .prefix("time_text_embed.text_embedder.linear_2", "prompt.down")
            .prefix("context_embedder", "text")
            .prefix("norm_out.linear", "final_modulation")
            .prefix("proj_out", "unembed");
        let parts = [
            ("norm1.linear", "image.modulation"),
            ("norm1_context.linear", "context.modulation"),
            ("attn.to_q", "image.qkv.query"),
            ("attn.to_k", "image.qkv.key"),
            ("attn.to_v", "image.qkv.value"),
            ("attn.norm_q", "image.qkv.query_norm"),
            ("attn.norm_k", "image.qkv.key_norm"),
            ("attn.to_out.0", "image.output"),
            ("attn.add_q_proj", "context.qkv.query"),
            ("attn.add_k_proj", "context.qkv.key"),
            ("attn.add_v_proj", "context.qkv.value"),
            ("attn.norm_added_q", "context.qkv.query_norm"),
            ("attn.norm_added_k", "context.qkv.key_norm"),
            ("attn.to_add_out", "context.output"),
            ("attn2.to_q", "dual.qkv.query"),
            ("attn2.to_k", "dual.qkv.key"),
            ("attn2.to_v", "dual.qkv.value"),
            ("attn2.norm_q", "dual.qkv.query_norm"),
            ("attn2.norm_k", "dual.qkv.key_norm"),
            ("attn2.to_out.0", "dual.output"),
            ("ff.net.0.proj", "image.mlp.up"),
            ("ff.net.2", "image.mlp.down"),
            ("ff_context.net.0.proj", "context.mlp.up"),
            ("ff_context.net.2", "context.mlp.down"),
        ];
        parts.iter().fold(rules, |rules, (published, ours)| {
            rules.prefix(&format!("transformer_blocks.{{i}}.{published}"), &format!("blocks.{{i}}.{ours}"))
        })
    }
}
