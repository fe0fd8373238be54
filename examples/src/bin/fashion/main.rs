//! Fashion-MNIST: a transformer and a UNet draw clothes of a class, and a classifier says how well.
//!
//! `cargo run --release --bin fashion -- --data FOLDER --backbone dit` trains, draws and measures; `docs/fashion.md` has what it found.
//! The data: `apt-get install dataset-fashion-mnist`, in `/usr/share/datasets/fashion-mnist`.

mod classifier;
mod denoiser;
mod measure;
mod page;

use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::weights::write_atomically;
use canvas_core::{params, seed_for};
use canvas_examples::config::{StageConfig, WatchConfig};
use canvas_examples::device;
use canvas_examples::idx::Fashion;
use canvas_examples::interrupt::Interrupt;
use canvas_examples::run::{self, Folder};
use canvas_examples::seeing::Watching;
use canvas_examples::train_loop::TrainLoop;
use canvas_train::Precision;
use clap::Parser;
use classifier::{Classifier, ClassifierTask};
use denoiser::{DenoiserTask, Network, Which};
use serde::{Deserialize, Serialize};
use std::fs;
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
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
        Self { backbone: args.backbone, seed: args.seed, smoke: args.smoke, classifier, denoiser }
    }

    /// Writes `fashion.json` into a new folder, or compares with what is in an old one.
    fn claim(&self, folder: &Path) -> Result<()> {
        let path = folder.join("fashion.json");
        if !path.exists() {
            return Ok(write_atomically(&path, &serde_json::to_vec_pretty(self)?)?);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let found: Self = serde_json::from_str(&text)
            .with_context(|| format!("{}: not a run's settings", path.display()))?;
        if found != *self {
            bail!(
                "{}: a run of other settings, {found:?}, not {self:?}; choose another folder by --out",
                path.display()
            );
        }
        Ok(())
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
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/fashion-{name}")));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let _lock = Folder(folder.clone()).lock()?;
    let settings = Settings::new(&args);
    settings.claim(&folder)?;

    let autodiff = device.clone().autodiff();
    let watch = run::watching(&Folder(folder.clone()), &WatchConfig::default(), &settings, &device)?;
    let training = Training {
        folder: &folder,
        settings: &settings,
        data: &data,
        watch,
        interrupt: Interrupt::listen()?,
    };
    let classifier = training.classifier(&autodiff)?;
    let begun = Instant::now();
    let (network, speed) = training.network(&autodiff)?;
    let parameters = network.num_params();
    eprintln!("{name}: {parameters} parameters, {speed:.0} images/s, {:.0} s", begun.elapsed().as_secs_f64());

    let drawing = measure::Amount { drawn: args.drawn as usize, steps: args.steps as usize, seed: args.seed };
    let found = measure::measure(&classifier, &network, &data, drawing, &device)?;
    let run =
        page::Run { backbone: args.backbone, parameters, images: settings.denoiser.images, amount: drawing };
    page::write(&folder, &run, &found, &data)?;
    println!("{}", page::table(&found));
    println!("{}", folder.join("fashion.md").display());
    Ok(())
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

/// These rows of a tensor.
fn picked(x: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &x.device());
    x.clone().select(0, index)
}
