use super::*;
use canvas_core::trace;
use canvas_dit::DdtConfig;
use canvas_testkit::{chirped, panic_text};

fn config() -> DdtConfig {
    DdtConfig::new([3, 4], 5, [16, 24], [2, 2], [2, 3]).with_classes(5).with_frequencies(8)
}

#[test]
fn values_and_gradients_are_the_papers() {
    let device = Device::flex().autodiff();
    let net = chirped(config().init(&device));
    equals("ddt", &net, pattern([2, 5, 3, 4], 1.0, &device), &labels(&device), &[]);
}

#[test]
fn names_are_the_authors() {
    let device = Device::flex();
    has_the_names_of("ddt", &config().init(&device), &config().published());
    let (x, cond) = (pattern([2, 5, 3, 4], 1.0, &device), labels(&device));
    let empty = config().init(&device);
    survives_its_file(chirped(config().init(&device)), empty, &config().published(), x, &cond);
}

/// "839M" in the paper on representation autoencoders, which counts the table of positions, 256 by the width.
#[test]
fn the_papers_model_has_the_papers_size() {
    let count = DdtConfig::xl(16).init(&Device::flex()).num_params();
    assert_eq!(count, 838_380_884);
    assert_eq!(count + 256 * 1152, 838_675_796);
}

#[test]
fn it_is_a_backbone() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 5, 3, 4], 1.0, &device), labels(&device));
    let net = chirped(config().init(&device));
    rows_stand_alone(&net, x.clone(), &cond);
    is_told_both(&net, x.clone(), &cond);
    runs_in_half(&net, &x, &cond);
    can_be_remembered(net.clone(), &x, &cond, 2); // the time, and rotations of two parts with heads alike
    starts_at_zero(&config().init(&device), x.clone(), &cond);
    survives_json(&config());
    let seen = trace::names(|| drop(net.forward(x.clone(), times(&device), &cond)));
    let [encoder, head] = [0..2, 2..4].map(|part| blocks(part.map(|i| format!("blocks.{i}")), &INSIDE));
    assert_eq!(seen, [encoder, vec!["context".into()], head, vec!["final_modulation".into()]].concat());
    // Patches of 2, and widths that are the same: no layer between the two.
    let even = DdtConfig { size: [4, 6], width: [16, 16], heads: [2, 2], ..config() }.with_patch(2);
    let x = pattern([2, 5, 4, 6], 1.0, &device);
    assert_eq!(chirped(even.init(&device)).forward(x.clone(), times(&device), &cond).dims(), x.dims());
}

/// The frequencies are part of the file and of the average, but nothing trains them.
#[test]
fn frequencies_are_not_trained() {
    let device = Device::flex().autodiff();
    let net = config().init(&device);
    let x = pattern([2, 5, 3, 4], 1.0, &device);
    let all = net.forward(x, times(&device), &labels(&device)).sum().backward();
    let trained = canvas_testkit::gradients(&net, &all);
    assert!(!trained.keys().any(|name| name.contains("frequencies")), "{:?}", trained.keys());
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let cases = [
        (config().with_patch(2), "patch (2) must divide height (3)"),
        (DdtConfig { heads: [2, 5], ..config() }, "heads (5) must divide width (24)"),
    ];
    for (config, expected) in cases {
        assert_eq!(panic_text(|| config.init(&Device::flex())), format!("DdtConfig: {expected}"));
    }
    let device = Device::flex();
    let net = config().init(&device);
    let x = pattern([2, 5, 4, 3], 1.0, &device);
    let said = panic_text(|| net.forward(x, times(&device), &labels(&device)));
    assert!(said.contains("x is [C, H, S] = [5, 4, 3], the DDT takes [5, 3, 4]"), "{said}");
}
