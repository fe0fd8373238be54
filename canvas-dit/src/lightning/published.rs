//! The names of the authors' files.

use super::LightningDitConfig;
use canvas_core::weights::Rules;

impl LightningDitConfig {
    /// The names in the authors' files (`model` or `ema` of a checkpoint, as a [`part`](canvas_core::weights::Source::part)).
    pub fn published(&self) -> Rules {
        blocks(Rules::new().prefix("x_embedder.proj", "embed"))
            .prefix("t_embedder.mlp.0", "time.input")
            .prefix("t_embedder.mlp.2", "time.output")
            .prefix("y_embedder.embedding_table", "cond")
            .ignore_prefix("pos_embed", "the table of sines, which is computed")
            .ignore_prefix("feat_rope", "the table of rotations, which is computed")
    }
}

/// Blocks and end, alike in LightningDiT, JiT and DDT.
pub(crate) fn blocks(rules: Rules) -> Rules {
    let qkv = ["blocks.{i}.qkv.query", "blocks.{i}.qkv.key", "blocks.{i}.qkv.value"];
    let mlp = ["blocks.{i}.mlp.gate", "blocks.{i}.mlp.up"];
    let parts = [
        ("norm1", "norm_attention"),
        ("attn.q_norm", "qkv.query_norm"),
        ("attn.k_norm", "qkv.key_norm"),
        ("attn.proj", "output"),
        ("norm2", "norm_mlp"),
        ("mlp.w3", "mlp.down"),
        ("adaLN_modulation.1", "modulation"),
    ];
    let rules = rules.split("blocks.{i}.attn.qkv", &qkv).split("blocks.{i}.mlp.w12", &mlp);
    let rules = parts.iter().fold(rules, |rules, (published, ours)| {
        rules.prefix(&format!("blocks.{{i}}.{published}"), &format!("blocks.{{i}}.{ours}"))
    });
    rules
        .prefix("final_layer.norm_final", "end.norm")
        .prefix("final_layer.linear", "end.unembed")
        .prefix("final_layer.adaLN_modulation.1", "end.modulation")
}
