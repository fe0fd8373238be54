//! EDM2: parity with the paper's equations in torch (fixtures by `tools/fixtures_edm2.py`), magnitudes, forced weight
//! normalisation, errors.

mod common;

use burn::module::Module;
use burn::prelude::*;
use canvas_core::trace::{self, Hook, Tapped};
use canvas_core::{Backbone, Class, params};
use canvas_testkit::chirped;
use canvas_testkit::distance;
use canvas_unet::magnitude::{mp_cat, mp_silu, mp_sum, normalize_weights, normalized};
use canvas_unet::{Edm2, Edm2Config, Uncertainty};
use common::{compare, gradients, pattern};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// The configuration of the fixture.
fn config() -> Edm2Config {
    Edm2Config::new(3, vec![16, 24, 32], vec![false, true, false], 5).with_blocks(2).with_head(8)
}

/// Without classes, and clipped where values are.
fn plain() -> Edm2Config {
    Edm2Config::new(3, vec![8, 16], vec![false, false], 0).with_blocks(1).with_head(8).with_clip(1.5)
}

fn filled(config: &Edm2Config, device: &Device) -> Edm2 {
    chirped(config.init(device))
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([-0.4, 0.3], device)
}

fn noised(device: &Device) -> Tensor<4> {
    pattern([2, 3, 8, 12], 1.0, device) * 1.4
}

#[test]
fn equals_the_papers_equations() {
    let device = Device::flex().autodiff();
    for (fixture, config, labels) in [("edm2", config(), [3, 5]), ("edm2_plain", plain(), [0, 0])] {
        let net = filled(&config, &device);
        let x = noised(&device).require_grad();
        let output = net.forward(x.clone(), times(&device), &Class::new(&labels, &device));
        let grads = (output.clone() * pattern(output.dims(), 2.0, &device)).sum().backward();
        let mut found = gradients(&net, &grads);
        found.insert("output".into(), output.into_data());
        found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
        compare(fixture, &found, 1e-5);
    }
}

#[test]
fn uncertainty_weighs_the_loss_as_in_the_paper() {
    let device = Device::flex().autodiff();
    let net: Uncertainty = chirped(Uncertainty::new(16, &device));
    let losses = net.weigh(Tensor::from_floats([0.7, 2.5], &device), times(&device));
    let mut found = gradients(&net, &losses.clone().sum().backward());
    found.insert("u".into(), net.forward(times(&device)).into_data());
    found.insert("losses".into(), losses.into_data());
    compare("edm2_uncertainty", &found, 1e-5);
}

/// Read off the shapes: nothing is allocated.
#[test]
fn published_sizes_have_their_parameter_counts() {
    let device = Device::flex();
    let cases = [
        (Edm2Config::xs(), 124_713_381),
        (Edm2Config::s(), 280_213_093),
        (Edm2Config::m(), 497_808_165),
        (Edm2Config::l(), 777_498_597),
        (Edm2Config::xl(), 1_119_284_389),
        (Edm2Config::xxl(), 1_523_165_541),
    ];
    for (config, expected) in cases {
        assert_eq!(config.init(&device).num_params(), expected, "{:?}", config.widths);
    }
}

/// Root mean square of every named activation.
#[derive(Default)]
struct Sizes(RefCell<Vec<(String, f32)>>);

impl Hook for Sizes {
    fn tap(&self, tapped: &mut Tapped<'_>) {
        if let Some(x) = tapped.get::<4>().filter(|_| !tapped.name().ends_with(".map")) {
            let size = x.square().mean().sqrt().into_scalar();
            self.0.borrow_mut().push((tapped.name().to_owned(), size));
        }
    }
}

#[test]
fn fresh_networks_keep_the_variance_of_what_they_read() {
    let device = Device::flex();
    device.seed(3);
    let config = Edm2Config::new(4, vec![64, 128], vec![false, true], 10);
    let net = params::realise(config.init(&device));
    let x = Tensor::random([4, 4, 16, 16], burn::tensor::Distribution::Normal(0.0, 1.0), &device);
    let sizes = Rc::new(Sizes::default());
    let time = Tensor::from_floats([-1.0, -0.3, 0.2, 0.8], &device);
    let run = || net.forward(x.clone(), time.clone(), &Class::new(&[0, 3, 9, 10], &device));
    let output = trace::with_hook(sizes.clone(), run);
    let sizes = sizes.0.take();
    for (name, size) in &sizes {
        // Heads average their values, which makes them small: the paper lets them.
        let least = if name.ends_with(".heads") { 0.02 } else { 0.7 };
        assert!((least..1.4).contains(size), "{name}: {size}");
    }
    assert!(sizes.len() > 20, "{sizes:?}");
    assert_eq!(output.abs().max().into_scalar::<f32>(), 0.0);
}

#[test]
fn functions_keep_the_variance_of_independent_inputs() {
    let device = Device::flex();
    device.seed(5);
    let normal = |channels| {
        Tensor::<4>::random([8, channels, 16, 16], burn::tensor::Distribution::Normal(0.0, 1.0), &device)
    };
    let size = |x: Tensor<4>| x.square().mean().sqrt().into_scalar::<f32>();
    let (a, b) = (normal(12), normal(12));
    let few = normal(3);
    let joined = mp_cat(a.clone(), few, 0.3);
    // Both parts together have the variance of a layer's input, and count 0.7 to 0.3.
    let parts = [joined.clone().narrow(1, 0, 12), joined.clone().narrow(1, 12, 3)].map(|x| x.square().sum());
    let [first, second] = parts.map(|sum| sum.into_scalar::<f32>());
    assert!(((second / first).sqrt() - 0.3 / 0.7).abs() < 0.02, "{first} {second}");
    for found in [size(joined), size(mp_silu(a.clone())), size(mp_sum(a.clone(), b, 0.3))] {
        assert!((found - 1.0).abs() < 0.02, "{found}");
    }
    // The small number is added to the root mean square, not to the norm.
    let tiny = normalized(Tensor::<2>::full([1, 100], 1e-4, &device), 1);
    assert!(distance(tiny, Tensor::full([1, 100], 0.5, &device)) < 1e-5);
    assert_eq!(normalized(Tensor::<2>::zeros([1, 4], &device), 1).sum().into_scalar::<f32>(), 0.0);
    let zero = Tensor::<2>::zeros([1, 4], &Device::flex().autodiff()).require_grad();
    let grads = normalized(zero.clone(), 1).sum().backward();
    assert!(zero.grad(&grads).unwrap().into_data().iter::<f32>().all(f32::is_finite));
}

#[test]
fn forced_normalisation_changes_lengths_and_nothing_else() {
    let device = Device::flex().autodiff();
    let net = params::realise(filled(&config(), &device));
    let before = params::named(&net);
    let run = |net: &Edm2| net.forward(noised(&device), times(&device), &Class::new(&[3, 5], &device));
    let net = normalize_weights(net);
    for (old, new) in before.iter().zip(params::named(&net)) {
        assert_eq!((&old.name, old.id), (&new.name, new.id));
        if !new.name.ends_with("weight") {
            assert_eq!(old.data, new.data, "{}", old.name);
            continue;
        }
        let rows = new.data.shape()[0];
        let sizes = |data: &TensorData| -> Vec<f64> {
            let values: Vec<f64> = data.iter::<f64>().collect();
            let size = |row: &[f64]| (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64).sqrt();
            values.chunks(values.len() / rows).map(size).collect()
        };
        for (was, is) in sizes(&old.data).into_iter().zip(sizes(&new.data)) {
            assert!((is - was / (was + 1e-4)).abs() < 1e-6, "{}: {was} became {is}", new.name);
        }
    }
    // Of weights that have unit variance the layers compute the same, but for the 1e-4 added to the length of each.
    let second = run(&net);
    let third = run(&normalize_weights(net.clone()));
    let change = distance(second.clone(), third) / second.clone().abs().max().into_scalar::<f32>();
    assert!(change < 1e-3, "{change:e}");
    // Gradients still reach every weight, and have no part along it: lengths do not matter.
    let grads = gradients(&net, &second.square().sum().backward());
    assert!(!grads.contains_key("grad.fourier.frequencies") && !grads.contains_key("grad.fourier.phases"));
    for param in params::named(&net).into_iter().filter(|param| param.name.ends_with("weight")) {
        let grad = &grads[&format!("grad.{}", param.name)];
        let pairs = || grad.iter::<f64>().zip(param.data.iter::<f64>());
        let (along, length) = (pairs().map(|(g, w)| g * w).sum::<f64>(), grad.iter::<f64>().map(|g| g * g));
        let sizes = length.sum::<f64>().sqrt() * (param.data.num_elements() as f64).sqrt();
        assert!(sizes > 0.0 && along.abs() < 1e-3 * sizes, "{}: {along:e} of {sizes:e}", param.name);
    }
}

#[test]
fn a_row_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let net = filled(&config(), &device);
    let together = net.forward(noised(&device), times(&device), &Class::new(&[3, 5], &device));
    for (row, label) in [3, 5].into_iter().enumerate() {
        let time = times(&device).narrow(0, row, 1);
        let alone = net.forward(noised(&device).narrow(0, row, 1), time, &Class::new(&[label], &device));
        let error = distance(alone, together.clone().narrow(0, row, 1));
        assert!(error < 1e-6, "row {row}: {error:e}");
    }
    let other = net.forward(noised(&device), times(&device), &Class::new(&[3, 2], &device));
    assert!(distance(other, together) > 1e-4);
}

#[test]
fn parts_have_names() {
    let device = Device::flex();
    let net = filled(&config(), &device);
    let run = || net.forward(noised(&device), times(&device), &Class::new(&[3, 5], &device));
    let names = trace::names(|| drop(run()));
    for expected in [
        "down.1.resize",
        "down.1.blocks.0.attention.map",
        "down.1.blocks.0",
        "middle.0.attention.map",
        "middle.1",
        "up.1.resize",
        "up.1.blocks.2.attention.map",
        "up.2.blocks.2",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:?}");
    }
    let unique: BTreeMap<_, _> = names.iter().map(|name| (name, ())).collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
}

#[test]
fn errors_name_both_values() {
    let message = |config: Edm2Config| config.validate().unwrap_err().to_string();
    let cases = [
        (config().with_head(7), "head (7) must divide widths of level 1 (24)"),
        (
            Edm2Config { attends: vec![true], ..config() },
            "attends has 1 entries, but widths has 3: one a level",
        ),
        (config().with_blocks(0), "blocks must be at least 1, found 0"),
        (config().with_clip(f64::NAN), "clip must be above 0, found NaN"),
    ];
    for (config, expected) in cases {
        assert_eq!(message(config), expected);
    }
    let device = Device::flex();
    let net = config().init(&device);
    for (dims, labels, expected) in [
        ([2, 3, 8, 10], 2, "height (8) and width (10) must be multiples of 4: 3 levels"),
        ([2, 4, 8, 12], 2, "x has 4 channels, the UNet takes 3"),
        ([2, 3, 8, 12], 3, "2 times and 3 labels for a batch of 2"),
    ] {
        let class = Class::new(&vec![0; labels], &device);
        let run = || net.forward(pattern(dims, 0.0, &device), times(&device), &class);
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(expected), "{message}");
    }
}
