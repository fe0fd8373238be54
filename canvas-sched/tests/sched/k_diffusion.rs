//! Every sampler of k-diffusion, in f64, on its own grids, with the network and noise of the fixture's formulas.

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Level, Noise, NoiseSchedule, Run, Sampler};
use canvas_sched::{
    Ancestral, Churned, Dpm2, Dpm2Ancestral, DpmPp2mSde, DpmPp2sAncestral, DpmPp3mSde, DpmPpSde, Euler,
    EulerAncestral, Heun, Lms, SolverType, by_name,
};
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::f64::consts::SQRT_2;

/// k-diffusion's own variables: `alpha = 1`, told sigma.
pub struct Exploding;

impl NoiseSchedule for Exploding {
    fn level(&self, t: f64) -> Level {
        Level { time: t, alpha: 1.0, sigma: t }
    }
    fn level_at_ratio(&self, ratio: f64) -> Level {
        self.level(ratio)
    }
}

/// `sqrt(2) sin(frequency i + phase)` over six numbers.
pub fn wave(frequency: f64, phase: f64) -> Tensor<4> {
    let values: Vec<f64> = (0..6).map(|i| SQRT_2 * (frequency * f64::from(i) + phase).sin()).collect();
    Tensor::from_data(TensorData::new(values, [2, 3, 1, 1]), (&Device::flex(), DType::F64))
}

/// Draw `k` of a run, where `k` counts up or is set.
pub struct Waves<'a>(pub &'a Cell<f64>);

impl Noise<4> for Waves<'_> {
    fn normal_like(&mut self, _x: &Tensor<4>) -> Tensor<4> {
        let k = self.0.replace(self.0.get() + 1.0);
        wave(2.3, 1.7 * k + 0.5)
    }
}

/// The fixture's network, `0.6 sin(1.3 x + 0.002 t) + 0.25 cos(0.003 t) x / (1 + 0.1 x^2)`.
pub fn network(x: Tensor<4>, t: f64) -> Tensor<4> {
    let part = x.clone() / (x.clone().square() * 0.1 + 1.0) * (0.25 * (0.003 * t).cos());
    (x * 1.3 + 0.002 * t).sin() * 0.6 + part
}

fn denoise(x: Tensor<4>, level: Level) -> Tensor<4> {
    let s = level.sigma;
    x.clone() - network(x / (1.0 + s * s).sqrt(), 1000.0 * s / (1.0 + s)) * s
}

fn sigmas(grid: &str, steps: usize) -> Vec<f64> {
    let (low, high) = (0.03f64, 14.6f64);
    let part = |i: usize| i as f64 / (steps as f64 - 1.0).max(1.0);
    let karras = |i: usize| {
        let (low, high) = (low.powf(1.0 / 7.0), high.powf(1.0 / 7.0));
        (high + part(i) * (low - high)).powi(7)
    };
    let exponential = |i: usize| (high.ln() + part(i) * (low.ln() - high.ln())).exp();
    let noisy = (0..steps).map(|i| if grid == "karras" { karras(i) } else { exponential(i) });
    noisy.chain([0.0]).collect()
}

/// Ours for a function of theirs with its arguments; `None` is a method of another file.
fn ours(function: &str, args: &Value) -> Option<Box<dyn Sampler<4>>> {
    let number = |name: &str, default: f64| args[name].as_f64().unwrap_or(default);
    let ancestral = Ancestral { noise: number("s_noise", 1.0), ..Ancestral::new(number("eta", 1.0)) };
    let eta = number("eta", 1.0);
    fn churned<S: Sampler<4> + 'static>(inner: S, number: impl Fn(&str, f64) -> f64) -> Box<dyn Sampler<4>> {
        let range = (number("s_tmin", 0.0), number("s_tmax", f64::INFINITY));
        let (amount, noise) = (number("s_churn", 0.0), number("s_noise", 1.0));
        Box::new(Churned { inner, amount, range, noise })
    }
    Some(match function {
        "sample_euler" => churned(Euler, number),
        "sample_heun" => churned(Heun, number),
        "sample_dpm_2" => churned(Dpm2, number),
        "sample_lms" => Box::new(Lms { order: number("order", 4.0) as usize }),
        "sample_euler_ancestral" => Box::new(EulerAncestral(ancestral)),
        "sample_dpm_2_ancestral" => Box::new(Dpm2Ancestral(ancestral)),
        "sample_dpmpp_2s_ancestral" => Box::new(DpmPp2sAncestral(ancestral)),
        "sample_dpmpp_sde" => Box::new(DpmPpSde { ancestral, r: number("r", 0.5) }),
        "sample_dpmpp_2m" => by_name::sampler("dpmpp-2m").unwrap(),
        "sample_dpmpp_2m_sde" => {
            let solver = if args["solver_type"] == "heun" { SolverType::Heun } else { SolverType::Midpoint };
            Box::new(DpmPp2mSde { eta, noise: 1.0, solver })
        }
        "sample_dpmpp_3m_sde" => Box::new(DpmPp3mSde { eta, noise: 1.0 }),
        _ => return None,
    })
}

/// The largest distance of a state from the fixture's, over the fixture's largest number.
pub fn distance(found: &Tensor<4>, wanted: &Value) -> f64 {
    let wanted: Vec<f64> = wanted.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let scale = wanted.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let found: Vec<f64> = found.to_data().iter::<f64>().collect();
    found.iter().zip(&wanted).map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f64::max) / scale
}

/// What one function came to: runs compared, and the largest distance of a state.
pub type Tally = (usize, f64);

/// Compares every case; panics at the first that is off. Functions without runs are methods of another file.
pub fn compare_all() -> BTreeMap<String, Tally> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../fixtures/k_diffusion.json")).unwrap();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for case in &cases {
        let function = case["function"].as_str().unwrap();
        if !function.starts_with("sample_") || !case["error"].is_null() {
            continue;
        }
        let tally = tallies.entry(function.to_owned()).or_default();
        let Some(sampler) = ours(function, &case["args"]) else { continue };
        let off = compare(case, &sampler);
        assert!(off < 1e-9, "{function} {} {} steps: off by {off:e}", case["args"], case["steps"]);
        *tally = (tally.0 + 1, tally.1.max(off));
    }
    tallies
}

/// The largest distance of a state of a run.
fn compare(case: &Value, sampler: &dyn Sampler<4>) -> f64 {
    let sigmas = sigmas(case["grid"].as_str().unwrap(), case["steps"].as_u64().unwrap() as usize);
    let levels: Vec<Level> = sigmas.iter().map(|&sigma| Exploding.level(sigma)).collect();
    let draw = Cell::new(0.0);
    let mut noise = Waves(&draw);
    let run = Run::new(sampler, &Exploding, &levels, &mut noise).unwrap();
    let mut states = Vec::new();
    run.watch(denoise, wave(0.9, 0.4) * 14.6, &mut |progress| {
        states.push(progress.x.clone());
        // theirs draw for churn at every step, ours only where there is churn
        if !case["args"]["s_churn"].is_null() {
            draw.set(progress.done as f64);
        }
    });
    let rows = case["at"].as_array().unwrap().iter().zip(case["x"].as_array().unwrap());
    rows.map(|(at, wanted)| distance(&states[at.as_u64().unwrap() as usize], wanted)).fold(0.0, f64::max)
}

#[test]
fn every_function_agrees() {
    let tallies = compare_all();
    for (function, (compared, off)) in &tallies {
        println!("{function}: {compared} compared, off by at most {off:.1e}");
    }
    let checked: usize = tallies.values().map(|tally| tally.0).sum();
    assert!(checked > 110, "{checked}");
}
