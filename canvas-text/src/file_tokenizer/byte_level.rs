//! Byte-level byte-pair encoding from `vocab.json` and `merges.txt`.

use super::folder::{Settings, read_text, wrong};
use crate::TokenizerError;
use crate::clip_tokenizer::files::check_merge;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

/// English contractions, words with a sign before them, single digits, runs of signs, line ends, white space: Qwen2's
/// own pattern.
const PIECES: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn read(
    vocabulary: &Path,
    merges: &Path,
    settings: &Settings,
) -> Result<Tokenizer, TokenizerError> {
    if !matches!(settings.class(), None | Some("Qwen2Tokenizer")) {
        return Err(settings.other_class("Qwen2Tokenizer"));
    }
    let ids: HashMap<String, u32> =
        serde_json::from_str(&read_text(vocabulary)?).map_err(|error| wrong(vocabulary, error))?;
    let mut rules = Vec::new();
    for (number, line) in read_text(merges)?.lines().enumerate() {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        let pair = line.split_once(' ');
        check_merge(&ids, pair, "")
            .map_err(|problem| wrong(merges, format!("line {}, {line:?}: {problem}", number + 1)))?;
        rules.extend(pair.map(|(first, second)| (first.to_owned(), second.to_owned())));
    }
    let model = BPE::builder().vocab_and_merges(ids.into_iter().collect::<Vocab>(), rules).build();
    let model = model.map_err(|error| wrong(vocabulary, error))?;
    with_rules(model).map_err(|error| wrong(vocabulary, error))
}

/// The rules that Qwen2's `tokenizer.json` holds.
fn with_rules(model: BPE) -> tokenizers::Result<Tokenizer> {
    let pieces = Split::new(SplitPattern::Regex(PIECES.into()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(NFC))?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![pieces.into(), bytes.into()])));
    Ok(tokenizer)
}
