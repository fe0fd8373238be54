//! Recorded runs: the same denoiser gives the same densities bit for bit, another one gives gradients.

use crate::host;
use crate::k_diffusion::{distance, network, wave};
use crate::oracle::DATA;
use crate::sde::marginal;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{
    Denoiser, Estimate, Level, NoiseSchedule, Sampler, Seeded, Std, Trajectory, Unconditional, per_element,
};
use canvas_sched::flow_map::{FlowMap, MeanFlow, OneHop, TwoTimes, Walk};
use canvas_sched::schedule::{Flow, Vp};
use canvas_sched::{Churned, Ddpm, DpmPp2mSde, DpmPpSde, Euler, FlowSde, Heun, Variance, Window};
use serde_json::Value;

fn double<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(DType::F64)
}

fn start() -> Tensor<2> {
    double(Tensor::<2>::from_data([[0.9, -0.3, 0.2], [1.4, 0.1, -2.0]], &Device::flex()))
}

fn levels(schedule: &dyn NoiseSchedule) -> Vec<Level> {
    (0..7).map(|i| schedule.level(0.95 - 0.155 * f64::from(i))).collect()
}

#[test]
fn the_same_denoiser_replays_every_sampler_exactly() {
    let mut all = marginal::<2>();
    let range = (0.0, f64::INFINITY);
    all.push(("churned", Box::new(Churned { inner: Heun, amount: 3.0, range, noise: 1.003 })));
    all.push((
        "churned sde",
        Box::new(Churned { inner: DpmPpSde::default(), amount: 3.0, range, noise: 1.0 }),
    ));
    all.push(("learned", Box::new(Ddpm { variance: Variance::LearnedRange })));
    let denoise = |x: Tensor<2>, level: Level| Estimate {
        variance: Some((x.clone() * 0.7).sin()),
        ..DATA.denoise(x, level).into()
    };
    let vp = Vp::cosine(1000);
    for (name, sampler) in &all {
        let grid = levels(&vp);
        let mut noise = Seeded::new(3, [0, 1]);
        let run = Trajectory::record(sampler, &vp, &grid, &mut noise, denoise, start()).unwrap();
        let whole = run.replay_all(sampler, &vp, denoise);
        let mut stochastic = 0;
        for (index, recorded) in run.transitions.iter().enumerate() {
            let step = run.replay(index, sampler, &vp, denoise);
            assert_eq!(host(&step.mean), host(&recorded.step.mean), "{name}");
            assert_eq!(host(&whole[index].mean), host(&recorded.step.mean), "{name}");
            if let Some(log_prob) = recorded.log_prob() {
                let ratio = step.log_prob(recorded.next.clone()) - log_prob;
                assert_eq!(host(&ratio), [0.0, 0.0], "{name}");
                stochastic += 1;
            } else {
                // all the noise of the step lies in its draws
                assert_eq!(host(&step.mean), host(&recorded.next), "{name}");
            }
        }
        let draws: usize = run.transitions.iter().map(|t| t.draws.len()).sum();
        println!("{name}: {stochastic} densities, {draws} draws within steps");
        assert!(stochastic + draws > 0, "{name}");
    }
}

#[test]
fn a_window_is_stochastic_in_its_hops_only() {
    let flow = Flow::default();
    let sampler = Window { inner: FlowSde::default(), otherwise: Euler, hops: 1..3 };
    let mut noise = Seeded::new(3, [0, 1]);
    let denoise = |x: Tensor<2>, level: Level| DATA.denoise(x, level);
    let run = Trajectory::record(&sampler, &flow, &levels(&flow), &mut noise, denoise, start()).unwrap();
    let which: Vec<bool> = run.transitions.iter().map(|t| t.log_prob().is_some()).collect();
    assert_eq!(which, [false, true, true, false, false, false]);
    let each: Vec<f64> =
        [1, 2].map(|i| host(&run.transitions[i].log_prob().unwrap())[0]).into_iter().collect();
    assert!((host(&run.log_prob().unwrap())[0] - each[0] - each[1]).abs() < 1e-12);
    let mean = per_element(run.transitions[1].log_prob().unwrap(), &run.transitions[1].next);
    assert!((host(&mean)[0] - each[0] / 3.0).abs() < 1e-12);
}

/// Gradients of log-densities in the denoiser's parameter, against differences.
#[test]
fn gradients_are_those_of_finite_differences() {
    let flow = Flow::default();
    let samplers: Vec<(&str, Box<dyn Sampler<2>>)> = vec![
        ("flow-grpo", Box::new(FlowSde::default())),
        ("dpmpp-2m-sde", Box::new(DpmPp2mSde::default())),
        ("dpmpp-sde", Box::new(DpmPpSde::default())),
        ("learned", Box::new(Ddpm { variance: Variance::Learned })),
    ];
    for (name, sampler) in &samplers {
        let with = |theta: Tensor<2>| {
            move |x: Tensor<2>, level: Level| Estimate {
                variance: Some(x.clone() * 0.1 * theta.clone() - 2.0),
                ..(DATA.denoise(x.clone(), level) * theta.clone() + x * 0.1).into()
            }
        };
        let theta = |value: f64, device: &Device| Tensor::<2>::from_data([[value]], (device, DType::F64));
        let cpu = Device::flex();
        let mut noise = Seeded::new(3, [0, 1]);
        let old = with(theta(1.0, &cpu));
        let run = Trajectory::record(sampler, &flow, &levels(&flow), &mut noise, old, start()).unwrap();
        let sum = |run: &Trajectory<2>, theta: Tensor<2>| {
            let steps = run.replay_all(sampler, &flow, with(theta));
            let terms = steps.iter().zip(&run.transitions).filter(|(step, _)| !step.std.is_zero());
            terms.map(|(step, t)| step.log_prob(t.next.clone()).sum()).reduce(|sum, term| sum + term).unwrap()
        };
        let value = |at: f64| host(&sum(&run, theta(at, &cpu)))[0];
        let difference = (value(1.1 + 1e-5) - value(1.1 - 1e-5)) / 2e-5;
        let device = Device::flex().autodiff();
        let tracked = theta(1.1, &device).require_grad();
        let moved = run.to_device(&device);
        let grads = sum(&moved, tracked.clone()).backward();
        let found = host(&tracked.grad(&grads).unwrap())[0];
        println!("{name}: gradient {found}, difference {difference}");
        assert!(
            (found - difference).abs() < 1e-6 * difference.abs().max(1.0),
            "{name}: {found} {difference}"
        );
    }
}

/// A learned variance has the density of a diagonal Gaussian.
#[test]
fn a_learned_variance_has_its_density() {
    let flow = Flow::default();
    let log = [-1.2, 0.3, -0.4, 0.1, -2.0, 0.7];
    let denoise = |x: Tensor<2>, level: Level| Estimate {
        variance: Some(Tensor::from_data(TensorData::new(log.to_vec(), [2, 3]), (&x.device(), DType::F64))),
        ..DATA.denoise(x, level).into()
    };
    let sampler = Ddpm { variance: Variance::Learned };
    let mut noise = Seeded::new(1, [0, 1]);
    let grid = [flow.level(0.6), flow.level(0.4)];
    let run = Trajectory::record(&sampler, &flow, &grid, &mut noise, denoise, start()).unwrap();
    let step = &run.transitions[0].step;
    assert!(matches!(step.std, Std::Each(_)));
    let (mean, next) = (host(&step.mean), host(&run.end()));
    let density = |i: usize| {
        let variance = f64::exp(log[i]);
        -0.5 * (next[i] - mean[i]).powi(2) / variance - 0.5 * (2.0 * std::f64::consts::PI * variance).ln()
    };
    let expected = [(0..3).map(density).sum::<f64>(), (3..6).map(density).sum()];
    for (found, expected) in host(&run.transitions[0].log_prob().unwrap()).into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}

/// The fixture's network as one of average velocities, told `1000 t`.
struct Average;

impl TwoTimes<4> for Average {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<4>, _r: Tensor<1>, t: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
        network(x, host(&t)[0] * 1000.0)
    }
}

#[test]
fn flow_maps_agree_with_diffusers() {
    let all: Vec<Value> = serde_json::from_str(include_str!("../fixtures/diffusers.json")).unwrap();
    let mut checked = 0;
    for case in all.iter().filter(|case| case["class"] == "FlowMapEulerDiscreteScheduler") {
        let call = case["call"].as_object().unwrap();
        if !case["error"].is_null() || !case["s_at"].is_null() || call.contains_key("r_timestep") {
            continue;
        }
        let level = |s: &Value| {
            let s = s.as_f64().unwrap();
            Level { time: s, alpha: 1.0 - s, sigma: s }
        };
        let grid: Vec<Level> = case["sigmas"].as_array().unwrap().iter().map(level).collect();
        let mut x = wave(0.9, 0.4);
        let kept = case["at"].as_array().unwrap().iter().zip(case["x"].as_array().unwrap());
        let mut done = 0;
        for (at, wanted) in kept {
            let until = at.as_u64().unwrap() as usize + 1;
            let map = (&Flow::default() as &dyn NoiseSchedule, &grid[done..=until]);
            let mut noise = Seeded::new(0, [0, 1]);
            x = Walk { renoise: 0.0 }.sample(&MeanFlow(Average), map, &mut noise, x, &Unconditional(2));
            done = until;
            let off = distance(&x, wanted);
            assert!(off < 1e-9, "{} {}: off by {off:e}", case["config"], case["steps"]);
        }
        checked += 1;
    }
    assert!(checked > 5, "{checked}");
}

/// The exact flow map of Gaussian data.
struct Exact;

impl FlowMap<2> for Exact {
    type Cond = Unconditional;
    fn map(&self, x: Tensor<2>, from: Level, to: Level, _cond: &Unconditional) -> Tensor<2> {
        let ((mean, std), (mean2, std2)) = (DATA.marginal(from), DATA.marginal(to));
        (x - mean) * (std2 / std) + mean2
    }
}

struct Best;

impl Denoiser<2> for Best {
    type Cond = Unconditional;
    fn denoise(&self, x: Tensor<2>, at: &[Level], _cond: &Unconditional) -> Estimate<2> {
        DATA.denoise(x, at[0]).into()
    }
}

#[test]
fn an_exact_flow_map_needs_one_step_and_may_renoise() {
    let flow = Flow::default();
    let x = {
        use canvas_core::Noise;
        let like = double(Tensor::<2>::zeros([40, 250], &Device::flex()));
        Seeded::new(8, Vec::from_iter(0..40)).normal_like(&like)
    };
    for (renoise, times) in
        [(0.0, vec![1.0, 0.0]), (0.5, vec![1.0, 0.6, 0.3, 0.0]), (1.0, vec![1.0, 0.7, 0.0])]
    {
        let grid: Vec<Level> = times.iter().map(|&t| flow.level(t)).collect();
        let mut noise = Seeded::new(9, Vec::from_iter(0..40));
        let end = Walk { renoise }.sample(&Exact, (&flow, &grid), &mut noise, x.clone(), &Unconditional(40));
        let end = host(&end);
        let mean = end.iter().sum::<f64>() / 1e4;
        let std = (end.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e4).sqrt();
        println!("renoise {renoise}: {mean} {std}");
        crate::close(mean, DATA.mean, 4.0 * DATA.std / 100.0);
        crate::close(std, DATA.std, 4.0 * DATA.std / 141.0);
    }
    // One hop of a denoiser is Euler's.
    let (from, to) = (flow.level(1.0), flow.level(0.25));
    let hop = OneHop(Best).map(x.clone(), from, to, &Unconditional(40));
    let estimate = Best.denoise(x.clone(), &[from], &Unconditional(40));
    let euler = canvas_core::Evaluation { level: from, x: x.clone(), estimate }.carry(to);
    assert_eq!(host(&hop), host(&euler));
    assert_eq!(host(&OneHop(Best).map(x.clone(), from, from, &Unconditional(40))), host(&x));
}
