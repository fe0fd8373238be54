//! CLIP's text transformer: parity with transformers (fixture by `tools/fixtures_clip.py`), sizes, configurations.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Gradients;
use canvas_core::nn::Activation;
use canvas_core::{TextEncoder, Tokens, weights};
use canvas_text::{ClipLayer, ClipText, ClipTextConfig, ClipVisionConfig, Pool};
use std::collections::BTreeMap;
use std::fs;
use std::iter;
use std::path::Path;

/// As `input_pattern` of tools/formula.py.
fn pattern<const D: usize>(dims: [usize; D], seed: f64, device: &Device) -> Tensor<D> {
    let values: Vec<f32> =
        (0..dims.iter().product()).map(|i: usize| (0.37 * i as f64 + seed).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

fn quick() -> ClipTextConfig {
    ClipTextConfig::new(32, 37, 5, 4, Activation::QuickGelu).with_vocabulary(1000).with_context(11)
}

fn projected() -> ClipTextConfig {
    ClipTextConfig::new(32, 37, 5, 4, Activation::Gelu)
        .with_vocabulary(1000)
        .with_context(11)
        .with_epsilon(1e-3)
        .with_projection(Some(24))
        .with_pool(Pool::First(7))
        .with_use_attention_mask(true)
}

fn tokens() -> Tokens {
    let ids = [
        [990, 5, 7, 120, 999, 0, 0, 0, 0],
        [990, 44, 999, 7, 7, 999, 3, 999, 7],
        [7, 999, 5, 999, 999, 999, 999, 999, 999],
    ];
    let mask = [5, 9, 2].into_iter().flat_map(|real| (0..9).map(move |i| i < real)).collect();
    Tokens { ids: ids.concat(), mask, length: 9 }
}

fn filled(config: &ClipTextConfig, device: &Device) -> ClipText {
    config.init(device).map(&mut Chirp::default())
}

/// The weights of the fixture: `sin(0.7 i + 0.013 i^2 + h(name))`, scaled.
#[derive(Default)]
struct Chirp(Vec<String>);

impl ModuleMapper for Chirp {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.0.join(".");
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let phase = (name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) % 1000) as f64;
        param.map(|old| {
            let dims = old.dims();
            let (centre, scale) = match (name.ends_with("gamma"), name.contains("embedding")) {
                (true, _) => (1.0, 0.1),
                (_, true) => (0.0, 1.0),
                _ => (0.0, (if D == 2 { dims[0] as f64 } else { 16.0 }).sqrt().recip()),
            };
            let wave = |i: usize| {
                let i = i as f64;
                (centre + scale * (0.7 * i + 0.013 * i * i + phase).sin()) as f32
            };
            let values = (0..dims.iter().product()).map(wave).collect();
            let value = Tensor::from_data(TensorData::new::<f32, _>(values, dims), &old.device());
            if old.is_require_grad() { value.require_grad() } else { value }
        })
    }
}

/// Every parameter's gradient by its path: whole, or its length and its products with 8 waves.
struct Grads<'a> {
    path: Vec<String>,
    all: &'a Gradients,
    found: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for Grads<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = param.val().grad(self.all).unwrap_or_else(|| panic!("no gradient: {:?}", self.path));
        let mut grad: Vec<f64> = grad.into_data().iter::<f64>().collect();
        if grad.len() > 400 {
            let product = |wave: usize| {
                let rate = 0.37 + 0.21 * wave as f64;
                grad.iter().enumerate().map(|(i, g)| g * (rate * i as f64 + wave as f64).sin()).sum()
            };
            let length = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
            grad = iter::once(length).chain((0..8).map(product)).collect();
        }
        self.found.insert(format!("grad.{}", self.path.join(".")), grad);
    }
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Gradients of every parameter.
fn gradients<M: Module>(module: &M, loss: &Tensor<1>) -> BTreeMap<String, Vec<f64>> {
    let all = loss.backward();
    let mut grads = Grads { path: Vec::new(), all: &all, found: BTreeMap::new() };
    module.visit(&mut grads);
    grads.found
}

/// All that the fixture holds of one case.
fn answers(config: &ClipTextConfig) -> BTreeMap<String, Vec<f64>> {
    let device = Device::flex().autodiff();
    let clip = filled(config, &device);
    let states = clip.states(&tokens());
    let fourth = states.hidden[4].clone();
    let loss = (states.last.clone() * pattern(states.last.dims(), 1.0, &device)).sum()
        + (states.pooled.clone() * pattern(states.pooled.dims(), 2.0, &device)).sum()
        + (fourth.clone() * pattern(fourth.dims(), 3.0, &device)).sum();
    let mut found = gradients(&clip, &loss);
    found.insert("last".into(), host(&states.last));
    found.insert("pooled".into(), host(&states.pooled));
    found.insert("hidden.4".into(), host(&fourth));
    let skipped = clip.with_layer(ClipLayer::sd(2)).unwrap().encode(&tokens());
    found.insert("skipped".into(), host(&skipped.tokens));
    found
}

/// Compares with a fixture, relative to the largest value of each tensor.
fn compare(file: &str, cases: &[(&str, BTreeMap<String, Vec<f64>>)]) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    let expected = weights::read_tensors(&fixture).unwrap();
    let (mut compared, mut worst) = (0, 0.0f64);
    for (label, found) in cases {
        for (name, found) in found {
            let expected: Vec<f64> = expected[&format!("{label}{name}")].iter::<f64>().collect();
            assert_eq!(found.len(), expected.len(), "{label}{name}");
            let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            // A constant added to every key changes nothing: its gradient is rounding on both sides.
            let scale = if name.ends_with("k_proj.bias") { 1.0 } else { largest };
            let pairs = found.iter().zip(&expected);
            let error = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / scale;
            assert!(error < 1e-5, "{label}{name}: relative error {error:.2e}");
            worst = worst.max(error);
            compared += 1;
        }
    }
    println!("{file}: {worst:.1e} at most in {compared} tensors");
    assert_eq!(compared, expected.len());
}

#[test]
fn equals_transformers() {
    compare("clip.safetensors", &[("quick.", answers(&quick())), ("projected.", answers(&projected()))]);
}

fn vision() -> ClipVisionConfig {
    ClipVisionConfig::new(32, 37, 3, 4, Activation::Gelu)
        .with_image(12)
        .with_patch(4)
        .with_epsilon(1e-3)
        .with_projection(Some(24))
}

#[test]
fn vision_equals_transformers() {
    let device = Device::flex().autodiff();
    let clip = vision().init(&device).map(&mut Chirp::default());
    let states = clip.states(pattern([2, 3, 12, 12], 1.0, &device));
    let (second, pooled) = (&states.hidden[2], &states.pooled);
    let loss = (pooled.clone() * pattern(pooled.dims(), 2.0, &device)).sum()
        + (second.clone() * pattern(second.dims(), 3.0, &device)).sum();
    let mut found = gradients(&clip, &loss);
    found.insert("last".into(), host(&states.last));
    found.insert("pooled".into(), host(pooled));
    found.insert("hidden.0".into(), host(&states.hidden[0]));
    found.insert("hidden.2".into(), host(second));
    compare("clip_vision.safetensors", &[("", found)]);
}

#[test]
fn an_image_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let clip = vision().init(&device).map(&mut Chirp::default());
    let images = pattern([2, 3, 12, 12], 1.0, &device);
    let together = clip.states(images.clone());
    for row in 0..2 {
        let alone = clip.states(images.clone().narrow(0, row, 1));
        let error = (alone.pooled - together.pooled.clone().narrow(0, row, 1)).abs().max();
        assert!(error.clone().into_scalar::<f32>() < 1e-5, "row {row}: {error}");
        let error = (alone.last - together.last.clone().narrow(0, row, 1)).abs().max();
        assert!(error.clone().into_scalar::<f32>() < 1e-5, "row {row}: {error}");
    }
}

#[test]
fn vision_configurations_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let json = r#"{"architectures": ["CLIPVisionModelWithProjection"], "hidden_act": "gelu", "hidden_size": 1280,
        "image_size": 224, "intermediate_size": 5120, "layer_norm_eps": 1e-05, "model_type": "clip_vision_model",
        "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 32, "patch_size": 14,
        "projection_dim": 1024}"#;
    fs::write(&path, json).unwrap();
    assert_eq!(ClipVisionConfig::from_file(&path).unwrap(), ClipVisionConfig::open_clip_h());
    fs::write(&path, json.replace("14", "15")).unwrap();
    let error = ClipVisionConfig::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("patch (15) must divide image (224)"), "{error}");
}

/// Published counts, read off the shapes: nothing is allocated.
#[test]
fn published_models_have_their_number_of_parameters() {
    for (config, count) in [
        (ClipTextConfig::clip_l(), 123_060_480),
        (ClipTextConfig::open_clip_h(), 340_387_840),
        (ClipTextConfig::open_clip_big_g(), 694_659_840),
    ] {
        assert_eq!(config.init(&Device::flex()).num_params(), count);
    }
    for (config, count) in
        [(ClipVisionConfig::open_clip_h(), 632_076_800), (ClipVisionConfig::open_clip_big_g(), 1_844_907_264)]
    {
        assert_eq!(config.init(&Device::flex()).num_params(), count);
    }
}

#[test]
fn later_tokens_and_other_rows_do_not_matter() {
    let device = Device::flex();
    let clip = filled(&quick(), &device);
    let together = clip.encode(&tokens()).tokens;
    let alone = clip.encode(&tokens().select(&[1])).tokens;
    assert!((alone - together.clone().narrow(0, 1, 1)).abs().max().into_scalar::<f32>() < 1e-5);
    let mut other = tokens();
    other.ids[5] = 321; // the sixth of the first row
    let moved = (clip.encode(&other).tokens - together).abs();
    let most = |from: usize, count: usize| {
        moved.clone().narrow(0, 0, 1).narrow(1, from, count).max().into_scalar::<f32>()
    };
    assert!(most(0, 5) == 0.0 && most(5, 1) > 1e-2);
}

#[test]
fn pipelines_take_their_own_layers() {
    let device = Device::flex();
    let clip = filled(&projected(), &device);
    let states = clip.states(&tokens());
    let encode = |layer| clip.clone().with_layer(layer).unwrap().encode(&tokens());
    let same = |a: Tensor<3>, b: &Tensor<3>| (a - b.clone()).abs().max().into_scalar::<f32>() == 0.0;
    assert!(same(encode(ClipLayer::last()).tokens, &states.last));
    assert!(same(encode(ClipLayer::sd(0)).tokens, &states.last));
    assert!(same(encode(ClipLayer::sdxl(0)).tokens, &states.hidden[4]));
    assert!(same(encode(ClipLayer::sdxl(2)).tokens, &states.hidden[2]));
    let text = encode(ClipLayer::sdxl(4));
    assert!(same(text.tokens, &states.hidden[0]));
    assert!(text.mask.all().into_scalar::<bool>());
    assert_eq!((text.pooled - states.pooled).abs().max().into_scalar::<f32>(), 0.0);
    let error = clip.with_layer(ClipLayer::sdxl(5)).unwrap_err();
    assert_eq!(error.to_string(), "6 layers of CLIP cannot be skipped: it has 5");
}

#[test]
fn configurations_are_read_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let read = |json: &str| {
        fs::write(&path, json).unwrap();
        ClipTextConfig::from_file(&path)
    };
    let sd15 = r#"{"architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0,
        "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
        "initializer_factor": 1.0, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12,
        "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768, "vocab_size": 49408}"#;
    assert_eq!(read(sd15).unwrap(), ClipTextConfig::clip_l());
    let projected = sd15.replace("CLIPTextModel", "CLIPTextModelWithProjection");
    assert_eq!(read(&projected).unwrap(), ClipTextConfig::clip_l().with_projection(Some(768)));
    let grown = read(&sd15.replace(r#""eos_token_id": 2"#, r#""eos_token_id": 49407"#)).unwrap();
    assert_eq!(grown.pool, Pool::First(49407));
    for (from, to, message) in [
        (r#""quick_gelu""#, r#""swish""#, "hidden_act: expected quick_gelu, gelu"),
        (r#""CLIPTextModel""#, r#""T5EncoderModel""#, "found [\"T5EncoderModel\"]"),
        (r#""clip_text_model""#, r#""clip""#, "model_type: expected \"clip_text_model\", found \"clip\""),
        ("768,", "-768,", "hidden_size: expected a positive size, found -768"),
        (r#"heads": 12"#, r#"heads": 7"#, "heads (7) must divide width (768)"),
        (r#""eos_token_id": 2"#, r#""eos_token_id": [2]"#, "eos_token_id: expected one token id, found [2]"),
        ("1e-05", "\"1e-05\"", "layer_norm_eps: expected a small positive number"),
        ("}", "", "EOF while parsing"),
    ] {
        let error = read(&sd15.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains("config.json: not the config.json of a CLIP model"), "{error}");
        assert!(error.contains(message), "{error}");
    }
    let missing = ClipTextConfig::from_file(&folder.path().join("none.json")).unwrap_err();
    assert!(missing.to_string().contains("none.json"));
}

#[test]
#[should_panic(expected = "rows of 12 tokens for a context of 11")]
fn a_row_longer_than_the_context_is_refused() {
    let tokens = Tokens { ids: vec![1; 12], mask: vec![true; 12], length: 12 };
    filled(&quick(), &Device::flex()).encode(&tokens);
}
