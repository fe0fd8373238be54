use super::*;
use canvas_core::trace::{self, SkippedBlocks};
use canvas_dit::{Sd3, Sd3Config};
use canvas_testkit::panic_text;
use std::rc::Rc;

const SIZE: [usize; 2] = [6, 10];

fn config() -> Sd3Config {
    Sd3Config::new(3, 2)
        .with_head(8)
        .with_channels(4)
        .with_context(12)
        .with_pooled(10)
        .with_table(6)
        .with_base(4)
}

fn config_35() -> Sd3Config {
    config().with_qk_norm(true).with_dual(vec![0, 1])
}

fn net(config: &Sd3Config) -> Sd3 {
    chirped(config.init(&Device::flex()))
}

#[test]
fn sd3_equals_diffusers() {
    for (name, config) in [("sd3", config()), ("sd35", config_35())] {
        let init = |device: &Device| chirped(config.init(device));
        parity(name, SIZE, 10, init, |net, x, text| net.forward(x, times(&text.tokens.device()), &text));
        names(name, || config.init(&Device::flex()), &config.published());
    }
}

#[test]
fn the_position_table_is_diffusers() {
    let expected = weights::read_tensors(&fixture("sd3_table")).unwrap()["table"].clone();
    let found = params::named(&config().init(&Device::flex()));
    let found = found.into_iter().find(|param| param.name == "position").unwrap().data;
    assert_eq!(found.shape(), expected.shape());
    let off = found.iter::<f64>().zip(expected.iter::<f64>()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-6, "{off}");
}

#[test]
fn configurations_and_counts_are_the_published_ones() {
    reads("sd3", &config(), Sd3Config::from_diffusers);
    reads("sd35", &config_35(), Sd3Config::from_diffusers);
    let models = [
        ("sd3_medium", Sd3Config::medium()),
        ("sd35_medium", Sd3Config::medium_35()),
        ("sd35_large", Sd3Config::large_35()),
    ];
    for (name, config) in models {
        reads(name, &config, Sd3Config::from_diffusers);
        let table = config.table * config.table * config.width(); // never trained
        assert_eq!(config.init(&Device::flex()).num_params() - table, counted(name), "{name}");
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(debug(serde_json::from_str::<Sd3Config>(&json).unwrap()), debug(config));
    }
    assert_eq!(counted("sd3_medium"), 2_028_328_000);
    let refused = |key, value| refusal("sd35", key, value, Sd3Config::from_diffusers);
    let cases = [
        ("qk_norm", json!("layer_norm"), "qk_norm: expected \"rms_norm\", found \"layer_norm\""),
        (
            "caption_projection_dim",
            json!(8),
            "caption_projection_dim: expected the model's width, 16, found 8",
        ),
        ("dual_attention_layers", json!([0, 3]), "dual block 3 must be one of depth (3)"),
        ("pos_embed_max_size", Value::Null, "pos_embed_max_size: expected the side of a position table"),
    ];
    for (key, value, expected) in cases {
        let found = refused(key, value);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn rows_and_runs_are_independent() {
    let cond = text(10, &Device::flex());
    for config in [config(), config_35()] {
        rows_alone(&net(&config), SIZE, &cond);
        remembers(net(&config), SIZE, &cond, 3); // time, prompt, text
        halves(net(&config), SIZE, &cond, half_text);
    }
}

/// As in diffusers and in training: there is no mask.
#[test]
fn padding_is_read_like_text() {
    let device = Device::flex();
    let (net, text) = (net(&config()), text(10, &device));
    let run = |text: &Text| net.forward(latents(SIZE, &device), times(&device), text);
    let expected = run(&text);
    let all = Text { mask: text.mask.clone().bool_not(), ..text.clone() };
    assert_eq!(run(&all).into_data(), expected.clone().into_data());
    assert!(distance(run(&longer(&text)), expected) > 1e-3);
}

#[test]
fn inputs_that_do_not_fit_name_their_sizes() {
    let device = Device::flex();
    let (net, fits) = (net(&config()), text(10, &device));
    let run = |dims: [usize; 4], time: Tensor<1>, text: &Text| {
        panic_text(|| net.forward(pattern(dims, 0.0, &device), time, text))
    };
    let time = || times(&device);
    let wide = Text { tokens: pattern([2, 5, 13], 0.0, &device), ..fits.clone() };
    let pooled = text(9, &device);
    let cases = [
        (run([2, 3, 6, 10], time(), &fits), "channels of x, and those that the network takes"),
        (run([2, 4, 6, 9], time(), &fits), "patch (2) must divide height (6) and width (9)"),
        (run([2, 4, 14, 4], time(), &fits), "7 by 2 patches, the position table holds 6 by 6"),
        (run([3, 4, 6, 10], time(), &fits), "2 times and 2 texts for a batch of 3"),
        (run([2, 4, 6, 10], time(), &wide), "width of the text's tokens, and what the network reads"),
        (run([2, 4, 6, 10], time(), &pooled), "width of the pooled text, and what the network reads"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found}");
    }
    let message = panic_text(|| config().with_head(7).init(&device));
    assert_eq!(message, "Sd3Config: 4, of the position table, (4) must divide width (14)");
}

#[test]
fn parts_have_names_and_blocks_can_be_left_out() {
    let device = Device::flex();
    let (net, text) = (net(&config_35()), text(10, &device));
    let run = || net.forward(latents(SIZE, &device), times(&device), &text);
    let names = trace::names(|| drop(run()));
    let of = |i: usize, parts: &[&str]| {
        parts.iter().map(move |part| format!("blocks.{i}.{part}")).collect::<Vec<_>>()
    };
    let both = [
        "input",
        "input.1",
        "modulation",
        "context_modulation",
        "attention.query",
        "attention.map",
        "attention.heads",
    ];
    let second = ["dual.query", "dual.map", "dual.heads"];
    let mut expected = Vec::new();
    for i in 0..3 {
        expected.extend(of(i, &both));
        expected.extend(of(i, if i < 2 { &second } else { &[] }));
        expected.extend([format!("blocks.{i}"), format!("blocks.{i}.1")]); // image and text behind it
    }
    expected.push("final_modulation".into());
    assert_eq!(names, expected);
    // A block that is left out changes neither stream.
    let without = trace::with_hook(Rc::new(SkippedBlocks::new(&["blocks.0", "blocks.1"])), run);
    assert!(distance(without, run()) > 1e-3);
}

/// adaLN-Zero: an untrained network answers zero.
#[test]
fn an_untrained_network_answers_zero() {
    let device = Device::flex();
    let out = config_35().init(&device).forward(latents(SIZE, &device), times(&device), &text(10, &device));
    assert_eq!((out.dims(), out.abs().max().into_scalar::<f32>()), ([2, 4, 6, 10], 0.0));
}
