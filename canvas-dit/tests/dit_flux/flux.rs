use super::*;
use canvas_core::Concatenated;
use canvas_core::memo::{Remembering, Tagged};
use canvas_dit::{Flux, FluxConfig, ReduxConfig, fill_channels};
use canvas_testkit::{answers, chirped};

fn config() -> FluxConfig {
    FluxConfig::new(2, 2, 2, 12, 10).with_axes([4, 4, 8]).with_channels(4)
}

fn flux(device: &Device) -> Flux {
    chirped(config().init(device))
}

fn prompt(device: &Device) -> Prompt {
    let guidance = Some(Tensor::from_floats([3.5, 1.0], device));
    Prompt { guidance, ..Prompt::from(text([5, 3], device)) }
}

#[test]
fn dev_equals_diffusers() {
    let device = Device::flex().autodiff();
    let x = pattern([2, 4, 4, 6], 1.0, &device).require_grad();
    let cond = Prompt { text: tracked(text([5, 3], &device)), ..prompt(&device) };
    let mut inputs = vec![
        Input::new("x", &x),
        Input::new("tokens", &cond.text.tokens),
        Input::new("pooled", &cond.text.pooled),
    ];
    equals("flux", &flux(&device), &x, &cond, &inputs, &[]);

    let reference = pattern([2, 4, 6, 2], 5.0, &device).require_grad();
    inputs.push(Input::new("reference", &reference));
    equals("flux_kontext", &flux(&device), &x, &cond.with_reference(reference), &inputs, &[]);
}

/// The mask and the masked latents are packed as by diffusers' pipeline.
#[test]
fn fill_equals_diffusers() {
    let device = Device::flex().autodiff();
    let model = chirped(config().with_guidance(false).with_extra(4 + 64).init(&device));
    let x = pattern([2, 4, 4, 6], 1.0, &device).require_grad();
    let masked = pattern([2, 4, 4, 6], 6.0, &device).require_grad();
    let text = tracked(text([5, 3], &device));
    let mask = pattern([2, 1, 32, 48], 7.0, &device);
    let cond = (Prompt::from(text.clone()), fill_channels(masked.clone(), mask));
    let output = Concatenated { backbone: &model }.forward(x.clone(), times(&device), &cond);
    let (mut found, all) = answers(&model, output);
    found.insert("grad.x".into(), x.grad(&all).unwrap().into_data());
    found.insert("grad.masked".into(), masked.grad(&all).unwrap().into_data());
    found.insert("grad.tokens".into(), text.tokens.grad(&all).unwrap().into_data());
    found.insert("grad.pooled".into(), text.pooled.grad(&all).unwrap().into_data());
    compare(&fixture("flux_fill"), &found, TOLERANCE);

    let says = panic_text(|| fill_channels(masked, Tensor::zeros([2, 1, 32, 40], &device)));
    assert_eq!(says, "the mask is [2, 1, 32, 40] for latents of [2, 4, 4, 6]");
}

#[test]
fn redux_equals_diffusers() {
    let device = Device::flex().autodiff();
    let model = chirped(ReduxConfig::new().with_image(6).with_text(8).init(&device));
    let x = pattern([2, 3, 6], 1.0, &device).require_grad();
    let output = model.forward(x.clone());
    let (mut found, all) = answers(&model, output.clone());
    found.insert("grad.x".into(), x.grad(&all).unwrap().into_data());
    compare(&fixture("redux"), &found, TOLERANCE);
    named_as_published("redux", &model, &ReduxConfig::new().published());

    let text = Text { tokens: pattern([2, 5, 8], 3.0, &device), ..text([5, 3], &device) };
    let longer = model.extend(&text, x.clone(), [2.0, 0.5]);
    assert_eq!(longer.tokens.dims(), [2, 8, 8]);
    assert_eq!(distance(longer.tokens.clone().narrow(1, 5, 3), output * 2.0), 0.0);
    assert_eq!(distance(longer.tokens.narrow(1, 0, 5), text.tokens.clone() * 2.0), 0.0);
    assert_eq!(distance(longer.pooled, text.pooled.clone() * 0.5), 0.0);
    let seen: Vec<bool> = longer.mask.into_data().iter::<bool>().collect();
    assert_eq!(seen[8..], [true, true, true, false, false, true, true, true]);
    let wide = Text { tokens: Tensor::zeros([2, 5, 9], &device), ..text };
    let says = panic_text(|| model.extend(&wide, x, [1.0; 2]));
    assert!(says.contains("[2, 9]") && says.contains("[2, 8]"), "{says}");
}

#[test]
fn parameters_have_diffusers_names() {
    let device = Device::flex();
    named_as_published("flux", &config().init(&device), &config().published());
}

/// Read off the shapes: nothing is allocated.
#[test]
fn published_models_have_their_sizes() {
    let device = Device::flex();
    let count = |config: FluxConfig| config.init(&device).num_params();
    assert_eq!(count(FluxConfig::dev()), 11_901_408_320);
    assert_eq!(count(FluxConfig::schnell()), 11_891_178_560);
    assert_eq!(count(FluxConfig::fill()), 11_902_391_360);
    assert_eq!(count(FluxConfig::control()), 11_901_604_928);
    assert_eq!(ReduxConfig::new().init(&device).num_params(), 64_503_808);
}

#[test]
fn samples_do_not_see_each_other() {
    let device = Device::flex();
    let x = pattern([2, 4, 4, 6], 1.0, &device);
    let cond = prompt(&device).with_reference(pattern([2, 4, 6, 2], 5.0, &device));
    rows_are_alone(&flux(&device), &x, &cond);
}

/// Not masked, by design: Flux reads its padding, and what the mask says is not looked at.
#[test]
fn padding_is_read() {
    let device = Device::flex();
    let (model, x) = (flux(&device), pattern([2, 4, 4, 6], 1.0, &device));
    let run = |text: Text| {
        let cond = Prompt { text, ..prompt(&device) };
        model.forward(x.clone(), times(&device), &cond)
    };
    assert_eq!(distance(run(text([5, 5], &device)), run(text([5, 3], &device))), 0.0);
    let mut other = text([5, 3], &device);
    other.tokens = Tensor::cat(vec![other.tokens.narrow(1, 0, 4), pattern([2, 1, 12], 9.0, &device)], 1);
    assert!(distance(run(other), run(text([5, 3], &device))) > 1e-3);
}

/// What a run keeps changes nothing, at another size neither.
#[test]
fn remembering_changes_nothing() {
    let device = Device::flex();
    let model = flux(&device);
    let remembering = Remembering::new(flux(&device));
    let cond = prompt(&device);
    for (sides, seed) in [([4, 6], 1.0), ([4, 6], 2.0), ([6, 4], 3.0)] {
        let x = pattern([2, 4, sides[0], sides[1]], seed, &device);
        let expected = model.forward(x.clone(), times(&device), &cond);
        let found = remembering.forward(x, times(&device), &Tagged::new(cond.clone(), 0));
        assert_eq!(distance(found, expected), 0.0);
    }
    assert_eq!(remembering.kept(), 6); // time, text, pooled text, guidance, and two tables of positions
}

#[test]
fn it_is_a_network() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 4, 4, 6], 1.0, &device), prompt(&device));
    has_names(&flux(&device), "double", true, &x, &cond);
    answers_zero(&config().init(&device), &x, &cond);
    let device = device.autodiff();
    runs_again(&flux(&device), &pattern([2, 4, 4, 6], 1.0, &device), &prompt(&device));
}

#[test]
fn sizes_that_disagree_are_named() {
    let device = Device::flex();
    let model = flux(&device);
    let x = |dims: [usize; 4]| pattern(dims, 1.0, &device);
    let run = |x: Tensor<4>, cond: Prompt| panic_text(|| model.forward(x, times(&device), &cond));
    let says = run(x([2, 4, 5, 6]), prompt(&device));
    assert_eq!(says, "patch (2) must divide height (5) and width (6)");
    let says = run(x([2, 3, 4, 6]), prompt(&device));
    assert!(says.contains("channels of x") && says.contains('3') && says.contains('4'), "{says}");
    let says = run(x([3, 4, 4, 6]), prompt(&device));
    assert_eq!(says, "2 times and 2 texts for a batch of 3");
    let says = run(x([2, 4, 4, 6]), Prompt::from(text([5, 3], &device)));
    assert_eq!(says, "the network embeds a guidance scale, and the prompt holds none");
    let says = run(x([2, 4, 4, 6]), prompt(&device).with_reference(x([2, 5, 4, 6])));
    assert!(says.contains("reference 0") && says.contains("[2, 5]") && says.contains("[2, 4]"), "{says}");
    let mut narrow = prompt(&device);
    narrow.text.pooled = pattern([2, 9], 1.0, &device);
    let says = run(x([2, 4, 4, 6]), narrow);
    assert!(says.contains("pooled") && says.contains('9') && says.contains("10"), "{says}");
    let schnell = config().with_guidance(false).init(&device);
    let says = panic_text(|| schnell.forward(x([2, 4, 4, 6]), times(&device), &prompt(&device)));
    assert_eq!(says, "the prompt holds a guidance scale, and the network has no embedding for it");
    let says = config().with_axes([4, 5, 8]).validate().unwrap_err().to_string();
    assert_eq!(says, "2 (2) must divide an axis of rotary positions (5)");
}

#[test]
fn runs_in_16_bits() {
    let device = Device::flex();
    let cond = prompt(&device).with_reference(pattern([2, 4, 6, 2], 5.0, &device));
    runs_in_half(flux(&device), &pattern([2, 4, 4, 6], 1.0, &device), &cond, half_prompt);
}
