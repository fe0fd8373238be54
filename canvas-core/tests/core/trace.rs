use crate::tensor;
use burn::prelude::*;
use canvas_core::nn::AttentionConfig;
use canvas_core::params;
use canvas_core::trace::{self, Hook, IdentityMaps, Perturbation, SkippedBlocks, Tapped};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

#[test]
fn the_first_broken_activation_is_named_and_a_search_ends() {
    let x = tensor::<1>(&[1.0, 0.0], [2]);
    let found = trace::first_non_finite(|| {
        trace::tap(|| "fine".into(), x.clone());
        trace::tap(|| "first".into(), x.clone().log());
        trace::tap(|| "second".into(), x.clone().recip());
    });
    assert_eq!(found.as_deref(), Some("first"));
    assert_eq!(trace::first_non_finite(|| drop(trace::tap(|| "fine".into(), x.clone()))), None);
    // No search is on: the name is never asked for.
    trace::tap(|| unreachable!(), x.log());
}

/// Two blocks, each with a named intermediate result.
fn network(mut x: Tensor<1>) -> Tensor<1> {
    for i in 0..2 {
        let run = |x: Tensor<1>| trace::tap(|| "double".into(), x * 2.0) + 1.0;
        x = trace::block(|| format!("blocks.{i}"), x, run);
    }
    x
}

fn value(x: Tensor<1>) -> f32 {
    x.into_scalar()
}

/// Adds to what it names, and gathers all it saw.
struct Add {
    to: &'static str,
    amount: f64,
    seen: RefCell<Vec<(String, f32)>>,
}

impl Add {
    fn new(to: &'static str, amount: f64) -> Rc<Self> {
        Rc::new(Self { to, amount, seen: RefCell::default() })
    }
}

impl Hook for Add {
    fn tap(&self, tapped: &mut Tapped<'_>) {
        let x = tapped.get::<1>().unwrap();
        assert!(tapped.get::<2>().is_none());
        assert_eq!(tapped.dims(), [1]);
        self.seen.borrow_mut().push((tapped.name().to_owned(), value(x.clone())));
        if tapped.name() == self.to {
            tapped.set(x + self.amount);
        }
    }
}

#[test]
fn hooks_read_replace_and_nest() {
    let x = tensor::<1>(&[1.0], [1]);
    let (outer, inner) = (Add::new("blocks.1.double", 100.0), Add::new("blocks.0.double", 10.0));
    let run = || trace::with_hook(inner.clone(), || network(x.clone()));
    let found = trace::with_hook(outer.clone(), || {
        let both = run();
        (value(both), value(network(x.clone())))
    });
    // (1 * 2 + 10) + 1 = 13, then 13 * 2 + 100 + 1; without the inner hook 3, then 3 * 2 + 100 + 1.
    assert_eq!(found, (127.0, 107.0));
    assert_eq!(
        outer.seen.borrow()[1],
        ("blocks.0.double".into(), 12.0),
        "the outer sees what the inner left"
    );
    assert_eq!(inner.seen.borrow().len(), 6);
    assert_eq!(outer.seen.borrow().len(), 12);
    assert_eq!(value(network(x)), 7.0, "no hook is left");
}

#[test]
fn a_panic_closes_hooks_scopes_and_searches() {
    let x = tensor::<1>(&[1.0], [1]);
    let broken = || {
        let inside = || trace::scope(|| "part".into(), || panic!("on purpose"));
        trace::with_hook(Add::new("blocks.0", 1.0), || drop(trace::first_non_finite(inside)));
    };
    catch_unwind(AssertUnwindSafe(broken)).unwrap_err();
    assert_eq!(value(network(x.clone())), 7.0);
    trace::tap(|| unreachable!(), x.clone());
    let names = trace::names(|| drop(network(x.clone())));
    let expected =
        ["blocks.0.input", "blocks.0.double", "blocks.0", "blocks.1.input", "blocks.1.double", "blocks.1"];
    assert_eq!(names, expected);
    let names = trace::names(|| drop(trace::part(|| "whole".into(), || network(x).unsqueeze::<2>())));
    let inside = expected.map(|name| format!("whole.{name}"));
    assert_eq!((&names[..6], names[6].as_str()), (&inside[..], "whole"));
}

#[test]
fn a_search_sees_what_hooks_leave() {
    let x = tensor::<1>(&[1.0], [1]);
    let hook = Add::new("blocks.0", f64::NAN);
    let search = || trace::first_non_finite(|| drop(network(x.clone())));
    assert_eq!(trace::with_hook(hook.clone(), search).as_deref(), Some("blocks.0"));
    let found = trace::first_non_finite(|| drop(trace::with_hook(hook, || network(x.clone()))));
    assert_eq!(found.as_deref(), Some("blocks.0"));
    assert_eq!(search(), None);
}

#[test]
fn a_skipped_block_passes_its_input_on() {
    let x = tensor::<1>(&[1.0], [1]);
    for (skip, expected) in [(vec!["blocks.0"], 3.0), (vec!["blocks.0", "blocks.1"], 1.0), (vec![], 7.0)] {
        let hook = Rc::new(SkippedBlocks::new(&skip));
        assert_eq!(value(trace::with_hook(hook.clone(), || network(x.clone()))), expected);
        hook.verify();
    }
    let hook = Rc::new(SkippedBlocks::new(&["blocks.0", "blocks.7"]));
    trace::with_hook(hook.clone(), || network(x.clone()));
    let expected = "this network ran no block named \"blocks.7\"; it ran: blocks.0, blocks.1";
    assert_eq!(panic_text(|| hook.verify()), expected);
    let hook = Rc::new(IdentityMaps::new(&["attention.map"]));
    trace::with_hook(hook.clone(), || network(x));
    let expected = "this network ran no attention map named \"attention.map\"; it ran: none";
    assert_eq!(panic_text(|| hook.verify()), expected);
}

/// A block's input can be replaced, whether the block runs or not.
#[test]
fn what_comes_into_a_block_can_be_replaced() {
    let x = tensor::<1>(&[1.0], [1]);
    let hook = Add::new("blocks.1.input", 10.0);
    // 1 * 2 + 1 = 3, then (3 + 10) * 2 + 1.
    assert_eq!(value(trace::with_hook(hook.clone(), || network(x.clone()))), 27.0);
    let skip = Rc::new(SkippedBlocks::new(&["blocks.1"]));
    let run = || trace::with_hook(skip, || network(x.clone()));
    assert_eq!(value(trace::with_hook(hook, run)), 13.0);
    // Both streams of two.
    let net = |x: Tensor<1>| trace::block(|| "both".into(), (x.clone(), x), |(x, y)| (x * 2.0, y * 5.0));
    let (first, second) = trace::with_hook(Add::new("both.input.1", 1.0), || net(x));
    assert_eq!((value(first), value(second)), (2.0, 10.0));
}

#[test]
fn two_streams_go_through_a_block_together() {
    let net = |x: Tensor<1>| {
        let both = (x.clone(), x.unsqueeze::<2>());
        let (x, y) = trace::block(|| "blocks.0".into(), both, |(x, y)| (x + 1.0, y * 5.0));
        let y: Tensor<1> =
            trace::unit(|| "end".into(), || trace::tap(|| "half".into(), y.reshape([1]) / 2.0));
        x + y
    };
    let x = tensor::<1>(&[2.0], [1]);
    assert_eq!(value(net(x.clone())), 8.0);
    let names = ["blocks.0.input", "blocks.0.input.1", "blocks.0", "blocks.0.1", "end.half", "end"];
    assert_eq!(trace::names(|| drop(net(x.clone()))), names);
    let hook = Rc::new(SkippedBlocks::new(&["blocks.0"]));
    assert_eq!(value(trace::with_hook(hook, || net(x))), 3.0);
}

#[test]
fn a_replacement_must_fit() {
    struct Wrong;
    impl Hook for Wrong {
        fn tap(&self, tapped: &mut Tapped<'_>) {
            tapped.set(tensor::<2>(&[1.0, 2.0], [1, 2]));
        }
    }
    let run = || trace::with_hook(Rc::new(Wrong), || network(tensor::<1>(&[1.0], [1])));
    assert!(panic_text(run).contains("blocks.0.input cannot be replaced by a tensor of other sizes"));
}

/// The text of a panic.
fn panic_text<T>(run: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).err().expect("should panic");
    *payload.downcast::<String>().expect("a formatted message")
}

#[test]
fn attention_with_the_identity_is_its_values_alone() {
    let device = Device::flex();
    let attention = params::fill_by_formula(AttentionConfig::new(6, 2).init(&device));
    let x = Tensor::<1, Int>::arange(0..48, &device).float().sin().reshape([2, 4, 6]);
    let hook = Rc::new(IdentityMaps::new(&["own.map"]));
    let forward = || trace::scope(|| "own".into(), || attention.forward(x.clone(), x.clone(), None));
    let found = trace::with_hook(hook.clone(), forward);
    hook.verify();
    let values = attention.output.forward(attention.value.forward(x.clone()));
    let off = (found.clone() - values).abs().max().into_scalar::<f32>();
    assert!(off < 1e-6, "off by {off:e}");
    assert!((found - forward()).abs().max().into_scalar::<f32>() > 1e-3);

    let cross =
        || trace::scope(|| "own".into(), || attention.forward(x.clone(), x.clone().narrow(1, 0, 3), None));
    let message = panic_text(|| trace::with_hook(hook, cross));
    assert!(message.contains("own.map is not of self-attention"), "{message}");
}
