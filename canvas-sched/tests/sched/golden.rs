//! The sums and means that diffusers' own scheduler tests expect (notes/models.md 2.4), for a dummy network
//! `x t / (t + 1)` told the index of the training step. Tolerances are those of diffusers' tests.
//!
//! Left out: DDPM (needs torch's random numbers). diffusers' DDIM test clips estimates to `[-1, 1]`; its
//! dummy never leaves that range, so the numbers hold without.

use crate::close;
use crate::oracle::Silent;
use burn::prelude::*;
use canvas_core::{Backbone, Denoiser, Hop, Level, Preconditioned, Prediction, Run, Sampler, Unconditional};
use canvas_sched::predict::{self, Epsilon, Velocity};
use canvas_sched::schedule::{Edm, Flow, Vp, betas};
use canvas_sched::{Ddim, DpmPp2m, Euler, Heun, Timesteps};

/// The dummy network, told `time * scale`.
struct Dummy {
    scale: f64,
}

impl Backbone<4> for Dummy {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
        let t: Tensor<4> = (time * self.scale).reshape([-1, 1, 1, 1]);
        x * (t.clone() / (t + 1.0))
    }
}

/// diffusers' `dummy_sample_deter`.
fn sample() -> Tensor<4> {
    let values: Vec<f32> = (0..768u16).map(|i| f32::from(i) / 768.0).collect();
    Tensor::<4>::from_data(TensorData::new(values, [3, 8, 8, 4]), &Device::flex()).permute([3, 0, 1, 2])
}

fn sum(x: &Tensor<4>) -> f64 {
    f64::from(x.clone().abs().sum().into_scalar::<f32>())
}

fn run(
    sampler: &dyn Sampler<4>,
    prediction: &dyn Prediction,
    levels: &[Level],
    scale: f64,
    x: Tensor<4>,
) -> Tensor<4> {
    let network = Preconditioned { backbone: &Dummy { scale }, prediction };
    let mut noise = Silent;
    // No sampler here asks for a level between those of the grid.
    let run = Run::new(sampler, &Flow { shift: 1.0 }, levels, &mut noise).unwrap();
    run.sample(|x, level| network.denoise(x, &[level], &Unconditional(4)), x)
}

#[test]
fn ddim() {
    let levels = Timesteps::leading(1000, 0).levels(&Vp::linear(1000), 10).unwrap();
    let ddim = Ddim { eta: 0.0 };
    close(sum(&run(&ddim, &Epsilon, &levels, 1000.0, sample())), 172.0067, 1e-2);
    close(sum(&run(&ddim, &Velocity, &levels, 1000.0, sample())), 52.5302, 1e-2);
    let other = Vp::from_betas(&betas::linear(1000, 0.01, 0.02));
    let mut levels = Timesteps::leading(1000, 0).levels(&other, 10).unwrap();
    close(sum(&run(&ddim, &Epsilon, &levels, 1000.0, sample())), 149.8295, 1e-2);
    levels[10] = other.training_step(0); // set_alpha_to_one = False
    close(sum(&run(&ddim, &Epsilon, &levels, 1000.0, sample())), 149.0784, 1e-2);
}

/// DPM++ runs from step 999 to the first level's own noise, on rounded steps.
#[test]
fn dpmpp_2m() {
    let vp = Vp::linear(1000);
    let step = |i: usize| vp.training_step((999.0 * (10 - i) as f64 / 10.0).round_ties_even() as usize);
    let mut levels: Vec<Level> = (0..10).map(step).collect();
    levels.push(vp.training_step(0));
    let mean = |prediction: &dyn Prediction, levels: &[Level]| {
        sum(&run(&DpmPp2m, prediction, levels, 1000.0, sample())) / 768.0
    };
    close(mean(&Epsilon, &levels), 0.3301, 1e-3);
    close(mean(&Velocity, &levels), 0.2251, 1e-3);

    // Karras over all training steps, then the told steps rounded; the last ratio stands twice.
    let mut karras = Timesteps::linspace(1000).karras().levels(&vp, 10).unwrap();
    karras.iter_mut().for_each(|level| level.time = (level.time * 1000.0).round() / 1000.0);
    karras[10] = vp.training_step(0);
    close(mean(&Velocity, &karras), 0.2096, 1e-3);
}

/// diffusers' Euler and Heun work where `alpha = 1`, and their tests feed the scaled state back.
fn scaled_back(sampler: &dyn Sampler<4>, levels: &[Level]) -> f64 {
    let mut x = sample() * levels[0].sigma;
    for pair in levels.windows(2) {
        x = x / 1f64.hypot(pair[0].sigma);
        let denoise = |x: Tensor<4>, level: Level| {
            let input = if level == pair[0] { 1.0 } else { 1.0 / 1f64.hypot(level.sigma) };
            let t = level.time * 1100.0;
            (x.clone() - x * (input * level.sigma * t / (t + 1.0))).into()
        };
        let schedule = Flow::default(); // not asked either
        x = sampler.step(x, &mut Hop::single((pair[0], pair[1]), &schedule, &denoise, &mut Silent)).mean;
    }
    sum(&x)
}

fn unscaled(levels: &[Level]) -> Vec<Level> {
    levels.iter().map(|l| Level { time: l.time, alpha: 1.0, sigma: l.sigma / l.alpha }).collect()
}

#[test]
fn euler_and_heun() {
    let vp = Vp::linear(1100);
    let levels = unscaled(&Timesteps::linspace(1100).levels(&vp, 10).unwrap());
    close(scaled_back(&Euler, &levels), 10.0807, 1e-2);
    close(scaled_back(&Heun, &levels), 0.1233, 1e-2);
    let karras = unscaled(&Timesteps::linspace(1100).karras().levels(&vp, 10).unwrap());
    close(scaled_back(&Euler, &karras), 124.5230, 1e-2);
}

#[test]
fn edm_euler() {
    let levels = Timesteps::edm().levels(&Edm::default(), 10).unwrap();
    let x = sample() * 80f64.hypot(1.0);
    close(sum(&run(&Euler, &predict::Edm::default(), &levels, 1.0, x)), 34.1855, 1e-3);
}

/// diffusers has no such test; the numbers are from a re-implementation in f64.
#[test]
fn flow_euler() {
    let total = |flow: Flow, grid: Timesteps| {
        sum(&run(&Euler, &predict::Flow, &grid.levels(&flow, 10).unwrap(), 1000.0, sample()))
    };
    close(total(Flow { shift: 1.0 }, Timesteps::linspace(1000)), 133.36204, 1e-3);
    close(total(Flow { shift: 3.0 }, Timesteps::linspace(1000)), 129.15329, 1e-3);
    close(total(Flow { shift: 1.15f64.exp() }, Timesteps::uniform()), 129.90949, 1e-3);
}
