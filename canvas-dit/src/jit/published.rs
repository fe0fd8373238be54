//! The names of the authors' files.

use super::JitConfig;
use crate::lightning::published::blocks;
use canvas_core::weights::Rules;

impl JitConfig {
    /// The names in the authors' files, of the network itself: a [`part`](canvas_core::weights::Source::part) `net.` of a
    /// checkpoint.
    pub fn published(&self) -> Rules {
        blocks(Rules::new().prefix("x_embedder.proj1", "squeeze").prefix("x_embedder.proj2", "embed"))
            .pointwise("x_embedder.proj2.weight")
            .prefix("t_embedder.mlp.0", "time.input")
            .prefix("t_embedder.mlp.2", "time.output")
            .prefix("y_embedder.embedding_table", "cond")
            .exact("in_context_posemb", "places")
            .ignore_prefix("pos_embed", "the table of sines, which is computed")
            .ignore_prefix("feat_rope", "the table of rotations, which is computed")
            .ignore_prefix("feat_rope_incontext", "the table of rotations, which is computed")
    }
}
