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
    /// Refused here, and why.
    Refused(String),
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

/// Classes that evaluate twice a hop, once in the last.
fn two_calls(class: &str) -> bool {
    [
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSDEScheduler",
        "FlowMatchHeunDiscreteScheduler",
    ]
    .contains(&class)
}

/// The calls of `step` that a hop begins with and ends with, of `hops`.
fn calls(class: &str, config: &Value, hop: usize, hops: usize) -> (usize, usize) {
    let skip_prk = config["skip_prk_steps"].as_bool().unwrap_or(false);
    match class {
        class if two_calls(class) => (2 * hop, (2 * hop + 1).min(2 * hops - 2)),
        "PNDMScheduler" if skip_prk && hops == 1 => (0, 0),
        "PNDMScheduler" if skip_prk => (if hop == 0 { 0 } else { hop + 1 }, hop + 1),
        "PNDMScheduler" if hop < 3 => (4 * hop, 4 * hop + 3),
        "PNDMScheduler" => (hop + 9, hop + 9),
        _ => (hop, hop),
    }
}

/// Classes that keep `x / alpha`.
fn unscaled(class: &str) -> bool {
    [
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "LMSDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSDEScheduler",
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

/// SCM's angles, which its own arguments make.
#[expect(clippy::approx_constant, reason = "diffusers' own number")]
fn angles(case: &Value) -> Option<Vec<f64>> {
    let (call, steps) = (&case["call"], case["steps"].as_u64()? as usize);
    let most = call["max_timesteps"].as_f64().unwrap_or(1.57080);
    match &call["intermediate_timesteps"] {
        Value::Number(middle) => Some(vec![most, middle.as_f64()?, 0.0]),
        Value::Null if call.get("intermediate_timesteps").is_some() && call.get("timesteps").is_none() => {
            Some((0..=steps).map(|i| most * (1.0 - i as f64 / steps as f64)).collect())
        }
        _ => None,
    }
}

/// Runs a case as diffusers did, and compares.
fn compare(case: &Value) -> Outcome {
    let (class, config, call) = (case["class"].as_str().unwrap(), &case["config"], &case["call"]);
    let mut file = config.clone();
    file["_class_name"] = class.into();
    let scheduler = match Scheduler::<4>::from_json(&file.to_string(), &options(call)) {
        Ok(scheduler) => scheduler,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let list = |key: &str| call[key].as_array().map(|_| numbers(&call[key]));
    let (timesteps, sigmas) = (list("timesteps").or_else(|| angles(case)), list("sigmas"));
    let ask = Ask {
        steps: case["steps"].as_u64().unwrap() as usize,
        mu: call["mu"].as_f64(),
        timesteps: timesteps.as_deref(),
        sigmas: sigmas.as_deref(),
        strength: call["strength"].as_f64().unwrap_or(1.0),
    };
    match scheduler.levels(ask) {
        Ok(levels) => run(case, &scheduler, levels),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// Largest deviation of a list that has one entry a call from ours with one a hop.
fn listed_off(case: &Value, (key, at): (&str, &str), ours: &[f64], hops: usize) -> f64 {
    let Some(wanted) = case[key].as_array().map(|_| numbers(&case[key])) else { return 0.0 };
    let (class, config) = (case["class"].as_str().unwrap(), &case["config"]);
    let places: Vec<usize> = match case[at].as_array() {
        Some(_) => numbers(&case[at]).into_iter().map(|place| place as usize).collect(),
        None => (0..wanted.len()).collect(),
    };
    let fragile = if case["fragile"].is_array() { numbers(&case["fragile"]) } else { Vec::new() };
    let place_of = |hop: usize| if hop == hops { usize::MAX } else { calls(class, config, hop, hops).0 };
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (hop, &ours) in ours.iter().enumerate() {
        let place = places.iter().position(|&place| place == place_of(hop));
        if let Some(index) =
            place.filter(|_| !(key == "timesteps" && fragile.contains(&(place_of(hop) as f64))))
        {
            found.push(ours);
            expected.push(wanted[index]);
        }
    }
    off(&found, &expected)
}

fn run(case: &Value, scheduler: &Scheduler<4>, mut levels: Vec<Level>) -> Outcome {
    let (class, config) = (case["class"].as_str().unwrap(), &case["config"]);
    let hops = levels.len() - 1;
    let told: Vec<f64> = levels[..hops]
        .iter()
        .map(|&level| match class {
            "DDIMInverseScheduler" => 0.0, // told the end of each hop: compared below
            _ => scheduler.prediction.coefficients(level).time * scheduler.steps_per_time,
        })
        .collect();
    let told = match class {
        "DDIMInverseScheduler" => {
            levels[1..].iter().map(|level| level.time * scheduler.steps_per_time).collect()
        }
        _ => told,
    };
    let flow = class.starts_with("Flow") || config["use_flow_sigmas"] == Value::Bool(true);
    let ratio = |level: &Level| match flow {
        true if config["invert_sigmas"] == Value::Bool(true) => level.alpha,
        true => level.sigma,
        false => level.sigma / level.alpha,
    };
    let ratios: Vec<f64> = levels.iter().map(ratio).collect();
    let timesteps = listed_off(case, ("timesteps", "t_at"), &told, hops);
    let sigmas = listed_off(case, ("sigmas", "s_at"), &ratios[..hops], hops);
    // The last bit of a number cut to an integer decided there: take diffusers' word for it.
    for place in case["fragile"].as_array().map(|_| numbers(&case["fragile"])).unwrap_or_default() {
        let places = case["t_at"].as_array().map(|_| numbers(&case["t_at"]));
        let index = places.map_or(Some(place as usize), |at| at.iter().position(|&at| at == place));
        if let (Some(index), Some(hop)) =
            (index, (0..hops).find(|&hop| calls(class, config, hop, hops).0 as f64 == place))
        {
            levels[hop].time = numbers(&case["timesteps"])[index] / scheduler.steps_per_time;
        }
    }
    let Some(rows) = case["x"].as_array() else {
        return Outcome::Compared { timesteps, sigmas, states: 0.0 };
    };

    let alpha = |level: &Level| if unscaled(class) { level.alpha } else { 1.0 };
    let first = case["init_noise_sigma"].as_f64().unwrap();
    if class != "SCMScheduler" {
        // Its pipeline multiplies by the data's deviation.
        super::close(scheduler.start_scale(&levels) / alpha(&levels[0]) / first, 1.0, 1e-9);
    }
    let x = six(|i| 2f64.sqrt() * (0.9 * i + 0.4).sin()) * (first * alpha(&levels[0]));
    let unit = if class == "SCMScheduler" { config["sigma_data"].as_f64().unwrap_or(0.5) } else { 1.0 };
    let learned = config["variance_type"].as_str().is_some_and(|kind| kind.starts_with("learned"));
    let net = Net { scheduler, learned, unit };
    let network = Preconditioned { backbone: &net, prediction: &*scheduler.prediction };
    let mut noise = Formula::default();
    let run = match Run::new(&scheduler.sampler, &scheduler.schedule, &levels, &mut noise) {
        Ok(run) => run,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let mut found: Vec<Vec<f64>> = Vec::new();
    run.watch(|x, level| network.denoise(x, &[level], &Unconditional(2)), x, &mut |progress| {
        let x = progress.x.clone() / alpha(&levels[progress.done]);
        found.push(x.into_data().iter::<f64>().collect());
    });
    let mut states = 0.0f64;
    for (call, wanted) in numbers(&case["at"]).into_iter().zip(rows) {
        let ends = |&hop: &usize| calls(class, config, hop, hops).1 as f64 == call;
        if let Some(hop) = (0..hops).find(ends) {
            states = states.max(off(&found[hop], &numbers(wanted)));
        }
    }
    Outcome::Compared { timesteps, sigmas, states }
}

/// Runs that agree less than the rest, each with the cause.
const LOOSE: &[(&str, &str, f64)] = &[
    // The angle 1.57080 lies 3.7e-6 above pi/2; here it is pi/2.
    ("SCMScheduler", "", 1e-5),
    // The root of a difference of nearly equal numbers, in both.
    ("DDIMScheduler", r#""rescale_betas_zero_snr":true"#, 1e-7),
    ("KDPM2AncestralDiscreteScheduler", "squaredcos_cap_v2", 1e-4),
    // Starts at sigma / alpha = 2e4, and loses what it subtracts there.
    ("HeunDiscreteScheduler", "squaredcos_cap_v2", 1e-7),
    // Two of a thousand steps round to one. diffusers drops one of their times and none of their sigmas.
    ("DPMSolverMultistepInverseScheduler", "{} {} 1000", 2e-3),
];

/// What is refused although diffusers computes something, each with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("DDPMScheduler", "variance_type"), // fixed_large_log: not a number in diffusers
    ("DPMSolverMultistepScheduler", "solver_order"), // sde-dpmsolver++ of order 3: a wrong sign in diffusers
    ("DPMSolverMultistepScheduler", "prediction_type"), // flow_prediction on a table without flow sigmas
    ("DPMSolverMultistepInverseScheduler", "algorithm_type"), // sde: not a number in diffusers
    ("DPMSolverMultistepInverseScheduler", "use_flow_sigmas"), // runs the wrong way in diffusers
    ("UniPCMultistepScheduler", "use_flow_sigmas"), // exponential: not a number in diffusers
    ("FlowMatchLCMScheduler", "invert_sigmas"), // adds noise at the clean end in diffusers
    ("FlowMatchEulerDiscreteScheduler", "s_churn"), // ignored by diffusers
    ("FlowMatchHeunDiscreteScheduler", "s_churn"), // not in the file; draws noise twice in diffusers
    ("FlowMapEulerDiscreteScheduler", "r_timestep"),
    ("SASolverScheduler", "algorithm_type"),
    ("DPMSolverSinglestepScheduler", "solver_order"), // the same sign
];

/// What one class came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Runs compared.
    pub compared: usize,
    /// Configurations or step counts refused by both sides, or here for a reason of [`REFUSED`].
    pub refused: usize,
    /// Largest relative deviation of a state, without [`LOOSE`].
    pub states: f64,
}

/// Compares every case; panics at the first that is off.
pub fn compare_all() -> BTreeMap<String, Tally> {
    let text = std::fs::read_to_string(FIXTURES).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let class = case["class"].as_str().unwrap();
        let label = format!("{class} {} {} {}", case["config"], case["call"], case["steps"]);
        let tally = tallies.entry(class.to_owned()).or_default();
        let raises = case["error"].as_str();
        if case["call"].get("r_timestep").is_some() {
            continue; // a two-time network's own business
        }
        match compare(case) {
            Outcome::Refused(why) => {
                tally.refused += 1;
                let known = REFUSED.iter().any(|(of, field)| *of == class && why.contains(field));
                if raises.is_none() && !known {
                    wrong.push(format!("{label}: refused: {why}"));
                }
            }
            Outcome::Compared { .. } if raises.is_some() => tally.refused += 1,
            Outcome::Compared { timesteps, sigmas, states } => {
                tally.compared += 1;
                let loose = LOOSE.iter().find(|(of, part, _)| *of == class && label.contains(part));
                let allowed = loose.map_or(1e-9, |(.., allowed)| *allowed);
                if loose.is_none() {
                    tally.states = tally.states.max(states);
                }
                let worst = timesteps.max(sigmas).max(states);
                if worst > allowed {
                    wrong.push(format!(
                        "{label}: timesteps {timesteps:.1e}, sigmas {sigmas:.1e}, states {states:.1e}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} runs differ:\n{}", wrong.len(), wrong.join("\n"));
    tallies
}

#[test]
fn a_thousand_runs_are_those_of_diffusers() {
    let tallies = compare_all();
    for (class, Tally { compared, refused, states }) in &tallies {
        println!("{class}: {compared} compared, off by at most {states:.1e}, {refused} refused");
    }
    let compared: usize = tallies.values().map(|tally| tally.compared).sum();
    assert!(compared > 900, "only {compared} runs were compared");
}
