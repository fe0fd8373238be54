//! Reading CLIP's tokenizer files, with errors that name them.

use super::ClipTokenizer;
use crate::TokenizerError;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::Path;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as Steps;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// What ends a word in the vocabulary.
const WORD_END: &str = "</w>";

/// Special tokens, English contractions, words, single digits, runs of other signs: the paper's own pattern.
const PIECES: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A context that a file states must be below this to be one: transformers writes 1e30 for "unknown".
const LARGEST_CONTEXT: f64 = 1e5;

fn read(path: &Path) -> Result<String, TokenizerError> {
    fs::read_to_string(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })
}

fn wrong(path: &Path, message: impl Into<Box<dyn Error + Send + Sync>>) -> TokenizerError {
    TokenizerError::Clip { path: path.to_owned(), message: message.into().to_string() }
}

fn read_value(path: &Path) -> Result<Value, TokenizerError> {
    serde_json::from_str(&read(path)?).map_err(|error| wrong(path, error))
}

pub(super) fn read_json(path: &Path) -> Result<ClipTokenizer, TokenizerError> {
    let json = read_value(path)?;
    let model = &json["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || model["vocab"].is_null() {
        return Err(wrong(path, format!("model.type: expected \"BPE\", found {}", model["type"])));
    }
    if model["end_of_word_suffix"] != WORD_END {
        let found = &model["end_of_word_suffix"];
        return Err(wrong(path, format!("model.end_of_word_suffix: expected {WORD_END:?}, found {found}")));
    }
    let vocabulary: HashMap<String, u32> = serde_json::from_value(model["vocab"].clone())
        .map_err(|error| wrong(path, format!("model.vocab: {error}")))?;
    for merge in model["merges"].as_array().into_iter().flatten() {
        let pair = match merge {
            Value::String(both) => both.split_once(' '),
            both => both[0].as_str().zip(both[1].as_str()),
        };
        check_merge(&vocabulary, pair, "")
            .map_err(|problem| wrong(path, format!("merge {merge}: {problem}")))?;
    }
    let tokenizer: Tokenizer = serde_json::from_value(json).map_err(|error| wrong(path, error))?;
    assemble(path, tokenizer)
}

pub(super) fn read_vocabulary(vocabulary: &Path, merges: &Path) -> Result<ClipTokenizer, TokenizerError> {
    let ids: HashMap<String, u32> =
        serde_json::from_str(&read(vocabulary)?).map_err(|error| wrong(vocabulary, error))?;
    if !ids.contains_key(ClipTokenizer::END) {
        return Err(wrong(vocabulary, format!("there is no token {:?}", ClipTokenizer::END)));
    }
    let mut rules = Vec::new();
    for (number, line) in read(merges)?.lines().enumerate() {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        let pair = line.split_once(' ');
        check_merge(&ids, pair, "")
            .map_err(|problem| wrong(merges, format!("line {}, {line:?}: {problem}", number + 1)))?;
        rules.extend(pair.map(|(first, second)| (first.to_owned(), second.to_owned())));
    }
    let model = BPE::builder()
        .vocab_and_merges(ids.into_iter().collect::<Vocab>(), rules)
        .unk_token(ClipTokenizer::END.to_owned())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(WORD_END.to_owned())
        .build()
        .map_err(|error| wrong(vocabulary, error))?;
    assemble(vocabulary, with_rules(model).map_err(|error| wrong(vocabulary, error))?)
}

/// A merge must make a known token of two known ones, or the library would read past a buffer's end and panic.
/// A token within a word may have a prefix, which the merged one has not.
pub(crate) fn check_merge(
    vocabulary: &HashMap<String, u32>,
    pair: Option<(&str, &str)>,
    prefix: &str,
) -> Result<(), String> {
    let (first, second) = pair.ok_or("expected two tokens")?;
    let tail = second.strip_prefix(prefix).unwrap_or(second);
    for token in [first.to_owned(), second.to_owned(), format!("{first}{tail}")] {
        if !vocabulary.contains_key(&token) {
            return Err(format!("{token:?} is not in the vocabulary"));
        }
    }
    Ok(())
}

/// The rules that a `tokenizer.json` would hold.
fn with_rules(model: BPE) -> tokenizers::Result<Tokenizer> {
    let space = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let pieces = Split::new(SplitPattern::Regex(PIECES.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(Sequence::new(vec![NFC.into(), space.into(), Lowercase.into()])))?;
    tokenizer.with_pre_tokenizer(Some(Steps::new(vec![pieces.into(), bytes.into()])));
    Ok(tokenizer)
}

/// Finds the special tokens; cutting and padding are ours.
fn assemble(path: &Path, mut tokenizer: Tokenizer) -> Result<ClipTokenizer, TokenizerError> {
    let ModelWrapper::BPE(_) = tokenizer.get_model() else {
        return Err(wrong(path, "its model is not BPE"));
    };
    tokenizer.with_truncation(None).map_err(|error| wrong(path, error))?;
    tokenizer.with_padding(None);
    let (path, context) = (path.to_owned(), 77);
    let words = BTreeMap::new();
    let mut clip = ClipTokenizer { tokenizer, path, start: 0, end: 0, pad: 0, context, words };
    (clip.start, clip.end) = (clip.known(ClipTokenizer::START)?, clip.known(ClipTokenizer::END)?);
    clip.pad = clip.end;
    // An added token replaces what the file says of it, so only those it lacks are added.
    for (id, token) in [(clip.start, ClipTokenizer::START), (clip.end, ClipTokenizer::END)] {
        if !clip.tokenizer.get_added_tokens_decoder().contains_key(&id) {
            clip.make_special(AddedToken::from(token, true))?;
        }
    }
    Ok(clip)
}

pub(super) fn read_folder(folder: &Path) -> Result<ClipTokenizer, TokenizerError> {
    let json = folder.join("tokenizer.json");
    let mut clip = if json.exists() {
        read_json(&json)?
    } else {
        read_vocabulary(&folder.join("vocab.json"), &folder.join("merges.txt"))?
    };
    let mut settings = Vec::new();
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path = folder.join(name);
        if path.exists() {
            settings.push((read_value(&path)?, path));
        }
    }
    // Of two files that say what a token is, the second counts, as in transformers.
    let last = |key: &str| {
        let said = settings.iter().rev().find(|(json, _)| !json[key].is_null());
        said.map(|(json, path)| (json[key].clone(), path.clone()))
    };
    if let Some((length, path)) = last("model_max_length") {
        clip.context = context(&length)
            .map_err(|expected| wrong(&path, format!("model_max_length: {expected}, found {length}")))?
            .unwrap_or(clip.context);
    }
    // In this order: padding is commonly the end token again, without its rules, and then those are gone.
    for key in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        if let Some((token, path)) = last(key) {
            apply(&mut clip, key, &token).map_err(|problem| wrong(&path, format!("{key}: {problem}")))?;
        }
    }
    Ok(clip)
}

/// `None` for "unknown".
fn context(json: &Value) -> Result<Option<usize>, &'static str> {
    match json.as_f64() {
        Some(length) if length >= LARGEST_CONTEXT => Ok(None),
        Some(length) if length >= 3.0 => Ok(Some(length as usize)),
        _ => Err("expected at least 3"),
    }
}

/// Makes a token special, with the meaning that the key has.
fn apply(clip: &mut ClipTokenizer, key: &str, json: &Value) -> Result<(), String> {
    let token = special(json).ok_or_else(|| format!("expected a token, found {json}"))?;
    let id = clip.tokenizer.token_to_id(&token.content);
    let id = id.ok_or_else(|| format!("the token {:?} is not in the vocabulary", token.content))?;
    match key {
        "bos_token" => clip.start = id,
        "eos_token" => clip.end = id,
        "pad_token" => clip.pad = id,
        _ => {}
    }
    clip.make_special(token).map_err(|error| error.to_string())
}

/// A token as transformers writes one: its text, or its text with rules.
pub(crate) fn special(json: &Value) -> Option<AddedToken> {
    if let Value::String(text) = json {
        return Some(AddedToken::from(text, true));
    }
    let rule = |key: &str| json[key].as_bool().unwrap_or(false);
    let token = AddedToken::from(json["content"].as_str()?, true).normalized(rule("normalized"));
    Some(token.single_word(rule("single_word")).lstrip(rule("lstrip")).rstrip(rule("rstrip")))
}
