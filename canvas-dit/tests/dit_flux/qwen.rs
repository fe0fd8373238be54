use super::*;
use canvas_core::memo::{Remembering, Tagged};
use canvas_dit::{QwenImage, QwenImageConfig};
use canvas_testkit::chirped;

/// Nothing reads the text behind the last attention.
const UNREAD: [&str; 6] = [
    "blocks.1.streams.text.output.weight",
    "blocks.1.streams.text.output.bias",
    "blocks.1.streams.text.mlp.up.weight",
    "blocks.1.streams.text.mlp.up.bias",
    "blocks.1.streams.text.mlp.down.weight",
    "blocks.1.streams.text.mlp.down.bias",
];

fn config() -> QwenImageConfig {
    QwenImageConfig::new(2, 2, 12).with_axes([4, 4, 8]).with_channels(4)
}

fn qwen(device: &Device) -> QwenImage {
    chirped(config().init(device))
}

#[test]
fn equals_diffusers() {
    let device = Device::flex().autodiff();
    let x = pattern([2, 4, 6, 10], 1.0, &device).require_grad();
    let cond = Prompt::from(tracked(text([5, 3], &device)));
    let mut inputs = vec![Input::new("x", &x), Input::new("tokens", &cond.text.tokens)];
    equals("qwen", &qwen(&device), &x, &cond, &inputs, &UNREAD);

    let first = pattern([2, 4, 4, 4], 5.0, &device).require_grad();
    let second = pattern([2, 4, 2, 16], 6.0, &device).require_grad();
    inputs.extend([Input::new("first", &first), Input::new("second", &second)]);
    let cond = cond.clone().with_reference(first.clone()).with_reference(second.clone());
    for (name, clean) in [("qwen_edit", false), ("qwen_clean", true)] {
        let model = chirped(config().with_clean_references(clean).init(&device));
        equals(name, &model, &x, &cond, &inputs, &UNREAD);
    }
}

#[test]
fn parameters_have_diffusers_names() {
    named_as_published("qwen", &config().init(&Device::flex()), &config().published());
}

#[test]
fn the_published_model_has_its_size() {
    assert_eq!(QwenImageConfig::qwen_image().init(&Device::flex()).num_params(), 20_430_401_088);
}

#[test]
fn samples_do_not_see_each_other() {
    let device = Device::flex();
    let cond = Prompt::from(text([5, 3], &device)).with_reference(pattern([2, 4, 4, 4], 5.0, &device));
    rows_are_alone(&qwen(&device), &pattern([2, 4, 6, 10], 1.0, &device), &cond);
}

/// What padding holds, and how much of it there is, changes nothing.
#[test]
fn padding_is_not_read() {
    let device = Device::flex();
    let (model, x) = (qwen(&device), pattern([2, 4, 6, 10], 1.0, &device));
    let run = |text: Text| model.forward(x.clone(), times(&device), &Prompt::from(text));
    let cond = text([3, 3], &device);
    let tokens = cond.tokens.clone().narrow(1, 0, 3);
    let mask = Tensor::<2, Int>::ones([2, 3], &device).bool();
    let short = run(Text { tokens: tokens.clone(), mask, pooled: cond.pooled.clone() });
    let off = distance(run(cond.clone()), short.clone());
    assert!(off < 2e-6, "off by {off:e}");
    let other = Tensor::cat(vec![tokens, pattern([2, 2, 12], 9.0, &device)], 1);
    assert_eq!(distance(run(Text { tokens: other, ..cond.clone() }), run(cond)), 0.0);
}

#[test]
fn remembering_changes_nothing() {
    let device = Device::flex();
    let config = config().with_clean_references(true);
    let (model, remembering) =
        (chirped(config.init(&device)), Remembering::new(chirped(config.init(&device))));
    let cond = Prompt::from(text([5, 2], &device));
    let edit = cond.clone().with_reference(pattern([2, 4, 4, 4], 5.0, &device));
    for (tag, cond) in [(0, &cond), (2, &edit), (0, &cond), (2, &edit)] {
        let x = pattern([2, 4, 6, 10], tag as f64, &device);
        let expected = model.forward(x.clone(), times(&device), cond);
        let found = remembering.forward(x, times(&device), &Tagged::new(cond.clone(), tag));
        assert_eq!(distance(found, expected), 0.0);
    }
    // Two texts and positions; the time, and modulation: of text and picture in two blocks, of what is still, of the end.
    assert_eq!(remembering.kept(), 4 + 1 + 4 + 2 + 1);
}

#[test]
fn it_is_a_network() {
    let device = Device::flex();
    let prompt = |device: &Device| {
        Prompt::from(text([5, 3], device)).with_reference(pattern([2, 4, 4, 4], 5.0, device))
    };
    let x = |device: &Device| pattern([2, 4, 6, 10], 1.0, device);
    has_names(&qwen(&device), "blocks", false, &x(&device), &prompt(&device));
    answers_zero(&config().init(&device), &x(&device), &prompt(&device));
    let device = device.autodiff();
    let model = chirped(config().with_clean_references(true).init(&device));
    runs_again(&model, &x(&device), &prompt(&device));
}

#[test]
fn sizes_that_disagree_are_named() {
    let device = Device::flex();
    let model = qwen(&device);
    let x = |dims: [usize; 4]| pattern(dims, 1.0, &device);
    let run = |x: Tensor<4>, cond: Prompt| panic_text(|| model.forward(x, times(&device), &cond));
    let fits = || Prompt::from(text([5, 3], &device));
    assert_eq!(run(x([2, 4, 5, 6]), fits()), "patch (2) must divide height (5) and width (6)");
    let says = run(x([2, 3, 4, 6]), fits());
    assert!(says.contains("channels of x") && says.contains('3') && says.contains('4'), "{says}");
    assert_eq!(run(x([3, 4, 4, 6]), fits()), "2 times and 2 texts for a batch of 3");
    let mut wide = fits();
    wide.text.tokens = pattern([2, 5, 13], 1.0, &device);
    let says = run(x([2, 4, 4, 6]), wide);
    assert!(
        says.contains("width of the text's tokens") && says.contains("13") && says.contains("12"),
        "{says}"
    );
    let says = run(x([2, 4, 4, 6]), fits().with_reference(x([1, 4, 4, 6])));
    assert!(says.contains("reference 0") && says.contains("[1, 4]") && says.contains("[2, 4]"), "{says}");
    let says = config().with_axes([4, 5, 8]).validate().unwrap_err().to_string();
    assert_eq!(says, "2 (2) must divide an axis of rotary positions (5)");
}

#[test]
fn a_guidance_scale_is_refused() {
    let device = Device::flex();
    let cond = Prompt::from(text([5, 3], &device)).with_guidance(1.0);
    let says =
        panic_text(|| qwen(&device).forward(pattern([2, 4, 6, 10], 1.0, &device), times(&device), &cond));
    assert_eq!(says, "the prompt holds a guidance scale, and the network has no embedding for it");
}

#[test]
fn runs_in_16_bits() {
    let device = Device::flex();
    let cond = Prompt::from(text([5, 3], &device)).with_reference(pattern([2, 4, 4, 4], 5.0, &device));
    let model = chirped(config().with_clean_references(true).init(&device));
    runs_in_half(model, &pattern([2, 4, 6, 10], 1.0, &device), &cond, half_prompt);
}
