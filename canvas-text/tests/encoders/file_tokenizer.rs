//! Tokenizers from published files: ids of transformers (fixtures by `tools/fixtures_tokens.py`), rows, broken files.

use crate::reference::{fixture, hashed, read_json};
use canvas_text::{FileTokenizer, PromptError, RowLength, Side};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use tempfile::TempDir;

static EXPECTED: LazyLock<Value> = LazyLock::new(|| read_json(&fixture("tokens/ids.json")));

fn folder(name: &str) -> PathBuf {
    fixture("tokens").join(name)
}

fn read(name: &str) -> FileTokenizer {
    FileTokenizer::from_folder(&folder(name)).unwrap()
}

/// A copy of a fixture, with these files changed.
fn changed(name: &str, files: &[(&str, String)]) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    for (file, text) in files {
        fs::write(copy.path().join(file), text).unwrap();
    }
    copy
}

/// Compares the ids of all strings; `other` holds those that differ from the list of this name.
fn compare(tokenizer: &FileTokenizer, list: &str, other: Option<&str>) {
    let strings = read_json(&fixture("clip_tokens.json"));
    let strings = strings["rows"].as_array().unwrap();
    let (mut differing, mut report) = (0, String::new());
    for (i, row) in strings.iter().enumerate() {
        let text = row[0].as_str().unwrap();
        let special = other.and_then(|other| EXPECTED[other][i.to_string()].as_str());
        let expected = special.unwrap_or_else(|| EXPECTED[list][i].as_str().unwrap());
        let ids = tokenizer.ids(text).unwrap();
        if hashed(&ids) != expected {
            writeln!(report, "{text:?}: {ids:?}").unwrap();
            differing += 1;
        }
    }
    assert!(strings.len() > 1000);
    assert_eq!(differing, 0, "of {}:\n{report}", strings.len());
}

#[test]
fn unigrams_of_a_sentencepiece_file_are_those_of_transformers() {
    let t5 = read("t5");
    compare(&t5, "t5", None);
    assert_eq!((t5.pad(), t5.end(), t5.start(), t5.id("<unk>")), (Some(0), Some(1), None, Some(2)));
    assert_eq!(t5.id("<extra_id_0>"), Some(t5.vocabulary() as u32 - 1));
    assert_eq!((t5.limit(), t5.padding_side()), (Some(512), Side::Right));
    // Without settings, a spiece.model is T5's, with its hundred sentinels.
    let bare = changed("t5", &[]);
    fs::remove_file(bare.path().join("tokenizer_config.json")).unwrap();
    let bare = FileTokenizer::from_folder(bare.path()).unwrap();
    assert_eq!((bare.pad(), bare.end(), bare.limit()), (Some(0), Some(1), None));
    assert_eq!(bare.vocabulary(), t5.vocabulary() + 95);
    assert_eq!(bare.ids("a red cat").unwrap(), t5.ids("a red cat").unwrap());
}

#[test]
fn unigrams_of_a_tokenizer_json_are_those_of_transformers() {
    compare(&read("t5_old"), "t5", Some("t5_old"));
    // transformers 5 writes other rules.
    let mut json = read_json(&folder("t5_old").join("tokenizer.json"));
    json["normalizer"] = json["normalizer"]["normalizers"][0].clone();
    for (key, rule) in EXPECTED["t5_rules"].as_object().unwrap() {
        json[key] = rule.clone();
    }
    let new = changed("t5_old", &[("tokenizer.json", json.to_string())]);
    compare(&FileTokenizer::from_folder(new.path()).unwrap(), "t5", None);
}

#[test]
fn pairs_with_bytes_are_those_of_transformers() {
    let llama = read("llama");
    compare(&llama, "llama", None);
    assert_eq!((llama.start(), llama.end(), llama.pad()), (Some(1), Some(2), None));
    assert_eq!((llama.limit(), llama.padding_side()), (None, Side::Left));
    let old = read("llama_old");
    compare(&old, "llama_old", None);
    assert_eq!((old.pad(), old.padding_side()), (Some(2), Side::Left));
    let found = llama.tokenize(&["a cat", "a"], RowLength::Whole).unwrap_err().to_string();
    assert!(found.contains("needs a pad token, and"), "{found}");
    assert!(found.ends_with("tokenizer.model has none"), "{found}");
}

#[test]
fn rows_are_those_of_transformers() {
    let batches = &EXPECTED["batches"];
    let prompts: Vec<&str> =
        batches["prompts"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    let flat = |rows: &Value| -> Vec<u32> {
        let rows = rows.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        rows.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    for case in batches["rows"].as_array().unwrap() {
        let side = if case["side"] == "left" { Side::Left } else { Side::Right };
        let options = &case["options"];
        let length = match (options["padding"].as_str(), options["max_length"].as_u64()) {
            (Some("max_length"), Some(most)) => RowLength::Exactly(most as usize),
            (_, Some(most)) => RowLength::AtMost(most as usize),
            _ => RowLength::Whole,
        };
        let tokenizer = read(case["folder"].as_str().unwrap()).with_padding_side(side);
        let found = tokenizer.tokenize(&prompts, length).unwrap();
        assert_eq!(found.tokens.ids, flat(&case["ids"]), "{case}");
        let mask: Vec<u32> = found.tokens.mask.iter().map(|&real| real.into()).collect();
        assert_eq!(mask, flat(&case["mask"]), "{case}");
        assert_eq!(found.tokens.batch(), prompts.len());
        assert_eq!(found.warnings.is_empty(), length == RowLength::Whole);
    }
}

#[test]
fn what_was_cut_is_quoted() {
    let t5 = read("t5");
    let prompt = "a photo of the red house on the hill, 4k";
    let whole = t5.ids(prompt).unwrap().len();
    let found = t5.tokenize(&[prompt, "a"], RowLength::Exactly(whole)).unwrap();
    assert_eq!(found.warnings, []);
    let found = t5.tokenize(&[prompt, "a"], RowLength::Exactly(whole - 1)).unwrap();
    let [cut] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
    assert_eq!((cut.tokens, cut.context), (whole, whole - 1));
    assert!(prompt.ends_with(&cut.cut) && !cut.cut.is_empty(), "{cut}");
    assert_eq!(found.tokens.ids[whole - 2], 1); // the end token stays
    let config = json!({"tokenizer_class": "T5Tokenizer", "extra_ids": 5, "truncation_side": "left"});
    let other = changed("t5", &[("tokenizer_config.json", config.to_string())]);
    let other = FileTokenizer::from_folder(other.path()).unwrap();
    let found = other.tokenize(&[prompt], RowLength::AtMost(4)).unwrap();
    assert_eq!(found.tokens.ids[..3], t5.ids(prompt).unwrap()[whole - 4..whole - 1]);
    let kept = prompt.strip_prefix(&found.warnings[0].cut).unwrap();
    assert!(kept.len() < 6, "{kept}");
}

#[test]
fn special_tokens_can_be_left_out() {
    let t5 = read("t5");
    let plain = t5.clone().with_special_tokens(false);
    let (with, without) = (t5.ids("a red cat").unwrap(), plain.ids("a red cat").unwrap());
    assert_eq!(with[..with.len() - 1], without);
    let error = plain.tokenize(&["", " "], RowLength::AtMost(4)).unwrap_err();
    assert!(matches!(error, PromptError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("it has no token"), "{error}");
    // In rows of a fixed length, a prompt may be all padding.
    assert_eq!(plain.tokenize(&[""], RowLength::Exactly(3)).unwrap().tokens.ids, [0, 0, 0]);
    assert_eq!(t5.tokenize(&[""], RowLength::Whole).unwrap().tokens.ids, [1]);
}

#[test]
fn rows_below_the_special_tokens_are_refused() {
    for length in [RowLength::Exactly(0), RowLength::AtMost(0)] {
        let error = read("t5").tokenize(&["a"], length).unwrap_err();
        assert!(matches!(error, PromptError::NoRoom { special: 1, length: 0, .. }), "{error}");
        assert!(error.to_string().contains("spiece.model"), "{error}");
    }
}

#[test]
fn broken_files_are_named() {
    let refusal = |name: &str, file: &str, text: &str| {
        let folder = changed(name, &[(file, text.to_owned())]);
        let error = FileTokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
        error
    };
    let config = "tokenizer_config.json";
    assert!(refusal("t5", "spiece.model", "{}").contains("not a tokenizer that can be read"));
    assert!(refusal("t5", config, "[").contains("EOF"));
    let says = refusal("t5", config, r#"{"tokenizer_class": "GemmaTokenizer"}"#);
    assert!(says.contains("tokenizer_class: expected T5Tokenizer or LlamaTokenizer without a tokenizer.json, found \"GemmaTokenizer\""), "{says}");
    let says = refusal("t5", config, r#"{"padding_side": "up"}"#);
    assert!(says.contains("padding_side: expected \"left\" or \"right\", found \"up\""), "{says}");
    assert!(
        refusal("t5", config, r#"{"model_max_length": 0}"#).contains("expected a positive number, found 0")
    );
    assert!(refusal("t5", config, r#"{"pad_token": 3}"#).contains("pad_token: expected a token, found 3"));
    let listed = r#"{"added_tokens_decoder": {"7": {"content": "<new>"}}}"#;
    assert!(refusal("t5_old", config, listed).contains("\"<new>\" has the id"));
    // Of one unit only; of ways that lead nowhere.
    for table in ["&", "BAAAAAAAAAA=", "CAAAAAEAAAAAAAAA"] {
        let mut json = read_json(&folder("t5_old").join("tokenizer.json"));
        json["normalizer"]["normalizers"][0]["precompiled_charsmap"] = json!(table);
        let says = refusal("t5_old", "tokenizer.json", &json.to_string());
        assert!(says.contains("normalizer.precompiled_charsmap: "), "{says}");
    }
    let mut json = read_json(&folder("llama_old").join("tokenizer.json"));
    json["model"]["dropout"] = json!(0.1);
    let says = refusal("llama_old", "tokenizer.json", &json.to_string());
    assert!(says.contains("model.dropout: expected none, found 0.1"), "{says}");
    json["model"]["dropout"] = Value::Null;
    json["model"]["merges"] = json!([["a", "\u{10ffff}"]]);
    assert!(refusal("llama_old", "tokenizer.json", &json.to_string()).contains("is not in the vocabulary"));
    let empty = tempfile::tempdir().unwrap();
    let error = FileTokenizer::from_folder(empty.path()).unwrap_err().to_string();
    assert!(error.contains("expected a folder with tokenizer.json, spiece.model"), "{error}");
    // A model of the other kind: the class decides what is expected.
    let swapped = tempfile::tempdir().unwrap();
    fs::copy(folder("llama").join("tokenizer.model"), swapped.path().join("spiece.model")).unwrap();
    let error = FileTokenizer::from_folder(swapped.path()).unwrap_err().to_string();
    assert!(error.contains("expected a model of unigrams, found byte-pair encoding"), "{error}");
}
