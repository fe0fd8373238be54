//! Tokenizers of language models: ids of transformers (fixtures by `tools/fixtures_llm_tokens.py`), rows.

use crate::reference::{fixture, hashed, read_json};
use canvas_text::{FileTokenizer, RowLength, Side, templates};
use serde_json::Value;
use std::fmt::Write;

fn read(name: &str) -> FileTokenizer {
    FileTokenizer::from_folder(&fixture("llm_tokens").join(name)).unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let expected = read_json(&fixture("llm_tokens/ids.json"));
    let strings = read_json(&fixture("clip_tokens.json"));
    let strings: Vec<&Value> = strings["rows"].as_array().unwrap().iter().map(|row| &row[0]).collect();
    let strings: Vec<&Value> = strings.into_iter().chain(expected["chats"].as_array().unwrap()).collect();
    for (name, list) in [("qwen", "qwen"), ("qwen_json", "qwen"), ("gemma", "gemma"), ("llama3", "llama3")] {
        let (tokenizer, hashes) = (read(name), expected[list].as_array().unwrap());
        assert_eq!(strings.len(), hashes.len());
        let mut report = String::new();
        for (text, hash) in strings.iter().zip(hashes) {
            let ids = tokenizer.ids(text.as_str().unwrap()).unwrap();
            if hash != &hashed(&ids) {
                writeln!(report, "{text}: {ids:?}").unwrap();
            }
        }
        assert_eq!(report, "", "{name}, {} of {}", report.lines().count(), strings.len());
    }
}

#[test]
fn rows_are_those_of_transformers() {
    let batches = &read_json(&fixture("llm_tokens/ids.json"))["batches"];
    let prompts: Vec<&str> =
        batches["prompts"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    for row in batches["rows"].as_array().unwrap() {
        let tokenizer = read(row["folder"].as_str().unwrap());
        let tokenizer = match row["side"].as_str() {
            Some("left") => tokenizer.with_padding_side(Side::Left),
            Some(_) => tokenizer.with_padding_side(Side::Right),
            None => tokenizer,
        };
        let most = row["options"]["max_length"].as_u64().map(|most| most as usize);
        let length = match most {
            None => RowLength::Whole,
            Some(most) if row["options"]["padding"] == "max_length" => RowLength::Exactly(most),
            Some(most) => RowLength::AtMost(most),
        };
        let found = tokenizer.tokenize(&prompts, length).unwrap().tokens;
        let flat =
            |key: &str| row[key].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).collect();
        let (ids, mask): (Vec<&Value>, Vec<&Value>) = (flat("ids"), flat("mask"));
        let ids: Vec<u32> = ids.into_iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let mask: Vec<bool> = mask.into_iter().map(|real| real == 1).collect();
        assert_eq!(
            (&found.ids, &found.mask),
            (&ids, &mask),
            "{} {} {}",
            row["folder"],
            row["side"],
            row["options"]
        );
    }
}

#[test]
fn signs_of_chats_are_single_tokens() {
    let qwen = read("qwen");
    let [before, behind] = templates::QWEN_IMAGE;
    let ids = qwen.ids(&format!("{before}a red cat{behind}")).unwrap();
    for (sign, count) in [("<|im_start|>", 3), ("<|im_end|>", 2), ("<|endoftext|>", 0)] {
        let id = qwen.id(sign).unwrap();
        assert_eq!(ids.iter().filter(|found| **found == id).count(), count, "{sign}");
    }
    assert_eq!(
        (qwen.start(), qwen.end(), qwen.pad()),
        (None, qwen.id("<|im_end|>"), qwen.id("<|endoftext|>"))
    );
    let gemma = read("gemma");
    assert_eq!((gemma.start(), gemma.padding_side(), gemma.limit()), (Some(2), Side::Left, None));
}
