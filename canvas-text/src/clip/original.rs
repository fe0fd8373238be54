//! The two layouts in which CLIP's text transformer lies in single files of Stable Diffusion, and what shapes tell.

use super::ClipTextConfig;
use canvas_core::nn::Activation;
use canvas_core::weights::{Rules, Source, WeightsError};

/// Channels of an attention head in every published CLIP.
const HEAD: usize = 64;
const WHY_SCALE: &str = "CLIP's scale for comparing texts with pictures";
const WHY_PROJECTION: &str = "this encoder's prompt vector is not projected";

/// Position and token embeddings, blocks, and the first layer of a block's perceptron.
const TRANSFORMERS: [&str; 4] = [
    "text_model.embeddings.position_embedding.weight",
    "text_model.embeddings.token_embedding.weight",
    "text_model.encoder.layers",
    "mlp.fc1.weight",
];

impl ClipTextConfig {
    /// The names of transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`, which are ours, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// What this encoder has no use for is ignored: token positions, the scale of CLIP's loss, a projection that the
    /// configuration has not.
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .ignore("position_ids", "the numbers 0, 1, 2, ...")
            .ignore_prefix("logit_scale", WHY_SCALE);
        match self.projection {
            Some(_) => rules,
            None => rules.ignore_prefix("text_projection", WHY_PROJECTION),
        }
    }

    /// The names of OpenCLIP's text transformer, where queries, keys and values are one tensor and the projection lies
    /// transposed. As [`published`](Self::published); without a projection, the one block behind the last
    /// of this configuration is ignored, too: Stable Diffusion 2 reads the penultimate block's states.
    ///
    /// # Reference
    /// Ilharco et al., OpenCLIP, `src/open_clip/transformer.py`, <https://github.com/mlfoundations/open_clip>.
    pub fn open_clip(&self) -> Rules {
        let layer = "text_model.encoder.layers.{i}";
        let parts = [
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
            ("attn.out_proj", "self_attn.out_proj"),
        ];
        let rules = Rules::new()
            .ignore("logit_scale", WHY_SCALE)
            .ignore("attn_mask", "the numbers 0 and minus infinity")
            .exact("positional_embedding", "text_model.embeddings.position_embedding.weight")
            .prefix("token_embedding", "text_model.embeddings.token_embedding")
            .prefix("ln_final", "text_model.final_layer_norm")
            .prefix("transformer.resblocks.{i}", layer);
        let rules = parts.iter().fold(rules, |rules, (published, ours)| {
            rules.segments(&format!("{layer}.{published}"), &format!("{layer}.{ours}"))
        });
        let rules = ["weight", "bias"].iter().fold(rules, |rules, what| {
            let ours = ["q", "k", "v"].map(|name| format!("{layer}.self_attn.{name}_proj.{what}"));
            rules.split(&format!("{layer}.attn.in_proj_{what}"), &ours.each_ref().map(String::as_str))
        });
        if self.projection.is_some() {
            return rules.exact("text_projection", "text_projection.weight").transposed("text_projection");
        }
        rules.ignore_prefix("text_projection", WHY_PROJECTION).ignore_prefix(
            &format!("transformer.resblocks.{}", self.depth),
            "the states of the block before it are read",
        )
    }

    /// The names of an encoder in a single file: [OpenCLIP's](Self::open_clip) or
    /// [transformers'](Self::published), as the part of the file has them.
    pub fn original(&self, part: &Source) -> Rules {
        if is_open_clip(part) { self.open_clip() } else { self.published() }
    }

    /// The configuration of a text encoder in a single file, one of the parts that
    /// [`Original::texts`](canvas_core::weights::Original::texts) names.
    ///
    /// Shapes tell sizes. The rest is as in every published model: heads of 64 channels; QuickGELU with transformers'
    /// names, GELU with OpenCLIP's; a projection of the prompt vector with OpenCLIP's names only, and there not behind
    /// `cond_stage_model.`, which is Stable Diffusion 2, whose last block is left out.
    ///
    /// # Errors
    /// Names the file and the key, what was expected and what was found.
    pub fn detect(part: &Source) -> Result<Self, WeightsError> {
        let open = is_open_clip(part);
        let [positions, tokens, layers, up] = if open {
            ["positional_embedding", "token_embedding.weight", "transformer.resblocks", "mlp.c_fc.weight"]
        } else {
            TRANSFORMERS
        };
        let [context, width] = part.dims(positions)?;
        let [vocabulary, _] = part.dims(tokens)?;
        let key = |layer: usize| format!("{layers}.{layer}.{up}");
        let [hidden, _] = part.dims(&key(0))?;
        let mut depth = (0..).take_while(|layer| part.shape(&key(*layer)).is_some()).count();
        let mut projection = None;
        if open && part.prefix().starts_with("cond_stage_model.") {
            depth -= 1;
        } else if open {
            projection = Some(part.dims::<2>("text_projection")?[1]);
        }
        let activation = if open { Activation::Gelu } else { Activation::QuickGelu };
        let config = Self::new(width, hidden, depth, width / HEAD, activation)
            .with_context(context)
            .with_vocabulary(vocabulary)
            .with_projection(projection);
        let fits = config.validate();
        fits.map_err(|error| part.refuse(positions, "an encoder of sizes that fit", &error.to_string()))?;
        Ok(config)
    }
}

fn is_open_clip(part: &Source) -> bool {
    part.shape("positional_embedding").is_some()
}
