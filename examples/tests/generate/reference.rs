//! The models and cases of a fixture: files by formula, and how far an answer is from what diffusers answered.

use burn::tensor::TensorData;
use canvas_core::weights::{read_tensors, write_tensors};
use canvas_examples::generate::{args::Args, run::run};
use clap::Parser;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// In f32, `max |a - b| / max |b|`.
const TOLERANCE: f64 = 1e-4;

/// A folder of `tests/fixtures` with models, cases and what diffusers answered.
pub fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A uniform number in [0, 1) that is a function of a name and a place.
fn uniform(name: &str, index: u64) -> f64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut z = hash.wrapping_add(index).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn weight(name: &str, key: &str, shape: &[usize]) -> TensorData {
    let name = &embedder(name);
    let count: usize = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    let value = |i: usize| {
        let v = 2.0 * uniform(name, i as u64) - 1.0;
        let value = match shape.len() {
            _ if key.ends_with("embedding.weight") || key.ends_with("class_embedding") => v,
            _ if key.ends_with("running_var") => 1.0 + 0.5 * v,
            0 | 1 if key.ends_with(".weight") => 1.0 + 0.1 * v,
            0 | 1 => 0.1 * v,
            _ => v * (3.0 / fan_in as f64).sqrt(),
        };
        value as f32
    };
    TensorData::new((0..count).map(value).collect::<Vec<f32>>(), shape.to_vec())
}

/// DiT's blocks have a copy each of block 0's embedder of time and class.
fn embedder(name: &str) -> String {
    match name.split_once("transformer_blocks.").zip(name.split_once(".norm1.emb.")) {
        Some(((before, _), (_, behind))) => format!("{before}transformer_blocks.0.norm1.emb.{behind}"),
        None => name.to_owned(),
    }
}

/// The position table of Stable Diffusion 3, by its transformer's configuration.
fn sincos(transformer: &Path) -> TensorData {
    let config: Value =
        serde_json::from_str(&fs::read_to_string(transformer.join("config.json")).unwrap()).unwrap();
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (side, base) = (number("pos_embed_max_size"), number("sample_size") / number("patch_size"));
    let width = number("num_attention_heads") * number("attention_head_dim");
    let mut values = Vec::with_capacity(side * side * width);
    for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
        for place in [x, y] {
            let place = (place * base) as f64 / side as f64;
            let angle = |i: usize| place * 10000f64.powf(-4.0 * i as f64 / width as f64);
            values.extend((0..width / 4).map(|i| angle(i).sin() as f32));
            values.extend((0..width / 4).map(|i| angle(i).cos() as f32));
        }
    }
    TensorData::new(values, [1, side * side, width])
}

/// Every leaf of a tree of keys.
fn leaves(tree: &Value, prefix: &str, found: &mut BTreeMap<String, Value>) {
    match tree {
        Value::Object(branches) => {
            for (name, branch) in branches {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                leaves(branch, &key, found);
            }
        }
        leaf => drop(found.insert(prefix.to_owned(), leaf.clone())),
    }
}

fn keys(weights: &Value, file: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let tree = &weights[file];
    match tree["like"].as_str() {
        Some(other) => {
            found = keys(weights, other);
            leaves(&tree["changes"], "", &mut found);
        }
        None => leaves(tree, "", &mut found),
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Tokenizers are stored once, whatever the number of models that have them.
fn tokenizers(fixtures: &Path, root: &Path) {
    let map = fixtures.join("tokenizers.json");
    if !map.exists() {
        for model in fs::read_dir(root.join("models")).unwrap() {
            for tokenizer in ["tokenizer", "tokenizer_2"] {
                let folder = model.as_ref().unwrap().path().join(tokenizer);
                for file in ["vocab.json", "merges.txt"] {
                    if folder.is_dir() {
                        fs::copy(fixtures.join(file), folder.join(file)).unwrap();
                    }
                }
            }
        }
        return;
    }
    let map: BTreeMap<String, String> = serde_json::from_str(&fs::read_to_string(map).unwrap()).unwrap();
    for (to, from) in map {
        copy(&fixtures.join("tokenizers").join(from), &root.join(to));
    }
}

/// Writes the models with their weights into a folder.
pub fn models(fixtures: &Path, root: &Path) {
    for part in ["models", "adapters", "schedulers", "pictures"] {
        if fixtures.join(part).exists() {
            copy(&fixtures.join(part), &root.join(part));
        }
    }
    tokenizers(fixtures, root);
    let weights: Value =
        serde_json::from_str(&fs::read_to_string(fixtures.join("weights.json")).unwrap()).unwrap();
    for file in weights.as_object().unwrap().keys() {
        let path = root.join(file);
        // A component is a folder; LoRAs and such are files.
        let folder = path.parent().unwrap();
        let component = if folder.ends_with("adapters") { path.file_stem() } else { folder.file_name() };
        let component = component.unwrap().to_string_lossy().into_owned();
        let tensor = |(key, leaf): (String, Value)| {
            let shape: Option<Vec<usize>> = serde_json::from_value(leaf.clone()).ok();
            let data = match (shape, leaf.as_f64(), leaf.as_str()) {
                (Some(shape), ..) => weight(&format!("{component}/{key}"), &key, &shape),
                (None, Some(number), _) => TensorData::new(vec![number as f32], Vec::<usize>::new()),
                (None, None, Some("count")) => TensorData::new(vec![0i64], Vec::<usize>::new()),
                (None, None, Some("sincos2d")) => sincos(folder),
                _ => TensorData::new((0..77u8).map(f32::from).collect::<Vec<f32>>(), [1, 77]),
            };
            (key, data)
        };
        let tensors: Vec<(String, TensorData)> = keys(&weights, file).into_iter().map(tensor).collect();
        fs::create_dir_all(folder).unwrap();
        write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    }
}

/// Writes the noise of a case.
pub fn noise(root: &Path, case: &Value) {
    let tensor = |(key, shape): (&String, &Value)| {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        let name = format!("noise/{key}");
        let value = |i: usize| (0..12).map(|j| uniform(&name, (12 * i + j) as u64)).sum::<f64>() - 6.0;
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| value(i) as f32).collect();
        (key.clone(), TensorData::new(values, shape))
    };
    let tensors: Vec<(String, TensorData)> = case["noise"].as_object().unwrap().iter().map(tensor).collect();
    let folder = root.join("cases").join(case["name"].as_str().unwrap());
    fs::create_dir_all(&folder).unwrap();
    write_tensors(&folder.join("noise.safetensors"), &tensors, &BTreeMap::new()).unwrap();
}

/// The arguments of a case, its paths below `root`.
pub fn args(root: &Path, case: &Value, more: &[&str]) -> Args {
    let below = |text: &str| match root.join(text) {
        path if ["models/", "adapters/", "schedulers/", "pictures/", "cases/"]
            .iter()
            .any(|p| text.starts_with(p)) =>
        {
            path.to_string_lossy().into_owned()
        }
        _ => text.to_owned(),
    };
    let given = case["generate_args"].as_array().unwrap().iter().map(|text| below(text.as_str().unwrap()));
    let all =
        ["generate".to_owned()].into_iter().chain(given).chain(more.iter().map(|&text| text.to_owned()));
    Args::try_parse_from(all).unwrap()
}

/// `max |a - b| / max |b|`.
pub fn deviation(found: &TensorData, expected: &TensorData) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
    let largest = expected.iter::<f64>().fold(0.0f64, |most, value| most.max(value.abs()));
    // A NaN is further away than anything.
    pairs.map(|(a, b)| (a - b).abs() / largest).fold(0.0, |most, d| if d <= most { most } else { d })
}

/// Draws every case, prints a row for each, and holds them to the tolerance but for those that differ on purpose.
pub fn pipelines_give_diffusers_latents(folder: &str, at_least: usize, differ: &[(&str, &str)]) {
    let (root, fixtures) = (tempfile::tempdir().unwrap(), fixtures(folder));
    models(&fixtures, root.path());
    let cases: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(fixtures.join("cases.json")).unwrap()).unwrap();
    let expected = read_tensors(&fixtures.join("expected.safetensors")).unwrap();
    let saved = root.path().join("latents.safetensors");
    let mut wrong = Vec::new();
    println!("| case | deviation from diffusers 0.42.1 | diffusers' own f32 from f64 | |\n|---|---|---|---|");
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        noise(root.path(), case);
        let result = run(&args(root.path(), case, &["--save-latents", saved.to_str().unwrap()]));
        if let Err(error) = result {
            wrong.push(format!("{name}: {error:#}"));
            continue;
        }
        let found = read_tensors(&saved).unwrap();
        let off = deviation(&found["latents"], &expected[name]);
        let purpose = differ.iter().find(|(differing, _)| *differing == name).map_or("", |(_, why)| why);
        println!("| {name} | {off:.1e} | {:.1e} | {purpose}", case["f32_against_f64"].as_f64().unwrap());
        // One that agrees although it should differ is wrong, too: then the list is.
        if off.is_nan() || (off > TOLERANCE) == purpose.is_empty() {
            wrong.push(format!("{name}: {off:.1e}"));
        }
    }
    assert!(cases.len() >= at_least);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
