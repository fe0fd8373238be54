//! Single-stream transformers: Lumina 2, Z-Image, PRX. Parity with diffusers (fixtures by `tools/fixtures_lumina.py`),
//! published names, configurations and sizes, invariances, errors.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::config_file::ConfigFileError;
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::weights::{Rules, published_shapes};
use canvas_core::{Backbone, Condition, Text, params, trace};
use canvas_dit::{Lumina2Config, PrxConfig, ZImageConfig};
use canvas_testkit::{answers, chirped, compare, distance, panic_text, pattern, recomputed_equals_whole};
use std::collections::BTreeMap;
use std::path::Path;

const LUMINA2: &str = r#"{"_class_name": "Lumina2Transformer2DModel", "in_channels": 4, "hidden_size": 32, "num_layers": 2,
    "num_refiner_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 24, "axes_dim_rope": [4, 2, 2],
    "axes_lens": [6, 3, 4], "cap_feat_dim": 12}"#;
const Z_IMAGE: &str = r#"{"_class_name": "ZImageTransformer2DModel", "in_channels": 4, "dim": 32, "n_layers": 2,
    "n_refiner_layers": 2, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 12, "axes_dims": [8, 4, 4], "axes_lens": [70, 3, 4]}"#;
const PRX: &str = r#"{"_class_name": "PRXTransformer2DModel", "in_channels": 4, "context_in_dim": 12, "hidden_size": 16,
    "mlp_ratio": 2.5, "num_heads": 2, "depth": 2, "axes_dim": [4, 4]}"#;
const PRX_TOLD: &str = r#"{"_class_name": "PRXTransformer2DModel", "in_channels": 4, "context_in_dim": 12, "hidden_size": 16,
    "mlp_ratio": 2.5, "num_heads": 2, "depth": 2, "axes_dim": [4, 4], "bottleneck_size": 7, "resolution_embeds": true}"#;

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.75], device)
}

/// Two texts of so many tokens, of which these are real.
fn text(length: usize, real: [usize; 2], device: &Device) -> Text {
    let mask: Vec<bool> = real.iter().flat_map(|&real| (0..length).map(move |i| i < real)).collect();
    Text {
        tokens: pattern([2, length, 12], 3.0, device),
        mask: Tensor::from_data(TensorData::new(mask, [2, length]), device),
        pooled: Tensor::zeros([2, 1], device),
    }
}

fn latents(size: [usize; 2], device: &Device) -> Tensor<4> {
    pattern([2, 4, size[0], size[1]], 1.0, device)
}

/// Values, gradients of inputs and parameters.
fn parity<M: Module + Backbone<4, Cond = Text>>(
    name: &str,
    init: impl Fn(&Device) -> M,
    size: [usize; 2],
    (length, real): (usize, [usize; 2]),
) {
    let device = Device::flex().autodiff();
    let model = chirped(init(&device));
    let x = latents(size, &device).require_grad();
    let mut cond = text(length, real, &device);
    cond.tokens = cond.tokens.require_grad();
    let (mut found, grads) = answers(&model, model.forward(x.clone(), times(&device), &cond));
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("grad.tokens".into(), cond.tokens.grad(&grads).unwrap().into_data());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"));
    compare(&fixture, &found, [1e-5, 1e-4]);
}

/// Keys and shapes are those of diffusers' state_dict.
fn names<M: Module>(name: &str, model: &M, rules: &Rules) {
    let all: BTreeMap<String, BTreeMap<String, Vec<usize>>> =
        serde_json::from_str(include_str!("../fixtures/lumina_names.json")).unwrap();
    assert_eq!(published_shapes(model, rules), all[name], "{name}");
}

#[test]
fn lumina2_equals_diffusers() {
    let config = Lumina2Config::from_diffusers(LUMINA2).unwrap();
    parity("lumina2", |device| config.init(device), [4, 6], (5, [5, 3]));
    names("lumina2", &config.init(&Device::flex()), &config.published());
}

#[test]
fn z_image_equals_diffusers() {
    let config = ZImageConfig::from_diffusers(Z_IMAGE).unwrap();
    parity("z_image", |device| config.init(device), [4, 6], (5, [5, 3]));
    parity("z_image_long", |device| config.init(device), [4, 6], (37, [37, 3]));
    parity("z_image_full", |device| config.init(device), [6, 8], (32, [32, 31]));
    names("z_image", &config.init(&Device::flex()), &config.published());
}

#[test]
fn prx_equals_diffusers() {
    for (name, json) in [("prx", PRX), ("prx_told", PRX_TOLD)] {
        let config = PrxConfig::from_diffusers(json).unwrap();
        parity(name, |device| config.init(device), [4, 6], (5, [5, 3]));
        names(name, &config.init(&Device::flex()), &config.published());
    }
}

/// Counted by `counts` of the script.
#[test]
fn published_models_have_their_sizes() {
    let device = Device::flex();
    assert_eq!(Lumina2Config::lumina_image_2().init(&device).num_params(), 2_609_769_152);
    assert_eq!(ZImageConfig::z_image().init(&device).num_params(), 6_154_908_736);
    assert_eq!(PrxConfig::prx().init(&device).num_params(), 1_170_691_648);
    assert_eq!(PrxConfig::prx_dc_ae().init(&device).num_params(), 1_170_576_928);
}

/// What every one of them must do, whatever it is.
fn behaves<M: Module + Backbone<4, Cond = Text>>(init: impl Fn(&Device) -> M) {
    let device = Device::flex();
    let (model, x, both) = (chirped(init(&device)), latents([4, 6], &device), text(5, [5, 3], &device));
    let expected = model.forward(x.clone(), times(&device), &both);
    for row in 0..2 {
        let (x, time) = (x.clone().narrow(0, row, 1), times(&device).narrow(0, row, 1));
        let alone = model.forward(x.clone(), time.clone(), &both.select(&[row]));
        assert!(distance(alone, expected.clone().narrow(0, row, 1)) < 1e-5, "row {row}");
        // Without its padding, and with other numbers in it.
        let real = [5, 3][row];
        let one = both.select(&[row]);
        let short = Text {
            tokens: one.tokens.clone().narrow(1, 0, real),
            mask: one.mask.clone().int().narrow(1, 0, real).bool(),
            pooled: one.pooled.clone(),
        };
        let alone = model.forward(x, time, &short);
        assert!(distance(alone, expected.clone().narrow(0, row, 1)) < 1e-5, "row {row} without padding");
    }
    let hidden = both.mask.clone().bool_not().unsqueeze_dim::<3>(2).float();
    let other = Text { tokens: both.tokens.clone() + hidden * 100.0, ..both.clone() };
    assert!(distance(model.forward(x.clone(), times(&device), &other), expected.clone()) < 1e-5);

    let remembering = Remembering::new(&model);
    for _ in 0..2 {
        let found = remembering.forward(x.clone(), times(&device), &Tagged::new(both.clone(), 0));
        assert_eq!(distance(found, expected.clone()), 0.0);
    }
    assert!(remembering.kept() > 0);
    let names = trace::names(|| drop(model.forward(x.clone(), times(&device), &both)));
    assert!(names.iter().any(|name| name == "blocks.1"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("blocks.0.") && name.ends_with("map")), "{names:?}");

    let half = params::cast(model, FloatDType::BF16);
    let low = Text { tokens: both.tokens.clone().cast(FloatDType::BF16), ..both.clone() };
    let found = half.forward(x.cast(FloatDType::BF16), times(&device), &low).cast(FloatDType::F32);
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    assert!(distance(found, expected) / largest < 0.1);

    let message =
        panic_text(|| init(&device).forward(pattern([2, 3, 4, 6], 0.0, &device), times(&device), &both));
    assert!(message.contains('3') && message.contains('4'), "{message}");
    let message = panic_text(|| init(&device).forward(latents([5, 6], &device), times(&device), &both));
    assert!(message.contains("(5)"), "{message}");

    let device = device.autodiff();
    let (model, x, both) = (chirped(init(&device)), latents([4, 6], &device), text(5, [5, 3], &device));
    recomputed_equals_whole(&model, |model| model.forward(x.clone(), times(&device), &both));
}

#[test]
fn they_behave() {
    let lumina2 = Lumina2Config::from_diffusers(LUMINA2).unwrap();
    behaves(|device| lumina2.init(device));
    let z_image = ZImageConfig::from_diffusers(Z_IMAGE).unwrap();
    behaves(|device| z_image.init(device));
    for json in [PRX, PRX_TOLD] {
        let prx = PrxConfig::from_diffusers(json).unwrap();
        behaves(|device| prx.init(device));
    }
}

/// Where positions were trained no further, there are none.
#[test]
fn places_end() {
    let device = Device::flex();
    let net = Lumina2Config::from_diffusers(LUMINA2).unwrap().init(&device);
    let both = text(5, [5, 3], &device);
    let message = panic_text(|| net.forward(latents([8, 6], &device), times(&device), &both));
    assert!(message.contains('3') && message.contains('4'), "{message}");
    let long = text(9, [9, 3], &device);
    let message = panic_text(|| net.forward(latents([4, 6], &device), times(&device), &long));
    assert!(message.contains('9') || message.contains("10"), "{message}");
}

/// A configuration survives JSON, and one with an unknown field, another class or a value that is not honoured is refused
/// by name.
#[test]
fn configurations_are_read_strictly() {
    fn check<C: Config + std::fmt::Debug>(json: &str, read: impl Fn(&str) -> Result<C, ConfigFileError>) {
        let config = read(json).unwrap();
        let back = C::load_binary(&serde_json::to_vec(&config).unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{config:?}"));
        let refused = |text: &str| read(text).unwrap_err().to_string();
        assert!(refused(&json.replacen('{', "{\"odd\": 1,", 1)).contains("odd"));
        assert!(refused(&json.replace("Transformer2DModel", "Other")).contains("_class_name"));
        assert!(
            refused(&json.replace("\"in_channels\": 4", "\"in_channels\": \"four\"")).contains("in_channels")
        );
    }
    check(LUMINA2, Lumina2Config::from_diffusers);
    check(Z_IMAGE, ZImageConfig::from_diffusers);
    check(PRX, PrxConfig::from_diffusers);
}
