use super::*;
use canvas_core::memo::{Remembering, Tagged};
use canvas_dit::{Chroma, ChromaConfig, ChromaMask};
use canvas_testkit::chirped;

fn config() -> ChromaConfig {
    let config = ChromaConfig::new(2, 2, 2, 12).with_axes([4, 4, 8]).with_channels(4);
    config.with_features(16).with_hidden(20).with_layers(2)
}

fn chroma(device: &Device) -> Chroma {
    chirped(config().init(device))
}

#[test]
fn equals_diffusers_with_either_mask() {
    let device = Device::flex().autodiff();
    for (name, mask) in [("chroma", ChromaMask::Hides), ("chroma_favours", ChromaMask::Favours)] {
        let model = chirped(config().with_mask(mask).init(&device));
        let x = pattern([2, 4, 4, 6], 1.0, &device).require_grad();
        let cond = tracked(text([5, 2], &device));
        let inputs = [Input::new("x", &x), Input::new("tokens", &cond.tokens)];
        equals(name, &model, &x, &cond, &inputs, &[]);
    }
}

#[test]
fn parameters_have_diffusers_names() {
    named_as_published("chroma", &config().init(&Device::flex()), &config().published());
}

#[test]
fn the_published_model_has_its_size() {
    assert_eq!(ChromaConfig::chroma1().init(&Device::flex()).num_params(), 8_899_983_424);
}

#[test]
fn samples_do_not_see_each_other() {
    let device = Device::flex();
    rows_are_alone(&chroma(&device), &pattern([2, 4, 4, 6], 1.0, &device), &text([5, 2], &device));
}

/// Of the padding the first token is read, and no other.
#[test]
fn one_token_of_padding_is_read() {
    let device = Device::flex();
    let (model, x) = (chroma(&device), pattern([2, 4, 4, 6], 1.0, &device));
    let run = |text: &Text| model.forward(x.clone(), times(&device), text);
    let cond = text([2, 2], &device);
    let changed = |token: usize| {
        let other = pattern([2, 1, 12], 9.0, &device);
        let tokens = cond.tokens.clone().slice_assign([0..2, token..token + 1, 0..12], other);
        distance(run(&Text { tokens, ..cond.clone() }), run(&cond))
    };
    assert!(changed(1) > 1e-3);
    assert!(changed(2) > 1e-3);
    assert_eq!(changed(3), 0.0);
    assert_eq!(changed(4), 0.0);
    // Nor is its length.
    let tokens = cond.tokens.clone().narrow(1, 0, 3);
    let mask = Tensor::from_data([[true, true, false]; 2], &device);
    let short = Text { tokens, mask, pooled: cond.pooled.clone() };
    assert!(distance(run(&short), run(&cond)) < 2e-6);
}

#[test]
fn remembering_changes_nothing() {
    let device = Device::flex();
    let (model, remembering) = (chroma(&device), Remembering::new(chroma(&device)));
    let cond = text([5, 2], &device);
    for seed in [1.0, 2.0] {
        let x = pattern([2, 4, 4, 6], seed, &device);
        let expected = model.forward(x.clone(), times(&device), &cond);
        let found = remembering.forward(x, times(&device), &Tagged::new(cond.clone(), 0));
        assert_eq!(distance(found, expected), 0.0);
    }
    assert_eq!(remembering.kept(), 3); // modulation, text and positions
}

#[test]
fn it_is_a_network() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 4, 4, 6], 1.0, &device), text([5, 2], &device));
    has_names(&chroma(&device), "double", true, &x, &cond);
    answers_zero(&config().init(&device), &x, &cond);
    let device = device.autodiff();
    runs_again(&chroma(&device), &pattern([2, 4, 4, 6], 1.0, &device), &text([5, 2], &device));
}

#[test]
fn sizes_that_disagree_are_named() {
    let device = Device::flex();
    let model = chroma(&device);
    let run = |dims: [usize; 4], text: Text| {
        panic_text(|| model.forward(pattern(dims, 1.0, &device), times(&device), &text))
    };
    let fits = || text([5, 2], &device);
    assert_eq!(run([2, 4, 5, 6], fits()), "patch (2) must divide height (5) and width (6)");
    let says = run([2, 3, 4, 6], fits());
    assert!(says.contains("channels of x") && says.contains('3') && says.contains('4'), "{says}");
    assert_eq!(run([3, 4, 4, 6], fits()), "2 times and 2 texts for a batch of 3");
    let says = run([2, 4, 4, 6], Text { tokens: pattern([2, 5, 13], 1.0, &device), ..fits() });
    assert!(
        says.contains("width of the text's tokens") && says.contains("13") && says.contains("12"),
        "{says}"
    );
    let refused = |config: ChromaConfig| config.validate().unwrap_err().to_string();
    assert_eq!(refused(config().with_axes([4, 5, 8])), "2 (2) must divide an axis of rotary positions (5)");
    assert_eq!(refused(config().with_features(12)), "8 (8) must divide features (12)");
}

#[test]
fn runs_in_16_bits() {
    let device = Device::flex();
    let x = pattern([2, 4, 4, 6], 1.0, &device);
    for mask in [ChromaMask::Hides, ChromaMask::Favours] {
        let model = chirped(config().with_mask(mask).init(&device));
        runs_in_half(model, &x, &text([5, 2], &device), half_text);
    }
}
