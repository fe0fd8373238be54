//! Every schedule x prediction x sampler reaches the data's distribution, through a network.

use crate::oracle::{Best, DATA};
use burn::prelude::*;
use canvas_core::{
    Denoiser, Level, Noise, NoiseSchedule, Preconditioned, Prediction, Run, Sampler, Seeded, Unconditional,
};
use canvas_sched::by_name::{self, PREDICTIONS, SAMPLERS, SCHEDULES};
use canvas_sched::schedule::{Edm, Flow, Vp};
use canvas_sched::{Churned, Ddim, Ddpm, Euler, Heun, Spacing, Timesteps, Variance};

const ROWS: usize = 16;
const COLUMNS: usize = 256;

/// Draws from the exact marginal at the noisiest level, made to have exactly its mean and standard deviation,
/// so that what is left of the error is the sampler's.
fn start(level: Level) -> Tensor<2> {
    let (mean, std) = DATA.marginal(level);
    let like = Tensor::zeros([ROWS, COLUMNS], &Device::flex());
    let z: Tensor<2> = Seeded::new(3, Vec::from_iter(0..ROWS as u64)).normal_like(&like);
    let (centre, spread) = moments(&z);
    (z - centre) * (std / spread) + mean
}

fn moments(x: &Tensor<2>) -> (f64, f64) {
    let values: Vec<f64> = x.to_data().iter::<f64>().collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}

/// Errors of mean and standard deviation at the clean end.
pub fn errors(
    sampler: &dyn Sampler<2>,
    schedule: &dyn NoiseSchedule,
    prediction: &dyn Prediction,
    levels: &[Level],
) -> (f64, f64) {
    let backbone = Best { data: DATA, schedule, prediction };
    let network = Preconditioned { backbone: &backbone, prediction };
    let mut noise = Seeded::new(4, Vec::from_iter(0..ROWS as u64));
    let run = Run::new(sampler, schedule, levels, &mut noise).unwrap();
    let end = run.sample(|x, level| network.denoise(x, &[level], &Unconditional(ROWS)), start(levels[0]));
    let (mean, std) = moments(&end);
    (mean - DATA.mean, std - DATA.std)
}

/// The Laplace schedules are steep at both ends, so even times are few there. Their first hop from pure noise
/// goes far, and a prediction of noise says nothing there: start after it.
fn steep() -> Timesteps {
    Timesteps::new(Spacing::Linspace { first: 0.999, last: 0.001 })
}

/// What the last hop, to the clean estimate, must take from the standard deviation: next to nothing where the
/// last level has little noise, which that of the Laplace schedules has not.
fn last_hop(last: Level) -> f64 {
    DATA.std - DATA.std * DATA.std / DATA.std.hypot(last.sigma / last.alpha)
}

#[track_caller]
fn reaches(what: &str, (mean, std): (f64, f64), tolerance: f64) {
    println!("{what}: mean off by {mean:.4}, std by {std:.4}");
    let off = mean.abs().max(std.abs());
    assert!(off < tolerance, "{what}: mean off by {mean:.4}, std by {std:.4}, allowed {tolerance}");
}

#[test]
fn every_combination_reaches_the_data() {
    // Steps and the error allowed. 4096 fresh draws have a mean off by 0.4 / sqrt(4096) = 0.006: ddpm's
    // share.
    let bounds = |sampler: &str| match sampler {
        "heun" => (64, 0.005),
        "dpmpp-2m" => (150, 0.01),
        "ddpm" | "euler-ancestral" | "euler-ancestral-rf" => (150, 0.035),
        // Wide hops near the data cost them most: with 150 of these steps a width of 0.40 becomes 0.48.
        "dpmpp-2s-sde" | "dpmpp-2m-sde" | "dpmpp-2m-sde-heun" | "dpmpp-3m-sde" => (300, 0.03),
        name if name.contains("ancestral") || name.contains("sde") || name.contains("grpo") => (150, 0.03),
        "sa-solver" => (150, 0.03),
        "sit-euler" | "sit-heun" => (150, 0.03),
        _ => (150, 0.015),
    };
    for schedule_name in SCHEDULES {
        let schedule = by_name::schedule(schedule_name).unwrap();
        for prediction_name in PREDICTIONS {
            let prediction = by_name::prediction(prediction_name).unwrap();
            for name in SAMPLERS {
                // These want a distilled network, this one is biased, and this one's noise has no bound where
                // the first level is nearly pure noise.
                let other = ["lcm", "tcd", "consistency-model", "cps"].contains(name);
                if other || (*name == "flow-grpo" && *schedule_name != "flow") {
                    continue;
                }
                let sampler = by_name::sampler(name).unwrap();
                let (steps, allowed) = bounds(name);
                let (mut levels, steps) = match schedule_name.starts_with("laplace") {
                    true => (steep().levels(&schedule, 2 * steps).unwrap(), 2 * steps),
                    false => (Timesteps::linspace(1000).levels(&schedule, steps).unwrap(), steps),
                };
                let last = levels[steps - 1];
                if (schedule_name, name) == (&"cosine", &"pndm") {
                    // The ratio of the cosine schedule falls from 20000 to 350 in the first of these hops. The
                    // Runge-Kutta warm-up, even in time, is far off there: std 2.3 too large at the end. So in
                    // diffusers, whose numbers it has.
                    levels.drain(..4);
                }
                if Sampler::<2>::check(&sampler, &levels).is_err() {
                    assert_eq!(levels[0].alpha, 0.0, "{name}");
                    levels[0] = schedule.level(0.9995);
                }
                // Explicit steps in the schedule's own time, and Laplace's slope is infinite at both ends of it.
                if name.starts_with("sit-") && schedule_name.starts_with("laplace") {
                    continue;
                }
                // It multiplies the network's rounding by sigma / alpha, and 20 000 is too much for 32 bits.
                if *name == "sde-dpm-solver" && levels[0].sigma / levels[0].alpha > 200.0 {
                    continue;
                }
                let off = errors(&sampler, &schedule, &prediction, &levels);
                let allowed = allowed + last_hop(last);
                reaches(&format!("{schedule_name} {prediction_name} {name}"), off, allowed);
            }
        }
    }
}

#[test]
fn the_settings_reach_it_too() {
    let prediction = by_name::prediction("flow").unwrap();
    let samplers: [(&str, Box<dyn Sampler<2>>); 3] = [
        ("ddim eta 0.5", Box::new(Ddim { eta: 0.5 })),
        ("ddim eta 1", Box::new(Ddim { eta: 1.0 })),
        ("ddpm fixed_large", Box::new(Ddpm { variance: Variance::FixedLarge })),
    ];
    for name in SCHEDULES {
        let schedule = by_name::schedule(name).unwrap();
        let grid = if name.starts_with("laplace") { steep() } else { Timesteps::linspace(1000) };
        let levels = grid.levels(&schedule, 200).unwrap();
        for (sampler_name, sampler) in &samplers {
            let off = errors(sampler, &schedule, &prediction, &levels);
            reaches(&format!("{name} {sampler_name}"), off, 0.05 + last_hop(levels[199]));
        }
    }
}

#[test]
fn churn_reaches_it_on_every_schedule() {
    fn churned(schedule: &dyn NoiseSchedule, name: &str) {
        let (range, noise) = ((0.0, f64::INFINITY), 1.0);
        let levels = Timesteps::linspace(1000).levels(schedule, 64).unwrap();
        for prediction in PREDICTIONS.iter().map(|name| by_name::prediction(name).unwrap()) {
            let heun = Churned { inner: Heun, amount: 16.0, range, noise };
            let off = errors(&heun, schedule, &prediction, &levels);
            reaches(&format!("churned heun {name} {prediction:?}"), off, 0.04);
        }
        let euler = Churned { inner: Euler, amount: 16.0, range, noise };
        let off = errors(&euler, schedule, &by_name::prediction("sample").unwrap(), &levels);
        reaches(&format!("churned euler {name}"), off, 0.05);
    }
    churned(&Edm::default(), "edm");
    churned(&Vp::cosine(1000), "cosine");
    churned(&Vp::linear(1000), "linear");
    churned(&Flow::default(), "flow");
}
