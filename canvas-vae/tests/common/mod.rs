//! What the parity tests share: inputs, gradients by name, comparison with a fixture, and with diffusers' names.
#![allow(dead_code, reason = "each test file takes what it needs")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Gradients;
use canvas_core::weights::{Rules, Source};
use canvas_core::{params, weights};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest difference from the fixture, relative to the fixture's largest value.
const TOLERANCE: f64 = 1e-4;

/// As `input_pattern` of tools/formula.py.
pub fn pattern(dims: [usize; 4], seed: f64, device: &Device) -> Tensor<4> {
    let values: Vec<f32> =
        (0..dims.iter().product()).map(|i: usize| (0.37 * i as f64 + seed).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

/// Every parameter's gradient by its path.
struct Grads<'a> {
    path: Vec<String>,
    all: &'a Gradients,
    found: BTreeMap<String, TensorData>,
}

impl ModuleVisitor for Grads<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad(self.all) {
            self.found.insert(format!("grad.{}", self.path.join(".")), grad.into_data());
        }
    }
}

/// `grad.NAME` of every parameter that has a gradient.
pub fn gradients<M: Module>(model: &M, all: &Gradients) -> BTreeMap<String, TensorData> {
    let mut visitor = Grads { path: Vec::new(), all, found: BTreeMap::new() };
    model.visit(&mut visitor);
    visitor.found
}

/// Compares everything a fixture holds with what was found.
pub fn compare_with(file: &str, found: &BTreeMap<String, TensorData>) {
    compare_within(file, found, TOLERANCE);
}

/// As [`compare_with`], with a tolerance of its own.
pub fn compare_within(file: &str, found: &BTreeMap<String, TensorData>, tolerance: f64) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    for (name, expected) in weights::read_tensors(&fixture).unwrap() {
        let found = &found[&name];
        assert_eq!(found.shape(), expected.shape(), "{file} {name}");
        let largest = expected.iter::<f64>().fold(0.0, |most: f64, x| most.max(x.abs()));
        let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
        let error = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest;
        println!("{file} {name}: {error:.1e}");
        assert!(error < tolerance, "{file} {name}: relative error {error:.2e}");
    }
}

/// What we save has diffusers' keys, all of them, each from the parameter that the parity tests compare it with.
pub fn saved_as<M: Module>(case: &str, module: impl Fn() -> M, rules: &Rules) {
    let all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(include_str!("../fixtures/names.json")).unwrap();
    for (key, ours) in &all[case] {
        assert_eq!(&rules.ours(key), ours, "{case}");
        assert_eq!(&rules.published(ours), key, "{case}");
    }
    let file = std::env::temp_dir().join(format!("canvas-vae-names-{case}-{}", std::process::id()));
    let net: M = params::fill_by_formula(module());
    weights::save_published(&net, &file, rules).unwrap();
    let source = Source::open(&file, None).unwrap();
    let keys: Vec<&str> = source.keys().collect();
    assert_eq!(keys, all[case].keys().collect::<Vec<_>>(), "{case}");

    let (back, report) = weights::load_published(module(), &source, rules).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(report.one_way.is_empty(), "{case}: {:?}", report.one_way);
    let values =
        |net: &M| params::named(net).into_iter().map(|param| (param.name, param.data)).collect::<Vec<_>>();
    assert_eq!(values(&back), values(&net), "{case}");
}
