//! The names of the authors' files.

use super::UVitConfig;
use canvas_core::weights::Rules;

impl UVitConfig {
    /// The names in the authors' files of a network that is told classes, or nothing.
    pub fn published(&self) -> Rules {
        rules().prefix("label_emb", "cond")
    }

    /// The names in the authors' files of a network that reads text.
    pub fn published_text(&self) -> Rules {
        rules().prefix("context_embed", "cond")
    }
}

fn rules() -> Rules {
    let rules = Rules::new()
        .prefix("patch_embed.proj", "embed")
        .exact("pos_embed", "position")
        .prefix("in_blocks", "down")
        .prefix("mid_block", "middle")
        .prefix("out_blocks", "up")
        .prefix("decoder_pred", "unembed")
        .prefix("final_layer", "conv");
    let parts = [
        ("norm1", "norm_attention"),
        ("attn.proj", "output"),
        ("norm2", "norm_mlp"),
        ("mlp.fc1", "mlp.up"),
        ("mlp.fc2", "mlp.down"),
        ("skip_linear", "skip"),
    ];
    let rules = rules.split("attn.qkv", &["qkv.query", "qkv.key", "qkv.value"]);
    parts.iter().fold(rules, |rules, (published, ours)| rules.segments(published, ours))
}
