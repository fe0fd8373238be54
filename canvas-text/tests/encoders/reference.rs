//! Answers and gradients of a model, and the fixtures they are compared with.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use canvas_core::weights;
use canvas_testkit::gradients_by_path;
pub use canvas_testkit::pattern;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, iter};

/// Tensors by their names.
pub type Answers = BTreeMap<String, Vec<f64>>;

/// A file of the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// As the fixtures of tokens: 32 bits of FNV-1a of the ids with commas between.
pub fn hashed(ids: &[u32]) -> String {
    let shown = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:08x}", shown.bytes().fold(0xcbf2_9ce4_8422_2325, mix) as u32)
}

pub fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Gradients of every parameter, as `grad.` and its path: whole, or its length and its products with 8 waves.
pub fn gradients<M: Module>(module: &M, loss: &Tensor<1>) -> Answers {
    let all = gradients_by_path(module, &loss.backward()).into_iter();
    all.map(|(path, grad)| {
        let grad: Vec<f64> = grad.iter::<f64>().collect();
        (format!("grad.{path}"), if grad.len() > 300 { summary(&grad, 8) } else { grad })
    })
    .collect()
}

/// The length, and products with so many waves.
pub fn summary(values: &[f64], waves: usize) -> Vec<f64> {
    let product = |wave: usize| {
        let rate = 0.37 + 0.21 * wave as f64;
        values.iter().enumerate().map(|(i, x)| x * (rate * i as f64 + wave as f64).sin()).sum()
    };
    let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    iter::once(length).chain((0..waves).map(product)).collect()
}

/// The module in 16 bits.
pub fn halved<M: Module>(module: M) -> M {
    struct Half;
    impl ModuleMapper for Half {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value.cast(FloatDType::BF16))
        }
    }
    module.map(&mut Half)
}

/// Holds an answer in 16 bits against that in 32.
pub fn near<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dtype(), DType::BF16);
    let off = (found.cast(FloatDType::F32) - expected.clone()).abs().max().into_scalar::<f32>();
    let off = off / expected.abs().max().into_scalar::<f32>();
    println!("off by {off:.1e} in 16 bits");
    assert!(off < 0.05, "off by {off:e}");
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
