use super::{Input, equals, half_prompt, named_as_published, rows_are_alone, runs_in_half, text, tracked};
use burn::prelude::*;
use canvas_dit::{Flux2, Flux2Config, Prompt};
use canvas_testkit::{chirped, pattern};

fn config() -> Flux2Config {
    Flux2Config::new(2, 2, 2, 12).with_axes([4; 4]).with_channels(6).with_time_features(32)
}

fn flux2(device: &Device) -> Flux2 {
    chirped(config().init(device))
}

fn prompt(device: &Device) -> Prompt {
    let guidance = Some(Tensor::from_floats([3.5, 1.0], device));
    Prompt { guidance, ..Prompt::from(text([5, 3], device)) }
}

#[test]
fn dev_and_klein_equal_diffusers() {
    let device = Device::flex().autodiff();
    let x = pattern([2, 6, 2, 3], 1.0, &device).require_grad();
    let cond = Prompt { text: tracked(text([5, 3], &device)), ..prompt(&device) };
    let mut inputs = vec![Input::new("x", &x), Input::new("tokens", &cond.text.tokens)];
    equals("flux2", &flux2(&device), &x, &cond, &inputs, &[]);
    let klein = chirped(config().with_guidance(false).init(&device));
    equals("klein", &klein, &x, &Prompt::from(cond.text.clone()), &inputs, &[]);

    let first = pattern([2, 6, 3, 1], 5.0, &device).require_grad();
    let second = pattern([2, 6, 2, 2], 6.0, &device).require_grad();
    inputs.extend([Input::new("first", &first), Input::new("second", &second)]);
    let cond = cond.clone().with_reference(first.clone()).with_reference(second.clone());
    equals("flux2_references", &flux2(&device), &x, &cond, &inputs, &[]);
}

#[test]
fn parameters_have_diffusers_names() {
    named_as_published("flux2", &config().init(&Device::flex()), &config().published());
}

#[test]
fn published_models_have_their_sizes() {
    let device = Device::flex();
    let count = |config: Flux2Config| config.init(&device).num_params();
    assert_eq!(count(Flux2Config::dev()), 32_223_281_152);
    assert_eq!(count(Flux2Config::klein_4b()), 3_875_544_576);
    assert_eq!(count(Flux2Config::klein_9b()), 9_078_581_248);
}

#[test]
fn samples_do_not_see_each_other() {
    let device = Device::flex();
    let cond = prompt(&device).with_reference(pattern([2, 6, 3, 1], 5.0, &device));
    rows_are_alone(&flux2(&device), &pattern([2, 6, 2, 3], 1.0, &device), &cond);
}

#[test]
fn runs_in_16_bits() {
    let device = Device::flex();
    let cond = prompt(&device).with_reference(pattern([2, 6, 3, 1], 5.0, &device));
    runs_in_half(flux2(&device), &pattern([2, 6, 2, 3], 1.0, &device), &cond, half_prompt);
}
