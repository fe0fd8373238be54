//! Names within a network, and what hooks and a memory do there.

use crate::{dit, dit_config, text, text_config, text_dit, times};
use burn::prelude::*;
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::trace::{self, Hook, IdentityMaps, Perturbation, SkippedBlocks, Tapped};
use canvas_core::{Backbone, Class, Condition, params};
use canvas_dit::{Dit, DitConfig, TextDit, TextDitConfig};
use canvas_testkit::{distance, pattern};
use std::cell::RefCell;
use std::rc::Rc;

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
