//! The folder of a tokenizer: which of its files is read, and what the settings beside it say.

use super::{FileTokenizer, Named, Side, byte_level, characters, sentencepiece};
use crate::TokenizerError;
use crate::clip_tokenizer::files::{check_merge, special};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// A limit that a file states must be below this to be one: transformers writes 1e30 for "unknown".
const LARGEST_LIMIT: f64 = 1e15;

/// What the files beside a vocabulary say of it.
pub(super) struct Settings {
    /// `tokenizer_config.json`, or an empty object.
    config: Value,
    path: PathBuf,
    /// `special_tokens_map.json`, which counts where the configuration does not list all added tokens.
    map: Value,
    /// The class where the configuration names none.
    default_class: Option<&'static str>,
}

pub(super) fn wrong(path: &Path, message: impl Into<Box<dyn Error + Send + Sync>>) -> TokenizerError {
    TokenizerError::File { path: path.to_owned(), message: message.into().to_string() }
}

pub(super) fn read_text(path: &Path) -> Result<String, TokenizerError> {
    fs::read_to_string(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })
}

pub(super) fn read_value(path: &Path) -> Result<Value, TokenizerError> {
    serde_json::from_str(&read_text(path)?).map_err(|error| wrong(path, error))
}

/// Reads whichever files the folder has.
pub(super) fn read(folder: &Path) -> Result<FileTokenizer, TokenizerError> {
    let mut settings = Settings::read(folder)?;
    let path = |name: &str| folder.join(name);
    for (name, class) in [
        ("tokenizer.json", None),
        ("spiece.model", Some("T5Tokenizer")),
        ("tokenizer.model", Some("LlamaTokenizer")),
        ("vocab.json", Some("Qwen2Tokenizer")),
    ] {
        if !path(name).exists() {
            continue;
        }
        settings.default_class = class;
        let mut tokenizer = match name {
            "tokenizer.json" => read_json(&path(name))?,
            "vocab.json" => byte_level::read(&path(name), &path("merges.txt"), &settings)?,
            _ => sentencepiece::read(&path(name), &settings)?,
        };
        let named = settings.add_special(&mut tokenizer)?;
        if class.is_some() && tokenizer.get_post_processor().is_none() {
            settings.put_ends(&mut tokenizer, named)?;
        }
        return settings.finish(tokenizer, path(name), named);
    }
    let files = "tokenizer.json, spiece.model, tokenizer.model or vocab.json";
    Err(wrong(folder, format!("expected a folder with {files}")))
}

fn read_json(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let json = read_value(path)?;
    check_normalizer(&json["normalizer"]).map_err(|message| wrong(path, message))?;
    check_model(&json["model"]).map_err(|message| wrong(path, message))?;
    let mut tokenizer: Tokenizer = serde_json::from_value(json).map_err(|error| wrong(path, error))?;
    // Rows are cut and padded here, where what was cut can be told.
    tokenizer.with_truncation(None).map_err(|error| wrong(path, error))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The library panics where a table of characters is none.
fn check_normalizer(json: &Value) -> Result<(), String> {
    for part in json["normalizers"].as_array().into_iter().flatten() {
        check_normalizer(part)?;
    }
    if json["type"] == "Precompiled" {
        let wrong = |message: String| format!("normalizer.precompiled_charsmap: {message}");
        let text = json["precompiled_charsmap"].as_str();
        let text =
            text.ok_or_else(|| wrong(format!("expected base64, found {}", json["precompiled_charsmap"])))?;
        let table = BASE64_STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
        characters::check(&table).map_err(wrong)?;
    }
    Ok(())
}

/// Refuses dropped merges, which differ from call to call; and merges that make no known token, where the library would
/// read past a buffer's end.
fn check_model(model: &Value) -> Result<(), String> {
    if model["dropout"].as_f64().is_some_and(|rate| rate > 0.0) {
        return Err(format!("model.dropout: expected none, found {}", model["dropout"]));
    }
    if model["merges"].is_null() {
        return Ok(());
    }
    let ids: HashMap<String, u32> =
        serde_json::from_value(model["vocab"].clone()).map_err(|error| format!("model.vocab: {error}"))?;
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for merge in model["merges"].as_array().into_iter().flatten() {
        let pair = match merge {
            Value::String(both) => both.split_once(' '),
            both => both[0].as_str().zip(both[1].as_str()),
        };
        check_merge(&ids, pair, prefix).map_err(|problem| format!("merge {merge}: {problem}"))?;
    }
    Ok(())
}

impl Settings {
    fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let value = |name: &str| {
            let path = folder.join(name);
            if path.exists() { read_value(&path) } else { Ok(Value::Object(Default::default())) }
        };
        let (config, map) = (value("tokenizer_config.json")?, value("special_tokens_map.json")?);
        Ok(Self { config, path: folder.join("tokenizer_config.json"), map, default_class: None })
    }

    /// The class of transformers that the files were written by, without `Fast`.
    pub(super) fn class(&self) -> Option<&str> {
        let class = self.config["tokenizer_class"].as_str().or(self.default_class)?;
        Some(class.strip_suffix("Fast").unwrap_or(class))
    }

    /// That another class was expected.
    pub(super) fn other_class(&self, expected: &str) -> TokenizerError {
        let found = &self.config["tokenizer_class"];
        wrong(
            &self.path,
            format!("tokenizer_class: expected {expected} without a tokenizer.json, found {found}"),
        )
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, TokenizerError> {
        match &self.config[key] {
            Value::Null => Ok(default),
            found => found.as_bool().ok_or_else(|| self.expected(key, "true or false")),
        }
    }

    pub(super) fn number(&self, key: &str, default: usize) -> Result<usize, TokenizerError> {
        match &self.config[key] {
            Value::Null => Ok(default),
            found => found.as_u64().map(|n| n as usize).ok_or_else(|| self.expected(key, "a whole number")),
        }
    }

    fn expected(&self, key: &str, expected: &str) -> TokenizerError {
        wrong(&self.path, format!("{key}: expected {expected}, found {}", self.config[key]))
    }

    fn side(&self, key: &str, default: Side) -> Result<Side, TokenizerError> {
        match &self.config[key] {
            Value::Null => Ok(default),
            found if found == "left" => Ok(Side::Left),
            found if found == "right" => Ok(Side::Right),
            _ => Err(self.expected(key, "\"left\" or \"right\"")),
        }
    }

    fn limit(&self) -> Result<Option<usize>, TokenizerError> {
        match &self.config["model_max_length"] {
            Value::Null => Ok(None),
            found => match found.as_f64() {
                Some(limit) if limit >= LARGEST_LIMIT => Ok(None),
                Some(limit) if limit >= 1.0 => Ok(Some(limit as usize)),
                _ => Err(self.expected("model_max_length", "a positive number")),
            },
        }
    }

    /// What a class of transformers takes where the files say nothing.
    fn default(&self, key: &str) -> Option<&'static str> {
        match (self.class()?, key) {
            ("T5Tokenizer" | "LlamaTokenizer", "eos_token") => Some("</s>"),
            ("LlamaTokenizer", "bos_token") => Some("<s>"),
            ("T5Tokenizer" | "GemmaTokenizer", "pad_token") => Some("<pad>"),
            ("GemmaTokenizer", "bos_token") => Some("<bos>"),
            ("GemmaTokenizer", "eos_token") => Some("<eos>"),
            ("Qwen2Tokenizer", "eos_token" | "pad_token") => Some("<|endoftext|>"),
            _ => None,
        }
    }

    /// The token of this meaning, if there is one. A `null` is none.
    fn token(&self, key: &str) -> Result<Option<AddedToken>, TokenizerError> {
        let old = self.config["added_tokens_decoder"].is_null();
        let found = if old && !self.map[key].is_null() { &self.map[key] } else { &self.config[key] };
        match found {
            Value::Null if self.config.get(key).is_some() => Ok(None),
            Value::Null => Ok(self.default(key).map(|text| AddedToken::from(text, true))),
            found => special(found).map(Some).ok_or_else(|| self.expected(key, "a token")),
        }
    }

    fn finish(
        &self,
        tokenizer: Tokenizer,
        path: PathBuf,
        named: Named,
    ) -> Result<FileTokenizer, TokenizerError> {
        let left = matches!(self.class(), Some("LlamaTokenizer" | "GemmaTokenizer"));
        let padding = self.side("padding_side", if left { Side::Left } else { Side::Right })?;
        let cutting = self.side("truncation_side", Side::Right)?;
        Ok(FileTokenizer { tokenizer, path, named, limit: self.limit()?, padding, cutting, special: true })
    }

    /// Adds the special tokens that the vocabulary lacks, and finds those with a meaning.
    fn add_special(&self, tokenizer: &mut Tokenizer) -> Result<Named, TokenizerError> {
        self.add_listed(tokenizer)?;
        let mut id = |key: &str| self.add_named(tokenizer, key);
        let (start, end) = (id("bos_token")?, id("eos_token")?);
        id("unk_token")?;
        Ok(Named { start, end, pad: id("pad_token")? })
    }

    /// Adds the tokens of `added_tokens_decoder` and the further special ones that the vocabulary lacks.
    fn add_listed(&self, tokenizer: &mut Tokenizer) -> Result<(), TokenizerError> {
        let mut listed = Vec::new();
        for (id, token) in self.config["added_tokens_decoder"].as_object().into_iter().flatten() {
            let number = id.parse::<u32>().ok();
            let (Some(id), Some(text)) = (number, special(token)) else {
                let message =
                    format!("added_tokens_decoder: expected an id and a token, found {id:?}: {token}");
                return Err(wrong(&self.path, message));
            };
            listed.push((id, AddedToken { special: token["special"].as_bool().unwrap_or(false), ..text }));
        }
        listed.sort_by_key(|(id, _)| *id);
        for (id, token) in listed {
            let text = token.content.clone();
            let found = add(tokenizer, token).map_err(|error| wrong(&self.path, error))?;
            if found != id {
                let message = format!("added_tokens_decoder: {text:?} has the id {found} here, not {id}");
                return Err(wrong(&self.path, message));
            }
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            for token in self.config[key].as_array().into_iter().flatten() {
                let token = special(token).ok_or_else(|| self.expected(key, "a list of tokens"))?;
                add(tokenizer, token).map_err(|error| wrong(&self.path, error))?;
            }
        }
        Ok(())
    }

    fn add_named(&self, tokenizer: &mut Tokenizer, key: &str) -> Result<Option<u32>, TokenizerError> {
        let Some(token) = self.token(key)? else { return Ok(None) };
        add(tokenizer, token).map(Some).map_err(|error| wrong(&self.path, error))
    }

    /// Start and end of each row, as `add_bos_token` and `add_eos_token` say.
    fn put_ends(&self, tokenizer: &mut Tokenizer, named: Named) -> Result<(), TokenizerError> {
        let mut template = vec!["$A".to_owned()];
        let mut special = Vec::new();
        for (key, id, at) in [("add_bos_token", named.start, 0), ("add_eos_token", named.end, usize::MAX)] {
            if let (true, Some(id)) = (self.flag(key, false)?, id) {
                let text = tokenizer.id_to_token(id).unwrap_or_default();
                template.insert(at.min(template.len()), text.clone());
                special.push((text, id));
            }
        }
        with_ends(tokenizer, &template, special).map_err(|message| wrong(&self.path, message))
    }
}

/// Sets what stands around each text `$A`.
pub(super) fn with_ends(
    tokenizer: &mut Tokenizer,
    template: &[String],
    special: Vec<(String, u32)>,
) -> Result<(), String> {
    let mut builder = TemplateProcessing::builder();
    builder.try_single(template.to_vec())?.special_tokens(special);
    let ends = builder.build().map_err(|error| error.to_string())?;
    tokenizer.with_post_processor(Some(ends));
    Ok(())
}

/// Adds a token that the tokenizer does not have as an added one yet; those it has keep their rules.
pub(super) fn add(tokenizer: &mut Tokenizer, token: AddedToken) -> Result<u32, String> {
    let text = token.content.clone();
    let known = tokenizer.token_to_id(&text);
    if known.is_none_or(|id| !tokenizer.get_added_tokens_decoder().contains_key(&id)) {
        tokenizer.add_tokens([token]).map_err(|error| error.to_string())?;
    }
    tokenizer.token_to_id(&text).ok_or_else(|| format!("the token {text:?} could not be added"))
}
