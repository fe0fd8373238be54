use crate::close;
use canvas_core::{Level, NoiseSchedule};
use canvas_sched::by_name::{self, SCHEDULES};
use canvas_sched::schedule::{Edm, Flow, Gvp, Shifted, SubVp, Vp, VpSde, betas};

fn all() -> Vec<(String, Box<dyn NoiseSchedule>)> {
    let mut all: Vec<(String, Box<dyn NoiseSchedule>)> =
        SCHEDULES.iter().map(|name| ((*name).to_owned(), by_name::schedule(name).unwrap())).collect();
    all.push(("shifted flow".to_owned(), Box::new(Flow { shift: 3.0 })));
    all.push(("cosine of 10 steps".to_owned(), Box::new(Vp::cosine(10))));
    all.push(("shifted gvp".to_owned(), Box::new(Shifted::for_resolution(Gvp, 64.0, 256.0))));
    all.push(("shifted linear".to_owned(), Box::new(Shifted { inner: Vp::linear(1000), shift: 1.0 })));
    let from_zero = VpSde { beta_min: 0.0, beta_max: 20.0 };
    all.push(("vp sde from 0".to_owned(), Box::new(from_zero)));
    all.push(("sub-vp from 0".to_owned(), Box::new(SubVp(from_zero))));
    all
}

fn times() -> impl Iterator<Item = f64> {
    (0..=2000).map(|i| f64::from(i) / 2000.0)
}

#[test]
fn noise_grows_and_signal_falls_with_time() {
    for (name, schedule) in all() {
        let levels: Vec<Level> = times().map(|t| schedule.level(t)).collect();
        for pair in levels.windows(2) {
            assert!(pair[0].time < pair[1].time, "{name}: {pair:?}");
            assert!(pair[0].sigma < pair[1].sigma, "{name}: {pair:?}");
            assert!(pair[0].alpha >= pair[1].alpha, "{name}: {pair:?}");
            assert!(pair[0].snr() > pair[1].snr(), "{name}: {pair:?}");
        }
        let clean = levels[0];
        assert!(clean.sigma < 0.01001 && clean.alpha == 1.0, "{name}: {clean:?}");
    }
}

#[test]
fn variance_is_preserved() {
    for schedule in [Vp::linear(1000), Vp::scaled_linear(1000), Vp::cosine(1000)] {
        for level in times().map(|t| schedule.level(t)) {
            close(level.alpha.powi(2) + level.sigma.powi(2), 1.0, 1e-12);
        }
    }
}

#[test]
fn a_level_is_found_again_from_its_ratio() {
    for (name, schedule) in all() {
        for level in times().skip(1).map(|t| schedule.level(t)) {
            let again = schedule.level_at_ratio(level.sigma / level.alpha);
            let off = (again.alpha - level.alpha).abs() + (again.sigma / level.sigma - 1.0).abs();
            assert!(off < 1e-9 && (again.time - level.time).abs() < 1e-9, "{name}: {level:?} {again:?}");
        }
        for (ratio, t) in [(0.0, 0.0), (f64::INFINITY, 1.0)] {
            let (end, found) = (schedule.level(t), schedule.level_at_ratio(ratio));
            close(found.sigma, end.sigma, 1e-12 * end.sigma);
            close(found.time, end.time, 1e-12);
        }
    }
}

/// The closed inverses against the trait's own bisection.
#[test]
fn closed_inverses_agree_with_bisection() {
    struct Bisected<'a>(&'a dyn NoiseSchedule);
    impl NoiseSchedule for Bisected<'_> {
        fn level(&self, t: f64) -> Level {
            self.0.level(t)
        }
    }
    for (_, schedule) in all() {
        for ratio in [0.01, 0.3, 1.0, 5.0] {
            let (closed, searched) =
                (schedule.level_at_ratio(ratio), Bisected(&schedule).level_at_ratio(ratio));
            close(closed.sigma, searched.sigma, 1e-9 * closed.sigma);
            close(closed.time, searched.time, 1e-8);
        }
    }
}

/// diffusers-rs and candle divide two integers in the cosine schedule, which leaves 999 of 1000 betas zero.
#[test]
fn regression_cosine_betas_are_not_zero_as_in_diffusers_rs_and_candle() {
    let betas = betas::cosine(1000, 0.999);
    assert!(betas.iter().all(|&beta| beta > 0.0));
    assert!(betas.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(betas[999], 0.999);
    // Nichol & Dhariwal: about 1e-4 at first, and half of the signal's variance left half way.
    close(betas[0], 4.128e-5, 1e-8);
    close(Vp::cosine(1000).training_step(499).alpha.powi(2), 0.4938, 1e-3);
}

/// `1 + (shift - 1) t` rounds so that `s` was `1 + 2e-16`, and `alpha` negative, for some shifts.
#[test]
fn regression_a_shifted_flow_starts_at_exactly_pure_noise() {
    for shift in (1..4000).map(|i| f64::from(i) * 0.00237) {
        let level = Flow { shift }.level(1.0);
        assert_eq!((level.alpha, level.sigma), (0.0, 1.0), "{shift}");
    }
}

#[test]
fn tables_begin_and_end_as_published() {
    let (linear, scaled) = (betas::linear(1000, 1e-4, 0.02), betas::scaled_linear(1000, 8.5e-4, 0.012));
    for (found, expected) in
        [(linear[0], 1e-4), (linear[999], 0.02), (scaled[0], 8.5e-4), (scaled[999], 0.012)]
    {
        close(found, expected, 1e-15);
    }
    let stable_diffusion = Vp::scaled_linear(1000);
    let ratio = |level: Level| level.sigma / level.alpha;
    close(ratio(stable_diffusion.level(1.0)), 14.614641, 1e-6);
    close(ratio(stable_diffusion.level(0.001)), 0.029167, 1e-6);
    // DDPM, 2020: at the last step KL(q(x_T | x_0) || N(0, I)) is about 1e-5, alpha_bar 4.04e-5.
    close(Vp::linear(1000).level(1.0).alpha.powi(2), 4.036e-5, 1e-8);
}

#[test]
fn training_steps_are_exact_and_told_by_their_index() {
    for schedule in [Vp::linear(1000), Vp::scaled_linear(700), Vp::cosine(1000)] {
        for index in 0..schedule.steps() {
            let level = schedule.level((index + 1) as f64 / schedule.steps() as f64);
            assert_eq!(level, schedule.training_step(index));
            close(level.time * schedule.steps() as f64, index as f64, 1e-10);
        }
        let (low, high) = (schedule.training_step(3), schedule.training_step(4));
        let between = schedule.level(4.25 / schedule.steps() as f64);
        let ratio = |level: Level| level.sigma / level.alpha;
        close(ratio(between), 0.75 * ratio(low) + 0.25 * ratio(high), 1e-12);
    }
}

#[test]
fn edm_follows_the_papers_ramp() {
    let edm = Edm::default();
    close(edm.level(0.0).sigma, 0.002, 1e-12);
    close(edm.level(1.0).sigma, 80.0, 1e-9);
    let middle = ((80f64.powf(1.0 / 7.0) + 0.002f64.powf(1.0 / 7.0)) / 2.0).powi(7);
    close(edm.level(0.5).sigma, middle, 1e-9);
}

#[test]
#[should_panic(expected = "must lie in [0, 1], found 1.5")]
fn a_time_outside_is_refused() {
    Flow::default().level(1.5);
}

#[test]
#[should_panic(expected = "beta 1 must lie strictly between 0 and 1 (the last may be 1), found 1")]
fn a_beta_of_one_is_refused() {
    Vp::from_betas(&[0.5, 1.0, 0.5]);
}
