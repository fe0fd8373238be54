use super::*;
use canvas_core::trace;
use canvas_dit::JitConfig;
use canvas_testkit::{chirped, panic_text};

fn config() -> JitConfig {
    JitConfig::new([4, 6], 24, 4, 2, 2).with_bottleneck(8).with_tokens(3).with_patch(2).with_classes(5)
}

#[test]
fn values_and_gradients_are_the_papers() {
    let device = Device::flex().autodiff();
    let net = chirped(config().init(&device));
    equals("jit", &net, pattern([2, 3, 4, 6], 1.0, &device), &labels(&device), &[]);
}

#[test]
fn names_are_the_authors() {
    let device = Device::flex();
    has_the_names_of("jit", &config().init(&device), &config().published());
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let empty = config().init(&device);
    survives_its_file(chirped(config().init(&device)), empty, &config().published(), x, &cond);
}

/// "131M", "459M" and "953M" (JiT-B/16, L/16, H/16), "133M", "462M" and "956M" at patches of 32.
#[test]
fn the_papers_models_have_the_papers_sizes() {
    let count = |config: JitConfig| config.init(&Device::flex()).num_params();
    assert_eq!(count(JitConfig::base(256)), 131_123_712);
    assert_eq!(count(JitConfig::large(256)), 458_877_664);
    assert_eq!(count(JitConfig::huge(256)), 952_514_368);
    assert_eq!(count(JitConfig::base(512)), 133_190_400);
    assert_eq!(count(JitConfig::large(512)), 461_534_176);
    assert_eq!(count(JitConfig::huge(512)), 956_055_616);
}

#[test]
fn it_is_a_backbone() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let net = chirped(config().init(&device));
    rows_stand_alone(&net, x.clone(), &cond);
    is_told_both(&net, x.clone(), &cond);
    runs_in_half(&net, &x, &cond);
    can_be_remembered(net.clone(), &x, &cond, 3); // the time, and rotations without and with class tokens
    starts_at_zero(&config().init(&device), x.clone(), &cond);
    survives_json(&config());
    let seen = trace::names(|| drop(net.forward(x.clone(), times(&device), &cond)));
    let expected = blocks((0..4).map(|i| format!("blocks.{i}")), &INSIDE);
    assert_eq!(seen, [expected, vec!["final_modulation".into()]].concat());
    // Without class tokens, and with them from the first block on.
    let none = JitConfig { start: 9, ..config().with_tokens(0) };
    assert_eq!(chirped(none.init(&device)).forward(x.clone(), times(&device), &cond).dims(), x.dims());
    let first = JitConfig { start: 0, ..config() };
    assert_eq!(chirped(first.init(&device)).forward(x.clone(), times(&device), &cond).dims(), x.dims());
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let cases = [
        (config().with_patch(4), "patch (4) must divide width of the input (6)"),
        (JitConfig { start: 4, ..config() }, "start (4) must lie below depth (4)"),
        (config().with_bottleneck(0), "bottleneck must be at least 1, found 0"),
    ];
    for (config, expected) in cases {
        assert_eq!(panic_text(|| config.init(&Device::flex())), format!("JitConfig: {expected}"));
    }
    let device = Device::flex();
    let net = config().init(&device);
    let x = pattern([2, 3, 6, 4], 1.0, &device);
    let said = panic_text(|| net.forward(x, times(&device), &labels(&device)));
    assert!(said.contains("x is [C, H, S] = [3, 6, 4], the JiT takes [3, 4, 6]"), "{said}");
}
