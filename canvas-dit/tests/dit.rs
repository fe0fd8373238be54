//! The DiT family: parity with PyTorch (fixtures by `tools/fixtures_dit.py`), sizes, invariances, errors.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::trace::{self, Hook, IdentityMaps, Perturbation, SkippedBlocks, Tapped};
use canvas_core::{Backbone, Class, Condition, Text, params, weights};
use canvas_dit::{Dit, DitConfig, TextDit, TextDitConfig};
use canvas_testkit::{answers, distance, panic_text, pattern, recomputed_equals_whole};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

/// The configurations of the fixtures.
fn dit_config(size: [usize; 2]) -> DitConfig {
    DitConfig::new(size, 16, 2, 2).with_channels(3).with_classes(7)
}

fn text_config() -> TextDitConfig {
    TextDitConfig::new([4, 10], 3, 16, 2, 2, 12, 7)
}

fn dit(size: [usize; 2], device: &Device) -> Dit {
    params::fill_by_formula(dit_config(size).init(device))
}

fn text_dit(device: &Device) -> TextDit {
    params::fill_by_formula(text_config().init(device))
}

/// Two prompts, the second two tokens shorter.
fn text(device: &Device) -> Text {
    let mask = [[true; 5], [true, true, true, false, false]];
    Text {
        tokens: pattern([2, 5, 12], 1.0, device),
        mask: Tensor::from_data(TensorData::from(mask), device),
        pooled: pattern([2, 7], 3.0, device),
    }
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.75], device)
}

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
    let largest = expected.iter::<f64>().fold(0.0, |most: f64, x| most.max(x.abs()));
    let pairs = found["quiet"].iter::<f64>().zip(expected.iter::<f64>());
    let error = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest;
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

/// The published counts, which include the position table. Read off the shapes: nothing is allocated.
#[test]
fn the_papers_models_have_the_papers_sizes() {
    let device = Device::flex();
    let count = |config: DitConfig| {
        let patches = (config.size[0] / config.patch) * (config.size[1] / config.patch);
        config.init(&device).num_params() + patches * config.width
    };
    assert_eq!(count(DitConfig::small(32)), 32_963_360);
    assert_eq!(count(DitConfig::base(32)), 130_512_416);
    assert_eq!(count(DitConfig::large(32)), 458_102_816);
    assert_eq!(count(DitConfig::xl(32)), 675_129_632);
    // Counted on the torch module of tools/fixtures_dit.py.
    assert_eq!(count(DitConfig::small(32).with_patch(4)), 32_945_024);
    assert_eq!(count(DitConfig::small(32).with_patch(8)), 33_148_160);
    assert_eq!(count(DitConfig::xl(32).with_patch(8)), 675_683_072);
}

/// What adaLN-Zero is for: at the start every block passes its input on, and the output is zero.
#[test]
fn an_untrained_network_answers_zero_through_identity_blocks() {
    let device = Device::flex();
    let x = pattern([2, 3, 4, 10], 1.0, &device);
    let net = dit_config([4, 10]).init(&device);
    let output = net.forward_with_variance(x.clone(), times(&device), &Class::new(&[3, 7], &device));
    assert_eq!(output.dims(), [2, 6, 4, 10]);
    assert_eq!(output.abs().max().into_scalar::<f32>(), 0.0);
    let output = text_config().init(&device).forward(x.clone(), times(&device), &text(&device));
    assert_eq!(output.dims(), [2, 3, 4, 10]);
    assert_eq!(output.abs().max().into_scalar::<f32>(), 0.0);

    // The blocks by themselves: with another last layer, two of them answer as none at all.
    let shown = |depth| {
        let net = TextDitConfig { depth, ..text_config() }.init(&device).map(&mut Ends::default());
        net.forward(x.clone(), times(&device), &text(&device))
    };
    assert!(shown(0).abs().max().into_scalar::<f32>() > 0.1);
    assert_eq!(distance(shown(2), shown(0)), 0.0);
}

/// Fills all but the blocks by the formula.
#[derive(Default)]
struct Ends(Vec<String>);

impl ModuleMapper for Ends {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.0[0] == "blocks" {
            return param;
        }
        let name = self.0.join(".");
        param.map(|old| {
            let dims = old.dims();
            let values = params::formula(&name, dims.iter().product(), 16, false);
            Tensor::from_data(TensorData::new(values, dims), &old.device())
        })
    }
}

#[test]
fn the_prediction_is_the_first_half_and_fewer_channels_without_variance() {
    let device = Device::flex();
    let (x, class) = (pattern([2, 3, 4, 10], 1.0, &device), Class::new(&[3, 7], &device));
    let net = dit([4, 10], &device);
    let both = net.forward_with_variance(x.clone(), times(&device), &class);
    assert_eq!(distance(net.forward(x.clone(), times(&device), &class), both.narrow(1, 0, 3)), 0.0);
    let net = dit_config([4, 10]).with_learn_variance(false).init(&device);
    assert_eq!(net.forward_with_variance(x, times(&device), &class).dims(), [2, 3, 4, 10]);
}

#[test]
fn a_row_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let x = pattern([2, 3, 4, 10], 0.0, &device);
    let (class, text) = (Class::new(&[3, 7], &device), text(&device));
    let (dit, text_dit) = (dit([4, 10], &device), text_dit(&device));
    let by_class = dit.forward(x.clone(), times(&device), &class);
    let by_text = text_dit.forward(x.clone(), times(&device), &text);
    for row in 0..2 {
        let (x, time) = (x.clone().narrow(0, row, 1), times(&device).narrow(0, row, 1));
        let alone = dit.forward(x.clone(), time.clone(), &class.select(&[row]));
        assert!(distance(alone, by_class.clone().narrow(0, row, 1)) < 1e-5, "row {row}");
        let alone = text_dit.forward(x, time, &text.select(&[row]));
        assert!(distance(alone, by_text.clone().narrow(0, row, 1)) < 1e-5, "row {row}");
    }
}

#[test]
fn every_input_counts_for_its_own_sample() {
    let device = Device::flex();
    let x = pattern([1, 3, 4, 10], 0.0, &device).repeat_dim(0, 2);
    let text = text(&device).select(&[0, 0]);
    let differ = |output: Tensor<4>| distance(output.clone().narrow(0, 0, 1), output.narrow(0, 1, 1));
    let same = Tensor::from_floats([0.25, 0.25], &device);

    let net = dit([4, 10], &device);
    let class = |labels: [usize; 2]| Class::new(&labels, &device);
    assert!(differ(net.forward(x.clone(), same.clone(), &class([3, 3]))) < 1e-6);
    assert!(differ(net.forward(x.clone(), times(&device), &class([3, 3]))) > 1e-3);
    assert!(differ(net.forward(x.clone(), same.clone(), &class([3, 7]))) > 1e-3);

    let net = text_dit(&device);
    assert!(differ(net.forward(x.clone(), same.clone(), &text)) < 1e-6);
    assert!(differ(net.forward(x.clone(), times(&device), &text)) > 1e-3);
    let change = pattern([2, 1], 0.5, &device);
    let pooled = Text { pooled: text.pooled.clone() + change.clone(), ..text.clone() };
    assert!(differ(net.forward(x.clone(), same.clone(), &pooled)) > 1e-3);
    let tokens = Text { tokens: text.tokens.clone() + change.unsqueeze_dim::<3>(2), ..text };
    assert!(differ(net.forward(x, same, &tokens)) > 1e-3);
}

#[test]
fn masked_tokens_are_not_read() {
    let device = Device::flex();
    let net = text_dit(&device);
    let forward = |text: &Text| net.forward(pattern([2, 3, 4, 10], 0.0, &device), times(&device), text);
    let text = text(&device);
    let expected = forward(&text);

    // Other values where the mask is false, and more padding behind.
    let hidden = text.mask.clone().bool_not().unsqueeze_dim::<3>(2).float();
    let tokens = text.tokens.clone() + hidden * 100.0;
    let gone = Tensor::<2, Int>::zeros([2, 3], &device).bool();
    let padded = Text {
        tokens: Tensor::cat(vec![tokens, pattern([2, 3, 12], 5.0, &device)], 1),
        mask: Tensor::cat(vec![text.mask.clone(), gone], 1),
        pooled: text.pooled.clone(),
    };
    assert!(distance(forward(&padded), expected.clone()) < 1e-5);

    // The same tokens unmasked do matter.
    let mask = Tensor::<2, Int>::ones([2, 5], &device).bool();
    assert!(distance(forward(&Text { mask, ..text }), expected) > 1e-3);
}

#[test]
fn errors_name_both_values() {
    let cases = [
        (DitConfig::new([4, 4], 16, 1, 3), "heads (3) must divide width (16)"),
        (DitConfig::new([4, 4], 16, 1, 0), "heads (0) must divide width (16)"),
        (DitConfig::new([4, 4], 6, 1, 2), "4, of the position table, (4) must divide width (6)"),
        (DitConfig::new([5, 4], 16, 1, 2), "patch (2) must divide height (5)"),
        (DitConfig::new([4, 6], 16, 1, 2).with_patch(4), "patch (4) must divide width of the input (6)"),
    ];
    for (config, expected) in cases {
        assert_eq!(config.validate().unwrap_err().to_string(), expected);
        let text = TextDitConfig::new(config.size, 4, config.width, 1, config.heads, 8, 8);
        assert_eq!(text.with_patch(config.patch).validate().unwrap_err().to_string(), expected);
        assert_eq!(panic_text(|| config.init(&Device::flex())), format!("DitConfig: {expected}"));
    }
    for config in [DitConfig::small(32), DitConfig::base(32), DitConfig::large(64), DitConfig::xl(16)] {
        config.validate().unwrap();
    }
}

/// A turned image has as many patches as the right one, and must not be given its positions.
#[test]
fn inputs_that_do_not_fit_name_their_sizes() {
    let device = Device::flex();
    let (by_class, by_text) = (dit([4, 10], &device), text_dit(&device));
    let cases = [
        ([2, 3, 10, 4], "x is [C, H, S] = [3, 10, 4], the DiT takes [3, 4, 10]"),
        ([2, 4, 4, 10], "x is [C, H, S] = [4, 4, 10], the DiT takes [3, 4, 10]"),
    ];
    for (dims, expected) in cases {
        let x = pattern(dims, 0.0, &device);
        let class = Class::new(&[0, 1], &device);
        let message = panic_text(|| by_class.forward(x.clone(), times(&device), &class));
        assert!(message.contains(expected), "{message}");
        let message = panic_text(|| by_text.forward(x, times(&device), &text(&device)));
        assert!(message.contains(expected), "{message}");
    }
    let x = pattern([3, 3, 4, 10], 0.0, &device);
    let class = Class::new(&[0], &device);
    let message = panic_text(|| by_class.forward(x.clone(), times(&device), &class));
    assert_eq!(message, "2 times and 1 conditions for a batch of 3");
    let message = panic_text(|| by_text.forward(x.clone(), times(&device), &text(&device)));
    assert_eq!(message, "2 times and 2 texts for a batch of 3");
    let wide = Text { tokens: Tensor::ones([2, 5, 13], &device), ..text(&device) };
    let message = panic_text(|| by_text.forward(x.narrow(0, 0, 2), times(&device), &wide));
    assert!(message.contains("[token, pooled] widths are [13, 7], the DiT reads [12, 7]"), "{message}");
}

#[test]
fn configs_survive_json() {
    let config = dit_config([4, 10]).with_learn_variance(false).with_patch(1);
    let back: DitConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{config:?}"));
    let config = text_config().with_mlp_ratio(3).with_activation(canvas_core::nn::Activation::Silu);
    let back: TextDitConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{config:?}"));
}

#[test]
fn attention_maps_and_blocks_have_names() {
    let device = Device::flex();
    let (by_class, by_text) = (dit([4, 10], &device), text_dit(&device));
    let x = pattern([2, 3, 4, 10], 0.0, &device);
    let class = Class::new(&[0, 1], &device);
    let run = || by_class.forward(x.clone(), times(&device), &class);
    let attention = |name: &str| ["query", "map", "heads"].map(|part| format!("{name}.{part}"));
    let block = |i: usize, parts: &[&str]| {
        let first = ["input", "modulation"].map(|name| format!("blocks.{i}.{name}"));
        let inside = parts.iter().flat_map(|part| attention(&format!("blocks.{i}.{part}")));
        first.into_iter().chain(inside).chain([format!("blocks.{i}")]).collect::<Vec<_>>()
    };
    let expected =
        |parts: &[&str]| [block(0, parts), block(1, parts), vec!["final_modulation".into()]].concat();
    assert_eq!(trace::names(|| drop(run())), expected(&["attention"]));
    let read = || by_text.forward(x.clone(), times(&device), &text(&device));
    assert_eq!(trace::names(|| drop(read())), expected(&["attention", "cross"]));
    // A hook that wants nothing changes no bit.
    let idle = || Rc::new(IdentityMaps::new(&[""; 0]));
    assert_eq!(trace::with_hook(idle(), run).into_data(), run().into_data());
    assert_eq!(trace::with_hook(idle(), read).into_data(), read().into_data());
}

#[test]
fn without_a_block_the_network_is_the_one_that_never_had_it() {
    let device = Device::flex();
    let x = pattern([2, 3, 4, 10], 0.0, &device);
    let class = Class::new(&[0, 1], &device);
    let skip = || Rc::new(SkippedBlocks::new(&["blocks.1"]));

    let forward = |net: &Dit| net.forward_with_variance(x.clone(), times(&device), &class);
    let (long, short) = (dit_config([4, 10]), DitConfig { depth: 1, ..dit_config([4, 10]) });
    let [long, short] = [long, short].map(|config| params::fill_by_formula(config.init(&device)));
    let found = trace::with_hook(skip(), || forward(&long));
    assert_eq!(found.into_data(), forward(&short).into_data());
    assert!(distance(forward(&long), forward(&short)) > 1e-3);

    let forward = |net: &TextDit| net.forward(x.clone(), times(&device), &text(&device));
    let (long, short) = (text_config(), TextDitConfig { depth: 1, ..text_config() });
    let [long, short] = [long, short].map(|config| params::fill_by_formula(config.init(&device)));
    let found = trace::with_hook(skip(), || forward(&long));
    assert_eq!(found.into_data(), forward(&short).into_data());
}

/// Puts into the second block what came into the first.
#[derive(Default)]
struct Bypass(RefCell<Option<Tensor<3>>>);

impl Hook for Bypass {
    fn tap(&self, tapped: &mut Tapped<'_>) {
        match tapped.name() {
            "blocks.0.input" => *self.0.borrow_mut() = tapped.get(),
            "blocks.1.input" => tapped.set(self.0.take().expect("the first block's input")),
            _ => {}
        }
    }

    /// Whole maps are other roundings.
    fn wants(&self, _name: &str) -> bool {
        false
    }
}

#[test]
fn what_comes_into_a_block_can_be_read_and_replaced() {
    let device = Device::flex();
    let (net, x) = (text_dit(&device), pattern([2, 3, 4, 10], 0.0, &device));
    let run = || net.forward(x.clone(), times(&device), &text(&device));
    let bypassed = trace::with_hook(Rc::new(Bypass::default()), run);
    let skipped = trace::with_hook(Rc::new(SkippedBlocks::new(&["blocks.0"])), run);
    assert_eq!(bypassed.clone().into_data(), skipped.into_data());
    assert!(distance(bypassed, run()) > 1e-3);
}

/// What a run keeps are the time's and the prompt's vectors, and two blocks' keys and values of the text; its answers are the
/// same bits.
#[test]
fn remembering_changes_nothing() {
    let device = Device::flex();
    let (net, cond) = (text_dit(&device), text(&device));
    let remembering = Remembering::new(text_dit(&device));
    for seed in [1.0, 2.0] {
        let x = pattern([2, 3, 4, 10], seed, &device);
        let expected = net.forward(x.clone(), times(&device), &cond);
        let found = remembering.forward(x, times(&device), &Tagged::new(cond.clone(), 0));
        assert_eq!(found.into_data(), expected.into_data());
        assert_eq!(remembering.kept(), 4);
    }
    let other = Tagged::new(cond.select(&[1, 0]), 2);
    let x = pattern([2, 3, 4, 10], 1.0, &device);
    let found = remembering.forward(x.clone(), times(&device), &other);
    assert_eq!(found.into_data(), net.forward(x, times(&device), &other.cond).into_data());
}

/// With the identity for every map, no patch sees another: attention is its values alone.
#[test]
fn identity_maps_keep_patches_apart() {
    let device = Device::flex();
    let net = dit([4, 10], &device);
    let class = Class::new(&[0, 1], &device);
    let x = pattern([2, 3, 4, 10], 0.0, &device);
    let place = [0..2, 0..3, 0..2, 0..2]; // the first patch
    let other = x.clone().slice_assign(place.clone(), pattern([2, 3, 2, 2], 4.0, &device));
    let run = |x: &Tensor<4>| net.forward(x.clone(), times(&device), &class);
    let change = |a: Tensor<4>, b: Tensor<4>| {
        let change = (a - b).abs();
        let outside = change.clone().slice_assign(place.clone(), Tensor::zeros([2, 3, 2, 2], &device));
        [change.max(), outside.max()].map(|most| most.into_scalar::<f32>())
    };
    let hook = Rc::new(IdentityMaps::new(&["blocks.0.attention.map", "blocks.1.attention.map"]));
    let [inside, outside] = trace::with_hook(hook.clone(), || change(run(&x), run(&other)));
    hook.verify();
    assert!(inside > 1e-3 && outside == 0.0, "{inside} {outside}");
    let [_, outside] = change(run(&x), run(&other));
    assert!(outside > 1e-4, "{outside}");
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
