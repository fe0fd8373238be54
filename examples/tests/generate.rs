//! The program `generate` against diffusers: whole pipelines, latents for the same noise.
//!
//! `tests/fixtures/generate/README.md` says how the models, the noise and the expected latents were made. Print the table
//! with `cargo test -p canvas-examples --test generate -- --nocapture`.

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

/// Where we do not follow diffusers, and why; `docs/generate-parity.md` says more.
const DIFFER: [(&str, &str); 3] = [
    ("sd1-ddpm-large", "diffusers adds noise in a last step to clean data, if its training step is not 0"),
    ("sd1-image-lms", "diffusers takes the weights of an order for which a late start has no history"),
    ("sd1-inpaint4-kdpm2", "diffusers noises the picture to the step's end where the state is at its middle"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/generate")
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
    let count: usize = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    let value = |i: usize| {
        let v = 2.0 * uniform(name, i as u64) - 1.0;
        let value = match shape.len() {
            _ if key.ends_with("embedding.weight") || key.ends_with("class_embedding") => v,
            0 | 1 if key.ends_with(".weight") => 1.0 + 0.1 * v,
            0 | 1 => 0.1 * v,
            _ => v * (3.0 / fan_in as f64).sqrt(),
        };
        value as f32
    };
    TensorData::new((0..count).map(value).collect::<Vec<f32>>(), shape.to_vec())
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

/// Writes the models with their weights into a folder.
fn models(root: &Path) {
    for part in ["models", "adapters", "schedulers", "pictures"] {
        copy(&fixtures().join(part), &root.join(part));
    }
    for model in fs::read_dir(root.join("models")).unwrap() {
        for tokenizer in ["tokenizer", "tokenizer_2"] {
            let folder = model.as_ref().unwrap().path().join(tokenizer);
            for file in ["vocab.json", "merges.txt"] {
                if folder.is_dir() {
                    fs::copy(fixtures().join(file), folder.join(file)).unwrap();
                }
            }
        }
    }
    let weights: Value =
        serde_json::from_str(&fs::read_to_string(fixtures().join("weights.json")).unwrap()).unwrap();
    for file in weights.as_object().unwrap().keys() {
        let path = root.join(file);
        // A component is a folder; LoRAs and such are files.
        let folder = path.parent().unwrap();
        let component = if folder.ends_with("adapters") { path.file_stem() } else { folder.file_name() };
        let component = component.unwrap().to_string_lossy().into_owned();
        let tensor = |(key, leaf): (String, Value)| {
            let shape: Option<Vec<usize>> = serde_json::from_value(leaf.clone()).ok();
            let data = match (shape, leaf.as_f64()) {
                (Some(shape), _) => weight(&format!("{component}/{key}"), &key, &shape),
                (None, Some(number)) => TensorData::new(vec![number as f32], Vec::<usize>::new()),
                (None, None) => TensorData::new((0..77u8).map(f32::from).collect::<Vec<f32>>(), [1, 77]),
            };
            (key, data)
        };
        let tensors: Vec<(String, TensorData)> = keys(&weights, file).into_iter().map(tensor).collect();
        fs::create_dir_all(folder).unwrap();
        write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    }
}

fn noise(root: &Path, case: &Value) {
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
fn args(root: &Path, case: &Value, more: &[&str]) -> Args {
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

fn deviation(found: &TensorData, expected: &TensorData) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
    let largest = expected.iter::<f64>().fold(0.0f64, |most, value| most.max(value.abs()));
    // A NaN is further away than anything.
    pairs.map(|(a, b)| (a - b).abs() / largest).fold(0.0, |most, d| if d <= most { most } else { d })
}

#[test]
fn pipelines_give_diffusers_latents() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let cases: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(fixtures().join("cases.json")).unwrap()).unwrap();
    let expected = read_tensors(&fixtures().join("expected.safetensors")).unwrap();
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
        let purpose = DIFFER.iter().find(|(differing, _)| *differing == name).map_or("", |(_, why)| why);
        println!("| {name} | {off:.1e} | {:.1e} | {purpose}", case["f32_against_f64"].as_f64().unwrap());
        // One that agrees although it should differ is wrong, too: then the list is.
        if off.is_nan() || (off > TOLERANCE) == purpose.is_empty() {
            wrong.push(format!("{name}: {off:.1e}"));
        }
    }
    assert!(cases.len() > 80);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The sd1 model in a folder of its own, the arguments to draw with it, and what is said if it is changed.
struct Broken {
    root: tempfile::TempDir,
}

impl Broken {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        models(root.path());
        Self { root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn says(&self, more: &[&str], words: &[&str]) {
        let model = self.path("models/sd1");
        let out = self.path("out.png");
        let mut all =
            vec!["generate", "--model", model.to_str().unwrap(), "--prompt", "a cat", "--steps", "1"];
        all.extend(["--out", out.to_str().unwrap()]);
        all.extend(more);
        let args = Args::try_parse_from(all).unwrap();
        let error = format!("{:#}", run(&args).expect_err("this cannot be drawn"));
        for word in words {
            assert!(error.contains(word), "expected {word:?} in {error}");
        }
        assert!(!out.exists(), "a picture in spite of: {error}");
    }
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let broken = Broken::new();
    let text = |below: &str| broken.path(below).to_string_lossy().into_owned();
    broken.says(&["--height", "41"], &["--height 41", "multiples of 8", "40 or 48"]);
    broken.says(&["--height", "80000", "--width", "80000"], &["80000x80000", "GiB", "--ignore-memory"]);
    broken.says(&["--scheduler", "eular"], &["eular", "euler"]);
    broken.says(&["--image", &text("no.png")], &["no.png"]);
    broken.says(&["--image", &text("weights.json")], &["weights.json"]);
    broken.says(&["--noise", &text("no.safetensors")], &["no.safetensors"]);
    broken.says(&["--clip-skip", "40"], &["40"]);
    let lora = text("adapters/lora_kohya_ldm_xl.safetensors");
    broken.says(&["--lora", &lora], &["lora_kohya_ldm_xl.safetensors"]);
    let (net, hint) = (text("adapters/controlnet_sdxl"), text("pictures/pose.png"));
    broken.says(&["--controlnet", &net, "--control-image", &hint], &["controlnet_sdxl", "another UNet"]);
    let (adapter, encoder) = (text("adapters/ip_sdxl.safetensors"), text("adapters/image_encoder"));
    let picture = text("pictures/style.png");
    let ip = ["--ip-adapter", &adapter, "--image-encoder", &encoder, "--ip-image", &picture];
    broken.says(&ip, &["ip_sdxl.safetensors", "expected"]);
    broken.says(&["--save-latents", &text("no-folder/l.safetensors")], &["no-folder"]);

    let noise = broken.path("noise.safetensors");
    write_tensors(&noise, &[("latents".into(), TensorData::zeros::<f32, _>([1, 4, 2, 2]))], &BTreeMap::new())
        .unwrap();
    broken.says(&["--noise", noise.to_str().unwrap()], &["latents", "[1, 4, 6, 6]", "[1, 4, 2, 2]"]);
    write_tensors(&noise, &[("latent".into(), TensorData::zeros::<f32, _>([1]))], &BTreeMap::new()).unwrap();
    broken.says(&["--noise", noise.to_str().unwrap()], &["latent:", "latents"]);

    let mask = broken.path("black.png");
    image::GrayImage::new(8, 8).save(&mask).unwrap();
    broken.says(&["--image", &picture, "--mask", mask.to_str().unwrap()], &["black.png", "black everywhere"]);
}

#[test]
fn a_broken_model_is_named() {
    let broken = Broken::new();
    let weights = broken.path("models/sd1/unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 10]).unwrap();
    broken.says(&[], &["diffusion_pytorch_model.safetensors", "truncated"]);

    let mut tensors: Vec<(String, TensorData)> = {
        fs::write(&weights, &whole).unwrap();
        read_tensors(&weights).unwrap().into_iter().collect()
    };
    let bias = tensors.iter_mut().find(|(key, _)| key == "conv_in.bias").unwrap();
    bias.1 = TensorData::zeros::<f32, _>([3]);
    write_tensors(&weights, &tensors, &BTreeMap::new()).unwrap();
    broken.says(&[], &["conv_in.bias", "expected shape [8]", "found [3]"]);

    let index = broken.path("models/sd1/model_index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("StableDiffusionPipeline", "StableDifusionPipeline")).unwrap();
    broken.says(&[], &["StableDifusionPipeline", "StableDiffusionPipeline"]);
    fs::write(&index, &text).unwrap();
    fs::remove_dir_all(broken.path("models/sd1/vae")).unwrap();
    broken.says(&[], &["vae", "no folder"]);
    fs::remove_file(&index).unwrap();
    broken.says(&[], &["model_index.json"]);
}

#[test]
fn a_picture_carries_its_recipe_and_a_batch_is_its_pictures_alone() {
    let broken = Broken::new();
    let (model, out) = (broken.path("models/sd1"), broken.path("out.png"));
    let draw = |prompts: &[&str], seed: &str, latents: &Path| {
        let mut all = vec!["generate", "--model", model.to_str().unwrap(), "--steps", "3", "--seed", seed];
        all.extend([
            "--out",
            out.to_str().unwrap(),
            "--preview",
            "--save-latents",
            latents.to_str().unwrap(),
        ]);
        for prompt in prompts {
            all.extend(["--prompt", prompt]);
        }
        run(&Args::try_parse_from(all).unwrap()).unwrap();
        read_tensors(latents).unwrap().remove("latents").unwrap()
    };
    let latents = broken.path("latents.safetensors");
    let both = draw(&["a cat", "a red house"], "7", &latents);
    assert!(broken.path("out-0.png").exists() && broken.path("out-1.png").exists());
    let alone = draw(&["a red house"], "8", &latents);
    let second = TensorData::new(both.iter::<f32>().skip(4 * 36).collect::<Vec<f32>>(), [1, 4, 6, 6]);
    assert!(deviation(&second, &alone) < 1e-5, "{:.1e}", deviation(&second, &alone));

    let file = std::io::BufReader::new(fs::File::open(&out).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let texts: Vec<String> = reader.info().utf8_text.iter().map(|text| text.get_text().unwrap()).collect();
    let recipe = texts.join("\n");
    for word in ["canvas", "a red house", "seed 8", "PNDMScheduler", "steps 3"] {
        assert!(recipe.contains(word), "{recipe}");
    }
    assert!(broken.path("out-preview.png").exists());
}
