//! Fashion-MNIST: a transformer and a UNet draw clothes of a class, and a classifier says how well.
//!
//! `cargo run --release --bin fashion -- --data FOLDER --backbone dit` trains, draws and measures; `docs/fashion.md` has what it found.
//! The data: `apt-get install dataset-fashion-mnist`, in `/usr/share/datasets/fashion-mnist`.

mod classifier;
mod denoiser;
mod measure;
mod page;

use anyhow::Result;
use burn::prelude::*;
use canvas_core::{params, seed_for};
use canvas_examples::config::{StageConfig, WatchConfig};
use canvas_examples::idx::Fashion;
use canvas_examples::interrupt::Interrupt;
use canvas_examples::run::{self, Folder};
use canvas_examples::seeing::Watching;
use canvas_examples::train_loop::TrainLoop;
use canvas_examples::{device, interrupt};
use canvas_train::Precision;
use clap::Parser;
use classifier::{Classifier, ClassifierTask};
use denoiser::{DenoiserTask, Network, Which};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Trains a network to draw Fashion-MNIST's ten kinds of clothes, and measures what it draws by a classifier.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of the data set's four files
    #[arg(long, value_name = "DIR", default_value = "/usr/share/datasets/fashion-mnist")]
    data: PathBuf,

    /// Which network draws
    #[arg(long, value_enum, default_value_t = Which::Dit)]
    backbone: Which,

    /// Folder of the run; what is there already is gone on with. By default `runs/fashion-` and the backbone
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Images that the network is trained on, repeats counted [default: 40000 of dit, 20000 of unet]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    images: Option<u64>,

    /// Pictures that are drawn to measure, as many of each kind
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    drawn: u64,

    /// Steps of a drawing
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,

    /// Seed of initialization, data order and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Walk the whole path in seconds with tiny networks; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

/// What determines the weights of a run, for its folder.
#[derive(Clone, Debug, Serialize)]
struct Settings {
    program: &'static str,
    backbone: Which,
    seed: u64,
    smoke: bool,
    classifier: StageConfig,
    denoiser: StageConfig,
}

impl Settings {
    fn new(args: &Args) -> Self {
        let images = args.images.unwrap_or(match (args.smoke, args.backbone) {
            (true, _) => 192,
            (false, Which::Dit) => 40_000,
            (false, Which::Unet) => 20_000,
        });
        let stage = |images, batch| StageConfig {
            images,
            batch,
            peak_rate: 1e-3,
            ema: 0.995,
            weight_decay: 0.01,
            checkpoints: 10,
            evaluations: 3,
            at_once: None,
            recompute: None,
            averages: Vec::new(),
            precision: Precision::F32,
            decay: "cosine".into(),
        };
        let classifier = stage(if args.smoke { 128 } else { 240_000 }, 64);
        let denoiser = StageConfig { peak_rate: 2e-3, ema: 0.998, ..stage(images, 32) };
        let (backbone, seed, smoke) = (args.backbone, args.seed, args.smoke);
        Self { program: "fashion", backbone, seed, smoke, classifier, denoiser }
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.smoke {
        (args.drawn, args.steps) = (args.drawn.min(20), args.steps.min(2));
    }
    let device = device::open(&args.device)?;
    let data = Fashion::read(&args.data)?;
    let name = page::name(args.backbone);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/fashion-{name}")));
    let settings = Settings::new(&args);
    let (folder, _lock) = Folder::claim(&out, &settings)?;
    let watch = run::watching(&folder, &WatchConfig::default(), &settings, &device)?;
    let (folder, interrupt) = (&folder.0, Interrupt::listen()?);
    let training = Training { folder, settings: &settings, data: &data, watch, interrupt };
    interrupt::ended(training.run(&args, &device), "the same command goes on")
}

/// What both stages need.
struct Training<'a> {
    folder: &'a Path,
    settings: &'a Settings,
    data: &'a Fashion,
    watch: Watching,
    interrupt: Interrupt,
}

impl Training<'_> {
    fn run(&self, args: &Args, device: &Device) -> Result<()> {
        let Self { folder, settings, data, .. } = self;
        let autodiff = device.clone().autodiff();
        let classifier = self.classifier(&autodiff)?;
        let begun = Instant::now();
        let (network, speed) = self.network(&autodiff)?;
        self.interrupt.ask();
        let (name, parameters) = (page::name(args.backbone), network.num_params());
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{name}: {parameters} parameters, {speed:.0} images/s, {seconds:.0} s");

        let drawing =
            measure::Amount { drawn: args.drawn as usize, steps: args.steps as usize, seed: args.seed };
        let found = measure::measure(&classifier, &network, data, drawing, device)?;
        let images = settings.denoiser.images;
        let run = page::Run { backbone: args.backbone, parameters, images, amount: drawing };
        page::write(folder, &run, &found, data)?;
        println!("{}", page::table(&found));
        println!("{}", folder.join("fashion.md").display());
        Ok(())
    }

    fn stage<'b>(&'b self, name: &'b str, config: &'b StageConfig) -> TrainLoop<'b> {
        let (watch, interrupt) = (&self.watch, &self.interrupt);
        TrainLoop { name, folder: self.folder.join(name), config, watch, interrupt, devices: None }
    }

    fn classifier(&self, device: &Device) -> Result<Classifier> {
        let Self { settings, data, .. } = self;
        device.seed(seed_for(settings.seed, "classifier"));
        let model = params::realise(Classifier::new(device));
        let mut task = ClassifierTask::new(settings.seed, &data.train, &data.test, device);
        Ok(self.stage("classifier", &settings.classifier).run(model, &mut task)?.0.average)
    }

    /// The averaged network, and images per second.
    fn network(&self, device: &Device) -> Result<(Network, f64)> {
        let Self { settings, data, .. } = self;
        device.seed(seed_for(settings.seed, "network"));
        let model = params::realise(Network::new(settings.backbone, settings.smoke, device));
        let mut task = DenoiserTask::new(settings.seed, &data.train, device);
        let (state, speed) = self.stage("denoiser", &settings.denoiser).run(model, &mut task)?;
        Ok((state.average, speed))
    }
}
