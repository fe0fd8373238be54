//! Answers and gradients of a model, and the fixtures they are compared with.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Gradients;
use canvas_core::weights;
use std::collections::BTreeMap;
use std::iter;
use std::path::{Path, PathBuf};

/// Tensors by their names.
pub type Answers = BTreeMap<String, Vec<f64>>;

/// A file of the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// As `input_pattern` of tools/formula.py.
pub fn pattern<const D: usize>(dims: [usize; D], seed: f64, device: &Device) -> Tensor<D> {
    let values: Vec<f32> =
        (0..dims.iter().product()).map(|i: usize| (0.37 * i as f64 + seed).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

pub fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Gradients of every parameter, as `grad.` and its path.
pub fn gradients<M: Module>(module: &M, loss: &Tensor<1>) -> Answers {
    let all = loss.backward();
    let mut grads = Grads { path: Vec::new(), all: &all, found: BTreeMap::new() };
    module.visit(&mut grads);
    grads.found
}

/// Every parameter's gradient: whole, or its length and its products with 8 waves.
struct Grads<'a> {
    path: Vec<String>,
    all: &'a Gradients,
    found: Answers,
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
        if grad.len() > 300 {
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

/// Compares with a fixture, relative to the largest value of each tensor: values to 1e-5, gradients to 1e-4.
///
/// Names in `vanishing` have a gradient of nought, of which both sides compute roundings.
pub fn compare(file: &str, cases: &[(&str, Answers)], vanishing: &str) {
    let expected = weights::read_tensors(&fixture(file)).unwrap();
    let (mut compared, mut worst) = (0, [0.0f64; 2]);
    for (label, found) in cases {
        for (name, found) in found {
            let expected: Vec<f64> = expected[&format!("{label}{name}")].iter::<f64>().collect();
            assert_eq!(found.len(), expected.len(), "{label}{name}");
            let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            let scale = if name.ends_with(vanishing) { 1.0 } else { largest };
            let pairs = found.iter().zip(&expected);
            let error = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / scale;
            let kind = usize::from(name.starts_with("grad."));
            assert!(error < [1e-5, 1e-4][kind], "{label}{name}: relative error {error:.2e}");
            worst[kind] = worst[kind].max(error);
            compared += 1;
        }
    }
    println!("{file}: {:.1e} at most, gradients {:.1e}, in {compared} tensors", worst[0], worst[1]);
    assert_eq!(compared, expected.len());
}
