//! Runs of the published code of SiT, Flow-GRPO and DanceGRPO (`tools/fixtures_papers.py`), in f64.

use crate::k_diffusion::{Waves, wave};
use burn::prelude::*;
use canvas_core::{
    Backbone, Denoiser, Level, NoiseSchedule, Preconditioned, Prediction, Run, Sampler, Unconditional,
    per_element,
};
use canvas_sched::schedule::{Flow, Gvp};
use canvas_sched::{
    Diffusion, Dopri5, FlowNoise, FlowSde, LastStep, SitEuler, SitHeun, SitSde, Spacing, Timesteps, predict,
};
use serde_json::Value;
use std::cell::Cell;
use std::f64::consts::FRAC_PI_2;

/// The formula network, told 1000 times the time; its output times `scale` is what the prediction reads.
struct Net {
    scale: f64,
}

impl Backbone<4> for Net {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
        let t: Tensor<4> = (time * 1000.0).reshape([-1, 1, 1, 1]);
        let wave = (x.clone() * 1.3 + t.clone() * 0.002).sin() * 0.6;
        (wave + (t * 0.003).cos() * 0.25 * x.clone() / (x.square() * 0.1 + 1.0)) * self.scale
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn near(found: &Tensor<4>, wanted: &Value, tolerance: f64, what: &str) {
    let (found, wanted): (Vec<f64>, _) = (found.to_data().iter::<f64>().collect(), numbers(wanted));
    let size = wanted.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let off = found.iter().zip(&wanted).map(|(f, w)| (f - w).abs()).fold(0.0, f64::max) / size;
    assert!(off <= tolerance, "{what}: off by {off:e}: {found:?} against {wanted:?}");
}

/// The states after each step, and the log-densities per element of what was drawn.
fn walk(
    sampler: &dyn Sampler<4>,
    (schedule, levels): (&dyn NoiseSchedule, &[Level]),
    (prediction, scale): (&dyn Prediction, f64),
) -> Vec<(Tensor<4>, Tensor<4>, Option<Tensor<1>>)> {
    let net = Preconditioned { backbone: &Net { scale }, prediction };
    let draw = Cell::new(0.0);
    let mut noise = Waves(&draw);
    let run = Run::new(sampler, schedule, levels, &mut noise).unwrap();
    let mut seen = Vec::new();
    run.watch(|x, level| net.denoise(x, &[level], &Unconditional(2)), wave(0.9, 0.4), &mut |progress| {
        let density = (!progress.step.std.is_zero())
            .then(|| per_element(progress.step.log_prob(progress.x.clone()), progress.x));
        seen.push((progress.x.clone(), progress.step.mean.clone(), density));
    });
    seen
}

fn fixtures() -> Value {
    serde_json::from_str(include_str!("../fixtures/papers.json")).unwrap()
}

#[test]
fn flow_grpo_and_dance_grpo_are_their_authors() {
    let all = fixtures();
    for (name, noise) in [("flow_grpo", FlowNoise::FlowGrpo(0.7)), ("dance_grpo", FlowNoise::DanceGrpo(0.3))]
    {
        let levels: Vec<Level> =
            numbers(&all[name]["sigmas"]).into_iter().map(|sigma| Flow::default().level(sigma)).collect();
        let seen = walk(&FlowSde(noise), (&Flow::default(), &levels), (&predict::Flow, 1.0));
        for (index, wanted) in all[name]["steps"].as_array().unwrap().iter().enumerate() {
            let (x, mean, density) = &seen[index];
            near(x, &wanted["x"], 1e-10, name);
            if wanted["mean"].is_array() {
                near(mean, &wanted["mean"], 1e-10, name);
            }
            let density: Vec<f64> = density.as_ref().unwrap().to_data().iter::<f64>().collect();
            for (found, wanted) in density.into_iter().zip(numbers(&wanted["log_prob"])) {
                crate::close(found, wanted, 1e-10);
            }
        }
    }
}

/// SiT's run of a fixture: sampler and levels.
fn sit(case: &Value, schedule: &dyn NoiseSchedule) -> (Box<dyn Sampler<4>>, Vec<Level>) {
    let diffusion = match case["form"].as_str() {
        Some("constant") => Diffusion::Constant,
        Some("sigma") => Diffusion::Sigma,
        Some("linear") => Diffusion::Linear,
        Some("decreasing") => Diffusion::Decreasing,
        Some(_) => Diffusion::IncreasingDecreasing,
        None => {
            let fixed = Timesteps::new(Spacing::Linspace { first: 1.0, last: 0.1 });
            let whole = vec![schedule.level(1.0), schedule.level(0.0)];
            return match case["method"].as_str().unwrap() {
                "euler" => (
                    Box::new(SitEuler(SitSde {
                        diffusion: Diffusion::Sigma,
                        norm: 0.0,
                        last: LastStep::Euler,
                    })),
                    fixed.levels(schedule, 10).unwrap(),
                ),
                _ => (Box::new(Dopri5 { rtol: 1e-10, atol: 1e-10, last: 1e-6 }), whole),
            };
        }
    };
    let last = match case["last"].as_str().unwrap() {
        "Mean" => LastStep::Mean,
        "Tweedie" => LastStep::Tweedie,
        _ => LastStep::Euler,
    };
    let sde = SitSde { diffusion, norm: 0.8, last };
    let levels = Timesteps::new(Spacing::Linspace { first: 1.0, last: 0.04 }).levels(schedule, 10).unwrap();
    match case["method"].as_str().unwrap() {
        "Euler" => (Box::new(SitEuler(sde)), levels),
        _ => (Box::new(SitHeun(sde)), levels),
    }
}

#[test]
fn sit_is_its_authors() {
    for case in fixtures()["sit"].as_array().unwrap() {
        // Their velocity points to the data, and on the quarter circle it is pi/2 times ours.
        let linear = case["path"] == "Linear";
        let schedule: &dyn NoiseSchedule = if linear { &Flow::default() } else { &Gvp };
        let read: (&dyn Prediction, f64) =
            if linear { (&predict::Flow, -1.0) } else { (&predict::Velocity, -1.0 / FRAC_PI_2) };
        let (sampler, levels) = sit(case, schedule);
        let seen = walk(&*sampler, (schedule, &levels), read);
        let rows = case["x"].as_array().unwrap();
        let what = format!("{} {} {} {}", case["path"], case["method"], case["form"], case["last"]);
        if rows.len() == 3 {
            near(&seen[0].0, &rows[0], 1e-7, &what);
            near(&seen[8].0, &rows[1], 1e-7, &what);
        }
        near(&seen[seen.len() - 1].0, &rows[rows.len() - 1], 1e-7, &what);
    }
}
