//! The names of the authors' files.

use super::DdtConfig;
use crate::lightning::published::blocks;
use canvas_core::weights::Rules;

impl DdtConfig {
    /// The names in the files of `DiT^DH`.
    pub fn published(&self) -> Rules {
        blocks(Rules::new().prefix("s_embedder.proj", "embed").prefix("x_embedder.proj", "head_embed"))
            .prefix("t_embedder.mlp.0", "time.input")
            .prefix("t_embedder.mlp.2", "time.output")
            .exact("t_embedder.W", "time.frequencies")
            .prefix("y_embedder.embedding_table", "cond")
            .prefix("s_projector", "widen")
            .ignore_prefix("pos_embed", "the table of sines, which is computed")
            .ignore_prefix("enc_feat_rope", "the table of rotations, which is computed")
            .ignore_prefix("dec_feat_rope", "the table of rotations, which is computed")
    }
}
