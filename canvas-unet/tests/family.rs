//! Stable Diffusion 2, XL and their variants, and ControlNet: parity with diffusers (fixtures by
//! `tools/fixtures_unet.py`), parameter counts, conditions.

mod common;

use burn::optim::GradientsParams;
use burn::prelude::*;
use canvas_core::recompute::Forward;
use canvas_core::trace::{self, SkippedBlocks};
use canvas_core::{Backbone, Channels, Class, Concatenated, Condition, Text, params};
use canvas_testkit::{distance, panic_text};
use canvas_unet::{
    Adapted, AdapterKind, Conditions, ControlNet, ControlNetConfig, Controlled, Hints, Label, LabelKind,
    Residuals, T2iAdapter, T2iAdapterConfig, Unet, UnetConfig,
};
use common::{compare, gradients, pattern};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// SDXL's kind of network, as in the fixture.
fn xl(in_channels: usize) -> UnetConfig {
    UnetConfig::new(4, 12, vec![16, 24, 32], vec![0, 2, 3], vec![2, 3, 4])
        .with_middle_depth(3)
        .with_norm_groups(2)
        .with_linear_projection(true)
        .with_pooled_width(Some(7))
        .with_size_features(Some(8))
        .with_in_channels(in_channels)
}

fn small() -> UnetConfig {
    UnetConfig::new(3, 12, vec![8, 12], vec![1, 0], vec![2, 3])
        .with_out_channels(Some(5))
        .with_blocks(1)
        .with_norm_groups(2)
}

fn text(masked: bool, device: &Device) -> Text {
    let mask = [[true; 5], [true, true, true, !masked, !masked]];
    Text {
        tokens: pattern([2, 5, 12], 1.0, device),
        mask: Tensor::from_data(TensorData::from(mask), device),
        pooled: pattern([2, 7], 3.0, device),
    }
}

fn sized(masked: bool, device: &Device) -> Conditions {
    let sizes = [[512.0, 768.0, 3.0, 17.0, 1024.0, 896.0], [640.0, 480.0, 0.0, 64.0, 1000.0, 768.0f32]];
    Conditions { sizes: Some(Tensor::from_floats(sizes, device)), ..text(masked, device).into() }
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.75], device)
}

#[test]
fn sdxl_equals_diffusers() {
    let device = Device::flex().autodiff();
    let unet: Unet = params::fill_by_formula(xl(7).init(&device));
    let x = (pattern([2, 7, 8, 12], 1.0, &device) * 3.0).require_grad();
    let mut cond = sized(true, &device);
    cond.text.tokens = cond.text.tokens.require_grad();
    // The last three channels are a condition.
    let extra = Channels { values: x.clone().narrow(1, 4, 3) };
    let told = unet.told();
    let net = Concatenated { backbone: &told };
    let output = net.forward(x.clone().narrow(1, 0, 4), times(&device), &(cond.clone(), extra));
    let grads = (output.clone() * pattern(output.dims(), 2.0, &device)).sum().backward();
    let mut found = gradients(&unet, &grads);
    found.insert("output".into(), output.into_data());
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("grad.tokens".into(), cond.text.tokens.grad(&grads).unwrap().into_data());
    compare("sdxl", &found, 1e-4);
}

#[test]
fn labels_equal_diffusers() {
    let device = Device::flex().autodiff();
    let number = Tensor::from_floats([[20.0], [741.0]], &device);
    let cases = [
        ("label_class", LabelKind::Class(5), Label::Class(Class::new(&[3, 1], &device))),
        ("label_time", LabelKind::Time, Label::Vector(number)),
        ("label_vector", LabelKind::Vector(7), Label::Vector(pattern([2, 7], 3.0, &device))),
    ];
    for (name, kind, label) in cases {
        let unet: Unet = params::fill_by_formula(small().with_label(Some(kind)).init(&device));
        let cond = Conditions { label: Some(label), ..text(true, &device).into() };
        let x = pattern([2, 3, 8, 12], 1.0, &device) * 3.0;
        let output = unet.told().forward(x, times(&device), &cond);
        let grads = (output.clone() * pattern(output.dims(), 2.0, &device)).sum().backward();
        let mut found = gradients(&unet, &grads);
        found.insert("output".into(), output.into_data());
        compare(name, &found, 1e-4);
    }
}

#[test]
fn levels_that_read_only_text_equal_diffusers() {
    let device = Device::flex().autodiff();
    let config = UnetConfig::new(3, 12, vec![16, 24], vec![1, 1], vec![2, 3])
        .with_blocks(1)
        .with_norm_groups(2)
        .with_cross_only(Some(vec![true, false]));
    let unet: Unet = params::fill_by_formula(config.init(&device));
    let x = pattern([2, 3, 8, 12], 1.0, &device) * 3.0;
    let output = unet.forward(x, times(&device), &text(false, &device));
    let grads = (output.clone() * pattern(output.dims(), 2.0, &device)).sum().backward();
    let mut found = gradients(&unet, &grads);
    found.insert("output".into(), output.into_data());
    compare("cross_only", &found, 1e-4);
}

fn controlnet(device: &Device) -> ControlNet {
    params::fill_by_formula(ControlNetConfig::new(xl(4)).with_hint_widths(vec![4, 6, 10]).init(device))
}

#[test]
fn controlnet_equals_diffusers() {
    let device = Device::flex().autodiff();
    let net = controlnet(&device);
    let x = (pattern([2, 4, 8, 12], 1.0, &device) * 3.0).require_grad();
    let hint = pattern([2, 3, 32, 48], 4.0, &device).require_grad();
    let mut cond = sized(false, &device);
    cond.text.tokens = cond.text.tokens.require_grad();
    let added = net.forward(x.clone(), times(&device), &cond, hint.clone());
    let scaled = added.clone().scaled(0.7);
    let part = |x: &Tensor<4>| (x.clone() * pattern(x.dims(), 2.0, &device)).sum();
    let loss = scaled.skips.iter().map(part).fold(part(scaled.middle.as_ref().unwrap()), |a, b| a + b);
    let grads = loss.backward();

    let mut found: BTreeMap<String, TensorData> = gradients(&net, &grads);
    let cut = |x: Tensor<4>| x.narrow(1, 0, 4).into_data();
    for (i, skip) in scaled.skips.iter().enumerate() {
        found.insert(format!("skips.{i}"), cut(skip.clone()));
    }
    found.insert("middle".into(), cut(scaled.middle.clone().unwrap()));
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("grad.tokens".into(), cond.text.tokens.grad(&grads).unwrap().into_data());
    let hint_grad = hint.grad(&grads).unwrap().narrow(2, 0, 8).narrow(3, 0, 12);
    found.insert("grad.hint".into(), hint_grad.into_data());

    let unet: Unet = params::fill_by_formula(xl(4).init(&device));
    let run = |added| unet.run(x.clone(), times(&device), &cond, Some(&added)).into_data();
    found.insert("controlled".into(), run(scaled.clone()));
    found.insert("guessed".into(), run(added.graded().scaled(0.7)));
    compare("controlnet", &found, 1e-4);
}

/// At first the UNet answers as without it, and only what is zero learns; what is copied learns from the next step on.
#[test]
fn a_controlnet_begins_as_its_unet() {
    let device = Device::flex().autodiff();
    let unet: Unet = params::fill_by_formula(xl(4).init(&device)).no_grad();
    let config = ControlNetConfig::new(xl(4)).with_hint_widths(vec![4, 6, 10]);
    let fresh = params::realise(config.init(&device));
    let ids = |net: &ControlNet| params::named(net).into_iter().map(|param| param.id).collect::<Vec<_>>();
    let net = fresh.clone().from_unet(&unet);
    assert_eq!(ids(&net), ids(&fresh));
    let of = |named: Vec<params::Named>| -> BTreeMap<String, TensorData> {
        named.into_iter().map(|param| (param.name, param.data)).collect()
    };
    let (theirs, own) = (of(params::named(&unet)), of(params::named(&net)));
    let is_new = |name: &str| ["hint.", "skips.", "middle_out."].iter().any(|new| name.starts_with(new));
    let copied = own.iter().filter(|(name, _)| !is_new(name));
    assert_eq!(copied.clone().count(), theirs.keys().filter(|name| own.contains_key(*name)).count());
    copied.for_each(|(name, data)| assert_eq!(data, &theirs[name], "{name}"));

    let (x, time, cond) = (pattern([2, 4, 8, 12], 1.0, &device), times(&device), sized(true, &device));
    let control = Controlled { unet: &unet, controls: vec![(&net, 1.0)] };
    let hints = Hints(vec![Channels { values: pattern([2, 3, 32, 48], 4.0, &device) }]);
    let answer = control.forward(x.clone(), time.clone(), &(cond.clone(), hints));
    assert_eq!(answer.to_data(), unet.run(x, time, &cond, None).into_data());
    let all = GradientsParams::from_grads(answer.square().sum().backward(), &net);
    for param in params::named_gradients(&net, &all) {
        let learns = param.data.iter::<f32>().any(|x| x != 0.0);
        let ends = ["skips.", "middle_out."].iter().any(|end| param.name.starts_with(end));
        assert_eq!(learns, ends, "{}", param.name);
    }

    let other: Unet = UnetConfig { channels: vec![16, 36, 32], ..xl(4) }.init(&device);
    let says = panic_text(|| fresh.from_unet(&other));
    assert!(says.starts_with("the ControlNet is for another UNet: ") && says.contains("[24, "), "{says}");
}

/// What is asked of a UNet by name must not happen in a ControlNet, whose parts are built alike.
#[test]
fn hooks_tell_a_controlnet_from_its_unet() {
    let device = Device::flex();
    let (net, unet): (_, Unet) = (controlnet(&device), params::fill_by_formula(xl(4).init(&device)));
    let (x, time, cond) = (pattern([2, 4, 8, 12], 1.0, &device), times(&device), sized(true, &device));
    let hint = pattern([2, 3, 32, 48], 4.0, &device);
    let added = || net.forward(x.clone(), time.clone(), &cond, hint.clone());
    let own = trace::names(|| drop(added()));
    assert!(own.iter().all(|name| name.starts_with("control.")), "{own:?}");
    assert!(own.contains(&"control.hint".into()) && own.contains(&"control.middle".into()), "{own:?}");
    let run = || unet.run(x.clone(), time.clone(), &cond, None);
    for name in trace::names(|| drop(run())).iter().filter(|name| !name.starts_with("up.")) {
        assert!(own.contains(&format!("control.{name}")), "{name}");
    }
    let hook = Rc::new(SkippedBlocks::new(&["middle"]));
    let skipped = trace::with_hook(hook, added);
    let middle = |residuals: Residuals| residuals.middle.unwrap().into_data();
    assert_eq!(middle(skipped), middle(added()));
}

#[test]
fn t2i_adapters_equal_diffusers() {
    let device = Device::flex().autodiff();
    let small = |channels: Vec<usize>, heads| {
        let config = UnetConfig::new(4, 12, channels, vec![1, 1, 0], heads);
        config.with_blocks(1).with_norm_groups(2)
    };
    let adapter =
        |kind, channels: &[usize], factor| T2iAdapterConfig::new(kind, channels.to_vec()).with_factor(factor);
    let (full, large, light) = (AdapterKind::Full, AdapterKind::FullXl, AdapterKind::Light);
    let cases = [
        ("adapter_full", adapter(full, &[16, 24, 32], 2), small(vec![16, 24, 32], vec![2, 3, 4])),
        ("adapter_full_xl", adapter(large, &[16, 24, 32, 32], 4), xl(4)),
        ("adapter_light", adapter(light, &[16, 24], 2), small(vec![16, 24, 24], vec![2, 3, 3])),
    ];
    for (name, adapter, unet) in cases {
        let net: T2iAdapter = params::fill_by_formula(adapter.init(&device));
        let hint = pattern([2, 3, 16, 24], 4.0, &device).require_grad();
        let features = net.forward(hint.clone());
        let part = |x: &Tensor<4>| (x.clone() * pattern(x.dims(), 2.0, &device)).sum();
        let grads = features.levels.iter().map(part).reduce(|a, b| a + b).unwrap().backward();
        let mut found = gradients(&net, &grads);
        let hint_grad = hint.grad(&grads).unwrap().narrow(2, 0, 8).narrow(3, 0, 12);
        found.insert("grad.hint".into(), hint_grad.into_data());
        for (i, level) in features.levels.iter().enumerate() {
            found.insert(format!("levels.{i}"), level.clone().narrow(1, 0, 4).into_data());
        }
        let sizes = sized(false, &device).sizes.filter(|_| unet.size_features.is_some());
        let cond = Conditions { sizes, ..text(false, &device).into() };
        let unet: Unet = params::fill_by_formula(unet.init(&device));
        let x = pattern([2, 4, 8, 12], 1.0, &device) * 3.0;
        let adapted = Adapted { unet: &unet };
        let output =
            adapted.forward(x.clone(), times(&device), &(cond.clone(), features.clone().scaled(0.6)));
        found.insert("adapted".into(), output.clone().into_data());
        compare(name, &found, 1e-4);

        for row in 0..2 {
            let alone = net.forward(hint.clone().narrow(0, row, 1));
            for (alone, together) in alone.levels.into_iter().zip(&features.levels) {
                let error = distance(alone, together.clone().narrow(0, row, 1));
                assert!(error < 1e-5, "{name}, row {row}: {error:e}");
            }
        }
        // As a condition its rows come and go with the batch's.
        let swapped = (cond, features.scaled(0.6)).select(&[1, 0]);
        let back = adapted.forward(x.flip([0]), times(&device).flip([0]), &swapped).flip([0]);
        assert!(distance(back, output) < 1e-5, "{name}");
    }
}

#[test]
fn several_controlnets_add_up_row_by_row() {
    let device = Device::flex();
    let (net, unet): (_, Unet) = (controlnet(&device), params::fill_by_formula(xl(4).init(&device)));
    let x = pattern([2, 4, 8, 12], 1.0, &device);
    let hint = |seed| Channels { values: pattern([2, 3, 32, 48], seed, &device) };
    let cond = (sized(true, &device), Hints(vec![hint(4.0), hint(5.0)]));
    let both = Controlled { unet: &unet, controls: vec![(&net, 0.7), (&net, -0.4)] };
    let together = both.forward(x.clone(), times(&device), &cond);

    // One with the sum of the strengths, when both see the same.
    let same = (cond.0.clone(), Hints(vec![hint(4.0), hint(4.0)]));
    let one = Controlled { unet: &unet, controls: vec![(&net, 0.7 - 0.4)] };
    let single = one.forward(x.clone(), times(&device), &(cond.0.clone(), Hints(vec![hint(4.0)])));
    let equal = distance(both.forward(x.clone(), times(&device), &same), single.clone());
    assert!(equal < 1e-5, "{equal:e}");
    assert!(distance(together.clone(), single) > 1e-3);

    for row in 0..2 {
        let alone =
            both.forward(x.clone().narrow(0, row, 1), times(&device).narrow(0, row, 1), &cond.select(&[row]));
        let error = distance(alone, together.clone().narrow(0, row, 1));
        assert!(error < 1e-5, "row {row}: {error:e}");
    }
    // A fresh ControlNet changes nothing.
    let fresh = ControlNetConfig::new(xl(4)).with_hint_widths(vec![4, 6, 10]).init(&device);
    let idle = Controlled { unet: &unet, controls: vec![(&fresh, 1.0)] };
    let plain = unet.told().forward(x.clone(), times(&device), &cond.0);
    let found = idle.forward(x, times(&device), &(cond.0.clone(), Hints(vec![hint(4.0)])));
    assert_eq!(found.into_data(), plain.into_data());
}

/// Read off the shapes: nothing is allocated.
#[test]
fn published_sizes_have_their_parameter_counts() {
    let device = Device::flex();
    let unclip = UnetConfig::sd2().with_label(Some(LabelKind::Vector(2048)));
    let cases = [
        ("Stable Diffusion 1", UnetConfig::sd1(), 859_520_964),
        ("its inpainting", UnetConfig::sd1().with_in_channels(9), 859_535_364),
        ("Stable Diffusion 2", UnetConfig::sd2(), 865_910_724),
        ("its unCLIP", unclip, 870_173_124),
        ("SDXL", UnetConfig::sdxl(), 2_567_463_684),
        ("its upscaler", UnetConfig::sd_upscaler(), 473_398_020),
        ("its inpainting", UnetConfig::sdxl().with_in_channels(9), 2_567_478_084),
        ("its refiner", UnetConfig::sdxl_refiner(), 2_259_526_660),
    ];
    for (name, config, expected) in cases {
        assert_eq!(config.init(&device).num_params(), expected, "{name}");
    }
    let adapters = [
        (T2iAdapterConfig::sd1(), 77_369_280),
        (T2iAdapterConfig::sdxl(), 79_028_160),
        (T2iAdapterConfig::sd1_light(), 18_689_200),
    ];
    for (config, expected) in adapters {
        assert_eq!(config.init(&device).num_params(), expected);
    }
    for (config, expected) in [(UnetConfig::sd1(), 361_279_120), (UnetConfig::sdxl(), 1_251_014_160)] {
        assert_eq!(ControlNetConfig::new(config).init(&device).num_params(), expected);
    }
}

#[test]
fn conditions_join_and_select() {
    let device = Device::flex();
    let label = |labels: &[usize]| Some(Label::Class(Class::new(labels, &device)));
    let one = Conditions { label: label(&[1, 2]), ..sized(true, &device) };
    let two = Conditions { label: label(&[3, 4]), ..sized(true, &device) };
    let both = Conditions::cat(&[one.clone(), two]);
    assert_eq!(both.batch(), 4);
    let back = both.select(&[3, 0]);
    let sizes = |cond: &Conditions| cond.sizes.clone().unwrap();
    assert_eq!(sizes(&back).into_data(), Tensor::cat(vec![sizes(&one).flip([0])], 0).into_data());
    let Some(Label::Class(class)) = back.label else { panic!("a class") };
    assert_eq!(class.labels.into_data().iter::<i64>().collect::<Vec<_>>(), [4, 1]);
    let bare: Conditions = text(true, &device).into();
    let panic = catch_unwind(AssertUnwindSafe(|| Conditions::cat(&[one, bare]))).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("1 of 2 conditions have sizes"));
}

#[test]
fn what_is_not_told_is_named() {
    let device = Device::flex();
    let message = |unet: &Unet, cond: &Conditions, channels: usize| {
        let x = pattern([2, channels, 8, 12], 0.0, &device);
        let run = || unet.run(x, times(&device), cond, None);
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
    };
    let plain: Conditions = text(true, &device).into();
    let (large, labelled) =
        (xl(4).init(&device), small().with_label(Some(LabelKind::Class(5))).init(&device));
    assert_eq!(message(&large, &plain, 4), "this UNet reads 6 sizes beside the text, found none");
    assert_eq!(message(&small().init(&device), &sized(true, &device), 3), "sizes for a UNet that reads none");
    assert_eq!(message(&labelled, &plain, 3), "this UNet reads a class label, found another label or none");
    let missing = xl(4).with_pooled_width(None).validate().unwrap_err().to_string();
    assert_eq!(missing, "pooled_width, which size_features needs, must be at least 1, found 0");
}

/// The stages are run again, and what skips from the way down to the way up has a gradient from both.
#[test]
fn gradients_are_the_same_with_stages_run_again() {
    let device = Device::flex().autodiff();
    let unet: Unet = params::fill_by_formula(xl(4).init(&device));
    let x = pattern([2, 4, 8, 12], 1.0, &device) * 3.0;
    let losses = |unet: &Unet| {
        let output = unet.told().forward(x.clone(), times(&device), &sized(true, &device));
        (output.clone() * pattern(output.dims(), 2.0, &device)).sum()
    };
    let largest = |values: &[f64]| values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let named = |gradients: &GradientsParams| {
        let all = params::named_gradients(&unet, gradients).into_iter();
        all.map(|each| (each.name, each.data.iter::<f64>().collect())).collect::<BTreeMap<_, Vec<f64>>>()
    };
    let whole = named(&GradientsParams::from_grads(losses(&unet).backward(), &unet));
    let found = named(&Forward::new(&unet, losses).gradients(3));
    assert!(found.keys().eq(whole.keys()));
    // Parts of a gradient may cancel: all of them in that of a key's bias, which is rounding and nothing else.
    let least = 0.01 * whole.values().fold(0.0, |most: f64, values| most.max(largest(values)));
    for (name, whole) in &whole {
        let off: Vec<f64> = found[name].iter().zip(whole).map(|(a, b)| a - b).collect();
        let error = largest(&off) / largest(whole).max(least);
        println!("{name}: {error:.1e}");
        assert!(error < 1e-6, "{name}: relative error {error:.1e}");
    }
}
