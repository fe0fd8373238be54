//! How fast errors fall with the number of steps, and what a step costs.

use burn::prelude::*;
use canvas_core::{Evaluation, Hop, Level, Noise, NoiseSchedule, Run, Sampler};
use canvas_examples::bumps;
use canvas_sched::schedule::{Edm, Flow, VpSde};
use std::cell::Cell;

/// A schedule, and the times between which orders are measured: away from its ends, where methods that think in
/// `ln(alpha / sigma)` must fall back to first order.
pub type Path = (&'static str, Box<dyn NoiseSchedule>, (f64, f64));

pub fn paths() -> [Path; 3] {
    [
        ("VP", Box::new(VpSde::default()), (0.9, 0.1)),
        ("EDM", Box::new(Edm::default()), (1.0, 0.1)),
        ("flow", Box::new(Flow::default()), (0.9, 0.1)),
    ]
}

/// `steps + 1` levels evenly in time.
pub fn even(schedule: &dyn NoiseSchedule, (first, last): (f64, f64), steps: usize) -> Vec<Level> {
    (0..=steps).map(|i| schedule.level(first + (last - first) * i as f64 / steps as f64)).collect()
}

/// Shares of the data below the starts of the trajectories that are followed.
const SHARES: [f64; 8] = [0.02, 0.1, 0.25, 0.38, 0.42, 0.6, 0.8, 0.97];

/// Where these trajectories are at a level.
fn exact(level: Level) -> Tensor<1> {
    bumps::row(&SHARES.map(|share| bumps::quantile(share, level)))
}

/// Root mean square of the distances.
fn distance(found: Tensor<1>, wanted: Tensor<1>) -> f64 {
    (found - wanted).square().mean().into_scalar::<f64>().sqrt()
}

/// No noise: the mean of every step.
struct Silent;

impl Noise<1> for Silent {
    fn normal_like(&mut self, x: &Tensor<1>) -> Tensor<1> {
        x.zeros_like()
    }
}

/// The error of whole runs along these levels, and the calls of the network; `None` if the sampler refuses them.
pub fn run(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level]) -> Option<(f64, usize)> {
    let (mut noise, calls) = (Silent, Cell::new(0));
    let run = Run::new(sampler, schedule, levels, &mut noise).ok()?;
    let denoise = |x: Tensor<1>, level| {
        calls.set(calls.get() + 1);
        bumps::denoise(&x, level)
    };
    let end = run.sample(denoise, exact(levels[0]));
    Some((distance(end, exact(levels[levels.len() - 1])), calls.get()))
}

/// Hops that a multistep method is given from the exact trajectory.
const KNOWN: usize = 6;

/// The error of a run that starts with an exact history: that of the method without its first steps.
fn run_warm(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level]) -> f64 {
    let denoise = |x: Tensor<1>, level| bumps::denoise(&x, level).into();
    let known = |&level: &Level| {
        let x = exact(level);
        Evaluation { level, estimate: denoise(x.clone(), level), x }
    };
    let (mut past, count) = (Vec::from_iter(levels[..KNOWN].iter().map(known)), levels.len() - 1);
    let mut x = exact(levels[KNOWN]);
    for index in KNOWN..count {
        let (mut noise, pair) = (Silent, (levels[index], levels[index + 1]));
        let mut hop = Hop::single(pair, schedule, &denoise, &mut noise).after(&past, index, count);
        let step = sampler.step(x, &mut hop);
        x = step.mean;
        past.push(step.eval);
        past.remove(0);
    }
    distance(x, exact(levels[count]))
}

/// Steps of the coarse run; the fine one has twice as many. Whole blocks of two and of three.
const STEPS: usize = 192;

/// Orders of whole runs and from exact history; `None` if the sampler refuses the path.
pub fn trajectory_orders(sampler: &dyn Sampler<1>, (_, schedule, ends): &Path) -> Option<(f64, f64)> {
    let grids = [STEPS, 2 * STEPS].map(|steps| even(schedule, *ends, steps));
    let [coarse, fine] = [run(sampler, schedule, &grids[0])?.0, run(sampler, schedule, &grids[1])?.0];
    let warm = grids.each_ref().map(|levels| run_warm(sampler, schedule, levels));
    Some(((coarse / fine).log2(), (warm[0] / warm[1]).log2()))
}

/// Calls of the network a step, and those beyond that in a whole run (the first steps of some methods).
pub fn calls(sampler: &dyn Sampler<1>, (_, schedule, ends): &Path) -> Option<(f64, f64)> {
    let count = |steps| Some(run(sampler, schedule, &even(schedule, *ends, steps))?.1 as f64);
    let (few, many) = (count(STEPS)?, count(2 * STEPS)?);
    let each = (many - few) / STEPS as f64;
    Some((each, few - each * STEPS as f64))
}

/// Gaussian data, for which every sampler whose step is affine in the states keeps a Gaussian.
const MEAN: f64 = 0.7;
const STD: f64 = 0.4;

fn gaussian(x: Tensor<1>, level: Level) -> Tensor<1> {
    let (signal, variance) = (level.alpha * STD * STD, (level.alpha * STD).hypot(level.sigma).powi(2));
    x * (signal / variance) + MEAN * (1.0 - level.alpha * signal / variance)
}

/// One at the row of the draw, zero elsewhere.
struct Unit(usize);

impl Noise<1> for Unit {
    fn normal_like(&mut self, x: &Tensor<1>) -> Tensor<1> {
        self.0 += 1;
        let rows: Vec<f64> = (0..x.dims()[0]).map(|row| f64::from(row == self.0 + 1)).collect();
        bumps::row(&rows)
    }
}

/// Errors of mean and standard deviation at the end, added; exactly: row 0 starts at the mean, row 1 one
/// deviation off, and row `k + 2` feels draw `k` alone.
fn moment_error(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level]) -> Option<f64> {
    let moments = |level: Level| (level.alpha * MEAN, (level.alpha * STD).hypot(level.sigma));
    let (mean, std) = moments(levels[0]);
    let ends = |draws: usize| {
        let mut rows = vec![mean; draws + 2];
        rows[1] += std;
        let mut noise = Unit(0);
        let run = Run::new(sampler, schedule, levels, &mut noise).ok()?;
        let end: Vec<f64> = run.sample(gaussian, bumps::row(&rows)).into_data().iter::<f64>().collect();
        Some((end, noise.0))
    };
    let (_, draws) = ends(0)?;
    let (end, _) = ends(draws)?;
    let spread = end[1..].iter().map(|row| (row - end[0]).powi(2)).sum::<f64>().sqrt();
    let (true_mean, true_std) = moments(levels[levels.len() - 1]);
    Some((end[0] - true_mean).abs() + (spread - true_std).abs())
}

/// The order of mean and standard deviation, and their error in the fine run.
pub fn weak_order(sampler: &dyn Sampler<1>, (_, schedule, ends): &Path) -> Option<(f64, f64)> {
    let error = |steps| moment_error(sampler, schedule, &even(schedule, *ends, steps));
    let (coarse, fine) = (error(STEPS)?, error(2 * STEPS)?);
    Some(((coarse / fine).log2(), fine))
}
