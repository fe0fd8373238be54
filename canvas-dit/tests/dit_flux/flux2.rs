use super::*;
use canvas_core::memo::{Remembering, Tagged};
use canvas_dit::{Flux2, Flux2Config};
use canvas_testkit::chirped;

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

fn klein(device: &Device) -> Flux2 {
    chirped(config().with_guidance(false).init(device))
}

#[test]
fn dev_and_klein_equal_diffusers() {
    let device = Device::flex().autodiff();
    let x = pattern([2, 6, 2, 3], 1.0, &device).require_grad();
    let cond = Prompt { text: tracked(text([5, 3], &device)), ..prompt(&device) };
    let mut inputs = vec![Input::new("x", &x), Input::new("tokens", &cond.text.tokens)];
    equals("flux2", &flux2(&device), &x, &cond, &inputs, &[]);
    equals("klein", &klein(&device), &x, &Prompt::from(cond.text.clone()), &inputs, &[]);

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

/// Not masked, by design: Flux.2 reads its padding, and what the mask says is not looked at.
#[test]
fn padding_is_read() {
    let device = Device::flex();
    let (model, x) = (flux2(&device), pattern([2, 6, 2, 3], 1.0, &device));
    let run = |text: Text| model.forward(x.clone(), times(&device), &Prompt { text, ..prompt(&device) });
    let expected = run(text([5, 3], &device));
    assert_eq!(distance(run(text([5, 5], &device)), expected.clone()), 0.0);
    let mut other = text([5, 3], &device);
    other.tokens = Tensor::cat(vec![other.tokens.narrow(1, 0, 4), pattern([2, 1, 12], 9.0, &device)], 1);
    assert!(distance(run(other), expected.clone()) > 1e-3);
    let mut short = text([5, 3], &device);
    (short.tokens, short.mask) =
        (short.tokens.narrow(1, 0, 4), Tensor::<2, Int>::ones([2, 4], &device).bool());
    assert!(distance(run(short), expected) > 1e-3);
}

/// What a run keeps changes nothing: without guidance that is all modulation, which follows from the time alone.
#[test]
fn remembering_changes_nothing() {
    let device = Device::flex();
    // Time, text, positions; and guidance, or modulation of three kinds of blocks and of the end.
    let plain = Prompt::from(text([5, 3], &device));
    for (init, cond, kept) in [(flux2 as fn(&Device) -> Flux2, prompt(&device), 4), (klein, plain, 7)] {
        let (model, remembering) = (init(&device), Remembering::new(init(&device)));
        let same = |seed: f64, time: Tensor<1>| {
            let x = pattern([2, 6, 2, 3], seed, &device);
            let expected = model.forward(x.clone(), time.clone(), &cond);
            let found = remembering.forward(x, time, &Tagged::new(cond.clone(), 0));
            assert_eq!(found.into_data(), expected.into_data());
        };
        for seed in [1.0, 2.0] {
            same(seed, times(&device));
            assert_eq!(remembering.kept(), kept);
        }
        same(1.0, times(&device).flip([0]));
    }
}

#[test]
fn it_is_a_network() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 6, 2, 3], 1.0, &device), prompt(&device));
    has_names(&flux2(&device), "double", true, &x, &cond);
    answers_zero(&config().init(&device), &x, &cond);
    let device = device.autodiff();
    runs_again(&flux2(&device), &pattern([2, 6, 2, 3], 1.0, &device), &prompt(&device));
}

#[test]
fn sizes_that_disagree_are_named() {
    let device = Device::flex();
    let model = flux2(&device);
    let x = |dims: [usize; 4]| pattern(dims, 1.0, &device);
    let run = |x: Tensor<4>, cond: Prompt| panic_text(|| model.forward(x, times(&device), &cond));
    let says = run(x([2, 4, 2, 3]), prompt(&device));
    assert!(says.contains("channels of x") && says.contains('4') && says.contains('6'), "{says}");
    let says = run(x([3, 6, 2, 3]), prompt(&device));
    assert_eq!(says, "2 times and 2 texts for a batch of 3");
    let mut wide = prompt(&device);
    wide.text.tokens = pattern([2, 5, 13], 1.0, &device);
    let says = run(x([2, 6, 2, 3]), wide);
    assert!(
        says.contains("width of the text's tokens") && says.contains("13") && says.contains("12"),
        "{says}"
    );
    let says = run(x([2, 6, 2, 3]), Prompt::from(text([5, 3], &device)));
    assert_eq!(says, "the network embeds a guidance scale, and the prompt holds none");
    let says = panic_text(|| klein(&device).forward(x([2, 6, 2, 3]), times(&device), &prompt(&device)));
    assert_eq!(says, "the prompt holds a guidance scale, and the network has no embedding for it");
    let says = run(x([2, 6, 2, 3]), prompt(&device).with_reference(x([2, 5, 3, 1])));
    assert!(says.contains("reference 0") && says.contains("[2, 5]") && says.contains("[2, 6]"), "{says}");
    let refused = |config: Flux2Config| config.validate().unwrap_err().to_string();
    let says = refused(config().with_axes([4, 5, 4, 4]));
    assert_eq!(says, "2 (2) must divide an axis of rotary positions (5)");
    assert_eq!(refused(config().with_time_features(31)), "2 (2) must divide time_features (31)");
    let says = refused(config().with_mlp_ratio(0.0));
    assert_eq!(says, "the hidden width, by mlp_ratio, must be at least 1, found 0");
}

#[test]
fn runs_in_16_bits() {
    let device = Device::flex();
    let cond = prompt(&device).with_reference(pattern([2, 6, 3, 1], 5.0, &device));
    runs_in_half(flux2(&device), &pattern([2, 6, 2, 3], 1.0, &device), &cond, half_prompt);
}
