//! SentencePiece's own files: `spiece.model`, `tokenizer.model`.

use super::characters;
use super::folder::{Settings, add, with_ends, wrong};
use crate::TokenizerError;
use prost::Message;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::precompiled::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Tokenizer};

/// What stands for a space in the vocabulary.
const SPACE: char = '▁';

/// `ModelProto` of sentencepiece_model.proto, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

/// A token; its id is its place.
#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    /// Logarithm of its probability.
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    /// 1 unigram, 2 byte-pair encoding.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(int32, optional, tag = "40")]
    unknown: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    characters: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

pub(super) fn read(path: &Path, settings: &Settings) -> Result<Tokenizer, TokenizerError> {
    let bytes = fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
    let model = Model::decode(bytes.as_slice()).map_err(|error| wrong(path, error))?;
    let kind = model.trainer.as_ref().and_then(|trainer| trainer.kind).unwrap_or(1);
    let kind = match kind {
        1 => "unigram",
        2 => "byte-pair encoding",
        _ => "another kind",
    };
    match (settings.class().unwrap_or_default(), kind) {
        ("T5Tokenizer", "unigram") => t5(model, settings, path),
        ("LlamaTokenizer", "byte-pair encoding") => llama(model, settings, path),
        ("T5Tokenizer", _) => Err(wrong(path, format!("expected a model of unigrams, found {kind}"))),
        ("LlamaTokenizer", _) => Err(wrong(path, format!("expected byte-pair encoding, found {kind}"))),
        _ => Err(settings.other_class("T5Tokenizer or LlamaTokenizer")),
    }
}

/// Unigrams; each text is followed by the end token; sentinels `<extra_id_99>` to `<extra_id_0>` behind the pieces.
fn t5(model: Model, settings: &Settings, path: &Path) -> Result<Tokenizer, TokenizerError> {
    let Model { pieces, trainer, normalizer } = model;
    let normalizer = normalizer.unwrap_or_default();
    for (key, found) in [
        ("add_dummy_prefix", normalizer.add_dummy_prefix),
        ("remove_extra_whitespaces", normalizer.remove_extra_whitespaces),
    ] {
        if found == Some(false) {
            return Err(wrong(path, format!("normalizer_spec.{key}: expected true, found false")));
        }
    }
    let unknown = trainer.and_then(|trainer| trainer.unknown).unwrap_or(0);
    let extra: Vec<String> =
        (0..settings.number("extra_ids", 100)?).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let added = added(&pieces);
    let pieces = pieces
        .into_iter()
        .map(|piece| (piece.text.unwrap_or_default(), f64::from(piece.score.unwrap_or_default())));
    let vocabulary = pieces.chain(extra.iter().map(|token| (token.clone(), 0.0))).collect();
    let failed = |error: tokenizers::Error| wrong(path, error);
    let unigrams = Unigram::from(vocabulary, usize::try_from(unknown).ok(), false).map_err(failed)?;
    let mut tokenizer = Tokenizer::new(unigrams);
    if let Some(characters) = normalizer.characters.filter(|bytes| !bytes.is_empty()) {
        let unusable = |message| wrong(path, format!("normalizer_spec.precompiled_charsmap: {message}"));
        characters::check(&characters).map_err(unusable)?;
        let table = Precompiled::from(&characters).map_err(|error| unusable(error.to_string()))?;
        tokenizer.with_normalizer(Some(table)).map_err(failed)?;
    }
    let spaces = Metaspace::new(SPACE, PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), spaces.into()])));
    for token in added.into_iter().chain(extra.into_iter().map(|token| AddedToken::from(token, true))) {
        add(&mut tokenizer, token).map_err(|error| wrong(path, error))?;
    }
    let end = tokenizer.token_to_id("</s>").ok_or_else(|| wrong(path, "there is no token \"</s>\""))?;
    with_ends(&mut tokenizer, &["$A".into(), "</s>".into()], vec![("</s>".into(), end)])
        .map_err(|message| wrong(path, message))?;
    Ok(tokenizer)
}

/// Byte-pair encoding; letters that are no token become their bytes.
fn llama(model: Model, settings: &Settings, path: &Path) -> Result<Tokenizer, TokenizerError> {
    let added = added(&model.pieces);
    let texts: Vec<String> = model.pieces.into_iter().map(|piece| piece.text.unwrap_or_default()).collect();
    let ids: HashMap<String, u32> = texts.iter().cloned().zip(0..).collect();
    let merges = merges(&texts, &ids);
    let failed = |error: tokenizers::Error| wrong(path, error);
    let pairs = BPE::builder()
        .vocab_and_merges(ids.into_iter().collect::<Vocab>(), merges)
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(failed)?;
    let mut tokenizer = Tokenizer::new(pairs);
    let prepend = match (settings.flag("add_prefix_space", true)?, settings.flag("legacy", false)?) {
        (false, _) => PrependScheme::Never,
        (true, true) => PrependScheme::Always,
        (true, false) => PrependScheme::First,
    };
    tokenizer.with_pre_tokenizer(Some(Metaspace::new(SPACE, prepend, false)));
    for token in added {
        add(&mut tokenizer, token).map_err(|error| wrong(path, error))?;
    }
    Ok(tokenizer)
}

/// Control tokens, which are special, and those that a user defined.
fn added(pieces: &[Piece]) -> Vec<AddedToken> {
    let token = |piece: &Piece| match (piece.kind, &piece.text) {
        (Some(kind @ (CONTROL | USER_DEFINED)), Some(text)) => {
            Some(AddedToken::from(text.clone(), kind == CONTROL).normalized(false))
        }
        _ => None,
    };
    pieces.iter().filter_map(token).collect()
}

/// Every way to make a token of two others, in the order of the tokens they make, then of their lengths: the file
/// says what was merged, but not of which halves.
fn merges(texts: &[String], ids: &HashMap<String, u32>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (rank, text) in texts.iter().enumerate() {
        for (at, _) in text.char_indices().skip(1) {
            let (first, second) = text.split_at(at);
            if let (Some(a), Some(b)) = (ids.get(first), ids.get(second)) {
                found.push(((rank, first.chars().count(), second.chars().count(), *a, *b), first, second));
            }
        }
    }
    found.sort_by_key(|(order, ..)| *order);
    found.into_iter().map(|(_, first, second)| (first.to_owned(), second.to_owned())).collect()
}
