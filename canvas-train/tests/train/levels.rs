use crate::close;
use canvas_core::{Level, NoiseSchedule};
use canvas_sched::{by_name, schedule};
use canvas_train::{Draws, LevelDistribution, Objective};
use std::f64::consts::PI;

const ALL: [LevelDistribution; 9] = [
    LevelDistribution::Uniform,
    LevelDistribution::Steps { count: 1000 },
    LevelDistribution::LogitNormal { mean: -0.3, std: 0.8 },
    LevelDistribution::Mode { scale: 1.29 },
    LevelDistribution::Mode { scale: -1.0 },
    LevelDistribution::CosMap,
    LevelDistribution::Beta { noise: 2.0, data: 3.0 },
    LevelDistribution::LogNormal { mean: -0.4, std: 1.0 },
    LevelDistribution::Beta { noise: 0.5, data: 0.5 },
];

fn flow(levels: LevelDistribution, u: f64) -> f64 {
    levels.level(&schedule::Flow::default(), u).sigma
}

#[test]
fn every_quantile_rises_on_every_schedule() {
    for name in by_name::SCHEDULES {
        let schedule = by_name::schedule(name).unwrap();
        for levels in ALL {
            let ratio = |level: Level| level.sigma / level.alpha;
            let ratios: Vec<f64> =
                (0..1000).map(|i| ratio(levels.level(&*schedule, f64::from(i) / 1000.0))).collect();
            assert!(ratios.windows(2).all(|pair| pair[0] <= pair[1]), "{levels:?} on {name}");
            assert!(ratios.iter().all(|ratio| !ratio.is_nan()), "{levels:?} on {name}");
        }
    }
}

/// Esser et al., 2024: their functions of `1 - u`, in their form.
#[test]
fn flows_have_the_levels_of_stable_diffusion_3() {
    for i in 1..100 {
        let u = f64::from(i) / 100.0;
        let theirs = 1.0 - u;
        for scale in [-1.0, -0.5, 0.81, 1.29] {
            let mode = 1.0 - theirs - scale * ((0.5 * PI * theirs).cos().powi(2) - 1.0 + theirs);
            close(flow(LevelDistribution::Mode { scale }, u), mode, 1e-12);
        }
        // The signal-to-noise ratio of a cosine schedule.
        let t = flow(LevelDistribution::CosMap, u);
        close(((1.0 - t) / t).ln(), ((0.5 * PI * u).cos() / (0.5 * PI * u).sin()).ln(), 1e-9);
    }
}

/// The beta distribution by the integral of its density, and of two where its inverse has a formula.
#[test]
fn beta_levels_are_beta() {
    for i in 0..=50 {
        let u = f64::from(i) / 50.0;
        // Beta(1, b): 1 - (1 - u)^(1/b); the arcsine distribution.
        let one = LevelDistribution::Beta { noise: 1.0, data: 3.0 };
        close(flow(one, u), 1.0 - (1.0 - u).powf(1.0 / 3.0), 1e-6);
        let arcsine = LevelDistribution::Beta { noise: 0.5, data: 0.5 };
        close(flow(arcsine, u), (0.5 * PI * u).sin().powi(2), 1e-6);
    }
}

/// All training steps of a chain equally often, each by its own table entry.
#[test]
fn steps_are_those_of_the_schedule() {
    let vp = schedule::Vp::linear(1000);
    let levels = LevelDistribution::Steps { count: 1000 };
    for index in [0, 1, 499, 998, 999] {
        for within in [0.0, 0.5, 0.999] {
            assert_eq!(levels.level(&vp, (index as f64 + within) / 1000.0), vp.training_step(index));
        }
    }
}

/// Both papers' shift: of a flow's time, and of the logarithm of the signal-to-noise ratio.
#[test]
fn a_shift_is_that_of_times_and_of_ratios() {
    let (line, vp) = (schedule::Flow::default(), schedule::Vp::cosine(1000));
    for shift in [0.5, 1.0, 3.0] {
        let objective = Objective { shift, ..Objective::default() };
        for i in 1..100 {
            let u = f64::from(i) / 100.0;
            close(objective.level(&line, u).sigma, shift * u / (1.0 + (shift - 1.0) * u), 1e-9);
            let (found, before) = (objective.level(&vp, u), vp.level(u));
            close(
                found.half_log_snr(),
                (before.half_log_snr() - shift.ln()).max(vp.level(1.0).half_log_snr()),
                1e-6,
            );
        }
    }
    // Pure noise stays what it is.
    assert_eq!(Objective { shift: 3.0, ..Objective::default() }.level(&line, 1.0), line.level(1.0));
}

/// A draw is a function of seed and image, and every stretch of a stratified run is spread evenly.
#[test]
fn stratified_draws_are_even_wherever_one_looks() {
    for (seed, first) in [(0, 0), (7, 12_345), (1 << 40, 1 << 50)] {
        for count in [4u64, 16, 100, 1000] {
            let mut draws: Vec<f64> =
                (first..first + count).map(|image| Draws::Stratified.at(seed, image)).collect();
            assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
            draws.sort_by(f64::total_cmp);
            // Around the circle. The steps of a golden sequence have at most three lengths, the largest within 2/n.
            let around = draws[0] + 1.0 - draws[draws.len() - 1];
            let widest = draws.windows(2).map(|pair| pair[1] - pair[0]).fold(around, f64::max);
            assert!(widest < 2.0 / count as f64, "{count} from {first}: a gap of {widest}");
        }
    }
    assert_ne!(Draws::Stratified.at(0, 5), Draws::Stratified.at(1, 5));
    assert_eq!(Draws::Independent.at(3, 5), Draws::Independent.at(3, 5));
}

/// What stratifying is for: the mean over a batch varies far less.
#[test]
fn stratified_batches_vary_less() {
    let spread = |draws: Draws| {
        let means: Vec<f64> = (0..200u64)
            .map(|batch| (0..16).map(|row| draws.at(1, 16 * batch + row)).sum::<f64>() / 16.0)
            .collect();
        (means.iter().map(|mean| (mean - 0.5).powi(2)).sum::<f64>() / 200.0).sqrt()
    };
    let (apart, even) = (spread(Draws::Independent), spread(Draws::Stratified));
    close(apart, (1.0f64 / 12.0 / 16.0).sqrt(), 0.015);
    assert!(even < 0.4 * apart, "{even} of {apart}");
}
