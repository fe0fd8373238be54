//! `config.json` of language models, as transformers writes it.
//!
//! Every field is honoured, or refused by name where its value asks for something that is not here. Absent fields
//! are the class's defaults (transformers 5.23), and files of version 4, with `rope_theta` and `rope_scaling`, are
//! read as well as those of version 5, with `rope_parameters`.

mod notes;

use super::{Blind, Llama3Rope, LlmConfig, Rope};
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::nn::Activation;
use notes::{BESIDE_ENCODER, BESIDE_TEXT, NOTES, READ};
use std::path::Path;

/// What the errors call files that diffusers wrote instead.
const CLASS: &str = "a model of transformers";

/// Kinds of language models, by their `model_type`.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Gemma2,
    T5Gemma,
    Llama,
    Mistral,
    Qwen2,
    Qwen25Vl,
    Qwen3,
}

/// A class's defaults: width, hidden, depth, heads, groups, vocabulary, context.
type Sizes = [usize; 7];

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gemma2" => Self::Gemma2,
            "t5_gemma_module" => Self::T5Gemma,
            "llama" => Self::Llama,
            "mistral" => Self::Mistral,
            "qwen2" => Self::Qwen2,
            "qwen2_5_vl_text" => Self::Qwen25Vl,
            "qwen3" => Self::Qwen3,
            _ => return None,
        })
    }

    fn sizes(self) -> Sizes {
        match self {
            Self::Gemma2 | Self::T5Gemma => [2304, 9216, 26, 8, 4, 256_000, 8192],
            Self::Llama => [4096, 11008, 32, 32, 32, 32000, 2048],
            Self::Mistral => [4096, 14336, 32, 32, 8, 32000, 131_072],
            Self::Qwen2 | Self::Qwen3 => [4096, 22016, 32, 32, 32, 151_936, 32768],
            Self::Qwen25Vl => [8192, 29568, 80, 64, 8, 152_064, 32768],
        }
    }

    fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::T5Gemma)
    }

    fn is_qwen(self) -> bool {
        matches!(self, Self::Qwen2 | Self::Qwen25Vl | Self::Qwen3)
    }
}

impl LlmConfig {
    /// Reads a transformers `config.json` of Gemma 2, Qwen 2 (and 2.5), Qwen 3, Llama, Mistral, a T5Gemma or its
    /// encoder, or of the text model in a Qwen 2.5 VL or a Mistral 3.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_transformers_file(path: &Path) -> Result<Self, ConfigFileError> {
        read(&Fields::open(path, CLASS)?)
    }

    /// As [`from_transformers_file`](Self::from_transformers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_transformers(json: &str) -> Result<Self, ConfigFileError> {
        read(&Fields::parse(json, CLASS)?)
    }
}

fn read(fields: &Fields) -> Result<LlmConfig, ConfigFileError> {
    let known = "gemma2, llama, mistral, mistral3, qwen2, qwen2_5_vl, qwen3 or t5gemma";
    let (kind, part, rest): (_, _, &[&str]) = match fields.word("model_type")? {
        Some("mistral3") => (Kind::Mistral, "text_config", &BESIDE_TEXT),
        Some("qwen2_5_vl") if fields.get("text_config").is_none() => {
            return text(fields, Kind::Qwen25Vl, &BESIDE_TEXT);
        }
        Some("qwen2_5_vl") => (Kind::Qwen25Vl, "text_config", &BESIDE_TEXT),
        Some("t5gemma") => (Kind::T5Gemma, "encoder", &BESIDE_ENCODER),
        Some(name) => match Kind::named(name) {
            Some(kind) => return text(fields, kind, &[]),
            None => return Err(fields.refuse("model_type", known)),
        },
        None => return Err(fields.refuse("model_type", known)),
    };
    let Some(inner) = fields.object(part)? else {
        return Err(fields.refuse(part, "the configuration of the text model"));
    };
    if let Some(name) = inner.word("model_type")?.filter(|name| Kind::named(name) != Some(kind)) {
        // Qwen 2.5 VL's first files call their text model as they call the whole.
        if !(kind == Kind::Qwen25Vl && name == "qwen2_5_vl") {
            return Err(inner.refuse("model_type", "a language model of this family"));
        }
    }
    let config = text(&inner, kind, &[])?;
    // transformers reads the part where there is one; what the whole repeats of it counts for nothing.
    pass(fields, &[rest, &NOTES, &READ]);
    fields.finish(config, |_| Ok(()))
}

/// Takes fields that say nothing of a state.
fn pass(fields: &Fields, lists: &[&[&str]]) {
    for field in lists.iter().copied().flatten() {
        fields.get(field);
    }
}

/// The language model itself; `beside` are fields that tell nothing of it.
fn text(fields: &Fields, kind: Kind, beside: &[&str]) -> Result<LlmConfig, ConfigFileError> {
    pass(fields, &[&NOTES, beside]);
    let [width, hidden, depth, heads, groups, vocabulary, context] = kind.sizes();
    let size = |field: &str, default| Ok(fields.number(field)?.unwrap_or(default));
    let heads = size("num_attention_heads", heads)?;
    // Absent is the class's number, null as many as there are queries.
    let null = fields.has("num_key_value_heads") || kind == Kind::Llama;
    let groups = size("num_key_value_heads", if null { heads } else { groups })?;
    let context = size("max_position_embeddings", context)?;
    let epsilon = if kind == Kind::Qwen25Vl { 1e-5 } else { 1e-6 };
    let config = LlmConfig::new(
        size("hidden_size", width)?,
        size("intermediate_size", hidden)?,
        size("num_hidden_layers", depth)?,
        heads,
        size("vocab_size", vocabulary)?,
    )
    .with_groups(Some(groups))
    .with_head_width(head_width(fields, kind)?)
    .with_context(context)
    .with_activation(activation(fields, kind)?)
    .with_epsilon(fields.real("rms_norm_eps")?.unwrap_or(epsilon))
    .with_rope(rope(fields, kind, context)?);
    let config = switches(fields, kind, config)?;
    let windows = windows(fields, kind, config.depth)?;
    fields.finish(config.with_windows(windows), LlmConfig::validate)
}

fn head_width(fields: &Fields, kind: Kind) -> Result<Option<usize>, ConfigFileError> {
    let default = match kind {
        Kind::Gemma2 | Kind::T5Gemma => Some(256),
        Kind::Qwen3 => Some(128),
        _ => None,
    };
    Ok(fields.number("head_dim")?.or(default))
}

fn activation(fields: &Fields, kind: Kind) -> Result<Activation, ConfigFileError> {
    if kind.is_gemma() {
        fields.get("hidden_act"); // Gemma 2's files have both, and its class reads the other
        fields.only("hidden_activation", &["gelu_pytorch_tanh".into()])?;
        return Ok(Activation::GeluTanh);
    }
    fields.only("hidden_act", &["silu".into()])?;
    Ok(Activation::Silu)
}

/// What tells the families apart.
fn switches(fields: &Fields, kind: Kind, config: LlmConfig) -> Result<LlmConfig, ConfigFileError> {
    fields.only("attention_dropout", &[0.into()])?;
    let bias = match kind {
        Kind::Qwen2 | Kind::Qwen25Vl => [true, false], // always, and no field
        Kind::Mistral => [false, false],
        _ => [fields.flag("attention_bias", false)?; 2],
    };
    let config = config.with_query_bias(bias[0]).with_output_bias(bias[1]);
    if kind == Kind::Llama {
        return Ok(config.with_mlp_bias(fields.flag("mlp_bias", false)?));
    }
    if !kind.is_gemma() {
        return Ok(config.with_head_norm(kind == Kind::Qwen3));
    }
    fields.only("use_bidirectional_attention", &[false.into()])?;
    fields.only("is_decoder", &[false.into()])?;
    for field in ["dropout_rate", "classifier_dropout_rate"] {
        fields.only(field, &[0.into()])?;
    }
    // null is no cap, absent the class's.
    let cap = fields.real("attn_logit_softcapping")?;
    let cap = if fields.has("attn_logit_softcapping") { cap } else { Some(50.0) };
    Ok(config
        .with_one_plus(true)
        .with_sandwich(true)
        .with_scaled_embedding(true)
        .with_softcap(cap)
        .with_query_scalar(Some(fields.real("query_pre_attn_scalar")?.unwrap_or(256.0)))
        .with_causal(kind == Kind::Gemma2)
        .with_blind(Blind::Mean))
}

/// How far back each block sees.
fn windows(fields: &Fields, kind: Kind, depth: usize) -> Result<Vec<Option<usize>>, ConfigFileError> {
    if kind == Kind::Llama {
        return Ok(Vec::new());
    }
    let window = fields.number("sliding_window")?;
    let window = if fields.has("sliding_window") { window } else { Some(4096) };
    let first = fields.number("max_window_layers")?.unwrap_or(if kind == Kind::Qwen25Vl { 80 } else { 28 });
    let window = match kind {
        _ if !kind.is_qwen() => window,
        _ if fields.flag("use_sliding_window", false)? => window,
        _ => None,
    };
    let slides: Vec<bool> = match kind {
        Kind::Mistral => {
            let named = fields.words("layer_types", &[])?;
            if named.iter().any(|kind| (*kind == "sliding_attention") != window.is_some()) {
                return Err(fields.refuse("layer_types", "what sliding_window says of all layers"));
            }
            vec![true; depth]
        }
        _ if fields.get("layer_types").is_some() => layer_types(fields, depth)?,
        _ if kind.is_gemma() => (0..depth).map(|i| i % 2 == 0).collect(),
        _ => (0..depth).map(|i| i >= first).collect(),
    };
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

fn layer_types(fields: &Fields, depth: usize) -> Result<Vec<bool>, ConfigFileError> {
    let kind = |name: &&str| match *name {
        "sliding_attention" => Some(true),
        "full_attention" => Some(false),
        _ => None,
    };
    let found: Option<Vec<bool>> = fields.words("layer_types", &[])?.iter().map(kind).collect();
    let expected = || format!("{depth} of sliding_attention and full_attention");
    found.filter(|found| found.len() == depth).ok_or_else(|| fields.refuse("layer_types", &expected()))
}

/// `rope_parameters`, or `rope_scaling` and `rope_theta` of files before version 5.
fn rope(fields: &Fields, kind: Kind, context: usize) -> Result<Rope, ConfigFileError> {
    let outer = fields.real("rope_theta")?;
    let default = if kind == Kind::Qwen25Vl { 1e6 } else { 1e4 };
    let old = fields.object("rope_scaling")?;
    let Some(given) = old.or(fields.object("rope_parameters")?) else {
        return Ok(Rope::new(outer.unwrap_or(default)));
    };
    let theta = given.real("rope_theta")?.or(outer).unwrap_or(default);
    let field = if given.has("rope_type") { "rope_type" } else { "type" };
    let name = given.word(field)?.unwrap_or("default");
    given.get("type"); // files of version 4 have both
    if kind == Kind::Qwen25Vl {
        given.get("mrope_section"); // which part of a picture's place turns what: of text they are all the same
    }
    let scaling = match name {
        "default" => None,
        "mrope" if kind == Kind::Qwen25Vl => None,
        "llama3" => Some(llama3(&given, context)?),
        _ => return Err(given.refuse(field, "default or llama3")),
    };
    given.finish(Rope { theta, scaling }, |_| Ok(()))
}

fn llama3(given: &Fields, context: usize) -> Result<Llama3Rope, ConfigFileError> {
    let number = |field: &str| {
        let found = given.real(field)?.filter(|found| *found > 0.0);
        found.ok_or_else(|| given.refuse(field, "a number above 0"))
    };
    let original = given.number("original_max_position_embeddings")?.unwrap_or(context) as f64;
    let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
    if high <= low {
        return Err(given.refuse("high_freq_factor", "more than low_freq_factor"));
    }
    Ok(Llama3Rope { factor: number("factor")?, low, high, original })
}
