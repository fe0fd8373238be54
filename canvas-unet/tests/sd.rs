//! The UNet of Stable Diffusion: parity with diffusers (fixture by `tools/fixtures_unet.py`), invariances, errors.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::trace::{self, IdentityMaps, Perturbation, SkippedBlocks};
use canvas_core::{Backbone, Condition, Text, params, weights};
use canvas_testkit::{distance, gradients_by_path, pattern, two_prompts as text};
use canvas_unet::{Unet, UnetConfig};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;

/// The configuration of the fixture.
fn config() -> UnetConfig {
    UnetConfig::new(3, 12, vec![16, 24, 32], vec![2, 1, 0], vec![2, 3, 4])
        .with_out_channels(Some(5))
        .with_norm_groups(2)
}

fn filled(config: &UnetConfig, device: &Device) -> Unet {
    params::fill_by_formula(config.init(device))
}

fn times(values: [f32; 2], device: &Device) -> Tensor<1> {
    Tensor::from_floats(values, device)
}

#[test]
fn equals_diffusers() {
    let device = Device::flex().autodiff();
    let unet = filled(&config(), &device);
    let x = (pattern([2, 3, 8, 12], 1.0, &device) * 3.0).require_grad();
    let mut text = text(&device);
    text.tokens = text.tokens.require_grad();
    let output = unet.forward(x.clone(), times([0.25, 0.75], &device), &text);
    let grads = (output.clone() * pattern(output.dims(), 2.0, &device)).sum().backward();

    let named = gradients_by_path(&unet, &grads).into_iter();
    let mut found: BTreeMap<String, TensorData> =
        named.map(|(name, grad)| (format!("grad.{name}"), grad)).collect();
    found.insert("output".into(), output.into_data());
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("grad.tokens".into(), text.tokens.grad(&grads).unwrap().into_data());

    compare(1e-4, |name| (name != "quiet").then(|| found[name].clone()));
}

/// Holds what `found` gives against the fixture's values of these names, relative to their largest.
fn compare(tolerance: f64, found: impl Fn(&str) -> Option<TensorData>) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sd.safetensors");
    for (name, expected) in weights::read_tensors(&fixture).unwrap() {
        let Some(found) = found(&name) else { continue };
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let largest = expected.iter::<f64>().fold(0.0, |most: f64, x| most.max(x.abs()));
        let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
        let error = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest;
        println!("{name}: {error:.1e}");
        assert!(error < tolerance, "{name}: relative error {error:.2e}");
    }
}

struct Tenth;

impl ModuleMapper for Tenth {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value * 0.1)
    }
}

/// With small weights variances come near the norms' epsilons, and 1e-5 in place of 1e-6 shows.
#[test]
fn epsilons_are_those_of_diffusers() {
    let device = Device::flex();
    let unet = filled(&config(), &device).map(&mut Tenth);
    let mut text = text(&device);
    text.mask = Tensor::<2, Int>::ones([2, 5], &device).bool();
    let output = unet.forward(pattern([2, 3, 8, 12], 1.0, &device), times([0.25, 0.75], &device), &text);
    compare(1e-6, |name| (name == "quiet").then(|| output.to_data()));
}

/// The published model's count, read off the shapes: nothing is allocated.
#[test]
fn stable_diffusion_has_860_million_parameters() {
    assert_eq!(UnetConfig::sd1().init(&Device::flex()).num_params(), 859_520_964);
}

#[test]
fn small_fits_small_latents_and_begins_at_zero() {
    let device = Device::flex();
    let unet = UnetConfig::small(8, 12).init(&device);
    let count = unet.num_params();
    assert!((2_000_000..4_500_000).contains(&count), "{count} parameters");
    let x = pattern([2, 8, 8, 8], 0.0, &device);
    let output = unet.forward(x.clone(), times([0.1, 0.9], &device), &text(&device));
    assert_eq!(output.dims(), x.dims());
    assert_eq!(output.abs().max().into_scalar::<f32>(), 0.0);
}

#[test]
fn a_row_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let unet = filled(&config(), &device);
    let x = pattern([2, 3, 8, 12], 0.0, &device);
    let together = unet.forward(x.clone(), times([0.25, 0.75], &device), &text(&device));
    for (row, time) in [0.25f32, 0.75].into_iter().enumerate() {
        let alone = unet.forward(
            x.clone().narrow(0, row, 1),
            Tensor::from_floats([time], &device),
            &text(&device).select(&[row]),
        );
        let error = distance(alone, together.clone().narrow(0, row, 1));
        assert!(error < 1e-5, "row {row}: {error:e}");
    }
}

#[test]
fn masked_tokens_are_not_read() {
    let device = Device::flex();
    let (unet, times) = (filled(&config(), &device), times([0.25, 0.75], &device));
    let x = pattern([2, 3, 8, 12], 0.0, &device);
    canvas_testkit::masked_tokens_are_not_read(&device, |text| unet.forward(x.clone(), times.clone(), text));
}

#[test]
fn each_sample_has_its_own_time() {
    let device = Device::flex();
    let unet = filled(&config(), &device);
    let x = pattern([1, 3, 8, 12], 0.0, &device).repeat_dim(0, 2);
    let text = text(&device).select(&[0, 0]);
    let output = unet.forward(x.clone(), times([0.25, 0.75], &device), &text);
    assert!(distance(output.clone().narrow(0, 0, 1), output.clone().narrow(0, 1, 1)) > 1e-3);
    let swapped = unet.forward(x, times([0.75, 0.25], &device), &text);
    assert!(distance(swapped.flip([0]), output) < 1e-5);
}

#[test]
fn the_pooled_prompt_counts_only_when_configured() {
    let device = Device::flex();
    let change = |config: &UnetConfig| {
        let unet = filled(config, &device);
        let forward = |text: &Text| {
            unet.forward(pattern([2, 3, 8, 12], 0.0, &device), times([0.25, 0.75], &device), text)
        };
        let text = text(&device);
        distance(forward(&Text { pooled: text.pooled.clone() + 1.0, ..text.clone() }), forward(&text))
    };
    assert_eq!(change(&config()), 0.0);
    assert!(change(&config().with_pooled_width(Some(7))) > 1e-3);
}

#[test]
fn errors_name_both_values() {
    let message = |config: UnetConfig| config.validate().unwrap_err().to_string();
    let cases = [
        (config().with_norm_groups(3), "norm_groups (3) must divide channels of level 0 (16)"),
        (
            UnetConfig { heads: vec![2, 5, 4], ..config() },
            "heads of level 1 (5) must divide channels of level 1 (24)",
        ),
        (
            UnetConfig { heads: vec![2, 3, 7], ..config() },
            "heads of level 2 (7) must divide channels of level 2 (32)",
        ),
        (UnetConfig { depth: vec![1], ..config() }, "depth has 1 entries, but channels has 3: one a level"),
        (
            UnetConfig { channels: vec![], ..config() },
            "levels (entries of channels) must be at least 1, found 0",
        ),
        (config().with_pooled_width(Some(0)), "pooled_width must be at least 1, found 0"),
        (config().with_blocks(0), "blocks must be at least 1, found 0"),
    ];
    for (config, expected) in cases {
        assert_eq!(message(config), expected);
    }
    for config in [UnetConfig::sd1(), UnetConfig::small(8, 128), config()] {
        config.validate().unwrap();
    }
    // Level 2 does not attend, and without a middle transformer its heads are not used.
    UnetConfig { heads: vec![2, 3, 7], ..config() }.with_middle_depth(0).validate().unwrap();
}

#[test]
fn inputs_that_do_not_fit_name_their_sizes() {
    let device = Device::flex();
    let unet = config().init(&device);
    let cases = [
        ([2, 4, 8, 12], "x has 4 channels, the UNet takes 3"),
        ([3, 3, 8, 12], "2 times and 2 texts for a batch of 3"),
    ];
    for (dims, expected) in cases {
        let run = || unet.forward(pattern(dims, 0.0, &device), times([0.1, 0.2], &device), &text(&device));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    let wide = Text { tokens: Tensor::ones([2, 5, 13], &device), ..text(&device) };
    let run = || unet.forward(pattern([2, 3, 8, 12], 0.0, &device), times([0.1, 0.2], &device), &wide);
    let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("tokens of width 13, the UNet reads 12"));
}

#[test]
fn a_config_survives_json() {
    let config = config().with_pooled_width(Some(7)).with_activation(Activation::Relu);
    let json = serde_json::to_string(&config).unwrap();
    let back: UnetConfig = serde_json::from_str(&json).unwrap();
    assert_eq!(format!("{back:?}"), format!("{config:?}"));
}

#[test]
fn attention_maps_and_blocks_have_names() {
    let device = Device::flex();
    let unet = filled(&config(), &device);
    let run =
        || unet.forward(pattern([2, 3, 8, 12], 0.0, &device), times([0.1, 0.9], &device), &text(&device));
    let names = trace::names(|| drop(run()));
    for expected in [
        "input",
        "embedding",
        "down.0.stages.0.res",
        "down.0.stages.0.transformer.blocks.0.attention.map",
        "down.0.stages.0.transformer.blocks.0.feed",
        "down.0.stages.1.transformer.blocks.1.cross.query",
        "down.0.stages.1.transformer.blocks.1.cross.map",
        "down.0.stages.1.transformer.blocks.1.cross.heads",
        "down.0.stages.1.transformer.blocks.1.cross",
        "down.0.stages.1.transformer",
        "down.0.stages.1",
        "down.0",
        "middle.first.transformer.blocks.0.attention.map",
        "middle.second",
        "middle",
        "up.2.stages.2.transformer.blocks.1",
        "up.2",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:?}");
    }
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    let idle = Rc::new(SkippedBlocks::new(&[""; 0]));
    assert_eq!(trace::with_hook(idle, run).into_data(), run().into_data());
}

#[test]
fn without_a_transformer_the_network_is_the_one_that_never_had_it() {
    let device = Device::flex();
    let forward = |unet: &Unet| {
        unet.forward(pattern([2, 3, 8, 12], 0.0, &device), times([0.1, 0.9], &device), &text(&device))
    };
    let (whole, without) = (config(), config().with_middle_depth(0));
    let [whole, without] = [whole, without].map(|config| filled(&config, &device));
    let hook = Rc::new(SkippedBlocks::new(&["middle.first.transformer"]));
    let found = trace::with_hook(hook.clone(), || forward(&whole));
    hook.verify();
    assert_eq!(found.into_data(), forward(&without).into_data());
    assert!(distance(forward(&whole), forward(&without)) > 1e-4);

    let hook = Rc::new(IdentityMaps::new(&["middle.first.transformer.blocks.0.attention.map"]));
    let found = trace::with_hook(hook.clone(), || forward(&whole));
    hook.verify();
    assert!(distance(found, forward(&whole)) > 1e-6);
}

/// A mask and a masked image beside the latents: at the start nothing has changed, and then the new channels learn.
#[test]
fn a_widened_network_answers_as_before_and_learns_from_what_is_new() {
    let device = Device::flex().autodiff();
    let narrow = filled(&config(), &device);
    let wide_config = config().with_in_channels(7);
    let wide = params::widened(wide_config.init(&device), &narrow).unwrap();
    let (x, text) = (pattern([2, 3, 8, 12], 1.0, &device), text(&device));
    let more = Tensor::cat(vec![x.clone(), pattern([2, 4, 8, 12], 5.0, &device)], 1);
    let found = wide.forward(more, times([0.25, 0.75], &device), &text);
    let expected = narrow.forward(x, times([0.25, 0.75], &device), &text);
    assert!(distance(found.clone(), expected) < 1e-5);
    let grads = gradients_by_path(&wide, &found.square().sum().backward());
    let input = &grads["input.weight"];
    assert_eq!(input.shape().to_vec(), [16, 7, 3, 3]);
    let new = input.iter::<f64>().enumerate().filter(|(i, _)| i / 9 % 7 >= 3).map(|(_, x)| x.abs());
    assert!(new.fold(0.0, f64::max) > 1e-3);

    let message = params::widened(config().init(&device), &wide).unwrap_err().to_string();
    assert_eq!(message, "input.weight: [16, 7, 3, 3] cannot become [16, 3, 3, 3]");
}
