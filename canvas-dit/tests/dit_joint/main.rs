//! Two-stream and cross-attention transformers: Stable Diffusion 3, PixArt, AuraFlow, Sana. Parity with diffusers (fixtures
//! by `tools/fixtures_joint.py`), names, configurations, sizes, invariances, errors.

mod auraflow;
mod pixart;
mod sana;
mod sd3;

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use canvas_core::config_file::ConfigFileError;
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::weights::{self, Rules, published_shapes};
use canvas_core::{Backbone, Condition, Text, params};
use canvas_testkit::{answers, chirped, compare, distance, pattern, recomputed_equals_whole};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.safetensors"))
}

/// A part of what the script wrote about `name`.
fn recorded(part: &str, name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../fixtures/joint.json")).unwrap();
    all[part][name].clone()
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.125, 0.5], device)
}

/// Two prompts, the second two tokens shorter.
fn text(pooled: usize, device: &Device) -> Text {
    let mask = [[true; 5], [true, true, true, false, false]];
    Text {
        tokens: pattern([2, 5, 12], 1.0, device),
        mask: Tensor::from_data(TensorData::from(mask), device),
        pooled: pattern([2, pooled], 3.0, device),
    }
}

fn latents([height, width]: [usize; 2], device: &Device) -> Tensor<4> {
    pattern([2, 4, height, width], 1.0, device)
}

struct Tenth;

impl ModuleMapper for Tenth {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value * 0.1)
    }
}

/// Values, gradients of inputs and parameters, also with blocks run again, and values where small numbers show the norms'
/// epsilons.
fn parity<M: Module>(
    name: &str,
    size: [usize; 2],
    pooled: usize,
    init: impl Fn(&Device) -> M,
    run: impl Fn(&M, Tensor<4>, Text) -> Tensor<4>,
) {
    let device = Device::flex().autodiff();
    let model = init(&device);
    let x = latents(size, &device).require_grad();
    let mut cond = text(pooled, &device);
    cond.tokens = cond.tokens.require_grad();
    if pooled > 0 {
        cond.pooled = cond.pooled.require_grad();
    }
    let (mut found, grads) = answers(&model, run(&model, x.clone(), cond.clone()));
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("grad.tokens".into(), cond.tokens.grad(&grads).unwrap().into_data());
    if pooled > 0 {
        found.insert("grad.pooled".into(), cond.pooled.grad(&grads).unwrap().into_data());
    }
    let quiet = Text { tokens: cond.tokens * 1e-3, pooled: cond.pooled * 1e-3, mask: cond.mask };
    found.insert("quiet".into(), run(&model.clone().map(&mut Tenth), x * 1e-3, quiet).into_data());
    let again = |model: &M| run(model, latents(size, &device), text(pooled, &device));
    recomputed_equals_whole(&model, again);
    let norms = without_roundings(name, &found["norms"]);
    found.insert("norms".into(), norms);
    compare(&fixture(name), &found, [1e-5, 1e-4]);
}

/// The norms, but the reference's where that is zero: a softmax does not see the bias of keys, so its gradient is 1e-15 in
/// the reference's f64, and what f32 has left over here, 1e-8 of the largest norm.
fn without_roundings(name: &str, found: &TensorData) -> TensorData {
    let expected = weights::read_tensors(&fixture(name)).unwrap()["norms"].clone();
    let largest = expected.iter::<f64>().fold(0.0, f64::max);
    let settle = |(found, expected): (f64, f64)| {
        let zero = expected < 1e-12 * largest;
        assert!(!zero || found < 1e-7 * largest, "{name}: a norm of {found} should be zero");
        if zero { expected } else { found }
    };
    let norms: Vec<f64> = found.iter::<f64>().zip(expected.iter::<f64>()).map(settle).collect();
    let count = norms.len();
    TensorData::new(norms, [count])
}

/// Every key and shape of diffusers' state_dict, and no other; and what is saved by these names is read back.
fn names<M: Module>(name: &str, init: impl Fn() -> M, rules: &Rules) {
    let expected: BTreeMap<String, Vec<usize>> = serde_json::from_value(recorded("names", name)).unwrap();
    let model = chirped(init());
    assert_eq!(published_shapes(&model, rules), expected, "{name}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    weights::save_published(&model, &file, rules).unwrap();
    let (back, _) =
        weights::load_published(init(), &weights::Source::open(&file, None).unwrap(), rules).unwrap();
    for (a, b) in params::named(&model).into_iter().zip(params::named(&back)) {
        assert_eq!((&a.name, a.data), (&b.name, b.data));
    }
}

fn debug(config: impl Debug) -> String {
    format!("{config:?}")
}

/// diffusers' configuration of `name` is read as this one, and one of another class or with an unknown field is not.
fn reads<C: Debug>(name: &str, expected: &C, read: impl Fn(&str) -> Result<C, ConfigFileError>) {
    let fields = recorded("configs", name);
    assert_eq!(debug(read(&fields.to_string()).unwrap()), debug(expected), "{name}");
    let with = |key: &str, value: Value| {
        let mut fields: Map<String, Value> = fields.as_object().unwrap().clone();
        fields.insert(key.into(), value);
        read(&Value::Object(fields).to_string()).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(with("odd", json!(1)), "the text: unknown fields odd");
    assert!(with("_class_name", json!("Other")).contains("_class_name"));
    // Every field is looked at.
    for key in fields.as_object().unwrap().keys().filter(|key| !key.starts_with('_')) {
        let error = with(key, json!({"odd": 1}));
        assert!(error.contains(key.as_str()), "{key}: {error}");
    }
}

/// What a configuration with another value is refused with.
fn refusal<C>(
    name: &str,
    key: &str,
    value: Value,
    read: impl Fn(&str) -> Result<C, ConfigFileError>,
) -> String {
    let mut fields = recorded("configs", name).as_object().unwrap().clone();
    fields.insert(key.into(), value);
    read(&Value::Object(fields).to_string()).map(|_| ()).unwrap_err().to_string()
}

fn counted(name: &str) -> usize {
    recorded("counts", name).as_u64().unwrap() as usize
}

/// A batch's rows do not see each other.
fn rows_alone<B: Backbone<4>>(net: &B, size: [usize; 2], cond: &B::Cond) {
    let device = Device::flex();
    let x = latents(size, &device);
    let all = net.forward(x.clone(), times(&device), cond);
    for row in 0..2 {
        let (x, time) = (x.clone().narrow(0, row, 1), times(&device).narrow(0, row, 1));
        let alone = net.forward(x, time, &cond.select(&[row]));
        assert!(distance(alone, all.clone().narrow(0, row, 1)) < 2e-5, "row {row}");
    }
    let twice = B::Cond::cat(&[cond.clone(), cond.select(&[1, 0])]);
    let x = Tensor::cat(vec![x.clone(), x.clone().flip([0])], 0);
    let both = net.forward(x, Tensor::cat(vec![times(&device), times(&device).flip([0])], 0), &twice);
    assert!(distance(both.clone().narrow(0, 0, 2), all.clone()) < 2e-5);
    assert!(distance(both.narrow(0, 2, 2), all.flip([0])) < 2e-5);
}

/// So many results that a run does not change are kept, and the bits are the same.
fn remembers<B: Backbone<4>>(net: B, size: [usize; 2], cond: &B::Cond, count: usize) {
    let device = Device::flex();
    let (x, time) = (latents(size, &device), times(&device));
    let expected = net.forward(x.clone(), time.clone(), cond).into_data();
    let net = Remembering::new(net);
    let cond = Tagged::new(cond.clone(), 0);
    assert_eq!(net.forward(x.clone(), time.clone(), &cond).into_data(), expected);
    assert_eq!(net.kept(), count);
    assert_eq!(net.forward(x.clone(), time.clone(), &cond).into_data(), expected);
    assert_eq!(net.kept(), count);
    let other = net.forward(x, time.flip([0]), &cond);
    assert_ne!(other.into_data(), expected);
}

/// A network in 16 bits answers in 16 bits, near what it answers in 32.
fn halves<B: Backbone<4> + Module>(
    net: B,
    size: [usize; 2],
    cond: &B::Cond,
    to_half: impl Fn(&B::Cond) -> B::Cond,
) {
    let device = Device::flex();
    let (x, time) = (latents(size, &device), times(&device));
    let expected = net.forward(x.clone(), time.clone(), cond);
    let net = params::cast(net, FloatDType::BF16);
    let found = net.forward(x.cast(DType::BF16), time, &to_half(cond));
    assert_eq!(found.dtype(), DType::BF16);
    let off = distance(found.cast(DType::F32), expected.clone()) / expected.abs().max().into_scalar::<f32>();
    assert!(off > 0.0 && off < 0.1, "relative distance {off}");
}

fn half_text(text: &Text) -> Text {
    let (tokens, pooled) = (text.tokens.clone().cast(DType::BF16), text.pooled.clone().cast(DType::BF16));
    Text { tokens, pooled, mask: text.mask.clone() }
}

/// The same text with other values where it is padding.
fn with_noise_in_padding(text: &Text) -> Text {
    let hidden = text.mask.clone().bool_not().unsqueeze_dim::<3>(2).float();
    Text { tokens: text.tokens.clone() + hidden * 100.0, ..text.clone() }
}

/// The same text with padding of zeros behind.
fn longer(text: &Text) -> Text {
    let device = text.tokens.device();
    let gone = Tensor::<2, Int>::zeros([2, 3], &device).bool();
    Text {
        tokens: Tensor::cat(vec![text.tokens.clone(), Tensor::zeros([2, 3, 12], &device)], 1),
        mask: Tensor::cat(vec![text.mask.clone(), gone], 1),
        pooled: text.pooled.clone(),
    }
}
