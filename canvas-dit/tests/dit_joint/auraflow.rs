use super::*;
use canvas_core::trace;
use canvas_dit::{AuraFlow, AuraFlowConfig};
use canvas_testkit::panic_text;

const SIZE: [usize; 2] = [6, 10];

fn config() -> AuraFlowConfig {
    AuraFlowConfig::new(6).with_joint(2).with_single(2).with_heads(2).with_head(8).with_context(12)
}

fn net() -> AuraFlow {
    chirped(config().init(&Device::flex()))
}

#[test]
fn auraflow_equals_diffusers() {
    let run = |net: &AuraFlow, x, text: Text| net.forward(x, times(&text.tokens.device()), &text);
    parity("auraflow", SIZE, 0, |device| chirped(config().init(device)), run);
    names("auraflow_tiny", || config().init(&Device::flex()), &config().published());
}

#[test]
fn configurations_and_counts_are_the_published_ones() {
    reads("auraflow_tiny", &config(), AuraFlowConfig::from_diffusers);
    reads("auraflow", &AuraFlowConfig::v03(), AuraFlowConfig::from_diffusers);
    assert_eq!(AuraFlowConfig::v03().init(&Device::flex()).num_params(), counted("auraflow"));
    let json = serde_json::to_string(&config()).unwrap();
    assert_eq!(debug(serde_json::from_str::<AuraFlowConfig>(&json).unwrap()), debug(config()));
    let cases = [
        ("pos_embed_max_size", json!(37), "pos_embed_max_size: expected the square of a side, found 37"),
        ("out_channels", json!(8), "out_channels: expected in_channels, 4, found 8"),
        (
            "caption_projection_dim",
            json!(8),
            "caption_projection_dim: expected the model's width, 3072, found 8",
        ),
    ];
    for (key, value, expected) in cases {
        let found = refusal("auraflow", key, value, AuraFlowConfig::from_diffusers);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn rows_and_runs_are_independent() {
    let cond = text(0, &Device::flex());
    rows_alone(&net(), SIZE, &cond);
    remembers(net(), SIZE, &cond, 9); // time, text, modulation of 2 blocks twice, of 2 and of the end
    halves(net(), SIZE, &cond, half_text);
}

/// Padding is set to zero, as diffusers' pipeline does, and then read: how much there is matters, what it holds does not.
#[test]
fn padding_is_zeros() {
    let device = Device::flex();
    let (net, text) = (net(), text(0, &device));
    let run = |text: &Text| net.forward(latents(SIZE, &device), times(&device), text);
    let expected = run(&text);
    assert!(distance(run(&with_noise_in_padding(&text)), expected.clone()) < 1e-6);
    assert!(distance(run(&longer(&text)), expected) > 1e-3);
}

#[test]
fn inputs_that_do_not_fit_name_their_sizes() {
    let device = Device::flex();
    let (net, fits) = (net(), text(0, &device));
    let run =
        |dims: [usize; 4]| panic_text(|| net.forward(pattern(dims, 0.0, &device), times(&device), &fits));
    let cases = [
        (run([2, 3, 6, 10]), "channels of x, and those that the network takes"),
        (run([2, 4, 6, 9]), "patch (2) must divide height (6) and width (9)"),
        (run([2, 4, 4, 14]), "2 by 7 patches, the position table holds 6 by 6"),
        (
            panic_text(|| config().with_heads(0).init(&device)),
            "AuraFlowConfig: width must be at least 1, found 0",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn parts_have_names() {
    let device = Device::flex();
    let (net, text) = (net(), text(0, &device));
    let names = trace::names(|| drop(net.forward(latents(SIZE, &device), times(&device), &text)));
    let attention = ["attention.query", "attention.map", "attention.heads"];
    let joint = [&["modulation", "context_modulation"][..], &attention].concat();
    let single = [&["modulation"][..], &attention].concat();
    let mut expected = Vec::new();
    for (i, parts) in [&joint, &joint, &single, &single].into_iter().enumerate() {
        expected.push(format!("blocks.{i}.input"));
        expected.extend((i < 2).then(|| format!("blocks.{i}.input.1")));
        expected.extend(parts.iter().map(|part| format!("blocks.{i}.{part}")));
        expected.push(format!("blocks.{i}"));
        expected.extend((i < 2).then(|| format!("blocks.{i}.1"))); // the text behind it
    }
    expected.push("final_modulation".into());
    assert_eq!(names, expected);
}
