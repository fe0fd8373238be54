//! Tokenizers that are saved and read.

use crate::{encode, tokenizer};
use canvas_text::{TokenizerError, WordTokenizer};
use std::fs;

#[test]
fn survive_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    tokenizer().save(&path).unwrap();
    let loaded = WordTokenizer::load(&path).unwrap();
    let prompts = ["red heart", "", "Large piñata, blu", "man's e-mail"];
    assert_eq!(loaded.tokenize(&prompts).unwrap(), encode(&prompts));
    assert_eq!((loaded.context(), loaded.words()), (8, tokenizer().words()));
    // Limits survive too, and so do the bytes.
    assert_eq!(loaded.tokenize(&["red ".repeat(9)]), tokenizer().tokenize(&["red ".repeat(9)]));
    let again = folder.path().join("again.json");
    loaded.save(&again).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
}

#[test]
fn that_are_cut_or_of_another_kind_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let refused = |text: &str, why: &str| {
        fs::write(&path, text).unwrap();
        let error = WordTokenizer::load(&path).unwrap_err();
        assert!(matches!(error, TokenizerError::Format { .. }), "{error}");
        let shown = error.to_string();
        assert!(shown.starts_with(&path.display().to_string()) && shown.contains(why), "{shown}");
    };
    tokenizer().save(&path).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for end in (0..whole.len() - 1).filter(|end| whole.is_char_boundary(*end)) {
        refused(&whole[..end], "");
    }
    refused("[]", "");
    refused("{\"truncation\": 7}", "");
    refused(&whole.replace("\"max_length\": 8", "\"max_length\": 1"), "max_length");
    refused(&whole.replace("[pad]", "[zero]"), "first four tokens");
    refused(&whole.replace("\"red\": 6", "\"red\": 60"), "ids of its words");
    refused(&whole.replace("WordLevel", "BPE"), "");
}

#[test]
fn missing_or_not_writable_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere").join("tokenizer.json");
    let missing = WordTokenizer::load(&path).unwrap_err();
    let unwritten = tokenizer().save(&path).unwrap_err();
    for error in [missing, unwritten] {
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    }
}
