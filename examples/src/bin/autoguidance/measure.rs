//! How far networks are from the exact score, and what is drawn by them from the exact density.

use crate::network::Energy;
use crate::tensor;
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Denoiser, DeviceNoise, Level, Process, Run, Unconditional, generator, seed_for};
use canvas_examples::points::Point;
use canvas_examples::tree::{Classes, Known, Tree};
use canvas_sched::{Autoguidance, Heun, Timesteps};
use serde::Serialize;

/// Noises at which scores are compared.
pub const SIGMAS: [f64; 6] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Steps of a run; as published.
const STEPS: usize = 32;
/// Of a thousand true points, so many have a density too low to count as inside.
const OUTSIDE: f64 = 10.0;

/// How wrong a score is at each noise.
#[derive(Debug, Serialize)]
pub struct Errors {
    /// Whose.
    pub name: String,
    /// Root mean squares of `sigma` times the difference of scores, a coordinate.
    pub errors: Vec<f64>,
}

/// Points that were drawn in one way, measured by the exact density.
#[derive(Debug, Serialize)]
pub struct Drawn {
    /// How.
    pub name: &'static str,
    /// Strength of the guidance.
    pub scale: f64,
    /// Mean log-density, in nats.
    pub likelihood: f64,
    /// Share of points where the density is lower than at all but one in a hundred true points.
    pub outside: f64,
    /// Branches, of 127, that have at least half of the points they should.
    pub branches: usize,
    /// Half the sum of what branches have too much and too little: 0 if each has its share, 1 at worst.
    pub variation: f64,
    /// The points.
    #[serde(skip)]
    pub points: Vec<Point>,
}

/// Networks of the experiment.
pub struct Networks<'a> {
    /// The one that draws.
    pub main: &'a Energy,
    /// A smaller one of the same class, less trained.
    pub worse: &'a Energy,
    /// The same of both classes.
    pub both: &'a Energy,
}

/// Errors of a network at points of the noised tree; without a network, the score's own size.
pub fn errors(
    name: String,
    process: &Process,
    network: Option<&Energy>,
    tree: &Tree,
    count: usize,
    seed: u64,
) -> Errors {
    let at = |sigma: f64| {
        let mut generator = generator(seed_for(seed, "errors"), sigma.to_bits(), 0);
        let points: Vec<Point> = (0..count).map(|_| tree.draw(sigma, &mut generator)).collect();
        let exact = tree.known_of(&points, sigma);
        let found: Vec<Point> = match network {
            None => points.clone(),
            Some(network) => {
                let level = Level { time: 0.0, alpha: 1.0, sigma };
                let x = tensor(&points, &network.device());
                let clean = process.denoiser(network).denoise(x, &[level], &Unconditional(count)).x0;
                self::points(&clean)
            }
        };
        // `x + sigma^2 score` is the clean estimate.
        let square = |row: usize, k: usize| {
            let score = (found[row][k] - points[row][k]) / (sigma * sigma);
            (sigma * (score - exact[row].score[k])).powi(2)
        };
        let sum: f64 = (0..count).map(|row| square(row, 0) + square(row, 1)).sum();
        (sum / (2 * count) as f64).sqrt()
    };
    Errors { name, errors: SIGMAS.map(at).to_vec() }
}

/// Draws in every way and measures.
///
/// # Errors
/// If a run cannot be made.
pub fn ways(process: &Process, networks: &Networks, count: usize, seed: u64) -> Result<Vec<Drawn>> {
    let tree = Tree::new(Classes::A);
    let clouds = ["measured", "compared"].map(|purpose| {
        let mut generator = generator(seed_for(seed, purpose), 0, 0);
        (0..count).map(|_| tree.draw(0.0, &mut generator)).collect::<Vec<Point>>()
    });
    let [compared, truth] = clouds;
    let least = quantile(&tree.known_of(&compared, 0.0), OUTSIDE / 1000.0);
    let measured = |name, scale, points| measured(&tree, least, (name, scale), points);
    let mut found = vec![measured("true points", f64::NAN, truth)];

    let largest = process.schedule.level(1.0).sigma;
    let mut generator = generator(seed_for(seed, "start"), 0, 0);
    let start: Vec<Point> = (0..count).map(|_| tree.draw(largest, &mut generator)).collect();
    found.push(measured("exact score", f64::NAN, draw(process, &tree, &start, &networks.main.device())?));
    let [main, worse, both] =
        [networks.main, networks.worse, networks.both].map(|network| process.denoiser(network));
    let device = networks.main.device();
    found.push(measured("no guidance", 1.0, draw(process, &main, &start, &device)?));
    for (name, weak) in [("CFG", both), ("autoguidance", worse)] {
        for scale in [2.0, 3.0, 4.0] {
            let guided = Autoguidance::new(main, weak, scale);
            found.push(measured(name, scale, draw(process, &guided, &start, &device)?));
            eprintln!("drawn: {name}, scale {scale}");
        }
    }
    Ok(found)
}

/// The log-density below which this share of points lies.
fn quantile(known: &[Known], share: f64) -> f64 {
    let mut logs: Vec<f64> = known.iter().map(|known| known.log_density).collect();
    logs.sort_by(f64::total_cmp);
    logs[(share * logs.len() as f64) as usize]
}

fn measured(tree: &Tree, least: f64, (name, scale): (&'static str, f64), points: Vec<Point>) -> Drawn {
    let (known, count) = (tree.known_of(&points, 0.0), points.len() as f64);
    let shares = tree.shares();
    let mut counts = vec![0.0; shares.len()];
    known.iter().for_each(|known| counts[tree.branch(known)] += 1.0);
    let pairs = || counts.iter().zip(&shares).map(|(found, share)| (found / count, *share));
    Drawn {
        name,
        scale,
        likelihood: known.iter().map(|known| known.log_density).sum::<f64>() / count,
        outside: known.iter().filter(|known| known.log_density < least).count() as f64 / count,
        branches: pairs().filter(|(found, share)| *found >= 0.5 * share).count(),
        variation: 0.5 * pairs().map(|(found, share)| (found - share).abs()).sum::<f64>(),
        points,
    }
}

/// Runs from noisy points to clean ones.
fn draw(
    process: &Process,
    denoiser: &impl Denoiser<2, Cond = Unconditional>,
    start: &[Point],
    device: &Device,
) -> Result<Vec<Point>> {
    const AT_ONCE: usize = 4096;
    let levels = Timesteps::edm().levels(&*process.schedule, STEPS)?;
    let mut drawn = Vec::with_capacity(start.len());
    for part in start.chunks(AT_ONCE) {
        let mut unasked = DeviceNoise;
        let run = Run::new(&Heun, &*process.schedule, &levels, &mut unasked)?;
        let cond = Unconditional(part.len());
        let x0 = run.sample(|x, level| denoiser.denoise(x, &[level], &cond), tensor(part, device));
        drawn.extend(points(&x0));
    }
    Ok(drawn)
}

fn points(x: &Tensor<2>) -> Vec<Point> {
    let values: Vec<f64> = x.to_data().iter::<f64>().collect();
    values.as_chunks::<2>().0.to_vec()
}
