use super::*;
use canvas_core::trace;
use canvas_dit::{Prompt, Sana, SanaConfig};
use canvas_testkit::panic_text;

const SIZE: [usize; 2] = [6, 10];

fn config() -> SanaConfig {
    SanaConfig::new(2, 2, 4).with_head(8).with_channels(4).with_context(12).with_base(8)
}

fn sprint() -> SanaConfig {
    config().sprint().with_patch(2).with_base(4).with_interpolation(Some(2.0))
}

fn net(config: &SanaConfig) -> Sana {
    chirped(config.init(&Device::flex()))
}

/// Two strengths.
fn guided(text: Text) -> Prompt {
    let guidance = Tensor::from_floats([4.5, 2.0], &text.tokens.device());
    Prompt { guidance: Some(guidance), ..Prompt::from(text) }
}

#[test]
fn sana_equals_diffusers() {
    let run = |net: &Sana, x, cond| net.forward(x, times(&Device::flex().autodiff()), &cond);
    parity(
        "sana",
        [3, 5],
        0,
        |device| chirped(config().init(device)),
        |net, x, text| run(net, x, text.into()),
    );
    parity(
        "sprint",
        SIZE,
        0,
        |device| chirped(sprint().init(device)),
        |net, x, text| run(net, x, guided(text)),
    );
    for (name, config) in [("sana", config()), ("sprint", sprint())] {
        names(name, || config.init(&Device::flex()), &config.published());
    }
}

#[test]
fn configurations_and_counts_are_the_published_ones() {
    let models = [
        ("sana_600m", SanaConfig::sana_600m()),
        ("sana_1600m", SanaConfig::sana_1600m()),
        ("sana15_1600m", SanaConfig::sana15_1600m()),
        ("sana15_4800m", SanaConfig::sana15_4800m()),
        ("sprint_600m", SanaConfig::sana_600m().sprint()),
        ("sprint_1600m", SanaConfig::sana_1600m().sprint()),
    ];
    for (name, config) in models {
        reads(name, &config, SanaConfig::from_diffusers);
        assert_eq!(config.init(&Device::flex()).num_params(), counted(name), "{name}");
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(debug(serde_json::from_str::<SanaConfig>(&json).unwrap()), debug(config));
    }
    reads("sana", &config(), SanaConfig::from_diffusers);
    reads("sprint", &sprint(), SanaConfig::from_diffusers);
    let cases = [
        ("qk_norm", json!("rms_norm"), "qk_norm: expected \"rms_norm_across_heads\", found \"rms_norm\""),
        (
            "cross_attention_dim",
            json!(8),
            "cross_attention_dim: expected what makes the model's width, 16, found 8",
        ),
        (
            "cross_attention_head_dim",
            json!(8),
            "cross_attention_head_dim: expected what makes the model's width, 16, found 8",
        ),
        ("out_channels", json!(8), "out_channels: expected in_channels, 4, found 8"),
        ("norm_eps", json!(1e-5), "norm_eps: expected 1e-6, found 0.00001"),
    ];
    for (key, value, expected) in cases {
        let found = refusal("sana", key, value, SanaConfig::from_diffusers);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn rows_and_runs_are_independent() {
    let device = Device::flex();
    let half = |cond: &Prompt| Prompt { text: half_text(&cond.text), ..cond.clone() };
    // Time, text, keys and values of two blocks; what all modulation begins with, or guidance and positions.
    let cases = [(config(), text(0, &device).into(), 5), (sprint(), guided(text(0, &device)), 6)];
    for (config, cond, kept) in cases {
        rows_alone(&net(&config), SIZE, &cond);
        remembers(net(&config), SIZE, &cond, kept);
        halves(net(&config), SIZE, &cond, half);
    }
}

#[test]
fn padding_is_not_read() {
    let device = Device::flex();
    let (net, text) = (net(&config()), text(0, &device));
    let run = |text: Text| net.forward(latents(SIZE, &device), times(&device), &text.into());
    let expected = run(text.clone());
    assert!(distance(run(with_noise_in_padding(&text)), expected.clone()) < 1e-5);
    assert!(distance(run(longer(&text)), expected.clone()) < 1e-5);
    let all = Tensor::<2, Int>::ones([2, 5], &device).bool();
    assert!(distance(run(Text { mask: all, ..text }), expected) > 1e-3);
}

/// A turned picture has as many tokens, and is another.
#[test]
fn the_convolution_knows_rows_from_columns() {
    let device = Device::flex();
    let (net, cond) = (net(&config()), Prompt::from(text(0, &device)));
    let x = latents(SIZE, &device);
    let turned = net.forward(x.clone().swap_dims(2, 3), times(&device), &cond).swap_dims(2, 3);
    assert!(distance(net.forward(x, times(&device), &cond), turned) > 1e-3);
}

#[test]
fn inputs_that_do_not_fit_name_their_sizes() {
    let device = Device::flex();
    let net = net(&sprint());
    let run = |dims: [usize; 4], cond: &Prompt| {
        panic_text(|| net.forward(pattern(dims, 0.0, &device), times(&device), cond))
    };
    let fits = guided(text(0, &device));
    let bare = Prompt::from(text(0, &device));
    let cases = [
        (run([2, 3, 6, 10], &fits), "channels of x, and those that the network takes"),
        (run([2, 4, 5, 10], &fits), "patch (2) must divide height (5) and width (10)"),
        (run([2, 4, 6, 10], &bare), "the network embeds a guidance scale, and the prompt holds none"),
        (
            run([2, 4, 6, 10], &fits.clone().with_reference(latents(SIZE, &device))),
            "a Sana reads no references, found 1",
        ),
        (
            panic_text(|| SanaConfig::new(2, 2, 3).with_head(8).init(&device)),
            "SanaConfig: cross_heads (3) must divide width (16)",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn parts_have_names() {
    let device = Device::flex();
    let (net, cond) = (net(&config()), text(0, &device).into());
    let names = trace::names(|| drop(net.forward(latents(SIZE, &device), times(&device), &cond)));
    let parts = [
        "input",
        "modulation",
        "attention.query",
        "attention.heads",
        "cross.query",
        "cross.map",
        "cross.heads",
    ];
    let block = |i: usize| {
        let inside = parts.iter().map(move |part| format!("blocks.{i}.{part}"));
        inside.chain([format!("blocks.{i}")]).collect::<Vec<_>>()
    };
    assert_eq!(names, [block(0), block(1), vec!["final_modulation".to_owned()]].concat());
}
