//! Class-conditional transformers: parity with torch (fixtures by `tools/fixtures_research.py`), names, sizes, errors.

#![allow(clippy::needless_pass_by_value, reason = "tests hand over what they have made")]

mod ddt;
mod dit;
mod jit;
mod lightning;
mod sit;
mod text;
mod u_vit;
mod variance;

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::weights::{self, Rules};
use canvas_core::{Backbone, Class, Condition, Text};
use canvas_testkit::{answers, compare, distance, pattern, recomputed_equals_whole, two_prompts as text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Values, gradients.
const TOLERANCE: [f64; 2] = [1e-5, 1e-4];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.8], device)
}

/// The second is "no class".
fn labels(device: &Device) -> Class {
    Class::new(&[3, 5], device)
}

/// Holds a network's answer, all its gradients and the input's against a fixture; `more` are further inputs. Where there are
/// none, whose graphs would be in the way, gradients are also those with blocks run again.
fn equals<M: Backbone<4> + Module>(
    name: &str,
    model: &M,
    x: Tensor<4>,
    cond: &M::Cond,
    more: &[(&str, Tensor<2>)],
) {
    let device = x.device();
    if more.is_empty() {
        recomputed_equals_whole(model, |model| model.forward(x.clone(), times(&device), cond));
    }
    let x = x.require_grad();
    let (mut found, all) = answers(model, model.forward(x.clone(), times(&device), cond));
    found.insert("grad.input.x".into(), x.grad(&all).unwrap().into_data());
    for (input, value) in more {
        found.insert(format!("grad.input.{input}"), value.grad(&all).unwrap().into_data());
    }
    compare(&fixture(&format!("{name}.safetensors")), &found, TOLERANCE);
}

/// The authors' names and shapes, as `tools/fixtures_research.py` lists them.
fn names(of: &str) -> BTreeMap<String, Vec<usize>> {
    let json = std::fs::read_to_string(fixture("research_names.json")).unwrap();
    let mut all: BTreeMap<String, BTreeMap<String, Vec<usize>>> = serde_json::from_str(&json).unwrap();
    all.remove(of).unwrap()
}

fn has_the_names_of<M: Module>(of: &str, model: &M, rules: &Rules) {
    assert_eq!(weights::published_shapes(model, rules), names(of), "{of}");
}

/// A sample by itself is what it is in a batch.
fn rows_stand_alone<M: Backbone<4>>(model: &M, x: Tensor<4>, cond: &M::Cond) {
    let times = times(&x.device());
    let whole = model.forward(x.clone(), times.clone(), cond);
    for row in 0..2 {
        let [x, whole] = [&x, &whole].map(|all| all.clone().narrow(0, row, 1));
        let alone = model.forward(x, times.clone().narrow(0, row, 1), &cond.select(&[row]));
        assert!(distance(alone, whole) < 1e-5, "row {row}");
    }
}

/// Another time and another condition each change a sample's answer.
fn is_told_both<M: Backbone<4>>(model: &M, x: Tensor<4>, cond: &M::Cond) {
    let x = x.narrow(0, 0, 1).repeat_dim(0, 2);
    let (same, times) = (Tensor::from_floats([0.25, 0.25], &x.device()), times(&x.device()));
    let differ = |time: &Tensor<1>, rows: [usize; 2]| {
        let answer = model.forward(x.clone(), time.clone(), &cond.select(&rows));
        distance(answer.clone().narrow(0, 0, 1), answer.narrow(0, 1, 1))
    };
    assert!(differ(&same, [0, 0]) < 1e-6);
    assert!(differ(&times, [0, 0]) > 1e-3);
    assert!(differ(&same, [0, 1]) > 1e-3);
}

/// The same after a trip through JSON.
fn survives_json<C: serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug>(config: &C) {
    let back: C = serde_json::from_str(&serde_json::to_string(config).unwrap()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{config:?}"));
}

/// An untrained network's blocks pass on what comes in, and it answers zero.
fn starts_at_zero<M: Backbone<4>>(model: &M, x: Tensor<4>, cond: &M::Cond) {
    let answer = model.forward(x.clone(), times(&x.device()), cond);
    assert_eq!(answer.dims(), x.dims());
    assert_eq!(answer.abs().max().into_scalar::<f32>(), 0.0);
}

/// Saved by the authors' names and loaded again, every bit is there.
fn survives_its_file<M: Module + Backbone<4>>(
    model: M,
    empty: M,
    rules: &Rules,
    x: Tensor<4>,
    cond: &M::Cond,
) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    weights::save_published(&model, &file, rules).unwrap();
    let source = weights::Source::open(&file, None).unwrap();
    let (loaded, report) = weights::load_published(empty, &source, rules).unwrap();
    assert!(report.one_way.is_empty() && report.ignored.is_empty());
    let run = |model: &M| model.forward(x.clone(), times(&x.device()), cond).into_data();
    assert_eq!(run(&loaded), run(&model));
}

/// The names of blocks that hold this: what comes in, what is in them, what goes out.
fn blocks(names: impl IntoIterator<Item = String>, inside: &[&str]) -> Vec<String> {
    let block = |name: String| {
        let parts = ["input"].iter().chain(inside).map(|part| format!("{name}.{part}")).collect::<Vec<_>>();
        parts.into_iter().chain([name])
    };
    names.into_iter().flat_map(block).collect()
}

/// What is in a block of LightningDiT's kind.
const INSIDE: [&str; 4] = ["modulation", "attention.query", "attention.map", "attention.heads"];

struct Half;

impl ModuleMapper for Half {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.cast(FloatDType::BF16))
    }
}

/// In 16 bits, told the time in 32, a network answers the same but for roundings.
fn runs_in_half<M: Backbone<4> + Module>(model: &M, x: &Tensor<4>, cond: &M::Cond) {
    let time = times(&x.device());
    let expected = model.forward(x.clone(), time.clone(), cond);
    let half = model.clone().map(&mut Half);
    let found = half.forward(x.clone().cast(FloatDType::BF16), time, cond);
    assert_eq!(found.dtype(), DType::BF16);
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let off = distance(found.cast(FloatDType::F32), expected) / largest;
    println!("off by {off:.1e} in 16 bits");
    assert!(off < 0.05, "off by {off:e}");
}

/// So many results are kept of one evaluation for the next, whose answer is the same bits.
fn can_be_remembered<M: Backbone<4>>(model: M, x: &Tensor<4>, cond: &M::Cond, kept: usize) {
    let times = times(&x.device());
    let expected = model.forward(x.clone(), times.clone(), cond).into_data();
    let (net, cond) = (Remembering::new(model), Tagged::new(cond.clone(), 0));
    for _ in 0..2 {
        assert_eq!(net.forward(x.clone(), times.clone(), &cond).into_data(), expected);
        assert_eq!(net.kept(), kept);
    }
    let other = Tensor::from_floats([0.5, 0.6], &x.device());
    assert_ne!(net.forward(x.clone(), other, &cond).into_data(), expected);
}
