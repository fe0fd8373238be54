//! Stochastic samplers: orders in distribution, marginals, limits, densities.

use crate::close;
use crate::oracle::{DATA, Gaussian};
use crate::orders::{even, order, paths};
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Hop, Level, Noise, NoiseSchedule, Run, Sampler, Seeded, falling_with_signal};
use canvas_sched::schedule::{Edm, Flow, Vp};
use canvas_sched::{
    Ancestral, Churned, ConsistencyModel, Ddim, Ddpm, Diffusion, Dpm2Ancestral, DpmPp, DpmPp2mSde,
    DpmPp2sAncestral, DpmPp3mSde, DpmPpSde, Euler, EulerAncestral, FlowNoise, FlowSde, Heun, LastStep, Lcm,
    SaSolver, SdeDpmSolver, SitEuler, SitHeun, SitSde, Slope, Tcd, Timesteps, Window,
};
use std::f64::consts::PI;

type Named<const D: usize> = (&'static str, Box<dyn Sampler<D>>);

fn sit(diffusion: Diffusion, norm: f64) -> SitSde {
    SitSde { diffusion, norm, last: LastStep::Tweedie }
}

/// Every sampler here that keeps the marginals.
pub fn marginal<const D: usize>() -> Vec<Named<D>> {
    let rectified = Ancestral::rectified_flow(1.0);
    let tau = |_: Level| 1.0;
    vec![
        ("euler-ancestral", Box::new(EulerAncestral::default())),
        ("euler-ancestral eta 0.5", Box::new(EulerAncestral(Ancestral::new(0.5)))),
        ("euler-ancestral-rf", Box::new(EulerAncestral(rectified))),
        ("dpm-2-ancestral", Box::new(Dpm2Ancestral::default())),
        ("dpm-2-ancestral-rf", Box::new(Dpm2Ancestral(rectified))),
        ("dpmpp-2s-ancestral", Box::new(DpmPp2sAncestral::default())),
        ("dpmpp-2s-ancestral-rf", Box::new(DpmPp2sAncestral(rectified))),
        ("dpmpp-sde", Box::new(DpmPpSde::default())),
        ("dpmpp-sde eta 0.5", Box::new(DpmPpSde { ancestral: Ancestral::new(0.5), r: 0.5 })),
        ("dpmpp-2m-sde", Box::new(DpmPp2mSde::default())),
        ("dpmpp-2m-sde heun", Box::new(DpmPp2mSde { slope: Slope::Heun, ..Default::default() })),
        ("dpmpp-2m-sde eta 0.5", Box::new(DpmPp2mSde { eta: 0.5, ..Default::default() })),
        ("dpmpp-3m-sde", Box::new(DpmPp3mSde::default())),
        ("sde-dpm-solver", Box::new(SdeDpmSolver::default())),
        ("sde-dpm-solver heun", Box::new(SdeDpmSolver { slope: Slope::Heun })),
        ("sa-solver 1 0", Box::new(SaSolver { predictor: 1, corrector: 0, tau })),
        ("sa-solver 2 2", Box::new(SaSolver { predictor: 2, corrector: 2, tau })),
        ("sa-solver 3 3", Box::new(SaSolver { predictor: 3, corrector: 3, tau })),
        ("sa-solver 3 4", Box::new(SaSolver { predictor: 3, corrector: 4, tau })),
        ("sit-euler sbdm", Box::new(SitEuler(sit(Diffusion::Sbdm, 1.0)))),
        ("sit-euler sigma", Box::new(SitEuler(sit(Diffusion::Sigma, 1.0)))),
        ("sit-euler linear", Box::new(SitEuler(sit(Diffusion::Linear, 1.0)))),
        ("sit-euler constant", Box::new(SitEuler(sit(Diffusion::Constant, 0.05)))),
        ("sit-euler decreasing", Box::new(SitEuler(sit(Diffusion::Decreasing, 1.0)))),
        ("sit-euler increasing-decreasing", Box::new(SitEuler(sit(Diffusion::IncreasingDecreasing, 1.0)))),
        ("sit-heun sigma", Box::new(SitHeun(sit(Diffusion::Sigma, 1.0)))),
        ("sit-heun sbdm", Box::new(SitHeun(sit(Diffusion::Sbdm, 1.0)))),
        ("flow-grpo", Box::new(FlowSde::default())),
        ("dance-grpo", Box::new(FlowSde(FlowNoise::DanceGrpo(0.3)))),
        ("cps", Box::new(FlowSde(FlowNoise::Cps(0.7)))),
        ("window", Box::new(Window { inner: FlowSde::default(), otherwise: Heun, hops: 3..9 })),
    ]
}

/// One at the row of the draw, zero elsewhere.
struct Unit(usize);

impl Noise<1> for Unit {
    fn normal_like(&mut self, x: &Tensor<1>) -> Tensor<1> {
        self.0 += 1;
        let rows: Vec<f64> = (0..x.dims()[0]).map(|row| f64::from(u8::from(row == self.0 + 1))).collect();
        Tensor::from_data(rows.as_slice(), (&x.device(), DType::F64))
    }
}

/// Mean and standard deviation at the end for Gaussian data, exactly, for every sampler whose step is affine in
/// the states: row 0 starts at the mean, row 1 one standard deviation off, and row `k + 2` feels draw `k`.
pub fn moments(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level]) -> (f64, f64) {
    let (mean, std) = DATA.marginal(levels[0]);
    let ends = |draws: usize| -> (Vec<f64>, usize) {
        let mut rows = vec![mean; draws + 2];
        rows[1] += std;
        let x = Tensor::<1>::from_data(rows.as_slice(), (&Device::flex(), DType::F64));
        let mut noise = Unit(0);
        let run = Run::new(sampler, schedule, levels, &mut noise).unwrap();
        let end = run.sample(|x, level| DATA.denoise(x, level), x);
        (end.into_data().iter::<f64>().collect(), noise.0)
    };
    let (_, draws) = ends(0);
    let (end, _) = ends(draws);
    (end[0], end[1..].iter().map(|row| (row - end[0]).powi(2)).sum::<f64>().sqrt())
}

fn moment_error(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level]) -> f64 {
    let ((mean, std), (true_mean, true_std)) =
        (moments(sampler, schedule, levels), DATA.marginal(*levels.last().unwrap()));
    (mean - true_mean).abs() + (std - true_std).abs()
}

#[test]
fn print_orders() {
    for (name, sampler) in marginal::<1>() {
        let mut line = format!("| {name} |");
        for (_, schedule, first, last) in paths() {
            let error = |n| moment_error(&sampler, &schedule, &even(&schedule, first, last, n));
            let (measured, errors) = order(&[64, 128, 256], error);
            line += &format!(" {measured:.2} ({:.0e}) |", errors[2]);
        }
        println!("{line}");
    }
}
