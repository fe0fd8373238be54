//! The tokens that diffusers' pipelines give their language models (fixture by `tools/fixtures_llm_prompts.py`), made as
//! the table in the documentation of language models says.

use crate::reference::{fixture, read_json};
use canvas_core::Tokens;
use canvas_text::{ChatTemplate, FileTokenizer, Message, RowLength, Side, templates};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tests/fixtures/generate_transformers");
    fixtures.join("tokenizers").join(format!("{name}-tokenizer"))
}

fn tokenizer(name: &str) -> FileTokenizer {
    FileTokenizer::from_folder(&folder(name)).unwrap()
}

fn chat(name: &str) -> ChatTemplate {
    ChatTemplate::from_folder(&folder(name)).unwrap().unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn rows(tokenizer: &FileTokenizer, prompts: &[String], length: RowLength) -> Tokens {
    tokenizer.tokenize(prompts, length).unwrap().tokens
}

/// Compares one call of a pipeline's text encoder.
fn compare(name: &str, call: &Value, found: &Tokens) {
    let flat = |key: &str| -> Vec<u64> {
        let rows = call[key].as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap().iter().map(|id| id.as_u64().unwrap())).collect()
    };
    assert_eq!(found.ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>(), flat("ids"), "{name}");
    assert_eq!(found.mask.iter().map(|real| u64::from(*real)).collect::<Vec<_>>(), flat("mask"), "{name}");
}

#[test]
fn tokens_are_those_of_the_pipelines() {
    let expected = read_json(&fixture("llm_prompts.json"));
    let (prompts, negative) = (strings(&expected["prompts"]), strings(&expected["negative"]));
    let behind = |start: &str, prompts: &[String]| -> Vec<String> {
        prompts.iter().map(|prompt| format!("{start}{prompt}")).collect()
    };
    let check =
        |name: &str, call: usize, found: &Tokens| compare(name, &expected["calls"][name][call], found);

    let gemma = tokenizer("lumina2").with_padding_side(Side::Right);
    let found = rows(&gemma, &behind(templates::LUMINA2_SYSTEM, &prompts), RowLength::Exactly(160));
    check("lumina2", 0, &found);
    check("lumina2", 1, &rows(&gemma, &negative, RowLength::Exactly(160)));

    let lower = |prompts: &[String]| -> Vec<String> {
        prompts.iter().map(|prompt| prompt.to_lowercase().trim().to_owned()).collect()
    };
    let length = gemma.ids(templates::SANA_INSTRUCTION).unwrap().len() + 30 - 2;
    let found =
        rows(&gemma, &behind(templates::SANA_INSTRUCTION, &lower(&prompts)), RowLength::Exactly(length));
    check("sana", 0, &found);
    check("sana", 1, &rows(&gemma, &lower(&negative), RowLength::Exactly(30)));

    let (qwen, says) = (tokenizer("flux2_klein"), chat("flux2_klein"));
    for (name, thinking, length) in [("z_image", true, 40), ("flux2_klein", false, 50)] {
        let write =
            |prompt: &String| says.render(&[Message::new("user", prompt)], true, Some(thinking)).unwrap();
        let found = rows(&qwen, &prompts.iter().map(write).collect::<Vec<_>>(), RowLength::Exactly(length));
        check(name, 0, &found);
    }
    let [before, after] = templates::QWEN_IMAGE;
    let written: Vec<String> = prompts.iter().map(|prompt| format!("{before}{prompt}{after}")).collect();
    let most = RowLength::AtMost(30 + templates::QWEN_IMAGE_DROPPED);
    check("qwen_image", 0, &rows(&qwen, &written, most));

    let (mistral, says) = (tokenizer("flux2").with_special_tokens(false), chat("flux2"));
    let write = |prompt: &String| {
        let prompt = prompt.replace("[IMG]", "");
        let messages = [Message::part("system", templates::FLUX2_SYSTEM), Message::part("user", &prompt)];
        says.render(&messages, false, None).unwrap()
    };
    let found = rows(&mistral, &prompts.iter().map(write).collect::<Vec<_>>(), RowLength::Exactly(80));
    check("flux2", 0, &found);
}
