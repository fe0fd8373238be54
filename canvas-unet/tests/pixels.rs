//! DDPM and ADM: parity with diffusers' UNet2DModel (fixtures by `tools/fixtures_unet.py`), counts, errors.

mod common;

use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Backbone, Class, Unconditional, params, trace};
use canvas_unet::{Adm, AdmConfig, Ddpm, DdpmConfig, Resample};
use common::{compare, gradients, pattern};

fn config() -> DdpmConfig {
    DdpmConfig::new(3, vec![16, 24, 32], vec![false, true, false])
        .with_head_width(Some(8))
        .with_norm_groups(2)
}

fn ddpm() -> DdpmConfig {
    config().with_epsilon(1e-6).with_resample(Resample::After).with_ddpm_time(true)
}

fn adm() -> AdmConfig {
    let body = config().with_out_channels(Some(6)).with_scale_shift(true).with_resample(Resample::Residual);
    AdmConfig::new(body, 5)
}

/// Runs a filled network on the fixture's inputs and compares values and gradients.
fn parity<N: Backbone<4> + Module>(fixture: &str, net: &N, cond: &N::Cond, device: &Device) {
    let x = (pattern([2, 3, 8, 12], 1.0, device) * 3.0).require_grad();
    let output = net.forward(x.clone(), Tensor::from_floats([0.25, 0.75], device), cond);
    let grads = (output.clone() * pattern(output.dims(), 2.0, device)).sum().backward();
    let mut found = gradients(net, &grads);
    found.insert("output".into(), output.into_data());
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    compare(fixture, &found, 1e-4);
}

#[test]
fn ddpm_equals_diffusers() {
    let device = Device::flex().autodiff();
    let net: Ddpm = params::fill_by_formula(ddpm().init(&device));
    parity("ddpm", &net, &Unconditional(2), &device);
}

#[test]
fn adm_equals_diffusers() {
    let device = Device::flex().autodiff();
    let net: Adm = params::fill_by_formula(adm().init(&device));
    parity("adm", &net, &Class::new(&[3, 1], &device), &device);
}

/// Read off the shapes: nothing is allocated.
#[test]
fn published_sizes_have_their_parameter_counts() {
    let device = Device::flex();
    assert_eq!(DdpmConfig::cifar10().init(&device).num_params(), 35_746_307);
    assert_eq!(DdpmConfig::large().init(&device).num_params(), 113_673_219);
    assert_eq!(AdmConfig::imagenet64().init(&device).num_params(), 295_904_454);
    assert_eq!(AdmConfig::imagenet256().init(&device).num_params(), 553_838_086);
}

#[test]
fn a_row_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let net: Adm = params::fill_by_formula(adm().init(&device));
    let (x, times) = (pattern([2, 3, 8, 12], 0.0, &device), Tensor::from_floats([0.25, 0.75], &device));
    let together = net.forward(x.clone(), times.clone(), &Class::new(&[3, 1], &device));
    for (row, class) in [3, 1].into_iter().enumerate() {
        let label = Class::new(&[class], &device);
        let alone = net.forward(x.clone().narrow(0, row, 1), times.clone().narrow(0, row, 1), &label);
        let error: f32 = (alone - together.clone().narrow(0, row, 1)).abs().max().into_scalar();
        assert!(error < 1e-5, "row {row}: {error:e}");
    }
}

#[test]
fn parts_have_names() {
    let device = Device::flex();
    let net: Adm = params::fill_by_formula(adm().init(&device));
    let (x, times) = (pattern([2, 3, 8, 12], 0.0, &device), Tensor::from_floats([0.25, 0.75], &device));
    let names = trace::names(|| drop(net.forward(x, times, &Class::new(&[3, 1], &device))));
    for expected in [
        "embedding",
        "down.0.down_res",
        "down.1.stages.0.res",
        "down.1.stages.0.attention.map",
        "down.1.stages.0",
        "middle.attention.map",
        "middle.second",
        "up.0.up_res",
        "up.2",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:?}");
    }
}

#[test]
fn errors_name_both_values() {
    let message = |config: DdpmConfig| config.validate().unwrap_err().to_string();
    let cases = [
        (config().with_norm_groups(3), "norm_groups (3) must divide channels of level 0 (16)"),
        (config().with_head_width(Some(7)), "head_width (7) must divide channels of level 1 (24)"),
        (
            DdpmConfig { attends: vec![true], ..config() },
            "attends has 1 entries, but channels has 3: one a level",
        ),
        (config().with_blocks(0), "blocks must be at least 1, found 0"),
    ];
    for (config, expected) in cases {
        assert_eq!(message(config), expected);
    }
    assert_eq!(
        AdmConfig::new(config(), 0).validate().unwrap_err().to_string(),
        "classes must be at least 1, found 0"
    );
}
