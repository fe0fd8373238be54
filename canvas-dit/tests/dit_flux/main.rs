//! Flux and its relatives: parity with diffusers (fixtures by `tools/fixtures_flux.py`), published names, sizes and
//! configurations, invariances, errors.

mod chroma;
mod configs;
mod flux;
mod flux2;
mod qwen;

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType, Gradients};
use canvas_core::trace::{self, Hook, Tapped};
use canvas_core::weights::{Rules, published_shapes};
use canvas_core::{Backbone, Condition, Text};
use canvas_dit::Prompt;
use canvas_testkit::{answers_but, compare, distance, panic_text, pattern, recomputed_equals_whole};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

/// The largest errors allowed of values and gradients, relative to the largest of each tensor.
const TOLERANCE: [f64; 2] = [1e-5, 1e-4];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"))
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.75], device)
}

/// Two prompts of 5 tokens, 12 wide, of which so many are real; the pooled ones are 10 wide.
fn text(real: [usize; 2], device: &Device) -> Text {
    let mask: Vec<bool> = real.iter().flat_map(|&real| (0..5).map(move |i| i < real)).collect();
    Text {
        tokens: pattern([2, 5, 12], 3.0, device),
        mask: Tensor::from_data(TensorData::new(mask, [2, 5]), device),
        pooled: pattern([2, 10], 4.0, device),
    }
}

/// With gradients.
fn tracked(mut text: Text) -> Text {
    (text.tokens, text.pooled) = (text.tokens.require_grad(), text.pooled.require_grad());
    text
}

/// An input whose gradient is looked at.
struct Input {
    name: &'static str,
    grad: Box<dyn Fn(&Gradients) -> TensorData>,
}

impl Input {
    fn new<const D: usize>(name: &'static str, x: &Tensor<D>) -> Self {
        let x = x.clone();
        Self { name, grad: Box::new(move |all| x.grad(all).unwrap().into_data()) }
    }
}

/// Values and gradients of a network, held against a fixture.
fn equals<M: Module + Backbone<4, Cond = C>, C: Condition>(
    name: &str,
    model: &M,
    x: &Tensor<4>,
    cond: &C,
    inputs: &[Input],
    unread: &[&str],
) {
    let output = model.forward(x.clone(), times(&x.device()), cond);
    let (mut found, all) = answers_but(model, output, unread);
    found.extend(inputs.iter().map(|input| (format!("grad.{}", input.name), (input.grad)(&all))));
    compare(&fixture(name), &found, TOLERANCE);
}

/// Names and shapes are those of the reference's `state_dict`.
fn named_as_published<M: Module>(family: &str, model: &M, rules: &Rules) {
    let all: BTreeMap<String, BTreeMap<String, Vec<usize>>> =
        serde_json::from_str(include_str!("../fixtures/flux_names.json")).unwrap();
    assert_eq!(published_shapes(model, rules), all[family], "{family}");
}

/// Each sample's answer does not depend on the others in its batch.
fn rows_are_alone<M: Backbone<4>>(model: &M, x: &Tensor<4>, cond: &M::Cond) {
    let time = times(&x.device());
    let together = model.forward(x.clone(), time.clone(), cond);
    for row in 0..2 {
        let of = |x: &Tensor<4>| x.clone().narrow(0, row, 1);
        let alone = model.forward(of(x), time.clone().narrow(0, row, 1), &cond.select(&[row]));
        let off = distance(alone, of(&together));
        assert!(off < 2e-6, "row {row} is off by {off:e}");
    }
}

/// Gradients are the same with blocks run again, through which two streams may go.
fn runs_again<M: Module + Backbone<4>>(model: &M, x: &Tensor<4>, cond: &M::Cond) {
    recomputed_equals_whole(model, |model| model.forward(x.clone(), times(&x.device()), cond));
}

/// An untrained network answers zero (adaLN-Zero).
fn answers_zero<M: Backbone<4>>(model: &M, x: &Tensor<4>, cond: &M::Cond) {
    let output = model.forward(x.clone(), times(&x.device()), cond);
    assert_eq!(output.dims(), x.dims());
    assert_eq!(output.abs().max().into_scalar::<f32>(), 0.0);
}

/// Sets what has this name to zero.
struct Zero(&'static str);

impl Hook for Zero {
    fn tap(&self, tapped: &mut Tapped<'_>) {
        if tapped.name() == self.0 {
            let x = tapped.get::<3>().expect("tokens or modulation");
            tapped.set(x.zeros_like());
        }
    }
}

/// Every name, in order: of two blocks of two streams, called `double`, two of one stream if there are any, and the end. What
/// comes into a block and what modulates it can be replaced, one block's alone.
fn has_names<M: Backbone<4>>(model: &M, double: &str, single: bool, x: &Tensor<4>, cond: &M::Cond) {
    let attention = ["attention.query", "attention.map", "attention.heads"];
    let mut expected = Vec::new();
    let mut push = |name: String, before: &[&str], after: &[&str]| {
        let inside = before.iter().chain(&attention).map(|part| format!("{name}.{part}"));
        expected.extend(inside);
        expected.extend(after.iter().map(|stream| format!("{name}{stream}")));
    };
    for i in 0..2 {
        let before = ["input", "input.1", "text_modulation", "modulation"];
        push(format!("{double}.{i}"), &before, &["", ".1"]);
    }
    for i in 0..if single { 2 } else { 0 } {
        push(format!("single.{i}"), &["input", "modulation"], &[""]);
    }
    expected.push("final_modulation".into());
    let run = || model.forward(x.clone(), times(&x.device()), cond);
    assert_eq!(trace::names(|| drop(run())), expected);
    let whole = run();
    let names = match double {
        "double" => &["double.1.input", "double.0.modulation", "single.1.modulation", "final_modulation"],
        _ => &["blocks.1.input", "blocks.0.modulation", "blocks.0.text_modulation", "final_modulation"],
    };
    for &name in names {
        let changed = trace::with_hook(Rc::new(Zero(name)), run);
        assert!(distance(changed, whole.clone()) > 1e-3, "{name}");
    }
}

#[test]
fn prompts_join_and_part() {
    let device = Device::flex();
    let reference = pattern([2, 4, 2, 2], 1.0, &device);
    let plain = Prompt::from(text([5, 3], &device));
    let prompt = plain.clone().with_guidance(2.5).with_reference(reference.clone());
    let joined = Prompt::cat(&[prompt.clone(), prompt.clone().with_guidance(1.5)]);
    assert_eq!(joined.batch(), 4);
    assert_eq!(
        joined.guidance.clone().unwrap().into_data().try_to_vec::<f32>().unwrap(),
        [2.5, 2.5, 1.5, 1.5]
    );
    let picked = joined.select(&[3, 0]);
    assert_eq!(picked.guidance.unwrap().into_data().try_to_vec::<f32>().unwrap(), [1.5, 2.5]);
    let expected = Tensor::cat(vec![reference.clone().narrow(0, 1, 1), reference.narrow(0, 0, 1)], 0);
    assert_eq!(distance(picked.references[0].clone(), expected), 0.0);
    let expected = prompt.text.tokens.clone().narrow(0, 1, 1);
    assert_eq!(distance(picked.text.tokens.narrow(0, 0, 1), expected), 0.0);

    let says = panic_text(|| Prompt::cat(&[prompt.clone(), plain.clone()]));
    assert_eq!(says, "1 of 2 prompts hold a guidance scale");
    let says = panic_text(|| Prompt::cat(&[prompt, plain.with_guidance(1.0)]));
    assert_eq!(says, "prompts with [1, 0] references do not make a batch");
}

/// Every parameter in 16 bits.
struct Half;

impl ModuleMapper for Half {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.cast(FloatDType::BF16))
    }
}

/// In 16 bits, told time and guidance in 32, a network answers the same but for roundings.
fn runs_in_half<M: Module + Backbone<4>>(
    model: M,
    x: &Tensor<4>,
    cond: &M::Cond,
    half: impl FnOnce(&M::Cond) -> M::Cond,
) {
    let time = times(&x.device());
    let expected = model.forward(x.clone(), time.clone(), cond);
    let found = model.map(&mut Half).forward(x.clone().cast(FloatDType::BF16), time, &half(cond));
    assert_eq!(found.dtype(), DType::BF16);
    let off =
        distance(found.cast(FloatDType::F32), expected.clone()) / expected.abs().max().into_scalar::<f32>();
    println!("off by {off:.1e}");
    assert!(off < 0.05, "off by {off:e}");
}

fn half_text(text: &Text) -> Text {
    let (tokens, pooled) = (text.tokens.clone(), text.pooled.clone());
    let mask = text.mask.clone();
    Text { tokens: tokens.cast(FloatDType::BF16), mask, pooled: pooled.cast(FloatDType::BF16) }
}

fn half_prompt(prompt: &Prompt) -> Prompt {
    let references = prompt.references.iter().map(|x| x.clone().cast(FloatDType::BF16)).collect();
    Prompt { text: half_text(&prompt.text), references, ..prompt.clone() }
}
