//! Guiding a network with a bad version of itself: the toy of Karras et al., 2024, figures 1 and 2,
//! <https://arxiv.org/abs/2406.02507>, held against the exact score and the exact density.
//!
//! `cargo run --release --bin autoguidance` trains, draws and measures; `docs/autoguidance.md` has what it found.

mod measure;
mod network;
mod page;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Level, Process, Unconditional, generator, params, seed_for};
use canvas_examples::device;
use canvas_examples::points::{Point, tensor};
use canvas_examples::progress::Stage;
use canvas_examples::tree::{Classes, Tree};
use canvas_sched::{predict, schedule};
use canvas_train::{AdamW, Decay, Ema, LearningRate, Noised, Objective, StepOptions, TrainState, Weighting};
use canvas_unet::magnitude::normalize_weights;
use clap::Parser;
use measure::Errors;
use network::Energy;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use std::path::PathBuf;

/// Trains a network and two worse ones on a tree of Gaussians, and guides the first by the others.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of the page, the picture and the numbers
    #[arg(long, value_name = "DIR", default_value = "runs/autoguidance")]
    out: PathBuf,

    /// Steps of the network; the guides are trained for an eighth
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(8..))]
    steps: u64,

    /// Points of a step
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,

    /// Points that are drawn in each way
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(2..))]
    points: u64,

    /// Seed of networks, data and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Walk the whole path in seconds; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Standard deviation of the data, for the preconditioning; as published.
const SIGMA_DATA: f64 = 0.5;
/// Mean and deviation of the logarithm of the noise; as published.
const LEVELS: [f64; 2] = [-2.3, 1.5];
/// Width of the average that is drawn with; as published.
const AVERAGE: f64 = 0.010;
/// Widths that are kept beside it.
const OTHERS: [f64; 2] = [0.05, 0.10];

/// A network of the experiment.
struct Recipe {
    name: &'static str,
    classes: Classes,
    width: usize,
    steps: u64,
}

/// A network after training: its average, the averages of other widths, and the last weights.
struct Trained {
    average: Energy,
    others: Vec<(f64, Energy)>,
    last: Energy,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.smoke {
        (args.steps, args.batch, args.points) = (16, 64, 64);
    }
    let device = device::open(&args.device)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let guide = args.steps / 8;
    let process = process();
    let main = Recipe { name: "the network, class A", classes: Classes::A, width: 64, steps: args.steps };
    let worse = Recipe { name: "worse, class A", classes: Classes::A, width: 32, steps: guide };
    let both = Recipe { name: "worse, both classes", classes: Classes::Both, width: 32, steps: guide };

    let train = |recipe: &Recipe| train(recipe, &process, &args, &device);
    let (trained, weak, any) = (train(&main)?, train(&worse)?, train(&both)?);
    let errors = errors(&process, &trained, (&weak, &any), &args)?;
    let networks = measure::Networks { main: &trained.average, worse: &weak.average, both: &any.average };
    let drawn = measure::ways(&process, &networks, args.points as usize, args.seed)?;
    page::write(&args.out, &errors, &drawn, [args.steps, args.batch, args.points])?;
    println!("{}\n{}", page::errors(&errors), page::points(&drawn));
    println!("{}", args.out.join("autoguidance.md").display());
    Ok(())
}

/// The published process: EDM's, from a noise of 5 to one of 0.002.
fn process() -> Process {
    Process {
        schedule: Box::new(schedule::Edm { sigma_min: 0.002, sigma_max: 5.0, rho: 7.0 }),
        prediction: Box::new(predict::Edm { sigma_data: SIGMA_DATA }),
    }
}

/// Errors of every network's score, each against the tree it was trained on.
fn errors(
    process: &Process,
    trained: &Trained,
    (weak, any): (&Trained, &Trained),
    args: &Args,
) -> Result<Vec<Errors>> {
    let [half, whole] = [Classes::A, Classes::Both].map(Tree::new);
    let count = args.points.min(4096) as usize;
    let of = |name: String, network: &Energy, tree: &Tree| {
        measure::errors(name, process, Some(network), tree, count, args.seed)
    };
    let mut rows = vec![
        measure::errors("the score itself".into(), process, None, &half, count, args.seed),
        of(format!("average of width {AVERAGE}"), &trained.average, &half),
        of("last weights, no average".into(), &trained.last, &half),
    ];
    for (width, average) in &trained.others {
        rows.push(of(format!("average of width {width}"), average, &half));
    }
    rows.push(of("worse network, for autoguidance".into(), &weak.average, &half));
    rows.push(of("worse network of both classes, for CFG".into(), &any.average, &whole));
    Ok(rows)
}

/// Trains a network as published: on the exact score, with the noise's weight.
fn train(recipe: &Recipe, process: &Process, args: &Args, device: &Device) -> Result<Trained> {
    let (device, tree) = (device.clone().autodiff(), Tree::new(recipe.classes));
    device.seed(seed_for(args.seed, "network"));
    let adam = AdamW { beta_2: 0.99, weight_decay: 0.0, ..AdamW::default() };
    let network = params::realise(Energy::new(recipe.width, SIGMA_DATA, &device));
    let mut state = TrainState::new(network, adam);
    OTHERS.into_iter().for_each(|width| state.also_average(Ema::Power { width }));
    let (batch, total) = (args.batch, recipe.steps * args.batch);
    let rate = LearningRate { peak: 1e-2, warmup: 0, decay: Decay::InverseRoot { from: 512 * batch } };
    let objective = Objective { weighting: Weighting::Noise, ..Objective::default() };
    let mut stage = Stage::new(recipe.name, total, 0);
    while state.images < total {
        let noised = noised(&tree, seed_for(args.seed, "data"), state.images..state.images + batch, &device);
        // The optimizer steps from weights of unit variance, and averages see them as it left them.
        state.model = normalize_weights(state.model.clone());
        let cond = Unconditional(batch as usize);
        let losses = objective.losses(process.denoiser(&state.model), &noised, &cond);
        let ema = Ema::Power { width: AVERAGE };
        let options = StepOptions { rate: rate.at(state.images), clip: f64::INFINITY, ema };
        let report = state.step(losses, &options)?;
        stage.advance(batch, report.loss, options.rate);
    }
    stage.finish();
    let width = |ema| if let Ema::Power { width } = ema { width } else { f64::NAN };
    let others = state.others().map(|(ema, network)| (width(ema), network.clone())).collect();
    Ok(Trained { others, last: state.model.valid(), average: state.average })
}

/// Noisy points with their exact clean estimates, which are what the network learns.
fn noised(tree: &Tree, seed: u64, images: std::ops::Range<u64>, device: &Device) -> Noised<2> {
    let made = images.into_par_iter().map(|image| {
        let mut generator = generator(seed, image, 0);
        let unit: f64 = StandardNormal.sample(&mut generator);
        let sigma = (LEVELS[0] + LEVELS[1] * unit).exp();
        let x = tree.draw(sigma, &mut generator);
        let clean = tree.estimate(x, sigma);
        // The network is told the noise, not the time.
        (Level { time: 0.0, alpha: 1.0, sigma }, clean, [0, 1].map(|k| (x[k] - clean[k]) / sigma))
    });
    let made: Vec<(Level, Point, Point)> = made.collect();
    let at = made.iter().map(|made| made.0).collect();
    let x0: Vec<Point> = made.iter().map(|made| made.1).collect();
    let eps: Vec<Point> = made.iter().map(|made| made.2).collect();
    Noised::new(tensor(&x0, device), tensor(&eps, device), at)
}
