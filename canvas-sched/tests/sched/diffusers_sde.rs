//! diffusers' stochastic and distilled schedulers, in f64, on levels rebuilt here from their rules.

use crate::k_diffusion::{Waves, distance, network, wave};
use burn::prelude::*;
use canvas_core::{Estimate, Evaluation, Hop, Level, NoiseSchedule, Prediction, Run, Sampler, Step};
use canvas_sched::schedule::{Vp, betas};
use canvas_sched::{
    ConsistencyModel, Ddim, Ddpm, DpmPp2mSde, DpmPp3mSde, Lcm, SaSolver, SdeDpmSolver, Slope, Tcd, Variance,
    Window,
    predict::{Boundary, Consistency, Epsilon},
};
use serde_json::Value;
use std::cell::Cell;

fn cases(class: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../fixtures/diffusers.json")).unwrap();
    all.into_iter().filter(|case| case["class"] == class && case["error"].is_null()).collect()
}

fn steps(case: &Value) -> usize {
    case["steps"].as_u64().unwrap() as usize
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// Runs and compares every kept state; gives the largest deviation.
fn deviation(
    case: &Value,
    sampler: &dyn Sampler<4>,
    schedule: &dyn NoiseSchedule,
    levels: &[Level],
    denoise: impl Fn(Tensor<4>, Level) -> Estimate<4>,
) -> f64 {
    let draw = Cell::new(0.0);
    let mut noise = Waves(&draw);
    let run = Run::new(sampler, schedule, levels, &mut noise).unwrap();
    let mut states = Vec::new();
    let start = wave(0.9, 0.4) * case["init_noise_sigma"].as_f64().unwrap();
    run.watch(denoise, start, &mut |progress| {
        states.push(progress.x.clone());
        // theirs draw once a step whether or not they use it
        draw.set(progress.done as f64);
    });
    let kept = case["at"].as_array().unwrap().iter().zip(case["x"].as_array().unwrap());
    kept.map(|(at, wanted)| distance(&states[at.as_u64().unwrap() as usize], wanted)).fold(0.0, f64::max)
}

#[track_caller]
fn agrees(case: &Value, off: f64) {
    assert!(
        off < 1e-9,
        "{} {} {} {}: off by {off:e}",
        case["class"],
        case["config"],
        case["call"],
        case["steps"]
    );
}

/// An epsilon network told the training step.
fn epsilon(x: Tensor<4>, level: Level) -> Estimate<4> {
    let eps = network(x.clone(), (level.time * 1000.0).round());
    ((x - eps * level.sigma) / level.alpha).into()
}

fn vp(config: &Value) -> Vp {
    let number = |name: &str, default: f64| config[name].as_f64().unwrap_or(default);
    let scaled = config["beta_schedule"] == "scaled_linear";
    let (first, last) = (number("beta_start", 1e-4), number("beta_end", 0.02));
    Vp::from_betas(&if scaled {
        betas::scaled_linear(1000, first, last)
    } else {
        betas::linear(1000, first, last)
    })
}

/// Rounded steps from the last to above the first, then the first's noise or none.
fn multistep_levels(vp: &Vp, steps: usize, clean: bool) -> Vec<Level> {
    let step = |i: usize| (999.0 * (steps - i) as f64 / steps as f64).round_ties_even() as usize;
    let end = if clean { Level { alpha: 1.0, sigma: 0.0, time: 0.0 } } else { vp.training_step(0) };
    (0..steps).map(|i| vp.training_step(step(i))).chain([end]).collect()
}

fn only(config: &Value, allowed: &[&str]) -> bool {
    config.as_object().unwrap().keys().all(|key| allowed.contains(&key.as_str()))
}

#[test]
fn sa_solver() {
    let (mut checked, mut worst) = (0, 0.0f64);
    let known = ["predictor_order", "corrector_order", "beta_start", "beta_end", "beta_schedule"];
    for case in cases("SASolverScheduler") {
        let (config, steps) = (&case["config"], steps(&case));
        if !only(config, &known) || config["beta_schedule"] == "squaredcos_cap_v2" || steps > 500 {
            continue;
        }
        let order = |name: &str| config[name].as_u64().unwrap_or(2) as usize;
        let default = SaSolver::default().tau;
        let constant = case["call"]["tau"].as_f64();
        let tau = move |level: Level| constant.unwrap_or_else(|| default(level));
        let sampler =
            SaSolver { predictor: order("predictor_order"), corrector: order("corrector_order"), tau };
        let vp = vp(config);
        let off = deviation(&case, &sampler, &vp, &multistep_levels(&vp, steps, false), epsilon);
        println!("{} {} {steps}: {off:e}", case["config"], case["call"]);
        agrees(&case, off);
        (checked, worst) = (checked + 1, worst.max(off));
    }
    println!("SASolver: {checked} runs agree within {worst:e}");
    assert!(checked > 20, "{checked}");
}

/// Another sampler in its first order: one without a past.
struct Forget<S>(S);

impl<S: Sampler<4>> Sampler<4> for Forget<S> {
    fn step(&self, x: Tensor<4>, hop: &mut Hop<'_, 4>) -> Step<4> {
        hop.past = &[];
        self.0.step(x, hop)
    }
}

/// diffusers' `sde-dpmsolver++` of order 3: midpoint in the second and the last but one hop, elsewhere ours less
/// one whole second difference, because its weight has `- 1/2` for `+ 1/2`.
struct WrongSign;

impl Sampler<4> for WrongSign {
    fn step(&self, x: Tensor<4>, hop: &mut Hop<'_, 4>) -> Step<4> {
        if hop.index < 2 || hop.index + 2 >= hop.count {
            return DpmPp2mSde::default().step(x, hop);
        }
        let step = DpmPp3mSde::default().step(x, hop);
        let [two, one] = [2, 1].map(|back| &hop.past[hop.past.len() - back]);
        let lambda = |at: &Evaluation<4>| at.level.half_log_snr();
        let h = hop.to.half_log_snr() - lambda(&step.eval);
        let difference = |new: &Evaluation<4>, old: &Evaluation<4>| {
            (new.x0() - old.x0()) * (h / (lambda(new) - lambda(old)))
        };
        let second = difference(&step.eval, one) - difference(one, two);
        let second = second * (h / (lambda(&step.eval) - lambda(two)));
        Step { mean: step.mean - second * hop.to.alpha, ..step }
    }
}

#[test]
fn sde_dpm_solver() {
    let (mut checked, mut worst) = (0, 0.0f64);
    for case in cases("DPMSolverMultistepScheduler") {
        let (config, steps) = (&case["config"], steps(&case));
        if !only(config, &["algorithm_type", "solver_type", "solver_order", "final_sigmas_type"]) {
            continue;
        }
        let slope = if config["solver_type"] == "heun" { Slope::Heun } else { Slope::Midpoint };
        let sampler: Box<dyn Sampler<4>> = match config["algorithm_type"].as_str() {
            Some("sde-dpmsolver++") if config["solver_order"] == 3 => Box::new(WrongSign),
            Some("sde-dpmsolver++") => Box::new(DpmPp2mSde { slope, ..Default::default() }),
            // In short runs its last hop is of first order.
            Some("sde-dpmsolver") => {
                let inner = SdeDpmSolver { slope };
                Box::new(Window { inner, otherwise: Forget(inner), hops: 0..steps - 1 })
            }
            _ => continue,
        };
        let vp = vp(config);
        let levels = multistep_levels(&vp, steps, config["final_sigmas_type"].is_null());
        let off = deviation(&case, &sampler, &vp, &levels, epsilon);
        println!("{} {steps}: {off:e}", case["config"]);
        agrees(&case, off);
        (checked, worst) = (checked + 1, worst.max(off));
    }
    println!("DPMSolverMultistep sde: {checked} runs agree within {worst:e}");
    assert!(checked > 8, "{checked}");
}

/// Steps of the distilled networks: every 20th of 1000, `steps` of those 50.
fn distilled_levels(vp: &Vp, steps: usize, end: Level) -> Vec<Level> {
    let step = |i: usize| (50 - (50.0 * i as f64 / steps as f64).floor() as usize) * 20 - 1;
    (0..steps).map(|i| vp.training_step(step(i))).chain([end]).collect()
}

#[test]
fn lcm_and_tcd() {
    let vp = Vp::scaled_linear(1000);
    /// Rounds told times down to training steps.
    struct Floored(Vp);
    impl NoiseSchedule for Floored {
        fn level(&self, t: f64) -> Level {
            let index = ((t * 1000.0).ceil() as usize).clamp(1, 1000) - 1;
            Level { time: index as f64 / 1000.0 + 0.001 - 1e-9, ..self.0.training_step(index) }
        }
    }
    let clean = Level { time: 0.0, alpha: 1.0, sigma: 0.0 };
    let mut checked = 0;
    for case in cases("LCMScheduler").iter().filter(|case| only(&case["config"], &["timestep_scaling"])) {
        if !case["call"].as_object().unwrap().is_empty() {
            continue;
        }
        let scale = case["config"]["timestep_scaling"].as_f64().unwrap_or(10.0) * 1000.0;
        let prediction = Boundary { scale, ..Boundary::new(Epsilon) };
        let denoise = |x: Tensor<4>, level: Level| {
            let c = prediction.coefficients(level);
            (x.clone() * c.skip + network(x, (level.time * 1000.0).round()) * c.out).into()
        };
        let off = deviation(case, &Lcm, &vp, &distilled_levels(&vp, steps(case), clean), denoise);
        agrees(case, off);
        checked += 1;
    }
    for case in cases("TCDScheduler") {
        let eta = case["call"].as_object().unwrap();
        if !only(&case["config"], &[]) || eta.keys().any(|key| key != "eta") {
            continue;
        }
        let gamma = case["call"]["eta"].as_f64().unwrap_or(0.3);
        let levels = distilled_levels(&vp, steps(&case), vp.training_step(0));
        let off = deviation(&case, &Tcd { gamma }, &Floored(vp.clone()), &levels, epsilon);
        agrees(&case, off);
        checked += 1;
    }
    println!("LCM and TCD: {checked} runs agree");
    assert!(checked > 15, "{checked}");
}

#[test]
fn consistency_models() {
    let mut checked = 0;
    for case in cases("CMStochasticIterativeScheduler").iter().filter(|case| case["s_at"].is_null()) {
        let config = &case["config"];
        if !only(config, &["clip_denoised", "s_noise"]) {
            continue;
        }
        let (prediction, clip) = (Consistency::default(), config["clip_denoised"] != false);
        let level = |&sigma: &f64| Level { time: 250.0 * sigma.ln(), alpha: 1.0, sigma };
        let levels: Vec<Level> = numbers(&case["sigmas"]).iter().map(level).collect();
        let denoise = |x: Tensor<4>, level: Level| {
            let c = prediction.coefficients(level);
            let x0 = x.clone() * c.skip + network(x * c.input, level.time) * c.out;
            if clip { x0.clamp(-1.0, 1.0).into() } else { x0.into() }
        };
        // One step draws no noise; ours draws none because its end is the least sigma.
        let noise = config["s_noise"].as_f64().unwrap_or(1.0);
        let sampler = ConsistencyModel { noise, ..Default::default() };
        let off = deviation(case, &sampler, &crate::k_diffusion::Exploding, &levels, denoise);
        agrees(case, off);
        checked += 1;
    }
    for case in cases("SCMScheduler").iter().filter(|case| case["t_at"].is_null()) {
        let d = case["config"]["sigma_data"].as_f64().unwrap_or(0.5);
        let level = |&u: &f64| Level { time: u, alpha: u.cos(), sigma: d * u.sin() };
        let mut levels: Vec<Level> = numbers(&case["timesteps"]).iter().map(level).collect();
        if levels[0].alpha < 0.0 {
            // diffusers' largest angle, 1.5708, lies 3.7e-6 beyond a quarter turn
            levels[0].alpha = 0.0;
        }
        let denoise = |x: Tensor<4>, at: Level| {
            (x.clone() * at.time.cos() - network(x, at.time) * at.time.sin()).into()
        };
        let off = deviation(case, &Lcm, &crate::k_diffusion::Exploding, &levels, denoise);
        agrees(case, off);
        checked += 1;
    }
    for case in cases("FlowMatchLCMScheduler").iter().filter(|case| case["s_at"].is_null()) {
        if case["config"]["invert_sigmas"] == true || !case["call"]["timesteps"].is_null() {
            continue;
        }
        let scale = case["config"]["num_train_timesteps"].as_f64().unwrap_or(1000.0);
        let level = |&s: &f64| Level { time: s, alpha: 1.0 - s, sigma: s };
        let levels: Vec<Level> = numbers(&case["sigmas"]).iter().map(level).collect();
        if levels.windows(2).any(|pair| pair[1].sigma > pair[0].sigma) {
            continue;
        }
        let denoise =
            |x: Tensor<4>, level: Level| (x.clone() - network(x, level.time * scale) * level.sigma).into();
        agrees(case, deviation(case, &Lcm, &canvas_sched::schedule::Flow::default(), &levels, denoise));
        checked += 1;
    }
    println!("CM, SCM and flow LCM: {checked} runs agree");
    assert!(checked > 30, "{checked}");
}

#[test]
fn ddpm_with_learned_variances() {
    let mut checked = 0;
    for case in cases("DDPMScheduler") {
        let config = &case["config"];
        if !only(config, &["variance_type", "clip_sample"]) || config["clip_sample"] != false {
            continue;
        }
        let (vp, count) = (vp(config), steps(&case));
        let variance = match config["variance_type"].as_str() {
            None | Some("fixed_small_log") => Variance::FixedSmall,
            Some("fixed_large") => Variance::FixedLarge,
            Some("learned_range") => Variance::LearnedRange,
            Some("learned") => Variance::Learned,
            _ => continue,
        };
        if !case["call"].as_object().unwrap().is_empty() {
            continue;
        }
        let clean = Level { time: 0.0, alpha: 1.0, sigma: 0.0 };
        let step = |i: usize| vp.training_step((count - 1 - i) * (1000 / count));
        let levels: Vec<Level> = (0..count).map(step).chain([clean]).collect();
        let denoise = |x: Tensor<4>, level: Level| {
            let t = (level.time * 1000.0).round();
            let said = (x.clone() * 0.7 - 0.001 * t).sin() * 0.8;
            // theirs takes the variance itself, ours its logarithm
            let said = if variance == Variance::Learned { said.log() } else { said };
            Estimate { variance: Some(said), ..epsilon(x, level) }
        };
        if case["x"].to_string().contains("null") {
            assert_eq!(variance, Variance::Learned, "only diffusers' learned variance is NaN here");
            continue;
        }
        agrees(&case, deviation(&case, &Ddpm { variance }, &vp, &levels, denoise));
        checked += 1;
    }
    println!("DDPM: {checked} runs agree");
    assert!(checked >= 4, "{checked}");
}

/// A clipped estimate keeps the network's own noise, unless `use_clipped_model_output`.
#[test]
fn ddim_with_clipped_estimates() {
    let mut checked = 0;
    for case in cases("DDIMScheduler") {
        let call = &case["call"];
        if !only(&case["config"], &["clip_sample_range"]) {
            continue;
        }
        let (count, eta) = (steps(&case), call["eta"].as_f64().unwrap_or(0.0));
        let (vp, range) = (Vp::linear(1000), case["config"]["clip_sample_range"].as_f64().unwrap_or(1.0));
        let clean = Level { time: 0.0, alpha: 1.0, sigma: 0.0 };
        let step = |i: usize| vp.training_step((count - 1 - i) * (1000 / count));
        let levels: Vec<Level> = (0..count).map(step).chain([clean]).collect();
        let denoise = |x: Tensor<4>, level: Level| {
            let eps = network(x.clone(), (level.time * 1000.0).round());
            let x0 = ((x - eps.clone() * level.sigma) / level.alpha).clamp(-range, range);
            let eps = (call["use_clipped_model_output"] != true).then_some(eps);
            Estimate { x0, eps, variance: None }
        };
        agrees(&case, deviation(&case, &Ddim { eta }, &vp, &levels, denoise));
        checked += 1;
    }
    println!("DDIM: {checked} runs agree");
    assert!(checked > 8, "{checked}");
}
