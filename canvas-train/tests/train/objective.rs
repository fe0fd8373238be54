use crate::{Net, close, tensor};
use burn::prelude::*;
use canvas_core::{
    Backbone, Denoiser, Level, NoiseSchedule, Preconditioned, Prediction, Unconditional, params,
};
use canvas_sched::{by_name, predict, schedule};
use canvas_train::{Draws, LevelDistribution, Noised, Objective, Weighting};
use std::cell::RefCell;

const COUNT: usize = 20_000;

/// Levels of a distribution for many images.
fn drawn(levels: LevelDistribution, schedule: &dyn NoiseSchedule) -> Vec<Level> {
    (0..COUNT as u64).map(|image| levels.level(schedule, Draws::Independent.at(11, image))).collect()
}

fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    (mean, variance.sqrt())
}

/// The fraction of values below each threshold, within four standard deviations of a count.
fn quantiles(values: &[f64], expected: &[(f64, f64)]) {
    for &(threshold, fraction) in expected {
        let found = values.iter().filter(|&&value| value < threshold).count() as f64 / values.len() as f64;
        close(found, fraction, 4.0 * (fraction * (1.0 - fraction) / COUNT as f64).sqrt());
    }
}

/// Below -2, -1, 0, 1, 2 and 3 standard deviations of a normal variable.
const NORMAL: [(f64, f64); 6] =
    [(-2.0, 0.022750), (-1.0, 0.158655), (0.0, 0.5), (1.0, 0.841345), (2.0, 0.977250), (3.0, 0.998650)];

/// `mean` and `std` of a normal variable, by its moments and quantiles.
fn is_normal(values: &[f64], mean: f64, std: f64) {
    let (found_mean, found_std) = moments(values);
    close(found_mean, mean, 4.0 * std / (COUNT as f64).sqrt());
    close(found_std, std, 4.0 * std / (2.0 * COUNT as f64).sqrt());
    quantiles(values, &NORMAL.map(|(z, fraction)| (mean + z * std, fraction)));
}

#[test]
fn uniform_levels_are_uniform_in_time() {
    let levels = drawn(LevelDistribution::Uniform, &schedule::Flow::default());
    let times: Vec<f64> = levels.iter().map(|level| level.sigma).collect();
    let (mean, std) = moments(&times);
    close(mean, 0.5, 4.0 * (1.0f64 / 12.0).sqrt() / (COUNT as f64).sqrt());
    close(std, (1.0f64 / 12.0).sqrt(), 0.005);
    quantiles(&times, &[(0.01, 0.01), (0.25, 0.25), (0.5, 0.5), (0.9, 0.9), (0.99, 0.99)]);
    assert!(times.iter().all(|time| (0.0..=1.0).contains(time)));
}

#[test]
fn logit_normal_levels_have_normal_logits() {
    let (mean, std) = (0.4, 0.9);
    let logit = |level: &Level| (level.sigma / (1.0 - level.sigma)).ln();
    let levels = drawn(LevelDistribution::LogitNormal { mean, std }, &schedule::Flow::default());
    is_normal(&levels.iter().map(logit).collect::<Vec<_>>(), mean, std);
}

#[test]
fn log_normal_levels_have_normal_log_ratios_on_every_schedule() {
    let log_ratio = |level: &Level| (level.sigma / level.alpha).ln();
    for (mean, std, name) in
        [(-1.2, 1.2, "edm"), (-0.4, 1.0, "flow"), (-0.4, 1.0, "edm"), (-1.0, 0.8, "cosine")]
    {
        let levels = drawn(LevelDistribution::LogNormal { mean, std }, &*by_name::schedule(name).unwrap());
        is_normal(&levels.iter().map(log_ratio).collect::<Vec<_>>(), mean, std);
    }
}

/// Draws beyond the ends of a schedule are its ends.
#[test]
fn extreme_draws_stay_on_the_schedule() {
    for name in by_name::SCHEDULES {
        let schedule = by_name::schedule(name).unwrap();
        for levels in [
            LevelDistribution::LogNormal { mean: 0.0, std: 500.0 },
            LevelDistribution::LogitNormal { mean: 0.0, std: 500.0 },
        ] {
            for image in 0..200 {
                let level = levels.level(&*schedule, Draws::Independent.at(1, image));
                assert!(level.alpha.is_finite() && level.sigma.is_finite(), "{name} {levels:?} {level:?}");
                assert!(level.alpha >= 0.0 && level.sigma >= 0.0, "{name} {levels:?} {level:?}");
            }
        }
    }
}

/// The target of each prediction in its paper's own form: a factor of `x0` and one of `eps`.
pub fn target(prediction: &str, Level { alpha, sigma, .. }: Level) -> (f64, f64) {
    let n = alpha.hypot(sigma);
    let spread = (0.25 * alpha * alpha + sigma * sigma).sqrt();
    match prediction {
        "epsilon" => (0.0, 1.0),
        "sample" => (1.0, 0.0),
        "velocity" => (-sigma / n, alpha / n),
        "flow" => (-1.0, 1.0),
        "edm" => (sigma / (0.5 * spread), -0.5 * alpha / spread),
        other => panic!("{other}"),
    }
}

/// A network that knows the answer, and remembers what it was asked.
pub struct Perfect {
    pub answer: Tensor<2>,
    pub asked: RefCell<Option<(Tensor<2>, Tensor<1>)>>,
}

impl Backbone<2> for Perfect {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        *self.asked.borrow_mut() = Some((x, time));
        self.answer.clone()
    }
}

pub const ROWS: usize = 5;
pub const WIDTH: usize = 6;

fn x0() -> Tensor<2> {
    tensor(crate::wave(ROWS * WIDTH, 0.2, 1.0), [ROWS, WIDTH], &Device::flex())
}

fn eps() -> Tensor<2> {
    tensor(crate::wave(ROWS * WIDTH, 2.2, 1.3), [ROWS, WIDTH], &Device::flex())
}

/// `a x0 + b eps` with factors of each row, on the host in f64.
pub fn mixed(factors: &[(f64, f64)]) -> Vec<f64> {
    let (x0, eps): (Vec<f64>, Vec<f64>) =
        (x0().into_data().iter::<f64>().collect(), eps().into_data().iter::<f64>().collect());
    (0..ROWS * WIDTH).map(|i| factors[i / WIDTH].0 * x0[i] + factors[i / WIDTH].1 * eps[i]).collect()
}

pub fn on_device(values: &[f64]) -> Tensor<2> {
    tensor(values.iter().map(|&value| value as f32).collect(), [ROWS, WIDTH], &Device::flex())
}

/// Both ends and three levels between.
fn levels(schedule: &dyn NoiseSchedule) -> Vec<Level> {
    [0.0, 0.1, 0.5, 0.9, 1.0].map(|t| schedule.level(t)).to_vec()
}

pub fn losses(
    network: &Perfect,
    prediction: &dyn Prediction,
    at: &[Level],
    weighting: Weighting,
) -> Vec<f64> {
    let network = Preconditioned { backbone: network, prediction };
    let objective = Objective { weighting, ..Objective::default() };
    let noised = Noised::new(x0(), eps(), at.to_vec());
    let losses = objective.losses(network, &noised, &Unconditional(ROWS));
    losses.into_data().iter::<f64>().collect()
}

#[test]
fn a_perfect_network_has_no_loss_and_is_a_perfect_denoiser() {
    for prediction_name in by_name::PREDICTIONS {
        for schedule_name in by_name::SCHEDULES {
            let case = format!("{prediction_name} on {schedule_name}");
            let prediction = by_name::prediction(prediction_name).unwrap();
            let at = levels(&*by_name::schedule(schedule_name).unwrap());
            let factors: Vec<_> = at.iter().map(|&level| target(prediction_name, level)).collect();
            let network = Perfect { answer: on_device(&mixed(&factors)), asked: RefCell::new(None) };
            let found = losses(&network, &*prediction, &at, Weighting::Uniform);
            assert!(found.iter().all(|&loss| loss < 1e-11), "{case}: {found:?}");

            // It was asked about the noised batch, scaled and with the time that the prediction names.
            let (asked, times) = network.asked.take().unwrap();
            let noised: Vec<_> = at.iter().map(|level| (level.alpha, level.sigma)).collect();
            let asked: Vec<f64> = asked.into_data().iter::<f64>().collect();
            for (i, (found, x)) in asked.into_iter().zip(mixed(&noised)).enumerate() {
                close(found, x * prediction.coefficients(at[i / WIDTH]).input, 1e-5);
            }
            for (found, &level) in times.into_data().iter::<f64>().zip(&at) {
                close(found, prediction.coefficients(level).time, 1e-6);
            }

            // The same raw output gives back the data, wherever the noise has left any of it.
            let denoiser = Preconditioned { backbone: &network, prediction: &*prediction };
            let clean = denoiser.denoise(on_device(&mixed(&noised)), &at, &Unconditional(ROWS)).x0;
            let (clean, x0) = (clean.into_data(), x0().into_data());
            for (i, (found, expected)) in clean.iter::<f64>().zip(x0.iter::<f64>()).enumerate() {
                let Level { alpha, sigma, .. } = at[i / WIDTH];
                match *prediction_name {
                    "epsilon" if alpha == 0.0 => {}
                    "epsilon" => close(found, expected, 2e-6 * (1.0 + sigma / alpha)),
                    _ => close(found, expected, 5e-6),
                }
            }
        }
    }
}

#[test]
fn an_error_of_one_costs_one_and_a_weight_multiplies_it() {
    let at = levels(&schedule::Vp::cosine(1000));
    let factors: Vec<_> = at.iter().map(|&level| target("velocity", level)).collect();
    let network = Perfect { answer: on_device(&mixed(&factors)) + 1.0, asked: RefCell::new(None) };
    losses(&network, &predict::Velocity, &at, Weighting::Uniform)
        .iter()
        .for_each(|&loss| close(loss, 1.0, 1e-6));
    let weighted = losses(&network, &predict::Velocity, &at, Weighting::MinSnr { gamma: 5.0 });
    for (found, level) in weighted.into_iter().zip(at) {
        let snr = (level.alpha / level.sigma).powi(2);
        let expected = if level.sigma == 0.0 { 0.0 } else { snr.min(5.0) / (snr + 1.0) };
        close(found, expected, 1e-6);
    }
}

/// Nothing of a sample leaks into another's loss, with its own level and weight.
#[test]
fn a_row_alone_has_the_loss_it_has_in_a_batch() {
    let device = Device::flex();
    let net = params::fill_by_formula(Net::new(8, &device));
    let at = levels(&schedule::Flow::default());
    let (x0, eps) = (x0().slice([0..ROWS, 0..2]), eps().slice([0..ROWS, 0..2]));
    let network = || Preconditioned { backbone: &net, prediction: &predict::Velocity };
    let objective = Objective { weighting: Weighting::MinSnr { gamma: 2.0 }, ..Objective::default() };
    let noised = Noised::new(x0.clone(), eps.clone(), at.clone());
    let together = objective.losses(network(), &noised, &Unconditional(ROWS));
    assert_eq!(together.dims(), [ROWS]);
    let mut distinct = Vec::new();
    for (row, found) in together.into_data().iter::<f64>().enumerate() {
        let (x0, eps) = (x0.clone().narrow(0, row, 1), eps.clone().narrow(0, row, 1));
        let alone = Noised::new(x0, eps, at[row..=row].to_vec());
        let alone = objective.losses(network(), &alone, &Unconditional(1));
        close(found, alone.into_data().iter::<f64>().next().unwrap(), 1e-6);
        distinct.push(found);
    }
    distinct.dedup();
    assert_eq!(distinct.len(), ROWS);
}

/// The error is a mean over all of a sample, whatever its rank.
#[test]
fn losses_of_images_are_means_over_channels_and_pixels() {
    struct Zero;
    impl Backbone<4> for Zero {
        type Cond = Unconditional;
        fn forward(&self, x: Tensor<4>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
            x.zeros_like()
        }
    }
    let device = Device::flex();
    let values = crate::wave(2 * 24, 0.0, 1.0);
    let x0: Tensor<4> = tensor(values.clone(), [2, 2, 3, 4], &device);
    let network = Preconditioned { backbone: &Zero, prediction: &predict::Sample };
    let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }; 2];
    let noised = Noised::new(x0.clone(), x0, at.to_vec());
    let found = Objective::default().losses(network, &noised, &Unconditional(2)).into_data();
    for (row, found) in found.iter::<f64>().enumerate() {
        let square: f64 = values[row * 24..(row + 1) * 24].iter().map(|&v| f64::from(v).powi(2)).sum();
        close(found, square / 24.0, 1e-6);
    }
}
