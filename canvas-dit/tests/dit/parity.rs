//! Values and gradients, against PyTorch and with blocks run again.

use crate::{dit, text, text_dit, times};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::{Backbone, Class, Text, weights};
use canvas_dit::Dit;
use canvas_testkit::{answers, pattern, recomputed_equals_whole, relative};
use std::collections::BTreeMap;
use std::path::Path;

struct Tenth;

impl ModuleMapper for Tenth {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value * 0.1)
    }
}

/// Holds values against everything the fixture holds. An exact GELU changes an output by about 1e-4 of its largest value, an
/// epsilon of 1e-5 by 4e-5, or 1e-5 where weights are small ("quiet").
fn compare(file: &str, found: &BTreeMap<String, TensorData>) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    canvas_testkit::compare(&fixture, found, [1e-5, 1e-4]);
    let expected = &weights::read_tensors(&fixture).unwrap()["quiet"];
    let [quiet, expected] = [&found["quiet"], expected].map(|data| data.iter::<f64>().collect::<Vec<_>>());
    let error = relative(&quiet, &expected);
    assert!(error < 2e-6, "{file} quiet: relative error {error:.2e}");
}

fn dit_equals(file: &str, size: [usize; 2]) {
    let device = Device::flex().autodiff();
    let model = dit(size, &device);
    let x = pattern([2, 3, size[0], size[1]], 1.0, &device).require_grad();
    let run = |model: &Dit, x| model.forward_with_variance(x, times(&device), &Class::new(&[3, 7], &device));
    let (mut found, grads) = answers(&model, run(&model, x.clone()));
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("quiet".into(), run(&model.map(&mut Tenth), x * 1e-3).into_data());
    compare(file, &found);
}

#[test]
fn dit_equals_diffusers() {
    dit_equals("dit.safetensors", [6, 6]);
}

/// diffusers joins patches to a square whatever they were; the reference is our own, which equals it on squares.
#[test]
fn dit_is_right_where_height_and_width_differ() {
    dit_equals("dit_wide.safetensors", [4, 10]);
}

#[test]
fn text_dit_equals_its_reference() {
    let device = Device::flex().autodiff();
    let model = text_dit(&device);
    let x = pattern([2, 3, 4, 10], 1.0, &device).require_grad();
    let mut cond = text(&device);
    (cond.tokens, cond.pooled) = (cond.tokens.require_grad(), cond.pooled.require_grad());
    let (mut found, grads) = answers(&model, model.forward(x.clone(), times(&device), &cond));
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("grad.tokens".into(), cond.tokens.grad(&grads).unwrap().into_data());
    found.insert("grad.pooled".into(), cond.pooled.grad(&grads).unwrap().into_data());
    let small = Text { tokens: cond.tokens * 1e-3, mask: cond.mask, pooled: cond.pooled * 1e-3 };
    let quiet = model.map(&mut Tenth).forward(x * 1e-3, times(&device), &small);
    found.insert("quiet".into(), quiet.into_data());
    compare("text_dit.safetensors", &found);
}

#[test]
fn gradients_are_the_same_with_blocks_run_again() {
    let device = Device::flex().autodiff();
    let x = pattern([2, 3, 4, 10], 1.0, &device);
    let class = Class::new(&[3, 7], &device);
    recomputed_equals_whole(&dit([4, 10], &device), |dit| {
        dit.forward_with_variance(x.clone(), times(&device), &class)
    });
    let cond = text(&device);
    recomputed_equals_whole(&text_dit(&device), |dit| dit.forward(x.clone(), times(&device), &cond));
}
