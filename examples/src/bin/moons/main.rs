//! Flow matching from eight Gaussians to two moons, with pairs at random and by optimal transport: the toy of Cheng and Schwing,
//! "The Curse of Conditions", 2025, figure 1, <https://arxiv.org/abs/2503.10636>.
//!
//! `cargo run --release --bin moons` trains and measures; `docs/moons.md` has what it found, beside the published numbers.

mod page;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, linear};
use canvas_core::{Backbone, Denoiser, DeviceNoise, Process, Run, Sampler, Unconditional, seed_for};
use canvas_examples::assignment::shortest;
use canvas_examples::device;
use canvas_examples::points::{Pairs, Point, eight_gaussians, moons, tensor};
use canvas_sched::{Dopri5, Euler, Timesteps, predict, schedule};
use canvas_train::{AdamW, Draws, Ema, Noised, Objective, StepOptions, TrainState};
use clap::Parser;
use page::Found;
use std::path::PathBuf;

/// Trains flows from eight Gaussians to two moons, and measures how far what they draw is from the moons.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of the page, the picture and the numbers
    #[arg(long, value_name = "DIR", default_value = "runs/moons")]
    out: PathBuf,

    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    steps: u64,

    /// Runs of each kind, with seeds 0, 1, ...
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,

    /// Points that are drawn to measure a run; the default, as published, takes about ten seconds for each number
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    points: u64,

    /// Batches whose points are paired together; the default, as published, takes about five minutes a run, 1 less than one
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    group: u64,

    /// Walk the whole path in seconds; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Points of a step, and the learning rate; as published.
const BATCH: usize = 256;
const RATE: f64 = 3e-4;

/// Three residual blocks of width 128; as published.
#[derive(Module, Debug)]
struct Network {
    input: Linear,
    time: Linear,
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
        let layer = |from, to| LinearConfig::new(from, to).init(device);
        let block = |_| Block { up: layer(128, 512), down: layer(512, 128) };
        let blocks = (0..3).map(block).collect();
        Self { input: layer(2, 128), time: layer(1, 128), blocks, output: layer(128, 2) }
    }
}

impl Backbone<2> for Network {
    type Cond = Unconditional;

    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        let mut h = linear(&self.input, x) + linear(&self.time, time.unsqueeze_dim(1)); // [B, 128]
        for block in &self.blocks {
            let up = Activation::Gelu.forward(linear(&block.up, h.clone())); // [B, 512]
            h = h + linear(&block.down, up);
        }
        linear(&self.output, h) // [B, 2]
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.smoke {
        (args.steps, args.runs, args.points) = (20, 1, 64);
    }
    let device = device::open(&args.device)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let process =
        Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
    let mut found = Vec::new();
    for pairs in [Pairs::Random, Pairs::Shortest] {
        for seed in 0..args.runs {
            let network = train(&process, pairs, seed, &args, &device)?;
            found.push(measure(&process, &network, pairs, seed, args.points as usize)?);
            page::write(&args.out, &found, [args.runs, args.steps, args.points, args.group])?;
        }
    }
    println!("{}", page::table(&found));
    println!("{}", args.out.join("moons.md").display());
    Ok(())
}

/// Trains a network on pairs of points.
fn train(process: &Process, pairs: Pairs, seed: u64, args: &Args, device: &Device) -> Result<Network> {
    let device = device.clone().autodiff();
    device.seed(seed);
    let adam = AdamW { weight_decay: 0.0, ..AdamW::default() };
    let mut state = TrainState::new(Network::new(&device), adam);
    let options = StepOptions { rate: RATE, clip: f64::INFINITY, ema: Ema::Constant { decay: 0.0 } };
    let objective = Objective::default();
    let (mut data, mut noise) = (Vec::new(), Vec::new());
    for step in 0..args.steps {
        let within = (step % args.group) as usize;
        if within == 0 {
            let (group, count) = (step / args.group, args.group as usize * BATCH);
            (data, noise) = (moons(seed, group, count), eight_gaussians(seed, group, count));
            if pairs == Pairs::Shortest {
                let (partners, _) = shortest(&data, &noise)?;
                noise = partners.into_iter().map(|partner| noise[partner]).collect();
            }
        }
        let rows = within * BATCH..(within + 1) * BATCH;
        let (x0, eps) = (tensor(&data[rows.clone()], &device), tensor(&noise[rows], &device));
        let draw = |row: u64| Draws::Independent.at(seed_for(seed, "levels"), state.images + row);
        let at = (0..BATCH as u64).map(|row| objective.level(&*process.schedule, draw(row))).collect();
        let network = process.denoiser(&state.model);
        let losses = objective.losses(network, &Noised::new(x0, eps, at), &Unconditional(BATCH));
        let report = state.step(losses, &options)?;
        if (step + 1) % 5000 == 0 {
            eprintln!("{pairs}, seed {seed}: step {}, loss {:.3}", step + 1, report.loss);
        }
    }
    Ok(state.model.valid())
}

/// Draws points, in one step and along the flow, and compares them with others of the moons.
fn measure(process: &Process, network: &Network, pairs: Pairs, seed: u64, count: usize) -> Result<Found> {
    let held_out = seed_for(seed, "measured");
    let (data, noise) = (moons(held_out, 0, count), eight_gaussians(held_out, 0, count));
    let along = Dopri5 { rtol: 1e-4, atol: 1e-4, ..Dopri5::default() };
    let (adaptive, calls) = draw(process, network, &along, &noise)?;
    let (euler, _) = draw(process, network, &Euler, &noise)?;
    Ok(Found {
        pairs,
        seed,
        euler: shortest(&euler, &data)?.1,
        adaptive: shortest(&adaptive, &data)?.1,
        calls,
        // What two clouds of the moons themselves are apart.
        least: shortest(&moons(held_out, 1, count), &data)?.1,
        noise,
        drawn: [euler, adaptive],
    })
}

/// One hop from noise to data; what was drawn, and how often the network was asked.
fn draw(
    process: &Process,
    network: &Network,
    sampler: &dyn Sampler<2>,
    noise: &[Point],
) -> Result<(Vec<Point>, usize)> {
    let levels = Timesteps::uniform().levels(&*process.schedule, 1)?;
    let calls = std::cell::Cell::new(0);
    let device = network.input.weight.val().device();
    let denoiser = process.denoiser(network);
    let mut unasked = DeviceNoise;
    let run = Run::new(sampler, &*process.schedule, &levels, &mut unasked)?;
    let drawn = run.sample(
        |x, level| {
            calls.set(calls.get() + 1);
            denoiser.denoise(x, &[level], &Unconditional(noise.len()))
        },
        tensor(noise, &device),
    );
    let values: Vec<f64> = drawn.into_data().iter::<f64>().collect();
    Ok((values.as_chunks::<2>().0.to_vec(), calls.get()))
}
