use crate::close;
use crate::objective::{Perfect, ROWS, WIDTH, losses, mixed, on_device, target};
use burn::prelude::*;
use canvas_core::{Level, NoiseSchedule, Prediction};
use canvas_sched::{by_name, predict, schedule};
use canvas_train::Weighting;
use std::cell::RefCell;

/// Notes, training.md section 1: `m / SNR`, `m / (SNR + 1)` and `m` with `m = min(SNR, gamma)`.
#[test]
fn min_snr_is_the_closed_form_of_each_prediction() {
    let (gamma, cosine) = (5.0, schedule::Vp::cosine(1000));
    for step in 1..=200 {
        let level = cosine.level(step as f64 / 200.0);
        let snr = (level.alpha / level.sigma).powi(2);
        let m = snr.min(gamma);
        let weight = |prediction: &dyn Prediction| Weighting::MinSnr { gamma }.at(prediction, level);
        close(weight(&predict::Epsilon) / (m / snr), 1.0, 1e-9);
        close(weight(&predict::Velocity) / (m / (snr + 1.0)), 1.0, 1e-9);
        close(weight(&predict::Sample) / m, 1.0, 1e-9);
        // The same in x0 space: (x0 error)^2 = out^2 error^2 for these two.
        let square = (1.0 - level.alpha / (level.alpha + level.sigma)).powi(2);
        close(weight(&predict::Flow) / (m * square), 1.0, 1e-9);
        let square = (level.sigma * 0.5).powi(2) / ((level.alpha * 0.5).powi(2) + level.sigma.powi(2));
        close(weight(&predict::Edm::default()) / (m * square), 1.0, 1e-9);
        assert_eq!(Weighting::Uniform.at(&predict::Edm::default(), level), 1.0);
    }
}

#[test]
fn min_snr_is_finite_at_clean_data_and_at_pure_noise() {
    let clean = Level { time: 0.0, alpha: 1.0, sigma: 0.0 };
    let noise = Level { time: 1.0, alpha: 0.0, sigma: 1.0 };
    for name in by_name::PREDICTIONS {
        let prediction = by_name::prediction(name).unwrap();
        for level in [clean, noise] {
            let weight = Weighting::MinSnr { gamma: 5.0 }.at(&*prediction, level);
            assert!(weight.is_finite() && weight >= 0.0, "{name} at {level:?}: {weight}");
        }
        // At clean data the limits of the closed forms: gamma for the sample, 0 for all that divide by the SNR.
        let weight = Weighting::MinSnr { gamma: 5.0 }.at(&*prediction, clean);
        assert_eq!(weight, if name == &"sample" { 5.0 } else { 0.0 }, "{name}");
    }
}

/// A weight says whose error counts, whatever the network predicts.
#[test]
fn errors_of_noise_and_of_velocity_can_be_weighted() {
    let line = |sigma: f64| Level { time: sigma, alpha: 1.0 - sigma, sigma };
    for sigma in [0.0, 0.01, 0.05, 0.3, 0.9] {
        let level = line(sigma);
        let noise = |prediction: &dyn Prediction| Weighting::Noise.at(prediction, level);
        let velocity = |prediction: &dyn Prediction| Weighting::Velocity.at(prediction, level);
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-6 * expected.max(1e-6), "{sigma}: {found}, not {expected}");
        };
        close(noise(&predict::Epsilon), 1.0);
        close(noise(&predict::Score), sigma.powi(2)); // the score's loss in SiT
        close(velocity(&predict::Flow), 1.0);
        close(velocity(&predict::JustImage::default()), sigma.max(0.05).powi(-2)); // JiT's
    }
    let pure = line(1.0);
    assert_eq!(Weighting::Noise.at(&predict::Epsilon, pure), 0.0); // an estimate of 0 whatever the network says
    assert_eq!(Weighting::Velocity.at(&predict::Flow, pure), 1.0);
}

/// Each weight as its paper has it, for the prediction that its paper has.
#[test]
fn weights_are_those_of_their_papers() {
    for step in 1..200 {
        let t = step as f64 / 200.0;
        let vp = schedule::Vp::cosine(1000).level(t);
        let (line, edm) = (schedule::Flow::default().level(t), schedule::Edm::default().level(t));
        let snr = (vp.alpha / vp.sigma).powi(2);
        let noise = |weighting: Weighting| weighting.at(&predict::Epsilon, vp);
        let same =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        same(noise(Weighting::Noise), 1.0);
        same(noise(Weighting::P2 { k: 1.0, gamma: 0.5 }), (1.0 + snr).powf(-0.5));
        same(noise(Weighting::Debiased), 1.0 / snr.min(1000.0).sqrt());
        same(noise(Weighting::SoftMinSnr { gamma: 4.0 }), 4.0 / (snr + 4.0));
        // The sigmoid of ln(gamma) - ln(SNR).
        let sigmoid = 1.0 / (1.0 + (snr.ln() - 4f64.ln()).exp());
        same(noise(Weighting::SoftMinSnr { gamma: 4.0 }), sigmoid);
        same(
            Weighting::SoftMinSnr { gamma: 4.0 }.at(&predict::Velocity, vp),
            snr * 4.0 / (snr + 4.0) / (snr + 1.0),
        );
        same(Weighting::TruncatedSnr.at(&predict::Sample, vp), snr.max(1.0));
        let cosmap = 2.0 / (std::f64::consts::PI * (1.0 - 2.0 * t + 2.0 * t * t));
        same(Weighting::CosMap.at(&predict::Flow, line), cosmap);
        // EDM's weight of the clean estimate is what makes its own prediction count alike everywhere.
        let clean = (edm.sigma.powi(2) + 0.25) / (0.5 * edm.sigma).powi(2);
        same(Weighting::Edm { sigma_data: 0.5 }.at(&predict::Sample, edm), clean);
        same(Weighting::Edm { sigma_data: 0.5 }.at(&predict::Edm::default(), edm), 1.0);
    }
}

const WEIGHTINGS: [Weighting; 11] = [
    Weighting::Uniform,
    Weighting::MinSnr { gamma: 5.0 },
    Weighting::SoftMinSnr { gamma: 4.0 },
    Weighting::TruncatedSnr,
    Weighting::Noise,
    Weighting::Velocity,
    Weighting::P2 { k: 1.0, gamma: 1.0 },
    Weighting::Debiased,
    Weighting::Edm { sigma_data: 0.5 },
    Weighting::CosMap,
    Weighting::P2 { k: 1.0, gamma: 0.0 },
];

/// Where a prediction's errors vanish faster than a weight grows, or as fast.
#[test]
fn weights_are_finite_at_both_ends_of_every_schedule() {
    for name in by_name::SCHEDULES {
        let schedule = by_name::schedule(name).unwrap();
        for prediction in ["epsilon", "velocity", "flow", "edm"] {
            let prediction = by_name::prediction(prediction).unwrap();
            for level in [schedule.level(0.0), schedule.level(1.0)] {
                for weighting in WEIGHTINGS {
                    let weight = weighting.at(&*prediction, level);
                    assert!(
                        weight.is_finite() && weight >= 0.0,
                        "{weighting:?} {prediction:?} {name} {level:?}"
                    );
                }
            }
        }
    }
}

/// A network that predicts noise and one that predicts data have the same loss where their estimates are the same.
#[test]
fn a_weight_asks_the_same_of_every_prediction() {
    let at: Vec<Level> = [0.1, 0.3, 0.5, 0.7, 0.9].map(|t| schedule::Vp::cosine(1000).level(t)).to_vec();
    let off = on_device(&crate::wave(ROWS * WIDTH, 0.9, 0.1).into_iter().map(f64::from).collect::<Vec<_>>());
    for weighting in WEIGHTINGS.into_iter().filter(|weighting| *weighting != Weighting::Uniform) {
        let mut all = Vec::new();
        for name in ["epsilon", "sample", "velocity", "flow", "edm"] {
            let prediction = by_name::prediction(name).unwrap();
            let factors: Vec<_> = at.iter().map(|&level| target(name, level)).collect();
            // An error of `off` in the estimate is one of `off / out` in the answer.
            let out = canvas_core::per_sample::<2>(&at, &Device::flex(), |level| {
                prediction.coefficients(level).out
            });
            let answer = on_device(&mixed(&factors)) + off.clone() / out;
            let network = Perfect { answer, asked: RefCell::new(None) };
            all.push(losses(&network, &*prediction, &at, weighting));
        }
        for other in &all[1..] {
            for (a, b) in other.iter().zip(&all[0]) {
                assert!((a / b - 1.0).abs() < 2e-3, "{weighting:?}: {a} {b}");
            }
        }
    }
}
