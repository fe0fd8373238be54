//! What transformers calls the parameters of these models.

use super::LlmConfig;
use canvas_core::weights::Rules;

const WHY_HEAD: &str = "makes words of states, which no picture needs";
const WHY_KEPT: &str = "lies behind the last state that is read";
const WHY_VISION: &str = "reads pictures, and prompts are text";

/// Where the classes of transformers keep the model: `Gemma2Model` itself, `Qwen3ForCausalLM`,
/// `Qwen2_5_VLForConditionalGeneration` and `Mistral3ForConditionalGeneration` of version 5 and before.
const PLACES: [&str; 4] = ["", "model", "model.language_model", "language_model.model"];
/// The same of T5Gemma: the encoder itself, `T5GemmaEncoderModel`, `T5GemmaForConditionalGeneration`.
const ENCODER_PLACES: [&str; 3] = ["", "encoder", "model.encoder"];

impl LlmConfig {
    /// The names of transformers, for [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// Files of the bare model (`Gemma2Model`, `Qwen3Model`, `T5GemmaEncoder`) load, and those of every class that
    /// holds one: with `model.`, `model.language_model.` or `language_model.model.` in front, or `encoder.` and
    /// `model.encoder.`. Saved are the bare model's names, which every one of these classes reads. What is not of
    /// the text model is ignored: the vision tower, the head that predicts words, T5Gemma's decoder, and blocks that
    /// are not [kept](Self::kept).
    pub fn published(&self) -> Rules {
        let places: &[&str] = if self.causal { &PLACES } else { &ENCODER_PLACES };
        let rules = [("embed_tokens", "embedding"), ("layers", "blocks"), ("norm", "norm")]
            .into_iter()
            .fold(self.ignored(places), |rules, (part, ours)| placed(rules, places, part).prefix(part, ours));
        let names = if !self.causal {
            ["pre_self_attn", "post_self_attn", "pre_feedforward", "post_feedforward"]
        } else if self.sandwich {
            ["input", "post_attention", "pre_feedforward", "post_feedforward"]
        } else {
            ["input", "", "post_attention", ""]
        };
        let ours = ["attention_norm", "attention_after", "mlp_norm", "mlp_after"];
        let rules = names
            .iter()
            .zip(ours)
            .filter(|(name, _)| !name.is_empty())
            .fold(rules, |rules, (name, ours)| rules.segments(&format!("{name}_layernorm"), ours));
        let projections = [("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("o_proj", "output")];
        let norms = [("q_norm", "query_norm"), ("k_norm", "key_norm")];
        let rules = projections.into_iter().chain(norms).fold(rules, |rules, (theirs, ours)| {
            rules.segments(&format!("self_attn.{theirs}"), &format!("attention.{ours}"))
        });
        ["gate", "up", "down"]
            .into_iter()
            .fold(rules, |rules, name| rules.segments(&format!("mlp.{name}_proj"), &format!("mlp.{name}")))
    }

    /// What no parameter takes.
    fn ignored(&self, places: &[&str]) -> Rules {
        if self.kept() == self.depth {
            return ignored();
        }
        let blocks = (self.kept()..self.depth).map(|i| format!("layers.{i}"));
        let behind: Vec<String> = blocks.chain(["norm".to_owned()]).collect();
        places.iter().fold(ignored(), |rules, place| {
            behind.iter().fold(rules, |rules, part| rules.ignore_prefix(&at(place, part), WHY_KEPT))
        })
    }
}

/// A part at its place.
fn at(place: &str, part: &str) -> String {
    if place.is_empty() { part.to_owned() } else { format!("{place}.{part}") }
}

fn ignored() -> Rules {
    let head = ["lm_head", "language_model.lm_head", "model.lm_head"];
    let vision = ["visual", "vision_tower", "multi_modal_projector"];
    let rules = head.iter().fold(Rules::new(), |rules, name| rules.ignore_prefix(name, WHY_HEAD));
    let rules = vision.iter().fold(rules, |rules, name| {
        rules.ignore_prefix(name, WHY_VISION).ignore_prefix(&format!("model.{name}"), WHY_VISION)
    });
    rules
        .ignore("rotary_emb.inv_freq", "follows from the configuration")
        .ignore_prefix("decoder", "the decoder makes words of what the encoder read")
        .ignore_prefix("model.decoder", "the decoder makes words of what the encoder read")
}

/// Takes a part of the model out of wherever it lies. Each place becomes the next and the last one the first, so
/// that on the way back nothing is left but the first.
fn placed(rules: Rules, places: &[&str], part: &str) -> Rules {
    let next = places.iter().cycle().skip(1);
    places.iter().zip(next).fold(rules, |rules, (from, to)| rules.prefix(&at(from, part), &at(to, part)))
}
