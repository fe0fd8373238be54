//! LoRA on CLIP's text transformer and learned words: parity with diffusers (fixtures by `tools/fixtures_lora.py` and
//! `tools/fixtures_inversion.py`).

use burn::prelude::*;
use canvas_core::Tokens;
use canvas_core::nn::Activation;
use canvas_core::weights::{
    Lora, Merging, Part, Rules, Source, load_published, read_tensors, save_published, write_tensors,
};
use canvas_testkit::{hashed, relative};
use canvas_text::{ClipText, ClipTextConfig, ClipTokenizer, LongPrompt, TextualInversion};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

type File = BTreeMap<String, TensorData>;

fn write(path: &Path, file: &File) {
    let tensors: Vec<(String, TensorData)> = file.clone().into_iter().collect();
    write_tensors(path, &tensors, &BTreeMap::new()).unwrap();
}

/// An encoder with hashed weights, and the names and shapes of its linear layers.
fn clip(config: &ClipTextConfig, folder: &Path) -> (ClipText, Vec<(String, Vec<usize>)>) {
    let path = folder.join("model.safetensors");
    save_published(&config.init(&Device::flex()), &path, &Rules::new()).unwrap();
    let source = Source::open(&path, None).unwrap();
    let hash = |key: &str| {
        let shape = source.shape(key).unwrap();
        let norm = key.contains("norm") && key.ends_with("weight");
        let fan = match shape {
            [_] => 16,
            _ if key.contains("embedding") => 1,
            _ => shape[1],
        };
        let scale = if norm { 0.1 } else { (fan as f64).powf(-0.5) };
        (key.to_owned(), hashed(key, shape, scale, if norm { 1.0 } else { 0.0 }))
    };
    let values: File = source.keys().map(hash).collect();
    write(&path, &values);
    let source = Source::open(&path, None).unwrap();
    let (clip, _) = load_published(config.init(&Device::flex()), &source, &Rules::new()).unwrap();
    let layer = |key: &str| {
        let shape = source.shape(key)?.to_vec();
        let name = key.strip_suffix(".weight").filter(|name| !name.contains("embedding"))?;
        Some((name.to_owned(), shape)).filter(|(_, shape)| shape.len() == 2)
    };
    let layers = source.keys().filter_map(layer).collect();
    (clip, layers)
}

fn tiny() -> ClipTextConfig {
    ClipTextConfig::new(12, 20, 2, 3, Activation::QuickGelu).with_vocabulary(50).with_context(6)
}

#[track_caller]
fn assert_near(found: &TensorData, expected: &TensorData, what: &str) {
    let found: Vec<f64> = found.iter::<f64>().collect();
    let expected: Vec<f64> = expected.iter::<f64>().collect();
    let error = relative(&found, &expected);
    println!("{what}: {error:.1e}");
    assert!(error < 1e-5, "{what}: relative error {error:.2e}");
}

fn fixture(name: &str) -> File {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    read_tensors(&folder.join(name)).unwrap()
}

/// What the fixture has for a case.
#[track_caller]
fn assert_encodes(clip: &ClipText, case: &str) {
    let tokens = Tokens { ids: vec![48, 5, 7, 12, 49, 49], mask: vec![true; 6], length: 6 };
    let states = clip.states(&tokens);
    let expected = fixture("lora.safetensors");
    assert_near(&states.last.into_data(), &expected[&format!("{case}.last")], case);
    assert_near(&states.pooled.into_data(), &expected[&format!("{case}.pooled")], case);
}

fn low(down: &str, up: &str, shape: &[usize]) -> File {
    let shapes = [(down, [3, shape[1]]), (up, [shape[0], 3])];
    shapes.map(|(key, shape)| (key.to_owned(), hashed(key, &shape, 0.3, 0.0))).into()
}

fn written(layers: &[(String, Vec<usize>)], name: impl Fn(&str) -> String, ends: [&str; 2]) -> File {
    let two = |(layer, shape): &(String, Vec<usize>)| {
        let name = name(layer);
        low(&format!("{name}{}", ends[0]), &format!("{name}{}", ends[1]), shape)
    };
    layers.iter().flat_map(two).collect()
}

fn kohya(layers: &[(String, Vec<usize>)], start: &str) -> File {
    let name = |layer: &str| format!("{start}{}", layer.replace('.', "_"));
    let mut file = written(layers, name, [".lora_down.weight", ".lora_up.weight"]);
    for (layer, _) in layers {
        file.insert(format!("{}.alpha", name(layer)), TensorData::new(vec![2f32], Vec::<usize>::new()));
    }
    file
}

fn open(folder: &Path, name: &str, file: &File) -> Lora {
    let path = folder.join(format!("{name}.safetensors"));
    write(&path, file);
    Lora::open(&path).unwrap()
}

fn merged(clip: &ClipText, loras: &[(&Lora, f64)], part: Part) -> ClipText {
    let mut merging = Merging::new(loras);
    let merged = merging.merge(clip.clone(), part, &[&Rules::new()]).unwrap();
    merging.finish().unwrap();
    merged
}

#[test]
fn loras_of_the_text_encoder_equal_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let (clip, layers) = clip(&tiny(), folder.path());
    assert_encodes(&clip, "plain");
    let old = |layer: &str| match layer.rsplit_once(".self_attn.") {
        Some((before, name)) => {
            format!("text_encoder.{before}.self_attn.to_{}_lora", name.trim_end_matches("_proj"))
        }
        None => format!("text_encoder.{layer}.lora_linear_layer"),
    };
    let own = |layer: &str| format!("text_encoder.{layer}");
    let ends = [".lora_A.weight", ".lora_B.weight"];
    let linear = [".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"];
    let modern = open(folder.path(), "modern", &written(&layers, own, ends));
    let linear = open(folder.path(), "linear", &written(&layers, own, linear));
    let old = open(folder.path(), "old", &written(&layers, old, [".down.weight", ".up.weight"]));
    let first = open(folder.path(), "kohya", &kohya(&layers, "lora_te_"));
    for (case, loras) in [
        ("modern", vec![(&modern, 0.7)]),
        ("linear", vec![(&linear, 1.0)]),
        ("old", vec![(&old, 1.0)]),
        ("kohya", vec![(&first, 0.8)]),
        ("two", vec![(&modern, 0.7), (&first, -0.4)]),
    ] {
        assert_encodes(&merged(&clip, &loras, Part::TextEncoder), case);
    }
    assert_encodes(&clip, "plain");
}

#[test]
fn names_without_the_outermost_module_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (clip, layers) = clip(&tiny(), folder.path());
    let full = |layer: &str| format!("text_encoder.{layer}");
    let ends = [".lora_A.weight", ".lora_B.weight"];
    let file = written(&layers, full, ends);
    let short = file.into_iter().map(|(key, data)| (key.replace("text_model.", ""), data)).collect();
    let lora = open(folder.path(), "short", &short);
    assert_encodes(&merged(&clip, &[(&lora, 0.7)], Part::TextEncoder), "modern");
}

#[test]
fn loras_of_the_second_text_encoder_equal_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let (clip, layers) = clip(&tiny().with_projection(Some(9)), folder.path());
    let lora = open(folder.path(), "second", &kohya(&layers, "lora_te2_"));
    assert_eq!(lora.parts().into_iter().collect::<Vec<_>>(), [Part::TextEncoder2]);
    assert_encodes(&merged(&clip, &[(&lora, 0.8)], Part::TextEncoder2), "second");
}

/// A tokenizer of bytes, and an encoder with its rows.
fn words(folder: &TempDir) -> (ClipTokenizer, ClipText, PathBuf) {
    let shown: Vec<u32> = (33..127).chain(161..173).chain(174..256).collect();
    let hidden = 256..512 - shown.len() as u32;
    let letters = shown.iter().copied().chain(hidden).map(|code| char::from_u32(code).unwrap());
    let mut tokens: Vec<String> = letters.map(String::from).collect();
    tokens.extend(tokens.clone().into_iter().map(|letter| letter + "</w>"));
    tokens.extend([ClipTokenizer::START.to_owned(), ClipTokenizer::END.to_owned()]);
    let ids: BTreeMap<String, u32> = tokens.into_iter().zip(0..).collect();
    fs::write(folder.path().join("vocab.json"), serde_json::to_string(&ids).unwrap()).unwrap();
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap().with_context(32).unwrap();
    let (clip, _) = clip(&tiny().with_vocabulary(514).with_context(32), folder.path());
    (tokenizer, clip, folder.path().join("learned.safetensors"))
}

fn inversion(path: &Path, sets: &[(&str, &[usize])]) -> TextualInversion {
    let sets = sets.iter().map(|(key, shape)| ((*key).to_owned(), hashed(key, shape, 0.5, 0.0)));
    write(path, &sets.collect());
    TextualInversion::open(path).unwrap()
}

#[test]
fn learned_words_equal_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, clip, path) = words(&folder);
    let cat = inversion(&path, &[("<cat>", &[3, 12])]);
    assert_eq!(cat.tokens(), ["<cat>"]);
    let (tokenizer, clip) = cat.add(tokenizer, clip).unwrap();
    let (tokenizer, clip) = inversion(&path, &[("<Dog>", &[12])]).add(tokenizer, clip).unwrap();
    let sks = inversion(&path.with_file_name("sks.safetensors"), &[("emb_params", &[2, 12]), ("step", &[1])]);
    let (tokenizer, clip) = sks.add(tokenizer, clip).unwrap();
    let sdxl = inversion(&path, &[("clip_l", &[2, 12]), ("clip_g", &[2, 16])]);
    let (tokenizer, clip) = sdxl.with_tokens(&["<s0>", "<s1>"]).add(tokenizer, clip).unwrap();
    assert_eq!((tokenizer.vocabulary(), clip.vocabulary()), (522, 522));

    let expected = fixture("inversion.safetensors");
    let prompts = [
        "a <cat> on a <Dog>",
        "<cat><cat> x<cat>y",
        "sks, <s0> <s1>",
        "A <DOG> and <S1>",
        "<cat>_1 and <cat",
        "plain",
    ];
    for (i, prompt) in prompts.into_iter().enumerate() {
        let tokens = tokenizer.tokenize(&[prompt], LongPrompt::Truncate).unwrap().tokens;
        let ids: Vec<u32> = expected[&format!("{i}.ids")].iter::<u32>().collect();
        assert_eq!(tokens.ids, ids, "{prompt}");
        let states = clip.states(&tokens);
        assert_near(&states.last.sum_dim(1).into_data(), &expected[&format!("{i}.sum")], prompt);
        assert_near(&states.pooled.into_data(), &expected[&format!("{i}.pooled")], prompt);
    }
    assert_eq!(expected.len(), 3 * prompts.len());
    let learning = tiny().with_vocabulary(522).with_context(32).init(&Device::flex().autodiff());
    let learning = inversion(&path, &[("<new>", &[12])]).add(tokenizer.clone(), learning).unwrap().1;
    let tokens = tokenizer.tokenize(&["plain"], LongPrompt::Truncate).unwrap().tokens;
    learning.states(&tokens).last.sum().backward(); // a row that was added can be learned
    // Whole words, whatever capitals the prompt has; diffusers would read the first vector only.
    assert_eq!(tokenizer.ids("<CAT>").unwrap(), [514, 515, 516]);
}

#[test]
fn learned_words_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, clip, path) = words(&folder);
    let refused = |inversion: &TextualInversion, tokenizer: &ClipTokenizer, clip: &ClipText| {
        let error = inversion.add(tokenizer.clone(), clip.clone()).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        error
    };
    let cat = inversion(&path, &[("<cat>", &[3, 12])]);
    let (with_cat, grown) = cat.add(tokenizer.clone(), clip.clone()).unwrap();
    let error = refused(&cat, &with_cat, &grown);
    assert!(error.ends_with("the word \"<cat>\" is in the vocabulary already, with id 514"), "{error}");
    let first = inversion(&path, &[("<cat>_1", &[12])]);
    assert!(refused(&first, &with_cat, &grown).contains("\"<cat>_1\" is in the vocabulary already"));
    let error = refused(&cat, &with_cat, &clip);
    assert!(error.contains("already"), "{error}");
    let error = refused(&inversion(&path, &[("<dog>", &[1, 12])]), &with_cat, &clip);
    assert!(error.ends_with("the tokenizer has 517 tokens, but the encoder 514 rows"), "{error}");
    let error = refused(&inversion(&path, &[("<dog>", &[2, 16])]), &tokenizer, &clip);
    assert!(error.ends_with("expected vectors of width 12, found <dog>: 16"), "{error}");
    let both = inversion(&path, &[("clip_g", &[2, 16]), ("clip_l", &[2, 24])]);
    let error = refused(&both, &tokenizer, &clip);
    assert!(error.ends_with("expected vectors of width 12, found clip_g: 16, clip_l: 24"), "{error}");
    let three = cat.clone().with_tokens(&["<a>", "<b>"]);
    let error = refused(&three, &tokenizer, &clip);
    assert!(error.ends_with("2 words for 3 vectors: expected one, or as many"), "{error}");

    let opened = |sets: &[(&str, &[usize])]| {
        let sets = sets.iter().map(|(key, shape)| ((*key).to_owned(), hashed(key, shape, 0.5, 0.0)));
        write(&path, &sets.collect());
        TextualInversion::open(&path).unwrap_err().to_string()
    };
    let error = opened(&[("<a>", &[12]), ("<b>", &[12])]);
    assert!(error.contains("expected one key, or emb_params, or clip_l and clip_g, found"), "{error}");
    assert!(opened(&[("<a>", &[1, 2, 12])]).ends_with("<a>: expected [W] or [N, W], found [1, 2, 12]"));
}
