use super::*;
use burn::nn::Linear;
use canvas_core::trace;
use canvas_dit::{LightningDit, LightningDitConfig};
use canvas_testkit::{chirped, panic_text};

fn config() -> LightningDitConfig {
    LightningDitConfig::new([4, 6], 24, 3, 2).with_patch(2).with_channels(3).with_classes(5)
}

fn of_text() -> LightningDitConfig {
    LightningDitConfig::new([4, 6], 24, 2, 3).with_channels(3).with_qk_norm(true)
}

#[test]
fn values_and_gradients_are_the_papers() {
    let device = Device::flex().autodiff();
    let net = chirped(config().init(&device));
    equals("lightning", &net, pattern([2, 3, 4, 6], 1.0, &device), &labels(&device), &[]);

    let net: LightningDit<Linear> = chirped(of_text().init_text(7, &device));
    let mut cond = text(&device);
    cond.pooled = cond.pooled.require_grad();
    let pooled = cond.pooled.clone();
    equals("lightning_text", &net, pattern([2, 3, 4, 6], 1.0, &device), &cond, &[("pooled", pooled)]);
}

#[test]
fn names_are_the_authors() {
    let device = Device::flex();
    has_the_names_of("lightning", &config().init(&device), &config().published());
    has_the_names_of("lightning_text", &of_text().init_text(7, &device), &of_text().published());
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let empty = config().init(&device);
    survives_its_file(chirped(config().init(&device)), empty, &config().published(), x, &cond);
}

/// "675M" in Table 3 of the paper.
#[test]
fn the_papers_model_has_the_papers_size() {
    let count = LightningDitConfig::xl(16).init(&Device::flex()).num_params();
    assert_eq!(count, 674_961_824);
}

#[test]
fn it_is_a_backbone() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let net = chirped(config().init(&device));
    rows_stand_alone(&net, x.clone(), &cond);
    is_told_both(&net, x.clone(), &cond);
    runs_in_half(&net, &x, &cond);
    can_be_remembered(net.clone(), &x, &cond, 2); // the time and rotations
    starts_at_zero(&config().init(&device), x.clone(), &cond);
    survives_json(&config().with_qk_norm(true));
    let seen = trace::names(|| drop(net.forward(x, times(&device), &cond)));
    let expected = blocks((0..3).map(|i| format!("blocks.{i}")), &INSIDE);
    assert_eq!(seen, [expected, vec!["final_modulation".into()]].concat());
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let cases = [
        (config().with_patch(4), "patch (4) must divide width of the input (6)"),
        (LightningDitConfig { heads: 5, ..config() }, "heads (5) must divide width (24)"),
        (
            LightningDitConfig { heads: 4, ..config() },
            "4, of the rotations by row and column, (4) must divide width of a head (6)",
        ),
    ];
    for (config, expected) in cases {
        let said = panic_text(|| config.init(&Device::flex()));
        assert_eq!(said, format!("LightningDitConfig: {expected}"));
    }
    let device = Device::flex();
    let net = config().init(&device);
    let run = |x: Tensor<4>| panic_text(|| net.forward(x, times(&device), &labels(&device)));
    let said = run(pattern([2, 3, 6, 4], 1.0, &device));
    assert!(said.contains("x is [C, H, S] = [3, 6, 4], the LightningDiT takes [3, 4, 6]"), "{said}");
    let said = run(pattern([3, 3, 4, 6], 1.0, &device));
    assert_eq!(said, "2 times and 2 conditions for a batch of 3");
    let net = of_text().init_text(8, &device);
    let x = pattern([2, 3, 4, 6], 1.0, &device);
    let said = panic_text(|| net.forward(x, times(&device), &text(&device)));
    assert!(said.contains("the pooled prompt has width 7, the network reads 8"), "{said}");
}
