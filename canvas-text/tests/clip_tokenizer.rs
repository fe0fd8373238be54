//! CLIP's tokenizer with OpenAI's vocabulary: ids of transformers (fixture by `tools/fixtures_clip_tokens.py`), files,
//! windows, weights. The vocabulary is read from the sources of the crate `instant-clip-tokenizer`.

use burn::prelude::*;
use canvas_core::{Text, TextEncoder, Tokens};
use canvas_text::{ClipTokenizer, ClipTokens, Emphasis, LongPrompt, Weighted, weighted};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// Where cargo keeps the crate that carries the vocabulary.
fn source() -> PathBuf {
    let version = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // Of other platforms' crates cargo may have no copy here.
    let asked = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let metadata: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "instant-clip-tokenizer").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("bpe_simple_vocab_16e6.txt")
}

/// A folder with `vocab.json` and `merges.txt`, as the models have it.
static FILES: LazyLock<TempDir> = LazyLock::new(|| {
    let text = fs::read_to_string(source()).unwrap();
    let merges: Vec<&str> = text.lines().skip(1).take(49152 - 256 - 2).collect();
    let shown: Vec<u32> = (33..127).chain(161..173).chain(174..256).collect();
    let hidden = 256..512 - shown.len() as u32;
    let letters = shown.iter().copied().chain(hidden).map(|code| char::from_u32(code).unwrap());
    let mut tokens: Vec<String> = letters.map(String::from).collect();
    tokens.extend(tokens.clone().into_iter().map(|letter| letter + "</w>"));
    tokens.extend(merges.iter().map(|merge| merge.split_whitespace().collect::<String>()));
    tokens.extend([ClipTokenizer::START.to_owned(), ClipTokenizer::END.to_owned()]);
    assert_eq!(tokens.len(), 49408);
    let vocabulary: BTreeMap<String, u32> = tokens.into_iter().zip(0..).collect();

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.json"), serde_json::to_string(&vocabulary).unwrap()).unwrap();
    fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    folder
});

static CLIP: LazyLock<ClipTokenizer> = LazyLock::new(|| ClipTokenizer::from_folder(FILES.path()).unwrap());

/// As the fixture: 32 bits of FNV-1a of the ids with commas between.
fn hashed(ids: &[u32]) -> String {
    let shown = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:08x}", shown.bytes().fold(0xcbf2_9ce4_8422_2325, mix) as u32)
}

/// Compares the ids of all strings of the fixture; `variant` names the rows that differ from the plain ones.
fn compare(clip: &ClipTokenizer, variant: Option<&str>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip_tokens.json");
    let fixture: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let rows = fixture["rows"].as_array().unwrap();
    let (mut differing, mut report) = (0, String::new());
    for (i, row) in rows.iter().enumerate() {
        let text = row[0].as_str().unwrap();
        let other = variant.map_or(&Value::Null, |name| &fixture["differing"][name][i.to_string()]);
        let expected = other.as_str().unwrap_or_else(|| row[2].as_str().unwrap());
        let ids = clip.ids(text).unwrap();
        if hashed(&ids) != expected {
            writeln!(report, "{text:?}: {ids:?}, expected {} ids", row[1]).unwrap();
            differing += 1;
        }
    }
    assert!(rows.len() > 1000);
    assert_eq!(differing, 0, "of {}:\n{report}", rows.len());
}

#[test]
fn ids_are_those_of_transformers() {
    compare(&CLIP, None);
    assert_eq!((CLIP.start(), CLIP.end(), CLIP.pad(), CLIP.vocabulary()), (49406, 49407, 49407, 49408));
}

#[test]
fn a_pad_token_is_special() {
    let clip = CLIP.clone().with_pad("!").unwrap();
    assert_eq!(clip.pad(), 0);
    compare(&clip, Some("!"));
    assert_eq!(clip.ids("hello!").unwrap(), [3306, 0]);
    assert_eq!(CLIP.ids("hello!").unwrap(), [3306, 256]);
    let error = CLIP.clone().with_pad("[pad]").unwrap_err().to_string();
    assert!(error.contains("the token \"[pad]\" is not in the vocabulary"), "{error}");
}

/// A folder with the vocabulary and other files.
fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        fs::copy(FILES.path().join(name), folder.path().join(name)).unwrap();
    }
    for (name, json) in files {
        fs::write(folder.path().join(name), json.to_string()).unwrap();
    }
    folder
}

#[test]
fn settings_beside_the_vocabulary_are_read() {
    let token = |text: &str| json!({"content": text, "normalized": true, "lstrip": false});
    let map = |pad: &str| {
        json!({"bos_token": token(ClipTokenizer::START), "eos_token": token(ClipTokenizer::END),
            "pad_token": pad, "unk_token": token(ClipTokenizer::END)})
    };
    let config = json!({"model_max_length": 32, "pad_token": "!"});
    let read = |files: &[(&str, Value)]| ClipTokenizer::from_folder(folder(files).path()).unwrap();
    let second = read(&[("special_tokens_map.json", map("!"))]);
    assert_eq!(second.ids("<|EndOfText|>").unwrap(), [49407]);
    compare(&second, Some("normalized"));
    // The end token for padding, said without rules, takes the rules away; and the map's padding counts.
    let map = map(ClipTokenizer::END);
    let first = read(&[("special_tokens_map.json", map), ("tokenizer_config.json", config.clone())]);
    compare(&first, None);
    assert_eq!((first.pad(), first.context()), (49407, 32));
    let second = read(&[("tokenizer_config.json", config)]);
    assert_eq!((second.pad(), second.context()), (0, 32));
    let unknown = folder(&[("tokenizer_config.json", json!({"model_max_length": 1e30}))]);
    assert_eq!(ClipTokenizer::from_folder(unknown.path()).unwrap().context(), 77);
}

#[test]
fn a_tokenizer_json_gives_the_same_ids() {
    let vocabulary: Value =
        serde_json::from_slice(&fs::read(FILES.path().join("vocab.json")).unwrap()).unwrap();
    let merges = fs::read_to_string(FILES.path().join("merges.txt")).unwrap();
    let merges: Vec<&str> = merges.lines().skip(1).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let pattern =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let json = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [special(49406, ClipTokenizer::START), special(49407, ClipTokenizer::END)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "RobertaProcessing", "sep": [ClipTokenizer::END, 49407],
            "cls": [ClipTokenizer::START, 49406], "trim_offsets": false, "add_prefix_space": false},
        "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": ClipTokenizer::END,
            "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": false,
            "vocab": vocabulary, "merges": merges},
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    compare(&ClipTokenizer::from_file(&path).unwrap(), None);
    compare(&ClipTokenizer::from_folder(folder.path()).unwrap(), None);

    let mut other = json;
    other["model"]["end_of_word_suffix"] = json!("@@");
    fs::write(&path, other.to_string()).unwrap();
    let error = ClipTokenizer::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("end_of_word_suffix: expected \"</w>\", found \"@@\""), "{error}");
    other["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
    fs::write(&path, other.to_string()).unwrap();
    let error = ClipTokenizer::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("model.type: expected \"BPE\", found \"WordLevel\""), "{error}");
}

#[test]
fn broken_files_are_named() {
    let refusal = |name: &str, content: &str| {
        let folder = folder(&[]);
        fs::write(folder.path().join(name), content).unwrap();
        let error = ClipTokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        error
    };
    assert!(refusal("vocab.json", "{").contains("not a CLIP tokenizer: EOF"));
    assert!(refusal("vocab.json", r#"{"a": 0}"#).contains("there is no token \"<|endoftext|>\""));
    assert!(refusal("merges.txt", "#version: 0.2\nin").contains("line 2, \"in\": expected two tokens"));
    let merge = format!("{} {}", "i".repeat(9), "n".repeat(9));
    assert!(refusal("merges.txt", &merge).contains("\"iiiiiiiii\" is not in the vocabulary"));
    assert!(refusal("tokenizer_config.json", r#"{"pad_token": 3}"#).contains("pad_token: expected a token"));
    assert!(refusal("tokenizer_config.json", r#"{"pad_token": "qqqq"}"#).contains("\"qqqq\" is not in"));
    assert!(refusal("tokenizer_config.json", r#"{"model_max_length": 2}"#).contains("at least 3, found 2"));
    let empty = tempfile::tempdir().unwrap();
    assert!(ClipTokenizer::from_folder(empty.path()).unwrap_err().to_string().contains("vocab.json"));
}

#[test]
fn rows_are_padded_and_cut_with_a_warning() {
    let clip = CLIP.clone().with_context(6).unwrap().with_pad("!").unwrap();
    let prompts = ["Hi", "a cat and a Café dog, no?", ""];
    let found = clip.tokenize(&prompts, LongPrompt::Truncate).unwrap();
    let rows: Vec<&[u32]> = found.tokens.ids.chunks(6).collect();
    assert_eq!(rows[0], [49406, 1883, 49407, 0, 0, 0]);
    assert_eq!(rows[1], [49406, 320, 2368, 537, 320, 49407]);
    assert_eq!(rows[2], [49406, 49407, 0, 0, 0, 0]);
    assert_eq!(found.tokens.mask[..6], [true, true, true, false, false, false]);
    assert_eq!((found.windows, found.tokens.length, found.warnings.len()), (1, 6, 1));
    assert_eq!(
        found.warnings[0].to_string(),
        "the prompt \"a cat and a Café dog, no?\" has 11 tokens and the encoder reads 6; \
         this part was cut: \"Café dog, no?\""
    );
    assert!(CLIP.clone().with_context(2).is_err());
}

#[test]
fn what_was_cut_may_begin_within_a_letter() {
    let prompt = "\u{10ffff}".repeat(40);
    let found = CLIP.tokenize(&[&prompt], LongPrompt::Truncate).unwrap();
    assert!(prompt.ends_with(&found.warnings[0].cut) && !found.warnings[0].cut.is_empty());
}

#[test]
fn long_prompts_become_windows() {
    let clip = CLIP.clone().with_context(5).unwrap();
    let found = clip.tokenize(&["a cat and a dog", "a"], LongPrompt::Chunk).unwrap();
    let rows: Vec<&[u32]> = found.tokens.ids.chunks(5).collect();
    let (start, end) = (49406, 49407);
    assert_eq!((found.windows, found.warnings.len()), (2, 0));
    assert_eq!(rows[..2], [[start, 320, 2368, 537, end], [start, 320, 1929, end, end]]);
    assert_eq!(rows[2..], [[start, 320, end, end, end], [start, end, end, end, end]]);
    let exact = CLIP.tokenize(&["a ".repeat(75)], LongPrompt::Chunk).unwrap();
    assert_eq!(exact.windows, 1);
    assert_eq!(CLIP.tokenize(&["a ".repeat(76)], LongPrompt::Chunk).unwrap().windows, 2);
}

#[test]
fn brackets_are_weights() {
    let shown = |prompt: &str| {
        let parts = weighted(prompt);
        parts.iter().fold(String::new(), |mut shown, Weighted { text, weight }| {
            write!(shown, "{text}|{}/", (weight * 1e4).round() / 1e4).unwrap();
            shown
        })
    };
    for (prompt, expected) in [
        ("", ""),
        ("a cat", "a cat|1/"),
        ("a (cat)", "a |1/cat|1.1/"),
        ("((a))", "a|1.21/"),
        ("[a]", "a|0.9091/"),
        ("[[a]] b", "a|0.8264/ b|1/"),
        ("(a:1.3)b", "a|1.3/b|1/"),
        ("(a: 1.3 )", "a|1.3/"),
        ("(a:-.5)(b:0)", "a|-0.5/b|0/"),
        ("((a:2) b)", "a|2.2/ b|1.1/"),
        ("([a])", "a|1/"),
        ("(a [b) c]", "a |1.1/b|1/ c|0.9091/"),
        ("(a", "a|1.1/"),
        ("[a", "a|0.9091/"),
        ("a) b]", "a) b]|1/"),
        (r"\(a\) \[b\] \\ \c", r"(a) [b] \ c|1/"),
        (r"(\()", "(|1.1/"),
        ("(a:b)", "a:b|1.1/"),
        ("(a:1.2.3)", "a:1.2.3|1.1/"),
        ("[a:1.3]", "a:1.3|0.9091/"),
        ("16:9", "16:9|1/"),
        ("a:1.3)", "a:1.3)|1/"),
        ("(a:inf)", "a:inf|1.1/"),
        ("(é😀:1.5)漢", "é😀|1.5/漢|1/"),
        ("()", ""),
    ] {
        assert_eq!(shown(prompt), expected, "{prompt}");
    }
}

#[test]
fn weights_follow_their_tokens() {
    let clip = CLIP.clone().with_context(6).unwrap();
    let found = clip.tokenize_weighted(&["a (cat:1.5) [dog]"], LongPrompt::Truncate).unwrap();
    let plain = clip.tokenize(&["a cat dog"], LongPrompt::Truncate).unwrap();
    assert_eq!(found.tokens, plain.tokens);
    assert_eq!(found.weights, [1.0, 1.0, 1.5, 1.0 / 1.1, 1.0, 1.0]);
    let long = clip.tokenize_weighted(&["(a cat:2) (and a dog:3)"], LongPrompt::Chunk).unwrap();
    assert_eq!(long.weights, [1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]);
    let cut = clip.tokenize_weighted(&["(a cat:2) (and a dog:3)"], LongPrompt::Truncate).unwrap();
    assert_eq!(cut.warnings[0].cut, "dog");
}

/// Each token's vector is its id and its place.
struct Spell;

impl TextEncoder for Spell {
    fn encode(&self, tokens: &Tokens) -> Text {
        let (ids, mask) = tokens.tensors(&Device::flex());
        let ids = ids.float();
        let place = Tensor::arange(0..tokens.length as i64, &Device::flex()).float().unsqueeze::<2>();
        let vectors = Tensor::stack::<3>(vec![ids.clone(), place.expand(ids.dims())], 2); // [B, T, 2]
        Text { tokens: vectors, mask, pooled: ids.slice([0..tokens.batch(), 1..2]) }
    }
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn windows_are_laid_end_to_end_and_weighted() {
    let tokens = Tokens { ids: (0..8).collect(), mask: vec![true; 8], length: 2 };
    let plain = ClipTokens { tokens, windows: 2, weights: vec![1.0; 8], warnings: Vec::new() };
    let text = plain.encode(&Spell, Emphasis::RestoreMean);
    assert_eq!(text.tokens.dims(), [2, 4, 2]);
    assert_eq!(values(text.tokens)[..8], [0.0, 0.0, 1.0, 1.0, 2.0, 0.0, 3.0, 1.0]);
    assert_eq!((values(text.pooled), text.mask.dims()), (vec![1.0, 5.0], [2, 4]));

    let weighted = ClipTokens { weights: vec![1.0, 1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0], ..plain };
    let text = weighted.encode(&Spell, Emphasis::Multiply);
    assert_eq!(values(text.tokens)[..8], [0.0, 0.0, 1.0, 1.0, 4.0, 0.0, 9.0, 3.0]);
    // The second window's mean was 6/4 and is 16/4; the others stay as they were.
    let restored = values(weighted.encode(&Spell, Emphasis::RestoreMean).tokens);
    let expected = [0.0, 0.0, 1.0, 1.0, 4.0 * 0.375, 0.0, 9.0 * 0.375, 3.0 * 0.375, 4.0, 0.0, 5.0, 1.0];
    assert_eq!(restored[..12], expected);
}

#[test]
fn a_prompt_of_a_batch_equals_the_prompt_alone() {
    let clip = CLIP.clone().with_context(8).unwrap();
    let prompts = ["a (cat:1.4) and a [dog] in the ((rain)) of spain", "a (blue:0.5) house by the old river"];
    let encode = |prompts: &[&str]| {
        let tokens = clip.tokenize_weighted(prompts, LongPrompt::Chunk).unwrap();
        assert_eq!(tokens.windows, 2);
        tokens.encode(&Spell, Emphasis::RestoreMean)
    };
    let together = encode(&prompts);
    for (row, prompt) in prompts.iter().enumerate() {
        let alone = encode(&[prompt]);
        assert_eq!(values(alone.tokens), values(together.tokens.clone().narrow(0, row, 1)));
        assert_eq!(values(alone.pooled), values(together.pooled.clone().narrow(0, row, 1)));
    }
}
