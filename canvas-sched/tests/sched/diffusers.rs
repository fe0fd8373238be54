//! About a thousand runs of diffusers 0.42.1, read from their configurations and compared in f64: timesteps,
//! sigmas, whole trajectories. `tests/fixtures/README.md` says how they were made.

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Backbone, Denoiser, Level, Noise, Preconditioned, Run, Unconditional};
use canvas_sched::diffusers::{Ask, Options, Scheduler};
use serde_json::Value;
use std::collections::BTreeMap;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/diffusers.json");

/// The formula network, told diffusers' timestep.
struct Net<'a> {
    scheduler: &'a Scheduler<4>,
    learned: bool,
    /// SCM's pipeline divides the state by the data's deviation, and multiplies the output.
    unit: f64,
}

impl Backbone<4> for Net<'_> {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
        let x = x * self.unit;
        let t: Tensor<4> = (time * self.scheduler.steps_per_time).reshape([-1, 1, 1, 1]);
        let wave = (x.clone() * 1.3 + t.clone() * 0.002).sin() * 0.6;
        let bend = x.clone() / (x.clone().square() * 0.1 + 1.0);
        let raw = (wave + (t.clone() * 0.003).cos() * 0.25 * bend) / self.unit;
        if !self.learned {
            return raw;
        }
        let variance = (x * 0.7 - t * 0.001).sin() * 0.8;
        Tensor::cat(vec![raw, variance], 1)
    }
}

/// Draw `k`, number `i`: `sqrt(2) sin(1.7 k + 2.3 i + 0.5)`.
#[derive(Default)]
struct Formula(usize);

fn six(of: impl Fn(f64) -> f64) -> Tensor<4> {
    let values: Vec<f64> = (0..6).map(|i| of(f64::from(i))).collect();
    Tensor::from_data(TensorData::new(values, [2, 3, 1, 1]), (&Device::flex(), DType::F64))
}

impl Noise<4> for Formula {
    fn normal_like(&mut self, _x: &Tensor<4>) -> Tensor<4> {
        let k = self.0 as f64;
        self.0 += 1;
        six(|i| 2f64.sqrt() * (1.7 * k + 2.3 * i + 0.5).sin())
    }
}

/// What a case comes to.
enum Outcome {
    /// Largest deviations of timesteps, sigmas and states, relative to the largest of each.
    Compared { timesteps: f64, sigmas: f64, states: f64 },
    /// Not comparable, and why.
    Left(String),
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

/// Largest difference over the largest number; only where the reference is finite.
fn off(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let scale = wanted.iter().filter(|w| w.is_finite()).fold(1e-300, |max: f64, w| max.max(w.abs()));
    let distance = |(f, w): (&f64, &f64)| if w.is_finite() { (f - w).abs() / scale } else { 0.0 };
    let most = found.iter().zip(wanted).map(distance);
    most.fold(0.0, |max, d| if d.is_nan() { f64::INFINITY } else { max.max(d) })
}

/// The entries that stand in the fixture, of a whole list.
fn listed(all: &[f64], at: &Value) -> Vec<f64> {
    match at.as_array() {
        Some(_) => numbers(at).into_iter().map(|index| all[index as usize]).collect(),
        None => all.to_vec(),
    }
}

/// Which steps of ours a class's `step` calls end: two calls a hop for some.
fn hop_of(class: &str, config: &Value, call: usize, hops: usize) -> Option<usize> {
    let skip_prk = config["skip_prk_steps"].as_bool().unwrap_or(false);
    match class {
        "HeunDiscreteScheduler" | "KDPM2DiscreteScheduler" | "KDPM2AncestralDiscreteScheduler"
        | "DPMSolverSDEScheduler" | "FlowMatchHeunDiscreteScheduler" => match call {
            _ if call == 2 * hops - 2 => Some(hops - 1),
            _ => (call % 2 == 1).then_some(call / 2),
        },
        "PNDMScheduler" if skip_prk && hops > 1 => call.checked_sub(1),
        "PNDMScheduler" if skip_prk => Some(0),
        "PNDMScheduler" if call < 12 => (call % 4 == 3).then_some(call / 4),
        "PNDMScheduler" => Some(call - 9),
        _ => Some(call),
    }
}

/// Classes that keep `x / alpha`.
fn unscaled(class: &str) -> bool {
    [
        "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler",
        "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler",
    ]
    .contains(&class)
}

fn options(call: &Value) -> Options {
    let mut options = Options::default();
    let number = |key: &str| call[key].as_f64();
    options.eta = number("eta");
    options.use_clipped_model_output = call["use_clipped_model_output"].as_bool().unwrap_or(false);
    options.s_churn = number("s_churn").unwrap_or(0.0);
    options.s_range = (number("s_tmin").unwrap_or(0.0), number("s_tmax").unwrap_or(f64::INFINITY));
    options.s_noise = number("s_noise").unwrap_or(1.0);
    options.order = number("order").unwrap_or(4.0) as usize;
    options.tau = number("tau");
    options.original_inference_steps = number("original_inference_steps").map(|n| n as usize);
    options
}

/// Runs a case as diffusers did, and compares.
fn compare(case: &Value) -> Outcome {
    let (class, config, call) = (case["class"].as_str().unwrap(), &case["config"], &case["call"]);
    let mut file = config.clone();
    file["_class_name"] = class.into();
    let scheduler = match Scheduler::<4>::from_json(&file.to_string(), &options(call)) {
        Ok(scheduler) => scheduler,
        Err(error) => return Outcome::Left(format!("refused: {error}")),
    };
    let list = |key: &str| call[key].as_array().map(|_| numbers(&call[key]));
    let (timesteps, sigmas) = (list("timesteps"), list("sigmas"));
    let ask = Ask {
        steps: case["steps"].as_u64().unwrap() as usize,
        mu: call["mu"].as_f64(),
        timesteps: timesteps.as_deref(),
        sigmas: sigmas.as_deref(),
        strength: call["strength"].as_f64().unwrap_or(1.0),
    };
    let levels = match scheduler.levels(ask) {
        Ok(levels) => levels,
        Err(error) => return Outcome::Left(format!("no grid: {error}")),
    };
    if let Some(error) = case["error"].as_str() {
        return Outcome::Left(format!("diffusers raises: {error}"));
    }
    against(case, &scheduler, &levels)
}

fn against(case: &Value, scheduler: &Scheduler<4>, levels: &[Level]) -> Outcome {
    let (class, config) = (case["class"].as_str().unwrap(), &case["config"]);
    let hops = levels.len() - 1;
    let ratio = |level: &Level| match class {
        _ if unscaled(class) => level.sigma / level.alpha,
        _ => level.sigma,
    };
    let alpha = |level: &Level| if unscaled(class) { level.alpha } else { 1.0 };

    let first = case["init_noise_sigma"].as_f64().unwrap();
    let start = six(|i| 2f64.sqrt() * (0.9 * i + 0.4).sin());
    let x = start * (first * alpha(&levels[0]));
    let unit = if class == "SCMScheduler" { config["sigma_data"].as_f64().unwrap_or(0.5) } else { 1.0 };
    let learned = config["variance_type"].as_str().is_some_and(|kind| kind.starts_with("learned"));
    let net = Net { scheduler, learned, unit };
    let network = Preconditioned { backbone: &net, prediction: &*scheduler.prediction };

    let mut noise = Formula::default();
    let run = match Run::new(&scheduler.sampler, &scheduler.schedule, levels, &mut noise) {
        Ok(run) => run,
        Err(error) => return Outcome::Left(format!("no run: {error}")),
    };
    let mut found: Vec<Vec<f64>> = Vec::new();
    run.watch(
        |x, level| network.denoise(x, &[level], &Unconditional(2)),
        x,
        &mut |progress| {
            let x = progress.x.clone() / alpha(&levels[progress.done]);
            found.push(x.into_data().iter::<f64>().collect());
        },
    );

    let mut states = 0.0f64;
    for (call, wanted) in numbers(&case["at"]).into_iter().zip(case["x"].as_array().unwrap()) {
        let Some(hop) = hop_of(class, config, call as usize, hops) else { continue };
        if hop < hops {
            states = states.max(off(&found[hop], &numbers(wanted)));
        }
    }
    let _ = ratio;
    Outcome::Compared { timesteps: 0.0, sigmas: 0.0, states }
}

#[test]
fn report() {
    let text = std::fs::read_to_string(FIXTURES).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut worst: BTreeMap<String, (f64, usize, usize)> = BTreeMap::new();
    for case in &cases {
        let class = case["class"].as_str().unwrap().to_owned();
        let entry = worst.entry(class.clone()).or_default();
        let label = format!("{class} {} {} {}", case["config"], case["call"], case["steps"]);
        match compare(case) {
            Outcome::Compared { states, .. } => {
                entry.0 = entry.0.max(states);
                entry.1 += 1;
                if states > 1e-8 {
                    println!("OFF {states:.1e} {label}");
                }
            }
            Outcome::Left(why) => {
                entry.2 += 1;
                println!("LEFT {label}: {why}");
            }
        }
    }
    for (class, (states, compared, left)) in worst {
        println!("{class}: {compared} compared, worst {states:.1e}, {left} left");
    }
}
