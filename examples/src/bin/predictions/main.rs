//! What should a network predict? Flow, noise, velocity, data and EDM's mixture, learned by the same network on the same points, against
//! the exact score.
//!
//! `cargo run --release --bin predictions` trains and measures; `docs/predictions.md` has what it found.

mod page;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, TimeEmbed, TimeEmbedConfig, linear};
use canvas_core::{
    Backbone, Denoiser, Level, NoiseSchedule, Preconditioned, Prediction, Unconditional, generator, params,
    seed_for,
};
use canvas_examples::device;
use canvas_examples::points::{Point, tensor};
use canvas_examples::progress::Stage;
use canvas_examples::tree::{Classes, Tree};
use canvas_sched::{predict, schedule};
use canvas_train::{
    AdamW, Decay, Draws, Ema, LearningRate, LevelDistribution, Noised, Objective, StepOptions, TrainState,
    Weighting,
};
use clap::Parser;
use page::Found;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use std::path::PathBuf;

/// Trains one network for five predictions, and compares each with the exact score.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of the page and the numbers
    #[arg(long, value_name = "DIR", default_value = "runs/predictions")]
    out: PathBuf,

    /// Steps of each network
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,

    /// Networks of each kind, with seeds 0, 1, ...
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,

    /// Walk the whole path in seconds; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Points of a step.
const BATCH: u64 = 512;
/// Standard deviation of the data, for EDM's prediction.
const SIGMA_DATA: f64 = 0.5;
/// Noise-to-signal ratios at which scores are compared.
const RATIOS: [f64; 6] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// As often as training asks for each ratio: its logarithm is normal.
const LEVELS: LevelDistribution = LevelDistribution::LogNormal { mean: -1.7, std: 1.7 };

/// Three residual blocks that the time is added to.
#[derive(Module, Debug)]
struct Network {
    input: Linear,
    time: TimeEmbed,
    blocks: Vec<Block>,
    output: Linear,
}

#[derive(Module, Debug)]
struct Block {
    up: Linear,
    down: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        const WIDTH: usize = 64;
        let layer = |from, to| LinearConfig::new(from, to).init(device);
        let block = |_| Block { up: layer(WIDTH, 4 * WIDTH), down: layer(4 * WIDTH, WIDTH) };
        let time = TimeEmbedConfig::new(WIDTH).with_features(64).init(device);
        Self { input: layer(2, WIDTH), time, blocks: (0..3).map(block).collect(), output: layer(WIDTH, 2) }
    }
}

impl Backbone<2> for Network {
    type Cond = Unconditional;

    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        let time = self.time.forward(time); // [B, W]
        let mut h = linear(&self.input, x); // [B, W]
        for block in &self.blocks {
            let up = Activation::Silu.forward(linear(&block.up, h.clone() + time.clone())); // [B, 4 W]
            h = h + linear(&block.down, up);
        }
        linear(&self.output, h) // [B, 2]
    }
}

/// What is compared.
fn predictions() -> [(&'static str, Box<dyn Prediction>); 5] {
    [
        ("flow", Box::new(predict::Flow)),
        ("noise", Box::new(predict::Epsilon)),
        ("velocity", Box::new(predict::Velocity)),
        ("data", Box::new(predict::Sample)),
        ("EDM", Box::new(predict::Edm { sigma_data: SIGMA_DATA })),
    ]
}

/// How much errors count: as each prediction has them, or for all as if noise were predicted.
const WEIGHTINGS: [(&str, Weighting); 2] = [("its own", Weighting::Uniform), ("noise", Weighting::Noise)];

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.smoke {
        (args.steps, args.runs) = (4, 1);
    }
    let device = device::open(&args.device)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let tree = Tree::new(Classes::A);
    let size = size(&tree);
    let mut found = Vec::new();
    for (weighting, weight) in WEIGHTINGS {
        for (name, prediction) in predictions() {
            let errors = (0..args.runs).map(|seed| {
                let network = train(&tree, &*prediction, (weight, seed, args.steps), &device)?;
                Ok(errors(&tree, &*prediction, &network))
            });
            let errors = errors.collect::<Result<Vec<_>>>()?;
            found.push(Found { prediction: name, weighting, errors });
            page::write(&args.out, &found, &size, [args.steps, args.runs])?;
        }
    }
    println!("{}", page::table(&found, &size));
    println!("{}", args.out.join("predictions.md").display());
    Ok(())
}

/// Trains a network as data and noise come: nothing exact is told to it.
fn train(
    tree: &Tree,
    prediction: &dyn Prediction,
    (weighting, seed, steps): (Weighting, u64, u64),
    device: &Device,
) -> Result<Network> {
    let device = device.clone().autodiff();
    device.seed(seed_for(seed, "network"));
    let adam = AdamW { beta_2: 0.99, weight_decay: 0.0, ..AdamW::default() };
    let mut state = TrainState::new(params::realise(Network::new(&device)), adam);
    let objective = Objective { levels: LEVELS, weighting, ..Objective::default() };
    let total = steps * BATCH;
    let rate = LearningRate { peak: 2e-3, warmup: total / 20, decay: Decay::Cosine { floor: 0.0, total } };
    let mut stage = Stage::new(format!("seed {seed}"), total, 0);
    while state.images < total {
        let noised = noised(tree, &objective, (seed, state.images), &device);
        let network = Preconditioned { backbone: &state.model, prediction };
        let losses = objective.losses(network, &noised, &Unconditional(BATCH as usize));
        let options = StepOptions { rate: rate.at(state.images), clip: 1.0, ema: Ema::Power { width: 0.05 } };
        let report = state.step(losses, &options)?;
        stage.advance(BATCH, report.loss, options.rate);
    }
    stage.finish();
    Ok(state.average)
}

/// Points number `start..` of a run, with noise of the flow's path: the same for every prediction.
fn noised(tree: &Tree, objective: &Objective, (seed, start): (u64, u64), device: &Device) -> Noised<2> {
    let flow = schedule::Flow::default();
    let made = (start..start + BATCH).into_par_iter().map(|image| {
        let mut generator = generator(seed_for(seed, "points"), image, 0);
        let x0 = tree.draw(0.0, &mut generator);
        let eps: Point = [0, 1].map(|_| StandardNormal.sample(&mut generator));
        let draw = Draws::Stratified.at(seed_for(seed, "levels"), image);
        (objective.level(&flow, draw), x0, eps)
    });
    let made: Vec<(Level, Point, Point)> = made.collect();
    let points = |of: fn(&(Level, Point, Point)) -> Point| made.iter().map(of).collect::<Vec<Point>>();
    let [x0, eps] = [points(|made| made.1), points(|made| made.2)].map(|points| tensor(&points, device));
    Noised::new(x0, eps, made.iter().map(|made| made.0).collect())
}

/// Points with noise of each ratio, as the network sees them: `alpha x0 + sigma eps`.
fn measured(tree: &Tree, ratio: f64) -> (Level, Vec<Point>) {
    const COUNT: usize = 8192;
    let level = schedule::Flow::default().level_at_ratio(ratio);
    let mut generator = generator(seed_for(0, "measured"), ratio.to_bits(), 0);
    let points = (0..COUNT).map(|_| tree.draw(ratio, &mut generator).map(|x| level.alpha * x));
    (level, points.collect())
}

/// Root mean squares, a coordinate, of `sigma` times the difference of scores, which is the noise's.
fn errors(tree: &Tree, prediction: &dyn Prediction, network: &Network) -> Vec<f64> {
    let at = |ratio: f64| {
        let (level, points) = measured(tree, ratio);
        let x = tensor(&points, &network.input.weight.val().device());
        let cond = Unconditional(points.len());
        let found = Preconditioned { backbone: network, prediction }.denoise(x.clone(), &[level], &cond).x0;
        let exact = tree.denoise(x, &[level], &cond).x0;
        let square = (found - exact).square().mean().into_scalar::<f64>();
        square.sqrt() * level.alpha / level.sigma
    };
    RATIOS.map(at).to_vec()
}

/// The same of no score at all: its own size.
fn size(tree: &Tree) -> Vec<f64> {
    let at = |ratio: f64| {
        let (level, points) = measured(tree, ratio);
        let clean = points.iter().map(|point| tree.known(point.map(|x| x / level.alpha), ratio).score);
        let sum: f64 = clean.map(|score| score.iter().map(|s| (ratio * s).powi(2)).sum::<f64>()).sum();
        (sum / (2 * points.len()) as f64).sqrt()
    };
    RATIOS.map(at).to_vec()
}
