//! SigLIP's vision transformer and its pictures against transformers (fixtures by `tools/fixtures_siglip.py`).

use crate::reference::{compare, fixture, gradients, halved, host, near, pattern, read_json};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{self, Source};
use canvas_testkit::chirped;
use canvas_text::{SiglipImageProcessor, SiglipVisionConfig};
use image::RgbImage;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Patches of 4 leave one pixel of the 13.
fn config() -> SiglipVisionConfig {
    SiglipVisionConfig::new(32, 37, 3, 4).with_image(13).with_patch(4).with_epsilon(1e-3)
}

fn notes() -> Value {
    read_json(&fixture("siglip.json"))
}

#[test]
fn equals_transformers() {
    let device = Device::flex().autodiff();
    let siglip = chirped(config().init(&device));
    let states = siglip.states(pattern([2, 3, 13, 13], 1.0, &device));
    let pooled = siglip.pooled(states.clone()).unwrap();
    let loss = (states.clone() * pattern(states.dims(), 2.0, &device)).sum()
        + (pooled.clone() * pattern(pooled.dims(), 3.0, &device)).sum();
    let mut found = gradients(&siglip, &loss);
    found.insert("last".into(), host(&states));
    found.insert("pooled".into(), host(&pooled));
    // A constant added to every key changes nothing.
    let (keys, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
        found.into_iter().partition(|(name, _)| name.ends_with("k_proj.bias") || name.ends_with("key.bias"));
    assert!(keys.values().flatten().all(|gradient| gradient.abs() < 1e-4), "{keys:?}");
    compare("siglip.safetensors", &[("", rest)], "none");
}

#[test]
fn runs_in_16_bits() {
    let siglip = chirped(config().init(&Device::flex()));
    let (half, images) = (halved(siglip.clone()), pattern([2, 3, 13, 13], 1.0, &Device::flex()));
    let (found, expected) = (half.states(images.clone()), siglip.states(images));
    near(found.clone(), expected.clone());
    near(half.pooled(found).unwrap(), siglip.pooled(expected).unwrap());
}

#[test]
fn published_models_have_their_number_of_parameters() {
    let base = SiglipVisionConfig::new(768, 3072, 12, 12);
    for (config, count) in [(SiglipVisionConfig::so400m_384(), 428_225_600), (base, 92_884_224)] {
        assert_eq!(config.init(&Device::flex()).num_params(), count);
    }
}

/// As written since version 5.6, without a name in front; and as before, with it.
#[test]
fn configurations_and_names_are_those_of_transformers() {
    let saved = notes();
    let text = saved["config"].to_string();
    assert_eq!(SiglipVisionConfig::from_transformers(&text).unwrap(), config());
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(saved["shapes"].clone()).unwrap();
    let old = shapes.into_iter().map(|(name, shape)| (format!("vision_model.{name}"), shape)).collect();
    assert_eq!(weights::published_shapes(&config().init(&Device::flex()), &config().published()), old);
}

#[test]
fn files_of_all_versions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let siglip = chirped(config().init(&Device::flex()));
    weights::save_published(&siglip, &path, &config().published()).unwrap();
    let images = pattern([1, 3, 13, 13], 1.0, &Device::flex());
    let answer = |siglip: &canvas_text::SiglipVision| {
        let states = siglip.states(images.clone());
        host(&siglip.pooled(states).unwrap())
    };
    for new in [false, true] {
        if new {
            let tensors = weights::read_tensors(&path).unwrap().into_iter();
            let short = |name: String| name.strip_prefix("vision_model.").unwrap().to_owned();
            let mut tensors: BTreeMap<String, TensorData> =
                tensors.map(|(name, value)| (short(name), value)).collect();
            tensors.insert("text_model.final_layer_norm.bias".into(), TensorData::new(vec![1.0f32], [1]));
            weights::write_tensors(&path, &tensors.into_iter().collect::<Vec<_>>(), &BTreeMap::new())
                .unwrap();
        }
        let source = Source::open(&path, None).unwrap();
        let empty = config().init(&Device::flex());
        let (found, report) = weights::load_published(empty, &source, &config().published()).unwrap();
        assert_eq!(answer(&found), answer(&siglip));
        assert_eq!(report.one_way.is_empty(), !new);
        // Without a head, its weights are left out.
        let bare = config().with_head(false);
        let (found, report) =
            weights::load_published(bare.init(&Device::flex()), &source, &bare.published()).unwrap();
        assert!(found.pooled(found.states(images.clone())).is_none());
        assert!(report.ignored.iter().any(|(key, _)| key.ends_with("head.probe")));
    }
}

#[test]
fn configurations_are_read_strictly() {
    let redux = json!({"architectures": ["SiglipVisionModel"], "attention_dropout": 0.0,
        "hidden_act": "gelu_pytorch_tanh", "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
        "layer_norm_eps": 1e-6, "model_type": "siglip_vision_model", "num_attention_heads": 16,
        "num_channels": 3, "num_hidden_layers": 27, "patch_size": 14, "torch_dtype": "bfloat16",
        "transformers_version": "4.47.0.dev0"});
    let read = |json: &Value| SiglipVisionConfig::from_transformers(&json.to_string());
    assert_eq!(read(&redux).unwrap(), SiglipVisionConfig::so400m_384());
    let whole = json!({"model_type": "siglip", "text_config": {}, "vision_config": redux});
    assert_eq!(read(&whole).unwrap(), SiglipVisionConfig::so400m_384());
    for (field, value, message) in [
        ("model_type", json!("clip"), "model_type: expected \"siglip_vision_model\", found \"clip\""),
        ("hidden_act", json!("relu"), "hidden_act: expected gelu_pytorch_tanh"),
        ("num_attention_heads", json!(7), "heads (7) must divide width (1152)"),
        ("patch_size", json!(400), "patch (400) must not be larger than image (384)"),
        ("num_frames", json!(8), "unknown fields num_frames"),
    ] {
        let mut changed = redux.clone();
        changed[field] = value;
        let error = read(&changed).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(read(&json!({"model_type": "siglip"})).unwrap_err().to_string().contains("vision_config"));
}

#[test]
#[should_panic(expected = "images of 12x13 for an encoder of 13x13")]
fn images_of_another_size_are_refused() {
    config().init(&Device::flex()).states(Tensor::zeros([1, 3, 12, 13], &Device::flex()));
}

/// Noise by the formula of the fixture.
fn picture(width: u32, height: u32) -> RgbImage {
    let bytes = (0..u64::from(width * height * 3)).map(|i| ((i * 2_654_435_761) >> 13) as u8);
    RgbImage::from_raw(width, height, bytes.collect()).unwrap()
}

#[test]
fn pictures_are_those_of_transformers() {
    let saved = notes();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    for case in saved["pictures"].as_array().unwrap() {
        let size = [number(&case["size"][0]), number(&case["size"][1])];
        let processor = SiglipImageProcessor { size, ..SiglipImageProcessor::default() };
        let picture = picture(number(&case["width"]) as u32, number(&case["height"]) as u32);
        let found = processor.process(&[picture], &Device::flex());
        assert_eq!(found.dims(), [1, 3, size[0], size[1]]);
        let values: Vec<f64> = found.clone().slice([0..1, 0..3, 0..1, 0..4]).into_data().iter().collect();
        for (value, expected) in values.iter().zip(case["first"].as_array().unwrap()) {
            assert!((value - expected.as_f64().unwrap()).abs() < 1e-6, "{value}, expected {expected}");
        }
        let units = (found * 0.5 + 0.5) * 255.0;
        let bytes: Vec<f32> = units.permute([0, 2, 3, 1]).into_data().iter().collect();
        let bytes: String = bytes.iter().map(|byte| format!("{:02x}", byte.round() as u8)).collect();
        assert_eq!(bytes, case["bytes"].as_str().unwrap(), "{}x{}", case["width"], case["height"]);
    }
}

#[test]
fn processors_are_read_strictly() {
    let saved = notes();
    let read = |json: &Value| SiglipImageProcessor::from_transformers(&json.to_string());
    assert_eq!(read(&saved["processor"]).unwrap(), SiglipImageProcessor::default());
    let redux = json!({"do_convert_rgb": null, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor", "resample": 3,
        "rescale_factor": 0.003_921_568_627_450_98, "size": {"height": 384, "width": 384}});
    assert_eq!(read(&redux).unwrap().size, [384, 384]);
    for (field, value, message) in [
        ("do_resize", json!(false), "do_resize: expected true, found false"),
        ("resample", json!(2), "resample: expected 3, found 2"),
        ("rescale_factor", json!(1.0), "rescale_factor: expected 1/255, found 1.0"),
        ("size", json!({"shortest_edge": 9}), "size: expected a height and a width"),
        ("image_std", json!([0.5]), "image_std: expected three numbers"),
        ("image_std", json!([0.5, 0.0, 0.5]), "size and image_std must not be 0"),
        ("image_processor_type", json!("CLIPImageProcessor"), "expected \"SiglipImageProcessor\""),
        ("do_flip", json!(true), "unknown fields do_flip"),
    ] {
        let mut changed = redux.clone();
        changed[field] = value;
        let error = read(&changed).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
