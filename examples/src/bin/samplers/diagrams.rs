//! Work-precision diagrams: what a number of network calls buys.

use crate::facts::{self, Kind};
use crate::orders;
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Level, Noise, NoiseSchedule, Run, Sampler};
use canvas_examples::bumps;
use canvas_examples::plot::{Curve, Mark, Panel, line_plot};
use canvas_sched::schedule::{Flow, VpSde};
use canvas_sched::{Dopri5, Final, Spacing, Timesteps, by_name};
use std::cell::Cell;
use std::path::Path;

/// Steps of the runs: whole blocks of two, and mostly of three.
const STEPS: [usize; 11] = [4, 6, 8, 12, 18, 24, 36, 48, 72, 96, 144];
/// Calls beyond this are not shown.
const MOST: usize = 150;
/// Errors beyond this, several times the extent of the data, are not shown.
const LARGEST: f64 = 10.0;
/// Calls at which the table compares.
pub const COMPARED: usize = 36;
/// Tolerances of the adaptive sampler.
const TOLERANCES: [f64; 7] = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8];

/// Samplers in the diagrams of trajectories: ten at most can be told apart.
const TRAJECTORIES: [&str; 10] =
    ["euler", "heun", "dpm2", "dpmpp-2m", "dpmpp-3m", "dpmpp-3s", "deis", "unipc", "plms", "dopri5"];
/// Samplers in the diagram of distributions, likewise.
const DISTRIBUTIONS: [&str; 10] = [
    "euler-ancestral",
    "dpm2-ancestral",
    "dpmpp-2s-ancestral",
    "dpmpp-sde",
    "dpmpp-2m-sde",
    "dpmpp-3m-sde",
    "sde-dpm-solver",
    "sa-solver",
    "sit-heun",
    "dpmpp-2m",
];

/// Calls and error of a sampler's runs.
pub type Points = Vec<(usize, f64)>;

/// The schedules and grids of the diagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Karras' grid on the linear VP schedule.
    Vp,
    /// Even times on the flow schedule.
    Flow,
}

impl Setting {
    fn schedule(self) -> Box<dyn NoiseSchedule> {
        match self {
            Self::Vp => Box::new(VpSde::default()),
            Self::Flow => Box::new(Flow::default()),
        }
    }

    /// Levels from nearly pure noise to nearly clean data.
    fn levels(self, schedule: &dyn NoiseSchedule, steps: usize) -> Result<Vec<Level>> {
        let ends = Spacing::Linspace { first: 0.98, last: 0.02 };
        let grid = Timesteps::new(ends).ending(Final::Nothing);
        let grid = if self == Self::Vp { grid.karras() } else { grid };
        Ok(grid.levels(schedule, steps + 1)?)
    }

    /// Errors of trajectories over calls of the network.
    pub fn trajectories(self, name: &str, most: usize) -> Result<Points> {
        let schedule = self.schedule();
        let run = |sampler: &dyn Sampler<1>, steps| -> Result<Option<(usize, f64)>> {
            let found = orders::run(sampler, &schedule, &self.levels(&schedule, steps)?);
            Ok(found.map(|(error, calls)| (calls, error)).filter(|point| point.0 <= most))
        };
        let mut points = Points::new();
        if facts::of(name)?.kind == Kind::Adaptive {
            for tolerance in TOLERANCES {
                points.extend(run(&Dopri5 { rtol: tolerance, atol: tolerance, ..Dopri5::default() }, 1)?);
            }
        } else {
            let sampler = by_name::sampler(name)?;
            for steps in STEPS.into_iter().filter(|&steps| steps <= most) {
                points.extend(run(&sampler, steps)?);
            }
        }
        Ok(points)
    }
}

/// Numbers in a sample of the data.
const SAMPLE: usize = 8192;

/// Middles of `SAMPLE` equal shares.
fn shares() -> impl Iterator<Item = f64> {
    (0..SAMPLE).map(|i| (i as f64 + 0.5) / SAMPLE as f64)
}

/// Normal noise in which every quantile occurs once, dealt along the sorted states so that neighbours get far
/// quantiles: the shares of the modes scatter far less than with independent numbers.
///
/// Array-RQMC: L'Ecuyer, Lécot & Tuffin, "A randomized quasi-Monte Carlo simulation method for Markov chains", 2008.
struct Dealt {
    quantiles: Vec<f64>,
    draws: usize,
}

impl Dealt {
    fn new() -> Self {
        // Where the data are all noise, their quantiles are the normal distribution's.
        let noise = Level { time: 1.0, alpha: 0.0, sigma: 1.0 };
        Self { quantiles: shares().map(|share| bumps::quantile(share, noise)).collect(), draws: 0 }
    }
}

impl Noise<1> for Dealt {
    fn normal_like(&mut self, x: &Tensor<1>) -> Tensor<1> {
        // Odd, so that a power of two of ranks is permuted; nearest to the golden section. Another start each draw.
        const STRIDE: usize = 5063;
        self.draws += 1;
        let states: Vec<f64> = x.to_data().iter::<f64>().collect();
        let mut order = Vec::from_iter(0..SAMPLE);
        order.sort_by(|&a, &b| states[a].total_cmp(&states[b]));
        let mut row = vec![0.0; SAMPLE];
        for (rank, chain) in order.into_iter().enumerate() {
            row[chain] = self.quantiles[(rank * STRIDE + self.draws * 3391) % SAMPLE];
        }
        bumps::row(&row)
    }
}

/// Distances (Wasserstein-1) of samples from the data over calls of the network, on the linear VP schedule from
/// pure noise to clean data, Karras' grid.
pub fn distributions(name: &str, most: usize) -> Result<Points> {
    let (schedule, sampler) = (VpSde::default(), by_name::sampler::<1>(name)?);
    let clean = Level { time: 0.0, alpha: 1.0, sigma: 0.0 };
    let wanted: Vec<f64> = shares().map(|share| bumps::quantile(share, clean)).collect();
    let mut points = Points::new();
    // A step is at least one call.
    for steps in STEPS.into_iter().filter(|&steps| steps <= most) {
        let levels = Timesteps::linspace(1000).karras().levels(&schedule, steps)?;
        let start: Vec<f64> = shares().map(|share| bumps::quantile(share, levels[0])).collect();
        let (mut noise, calls) = (Dealt::new(), Cell::new(0));
        let Ok(run) = Run::new(&sampler, &schedule, &levels, &mut noise) else { continue };
        let denoise = |x: Tensor<1>, level| {
            calls.set(calls.get() + 1);
            bumps::denoise(&x, level)
        };
        let mut end: Vec<f64> = run.sample(denoise, bumps::row(&start)).into_data().iter::<f64>().collect();
        end.sort_by(f64::total_cmp);
        let off = end.iter().zip(&wanted).map(|(end, wanted)| (end - wanted).abs()).sum::<f64>();
        points.push((calls.get(), off / SAMPLE as f64));
    }
    points.retain(|point| point.0 <= most);
    Ok(points)
}

fn diagram(
    file: &Path,
    (title, y_label): (&str, &str),
    names: &[&str],
    points: impl Fn(&str) -> Result<Points>,
) -> Result<()> {
    let known = names.iter().filter(|name| by_name::SAMPLERS.contains(name));
    let mut curves = Vec::new();
    for name in known {
        let points = points(name)?.into_iter().filter(|point| point.1 <= LARGEST);
        let points = points.map(|(calls, error)| (calls as f64, error));
        curves.push(Curve::new(*name, points.collect()).shown_as(Mark::Shapes));
    }
    let (title, x_label) = (title.to_owned(), "calls of the network".to_owned());
    let panel = Panel { title, x_label, y_label: y_label.to_owned(), log_x: true, log_y: true, curves };
    line_plot(file, &panel, (1000, 640))
}

/// Draws the three diagrams into a folder.
pub fn draw(folder: &Path) -> Result<()> {
    let error = "root mean square error of the state";
    diagram(
        &folder.join("samplers-vp.png"),
        ("Deterministic samplers, linear VP schedule", error),
        &TRAJECTORIES,
        |name| Setting::Vp.trajectories(name, MOST),
    )?;
    diagram(
        &folder.join("samplers-flow.png"),
        ("Deterministic samplers, flow schedule", error),
        &TRAJECTORIES,
        |name| Setting::Flow.trajectories(name, MOST),
    )?;
    diagram(
        &folder.join("samplers-stochastic.png"),
        ("Stochastic samplers, linear VP schedule", "Wasserstein-1 distance from the data"),
        &DISTRIBUTIONS,
        |name| distributions(name, MOST),
    )
}
