//! What transformers calls the parameters of these encoders.

use super::{ClipTextConfig, ClipVisionConfig};
use canvas_core::weights::Rules;

pub(super) const WHY_SCALE: &str = "CLIP's scale for comparing texts with pictures";
pub(super) const WHY_PROJECTION: &str = "this encoder's vector is not projected";

impl ClipTextConfig {
    /// The names of transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`, which are ours, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// Since version 5.6 transformers saves a `CLIPTextModel` without the `text_model.` in front; such files load as
    /// well, and are saved by the names that every version reads. What this encoder has no use for is ignored: token
    /// positions, the scale of CLIP's loss, a projection that the configuration has not.
    pub fn published(&self) -> Rules {
        let rules = inside("text_model", &["embeddings", "encoder", "final_layer_norm"]);
        without(rules, "text_projection", self.projection)
    }
}

impl ClipVisionConfig {
    /// The names of transformers' `CLIPVisionModel` and `CLIPVisionModelWithProjection`, as
    /// [`ClipTextConfig::published`].
    pub fn published(&self) -> Rules {
        let rules = inside("vision_model", &["embeddings", "pre_layrnorm", "encoder", "post_layernorm"]);
        without(rules, "visual_projection", self.projection)
    }
}

/// Parts that may lie outside of the model that holds them.
pub(crate) fn inside(model: &str, parts: &[&str]) -> Rules {
    parts.iter().fold(Rules::new(), |rules, part| {
        let whole = format!("{model}.{part}");
        // Both names become the short one and then the long one, which alone is written.
        rules.prefix(&whole, part).prefix(part, &whole)
    })
}

fn without(rules: Rules, name: &str, projection: Option<usize>) -> Rules {
    let rules =
        rules.ignore("position_ids", "the numbers 0, 1, 2, ...").ignore_prefix("logit_scale", WHY_SCALE);
    if projection.is_some() { rules } else { rules.ignore_prefix(name, WHY_PROJECTION) }
}
