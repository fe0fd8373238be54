//! Chat templates: the texts of transformers (fixture by `tools/fixtures_chat.py`), folders, broken files.

use crate::reference::{fixture, read_json};
use canvas_text::{ChatTemplate, Content, Message};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

fn message(found: &Value) -> Message {
    let role = found[0].as_str().unwrap();
    let texts = |parts: &Vec<Value>| parts.iter().map(|part| part.as_str().unwrap().to_owned()).collect();
    match &found[1] {
        Value::Array(parts) => Message { role: role.to_owned(), content: Content::Parts(texts(parts)) },
        text => Message::new(role, text.as_str().unwrap()),
    }
}

#[test]
fn texts_are_those_of_transformers() {
    let fixture = read_json(&fixture("chat.json"));
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let (mut same, mut refused) = (0, 0);
    for row in fixture["rows"].as_array().unwrap() {
        let template = fixture["templates"][row["template"].as_str().unwrap()].as_str().unwrap();
        let chat = ChatTemplate::new(template, tokens).unwrap();
        let messages: Vec<Message> = row["chat"].as_array().unwrap().iter().map(message).collect();
        let found = chat.render(&messages, row["generation"].as_bool().unwrap(), row["thinking"].as_bool());
        if let Some(expected) = row["text"].as_str() {
            assert_eq!(found.unwrap(), expected, "{} {}", row["template"], row["chat"]);
            same += 1;
        } else {
            let error = found.expect_err(&format!("{} {}", row["template"], row["chat"])).to_string();
            let says = row["error"].as_str().unwrap();
            assert!(error.contains(says), "expected {says:?}, found {error:?}");
            refused += 1;
        }
    }
    println!("{same} texts, {refused} refusals");
    assert!(same > 60 && refused > 8);
}

fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn says(files: &[(&str, Value)]) -> String {
    let folder = folder(files);
    let chat = ChatTemplate::from_folder(folder.path()).unwrap().expect("a template");
    chat.render(&[Message::new("user", "cat")], false, None).unwrap()
}

#[test]
fn folders_keep_their_template_in_one_of_several_places() {
    let of = |name: &str| format!("{name} {{{{ eos_token }}}}");
    let config = json!({"chat_template": of("config"), "eos_token": {"content": "E"}, "bos_token": null});
    let wrapped = ("chat_template.json", json!({"chat_template": of("json")}));
    let own = ("chat_template.jinja", json!(of("jinja")));
    let config = ("tokenizer_config.json", config);
    assert_eq!(says(std::slice::from_ref(&config)), "config E");
    assert_eq!(says(&[config.clone(), wrapped.clone()]), "json E");
    assert_eq!(says(&[config, wrapped, own.clone()]), "jinja E");
    assert_eq!(says(&[own]), "jinja ");
    let several = json!([{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]);
    assert_eq!(says(&[("tokenizer_config.json", json!({"chat_template": several}))]), "d");
    let bare = folder(&[("tokenizer_config.json", json!({"eos_token": "E"}))]);
    assert!(ChatTemplate::from_folder(bare.path()).unwrap().is_none());
    assert!(ChatTemplate::from_folder(&bare.path().join("nowhere")).unwrap().is_none());
}

#[test]
fn broken_files_are_named() {
    for (name, value, expected) in [
        ("tokenizer_config.json", json!("{"), "EOF while parsing an object at line 1 column 1"),
        ("tokenizer_config.json", json!({"chat_template": 3}), "chat_template: expected a text, found 3"),
        (
            "tokenizer_config.json",
            json!({"chat_template": []}),
            "chat_template: expected one named \"default\" among several",
        ),
        ("chat_template.json", json!({}), "expected a chat_template"),
        ("chat_template.jinja", json!("\n{% if %}"), "line 2: unexpected end of block"),
    ] {
        let folder = folder(&[(name, value)]);
        let error = ChatTemplate::from_folder(folder.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {expected}", folder.path().join(name).display()));
    }
    let chat = ChatTemplate::new("a\n{{ raise_exception('no ' ~ messages[0].role) }}", []).unwrap();
    let error = chat.render(&[Message::new("user", "cat")], false, None).unwrap_err().to_string();
    assert_eq!(error, "the chat template of the text: line 2: no user");
}
