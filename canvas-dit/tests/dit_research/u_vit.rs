use super::*;
use canvas_core::{Unconditional, trace};
use canvas_dit::UVitConfig;
use canvas_testkit::{chirped, panic_text};

fn config() -> UVitConfig {
    UVitConfig::new([4, 6], 16, 4, 2).with_channels(3).with_labels(6)
}

/// As the fixtures of text: without the last convolution.
fn of_text() -> UVitConfig {
    config().with_conv(false)
}

#[test]
fn values_and_gradients_are_the_papers() {
    let device = Device::flex().autodiff();
    let x = pattern([2, 3, 4, 6], 1.0, &device);
    equals("u_vit", &chirped(config().init(&device)), x.clone(), &labels(&device), &[]);
    let plain = UVitConfig { depth: 2, ..config() };
    equals("u_vit_plain", &chirped(plain.init_unconditional(&device)), x, &Unconditional(2), &[]);
}

#[test]
fn text_is_read_as_in_the_paper_and_padding_can_be_hidden() {
    let device = Device::flex().autodiff();
    for (name, hide) in [("u_vit_text", false), ("u_vit_masked", true)] {
        let net = chirped(of_text().with_hide_padding(hide).init_text(12, 5, &device));
        let (x, mut cond) = (pattern([2, 3, 4, 6], 1.0, &device), text(&device));
        recomputed_equals_whole(&net, |net| net.forward(x.clone(), times(&device), &cond));
        let x = x.require_grad();
        cond.tokens = cond.tokens.require_grad();
        let (mut found, all) = answers(&net, net.forward(x.clone(), times(&device), &cond));
        found.insert("grad.input.x".into(), x.grad(&all).unwrap().into_data());
        found.insert("grad.input.tokens".into(), cond.tokens.grad(&all).unwrap().into_data());
        compare(&fixture(&format!("{name}.safetensors")), &found, TOLERANCE);
    }
}

#[test]
fn names_are_the_authors() {
    let device = Device::flex();
    has_the_names_of("u_vit", &config().init(&device), &config().published());
    has_the_names_of("u_vit_text", &of_text().init_text(12, 5, &device), &config().published_text());
    let plain = UVitConfig { depth: 2, ..config() }.init_unconditional(&device);
    has_the_names_of("u_vit_plain", &plain, &config().published());
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let empty = config().init(&device);
    survives_its_file(chirped(config().init(&device)), empty, &config().published(), x.clone(), &cond);
    let read = || of_text().init_text(12, 5, &device);
    survives_its_file(chirped(read()), read(), &config().published_text(), x, &text(&device));
}

/// "44M", "131M", "287M" and "501M" in Table 4; "45M" and "58M" of the two that read text.
#[test]
fn the_papers_models_have_the_papers_sizes() {
    let device = Device::flex();
    assert_eq!(UVitConfig::small(32).with_channels(3).init_unconditional(&device).num_params(), 44_255_328);
    let mid = UVitConfig::mid(64).with_channels(3).with_labels(1000);
    assert_eq!(mid.init(&device).num_params(), 130_940_292);
    assert_eq!(UVitConfig::large(32).init(&device).num_params(), 286_763_172);
    assert_eq!(UVitConfig::huge(32).init(&device).num_params(), 500_832_016);
    assert_eq!(UVitConfig::small(32).init_text(768, 77, &device).num_params(), 44_692_644);
    let deep = UVitConfig { depth: 16, ..UVitConfig::small(32) };
    assert_eq!(deep.init_text(768, 77, &device).num_params(), 58_345_636);
}

#[test]
fn it_is_a_backbone() {
    let device = Device::flex();
    let x = pattern([2, 3, 4, 6], 1.0, &device);
    let (class, text) = (labels(&device), text(&device));
    let net = chirped(config().init(&device));
    rows_stand_alone(&net, x.clone(), &class);
    is_told_both(&net, x.clone(), &class);
    runs_in_half(&net, &x, &class);
    can_be_remembered(net, &x, &class, 1); // the condition's token
    let net = chirped(of_text().init_text(12, 5, &device));
    rows_stand_alone(&net, x.clone(), &text);
    is_told_both(&net, x.clone(), &text);
    let seen = trace::names(|| drop(net.forward(x.clone(), times(&device), &text)));
    let all = ["down.0", "down.1", "middle", "up.0", "up.1"].map(str::to_owned);
    assert_eq!(seen, blocks(all, &["attention.query", "attention.map", "attention.heads"]));
    can_be_remembered(net, &x, &text, 1); // the text's tokens
    survives_json(&config().with_hide_padding(true));
}

/// The paper's network reads padding as any token; that which hides it does not.
#[test]
fn padding_counts_only_where_it_is_not_hidden() {
    let device = Device::flex();
    let (x, text) = (pattern([2, 3, 4, 6], 1.0, &device), text(&device));
    let gone = text.mask.clone().bool_not().unsqueeze_dim::<3>(2).float();
    let other = Text { tokens: text.tokens.clone() + gone * 100.0, ..text.clone() };
    // Cut to the three tokens that both prompts have.
    let cut = Text {
        tokens: text.tokens.clone().narrow(1, 0, 3),
        mask: text.mask.clone().narrow(1, 0, 3),
        ..text.clone()
    };
    for (hide, limits) in [(true, [0.0, 1e-5]), (false, [1e-3, f32::MAX])] {
        let net = chirped(of_text().with_hide_padding(hide).init_text(12, 5, &device));
        let run = |text: &Text| net.forward(x.clone(), times(&device), text);
        let change = distance(run(&text), run(&other));
        assert!((limits[0]..limits[1]).contains(&change), "{hide}: {change}");
        let second = |answer: Tensor<4>| answer.narrow(0, 1, 1);
        let change = distance(second(run(&text)), second(run(&cut)));
        assert!((limits[0]..limits[1]).contains(&change), "{hide}: {change}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let cases = [
        (config().with_patch(4), "patch (4) must divide width of the input (6)"),
        (UVitConfig { depth: 3, ..config() }, "2, the halves that skips join, (2) must divide depth (3)"),
        (UVitConfig { heads: 3, ..config() }, "heads (3) must divide width (16)"),
    ];
    for (config, expected) in cases {
        assert_eq!(panic_text(|| config.init(&Device::flex())), format!("UVitConfig: {expected}"));
    }
    let device = Device::flex();
    let x = pattern([2, 3, 6, 4], 1.0, &device);
    let said = panic_text(|| config().init(&device).forward(x, times(&device), &labels(&device)));
    assert!(said.contains("x is [C, H, S] = [3, 6, 4], the U-ViT takes [3, 4, 6]"), "{said}");
    let (net, x) = (of_text().init_text(12, 4, &device), pattern([2, 3, 4, 6], 1.0, &device));
    let said = panic_text(|| net.forward(x.clone(), times(&device), &text(&device)));
    assert_eq!(said, "5 tokens of the condition, the U-ViT has positions for 4");
    let net = of_text().init_text(11, 5, &device);
    let said = panic_text(|| net.forward(x, times(&device), &text(&device)));
    assert!(said.contains("tokens have width 12, the network reads 11"), "{said}");
}
