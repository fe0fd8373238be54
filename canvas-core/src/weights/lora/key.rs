//! What a key of a LoRA file says: which layer of which part, and which tensor of it.

use std::fmt;

/// What keys may be, for messages.
pub(super) const KINDS: &str = "a tensor of LoRA, LoHa or LoKr";

/// The part of a pipeline that a LoRA changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The denoising network: `unet.`, `lora_unet_`.
    Unet,
    /// The only text encoder, or the first: `text_encoder.`, `lora_te_`, `lora_te1_`.
    TextEncoder,
    /// SDXL's second text encoder: `text_encoder_2.`, `lora_te2_`.
    TextEncoder2,
}

impl Part {
    /// diffusers' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }

    pub(super) const ALL: [Self; 3] = [Self::Unet, Self::TextEncoder, Self::TextEncoder2];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A layer as the file names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Files of peft do not say it.
    pub part: Option<Part>,
    /// What the layer may be called, with dots or (kohya) with underscores; a module has one of them.
    pub names: Vec<String>,
}

/// How kohya begins the one segment in which a layer is named.
const UNDERSCORED: [(&str, Option<Part>); 5] = [
    ("lora_unet_", Some(Part::Unet)),
    ("lora_te_", Some(Part::TextEncoder)),
    ("lora_te1_", Some(Part::TextEncoder)),
    ("lora_te2_", Some(Part::TextEncoder2)),
    ("lycoris_", None),
];

/// Tensors of LoHa and LoKr, by their own names.
const LYCORIS: [&str; 13] = [
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "hada_t1",
    "hada_t2",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "lokr_t2",
];

/// Which tensor of which layer a key is, or what it is instead.
pub(super) fn parse(key: &str) -> Result<(Place, &'static str), String> {
    let segments: Vec<&str> = key.split('.').collect();
    let (path, role) = role(&segments).ok_or_else(|| match segments.last() {
        Some(&"dora_scale") => "the magnitude of LyCORIS' DoRA, which is not supported".to_owned(),
        Some(&"bias") => "a bias, which is not supported".to_owned(),
        Some(&("diff" | "diff_b")) => "a whole difference of weights, which is not supported".to_owned(),
        _ => "a name of none of them".to_owned(),
    })?;
    Ok((place(path), role))
}

/// The layer's segments, and which of its tensors it is.
fn role<'a, 'k>(segments: &'a [&'k str]) -> Option<(&'a [&'k str], &'static str)> {
    let old = |path: &[&str]| path.last().is_some_and(|name| name.ends_with("_lora"));
    let (path, role) = match segments {
        // peft puts the adapter's name in between, where it was not saved by peft's own function.
        [path @ .., "lora_A" | "lora_down", "weight"] | [path @ .., "lora_A", _, "weight"] => (path, "down"),
        [path @ .., "lora_B" | "lora_up", "weight"] | [path @ .., "lora_B", _, "weight"] => (path, "up"),
        [path @ .., "lora_mid", "weight"] => (path, "mid"),
        [path @ .., "lora" | "lora_linear_layer", "down", "weight"] => (path, "down"),
        [path @ .., "lora" | "lora_linear_layer", "up", "weight"] => (path, "up"),
        [path @ .., "down", "weight"] if old(path) => (path, "down"),
        [path @ .., "up", "weight"] if old(path) => (path, "up"),
        [path @ .., "lora" | "lora_linear_layer", "alpha"] | [path @ .., "alpha"] => (path, "alpha"),
        [path @ .., "lora_magnitude_vector"]
        | [path @ .., "lora_magnitude_vector", "weight"]
        | [path @ .., "lora_magnitude_vector", _, "weight"] => (path, "magnitude"),
        [path @ .., last] => (path, *LYCORIS.iter().find(|name| *name == last)?),
        [] => return None,
    };
    (!path.is_empty()).then_some((path, role))
}

fn place(path: &[&str]) -> Place {
    if let [name] = path {
        for (prefix, part) in UNDERSCORED {
            if let Some(rest) = name.strip_prefix(prefix) {
                return Place { part, names: vec![rest.to_owned()] };
            }
        }
    }
    let (part, path) = match path {
        ["base_model", "model", rest @ ..] => (None, rest),
        [first, rest @ ..] => match Part::ALL.into_iter().find(|part| part.name() == *first) {
            Some(part) => (Some(part), rest),
            None => (None, path),
        },
        [] => (None, path),
    };
    let path: Vec<&str> = path.iter().copied().filter(|segment| *segment != "processor").collect();
    Place { part, names: names(&path) }
}

/// Older diffusers calls the layers of an attention `to_q_lora`, whatever the module's own name is.
fn names(path: &[&str]) -> Vec<String> {
    let (last, before) = path.split_last().map_or(("", path), |(last, before)| (*last, before));
    let lasts: &[&str] = match last {
        "to_q_lora" => &["to_q", "q_proj"],
        "to_k_lora" => &["to_k", "k_proj"],
        "to_v_lora" => &["to_v", "v_proj"],
        "to_out_lora" => &["to_out.0", "out_proj"],
        _ => &[last],
    };
    let joined = |last: &&str| before.iter().chain([last]).copied().collect::<Vec<_>>().join(".");
    lasts.iter().map(joined).collect()
}
