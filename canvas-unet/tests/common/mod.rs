//! What the parity tests share: inputs, gradients by name, comparison with a fixture.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Gradients;
use canvas_core::weights;
use std::collections::BTreeMap;
use std::path::Path;

/// As `input_pattern` of tools/formula.py.
pub fn pattern<const D: usize>(dims: [usize; D], seed: f64, device: &Device) -> Tensor<D> {
    let values: Vec<f32> =
        (0..dims.iter().product()).map(|i: usize| (0.37 * i as f64 + seed).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

/// Every trained parameter's gradient by its path.
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
        if !param.val().is_require_grad() {
            return;
        }
        let grad = param.val().grad(self.all).unwrap_or_else(|| panic!("no gradient: {:?}", self.path));
        self.found.insert(self.path.join("."), grad.into_data());
    }
}

/// `grad.NAME` of every parameter, and `norms`: the norm of each in the order of names.
pub fn gradients<M: Module>(module: &M, all: &Gradients) -> BTreeMap<String, TensorData> {
    let mut visitor = Grads { path: Vec::new(), all, found: BTreeMap::new() };
    module.visit(&mut visitor);
    let norm = |data: &TensorData| data.iter::<f64>().map(|x| x * x).sum::<f64>().sqrt() as f32;
    let norms: Vec<f32> = visitor.found.values().map(norm).collect();
    let count = norms.len();
    let mut found: BTreeMap<String, TensorData> =
        visitor.found.into_iter().map(|(name, data)| (format!("grad.{name}"), data)).collect();
    found.insert("norms".into(), TensorData::new(norms, [count]));
    found
}

/// Holds every tensor of a fixture against the one found, relative to its largest value; norms each to its own.
pub fn compare(fixture: &str, found: &BTreeMap<String, TensorData>, tolerance: f64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{fixture}.safetensors"));
    let mut worst = (0.0, String::new());
    for (name, expected) in weights::read_tensors(&path).unwrap() {
        let found = found.get(&name).unwrap_or_else(|| panic!("{name} was not computed"));
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let largest = expected.iter::<f64>().fold(0.0, |most: f64, x| most.max(x.abs()));
        // Below 1e-5 of the largest norm lie sums that cancel: the bias of keys has no gradient at all (the softmax
        // does not see it), so both sides hold roundings, 1e-7 here and 1e-15 in the reference's f64.
        let scale = |x: f64| if name == "norms" { x.abs().max(largest * 1e-5) } else { largest };
        let errors = found.iter::<f64>().zip(expected.iter::<f64>()).map(|(a, b)| (a - b).abs() / scale(b));
        let error = errors.fold(0.0, f64::max);
        println!("{fixture} {name}: {error:.1e}");
        if error.is_nan() || error > worst.0 {
            worst = (error, name);
        }
    }
    assert!(worst.0 < tolerance, "{fixture}: relative error {:.2e} in {}", worst.0, worst.1);
}
