use super::*;
use canvas_dit::{SitConfig, SitTarget};
use canvas_testkit::chirped;

fn config() -> SitConfig {
    SitConfig::new([4, 6], 16, 2, 2).with_channels(3).with_classes(5)
}

#[test]
fn values_and_gradients_are_the_papers() {
    let device = Device::flex().autodiff();
    let net = chirped(config().init(&device));
    equals("sit", &net, pattern([2, 3, 4, 6], 1.0, &device), &labels(&device), &[]);
}

#[test]
fn names_are_the_authors() {
    let device = Device::flex();
    has_the_names_of("sit", &config().init(&device), &config().published());
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let empty = config().init(&device);
    survives_its_file(chirped(config().init(&device)), empty, &config().published(), x, &cond);
}

#[test]
fn only_a_velocity_is_turned_around() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let run = |target| {
        let net = chirped(config().with_target(target).init(&device));
        net.forward(x.clone(), times(&device), &cond)
    };
    let velocity = run(SitTarget::Velocity);
    for target in [SitTarget::Noise, SitTarget::Score] {
        assert_eq!(distance(run(target), -velocity.clone()), 0.0);
    }
}

#[test]
fn it_is_a_backbone() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let net = chirped(config().init(&device));
    rows_stand_alone(&net, x.clone(), &cond);
    is_told_both(&net, x.clone(), &cond);
    runs_in_half(&net, &x, &cond);
    can_be_remembered(net.clone(), &x, &cond, 1); // the time
    starts_at_zero(&config().init(&device), x, &cond);
    survives_json(&config().with_target(SitTarget::Score));
    let sizes = [SitConfig::small(32), SitConfig::base(32), SitConfig::large(32), SitConfig::xl(32)];
    // "33M", "130M", "458M" and "675M" in the paper, which counts the table of positions, 256 by the width.
    let counts = sizes.map(|config| config.init(&device).num_params() + 256 * config.width);
    assert_eq!(counts, [32_963_360, 130_512_416, 458_102_816, 675_129_632]);
}
