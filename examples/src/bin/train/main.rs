//! Trains a text-to-image latent diffusion model from scratch on captioned images of the user's.
//!
//! `cargo run --release --bin train -- --data FOLDER` looks at each image once, trains an autoencoder and then a diffusion model with
//! its text encoder, and ends with a page. `docs/train.md` says what is understood, and what it does with it.

mod data;
mod finish;
mod images;
mod latents;
mod task;
mod words;

use anyhow::{Context, Result, anyhow, bail};
use burn::prelude::*;
use canvas_core::weights;
use canvas_data::{Crop, Fault, Prepare, Source};
use canvas_examples::args::{Drawing, Place, RECIPE, Recipe};
use canvas_examples::autoencoder::AutoencoderTask;
use canvas_examples::backbones::{AnyBackbone, OF_ANY_SIZE};
use canvas_examples::config::RunConfig;
use canvas_examples::device::Devices;
use canvas_examples::interrupt::{self, Interrupt};
use canvas_examples::model::process;
use canvas_examples::run::{self, Folder, new_autoencoder, new_model, save_autoencoder};
use canvas_examples::seeing::Watching;
use canvas_examples::train_loop::{TrainLoop, speed};
use canvas_examples::{config, draw};
use canvas_text::WordTokenizer;
use canvas_vae::AutoencoderTiny;
use clap::Parser;
use data::{DATA, Data};
use image::RgbImage;
use images::{Feed, Given, Images};
use latents::Latents;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use task::{Denoise, Trained};

/// What else is said of a new run only.
const NEW: [&str; 11] = [
    "out",
    "survey",
    "side",
    "aspect",
    "words",
    "context",
    "images",
    "batch",
    "autoencoder",
    "autoencoder_images",
    "cache",
];

/// Trains a text-to-image model from scratch on captioned images, on the CPU or a GPU, and draws with it.
#[derive(Parser, Debug)]
#[command(version, allow_negative_numbers = true)]
struct Args {
    #[command(flatten)]
    data: Data,

    /// Only look at the images and captions, and say what would become of them
    #[arg(long)]
    survey: bool,

    /// Folder of the new run [default: runs/train, or the next free runs/train-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Go on with the run in this folder; bit for bit as if it had not stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = NEW, conflicts_with_all = RECIPE, conflicts_with_all = DATA)]
    resume: Option<PathBuf>,

    /// Draw with the run in this folder instead of training
    #[arg(long, value_name = "DIR", requires = "prompt", conflicts_with = "resume")]
    #[arg(conflicts_with_all = NEW, conflicts_with_all = RECIPE, conflicts_with_all = DATA)]
    sample: Option<PathBuf>,

    /// Write report.html from what the files of the run in this folder say so far, also while it trains
    #[arg(long, value_name = "DIR", conflicts_with_all = ["resume", "sample"])]
    #[arg(conflicts_with_all = NEW, conflicts_with_all = RECIPE, conflicts_with_all = DATA)]
    report: Option<PathBuf>,

    /// Side of square pictures in pixels [default: 64]
    #[arg(long, value_name = "PIXELS")]
    side: Option<u32>,

    /// Train on pictures up to so many times longer than narrow, with about as many pixels as a square one, instead of on
    /// squares (unet, mmdit)
    #[arg(long, value_name = "N")]
    aspect: Option<f64>,

    /// Words of the vocabulary, the most frequent ones
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..))]
    words: u32,

    /// The most tokens of a caption; longer ones are cut
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(3..))]
    context: u32,

    /// Images to train the denoiser on, repeats counted [default: 56000, of the unet half as many]
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..))]
    images: Option<u64>,

    /// Images to train the autoencoder on, repeats counted [default: 24000]
    #[arg(long, value_name = "N", conflicts_with_all = ["minutes", "autoencoder"], value_parser = clap::value_parser!(u64).range(1..))]
    autoencoder_images: Option<u64>,

    /// Images of a step of the denoiser [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,

    /// Take the autoencoder of the finished run in this folder instead of training one
    #[arg(long, value_name = "DIR")]
    autoencoder: Option<PathBuf>,

    /// Folder of the latents, which several runs may share one after another [default: latents in the run's folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    #[command(flatten)]
    recipe: Recipe,

    /// Seed of initialization, data order and noise; when drawing, of the noise
    #[arg(long)]
    seed: Option<u64>,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    drawing: Drawing,

    /// Size of a drawing: one of those that the run was trained in [default: a square]
    #[arg(long, value_name = "WIDTHxHEIGHT", requires = "sample", value_parser = size)]
    size: Option<[u32; 2]>,
}

/// Everything that determines a run; its part `run` is what every program's `run.json` has.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    /// What is trained, and how.
    #[serde(flatten)]
    run: RunConfig,
    /// Where images come from.
    data: Data,
    /// Words of the vocabulary.
    words: usize,
    /// The most tokens of a caption.
    context: usize,
    /// Folder of the latents.
    cache: Option<PathBuf>,
    /// For how long to train, until it is known how many images that is.
    minutes: Option<f64>,
}

/// Images of which the latents' scale is measured.
const SCALED: usize = 512;

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.report {
        finish::write_report(&Folder(folder.clone()), &Config::read(folder)?)?;
        println!("report: {}", folder.join("report.html").display());
        return Ok(());
    }
    let devices = args.place.open()?;
    if let Some(folder) = &args.sample {
        return sample(&args, folder, &devices.first);
    }
    if args.survey {
        return survey(&Config::new(&args)?);
    }
    let (folder, config, source) = match &args.resume {
        Some(path) => {
            let config = Config::read(path)?;
            let source = config.data.open()?;
            if args.seed.is_some_and(|seed| seed != config.run.seed) {
                bail!("--seed: the run in {} has seed {}", path.display(), config.run.seed);
            }
            devices.fit(&config.run)?;
            (Folder(path.clone()), config, source)
        }
        None => {
            let config = Config::new(&args)?;
            devices.fit(&config.run)?;
            let source = config.data.open()?;
            (create(&args, &config)?, config, source)
        }
    };
    let _lock = folder.lock()?;
    let again = format!("go on with --resume {}", folder.0.display());
    interrupt::ended(train(&folder, config, source, &devices), &again)
}

impl Config {
    fn new(args: &Args) -> Result<Self> {
        let data = args.data.clone().anywhere()?;
        let mut run = args.recipe.config("train", args.seed)?;
        run.set = data.path().display().to_string();
        if let Some(minutes) = args.recipe.minutes.filter(|minutes| !(minutes.is_finite() && *minutes > 0.0))
        {
            bail!("--minutes {minutes}: a number above 0 is needed");
        }
        if let Some(other) = &args.autoencoder {
            run.autoencoder = RunConfig::read(other).context("--autoencoder")?.autoencoder;
            run.first.images = 0;
        }
        run.side = args.side.unwrap_or(run.side);
        let step = run.step();
        if run.side == 0 || !run.side.is_multiple_of(step) {
            bail!("--side {}: a multiple of {step} is needed", run.side);
        }
        run.aspect = args.aspect;
        if let Some(aspect) = args.aspect {
            if !(aspect.is_finite() && aspect >= 1.0) {
                bail!("--aspect {aspect}: a number of at least 1 is needed");
            }
            if !OF_ANY_SIZE.contains(&run.backbone.as_str()) {
                bail!(
                    "--aspect: {} takes pictures of one size; of any do {}",
                    run.backbone,
                    OF_ANY_SIZE.join(", ")
                );
            }
        }
        run.first.images = args.autoencoder_images.unwrap_or(run.first.images);
        run.second.images = args.images.unwrap_or(run.second.images);
        run.second.batch = args.batch.map_or(run.second.batch, |batch| batch as usize);
        args.recipe.configure_steps(&mut run)?;
        let cache = args.cache.as_ref().map(std::path::absolute).transpose().context("--cache")?;
        let (words, context) = (args.words as usize, args.context as usize);
        Ok(Self { run, data, words, context, cache, minutes: args.recipe.minutes })
    }

    fn read(folder: &Path) -> Result<Self> {
        RunConfig::read(folder)?.expect_program("train", folder)?;
        let path = folder.join("run.json");
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{}: not a run's configuration", path.display()))
    }

    fn vocabulary(&self) -> words::Size {
        words::Size { words: self.words, context: self.context }
    }

    /// Makes backbones.
    fn backbone(
        &self,
    ) -> impl Fn(canvas_examples::model::BackboneSizes, &Device) -> Result<AnyBackbone> + use<> {
        let name = self.run.backbone.clone();
        move |sizes, device| AnyBackbone::new(&name, sizes, device)
    }
}

/// A size as `80x48`.
fn size(text: &str) -> Result<[u32; 2]> {
    let sides = text.split_once('x').and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
    sides.ok_or_else(|| anyhow!("as in 80x48"))
}

/// The folder of a new run; with the autoencoder, if another run's is taken.
fn create(args: &Args, config: &Config) -> Result<Folder> {
    let given = args.autoencoder.as_ref().map(|other| other.join("autoencoder.safetensors"));
    if let Some(path) = given.as_ref().filter(|path| !path.exists()) {
        bail!("--autoencoder: {}: the run has not finished its autoencoder", path.display());
    }
    let path = args.out.clone().unwrap_or_else(|| Folder::fresh("runs/train".as_ref()));
    let folder = Folder::create(&path, config)?;
    if let Some(given) = given {
        let copy = path.join("autoencoder.safetensors");
        std::fs::copy(&given, &copy).with_context(|| format!("{} to {}", given.display(), copy.display()))?;
    }
    Ok(folder)
}

/// Says what would become of the images and captions.
fn survey(config: &Config) -> Result<()> {
    let source = (config.data.open()?, &config.data);
    let images = Images::new(source, config.run.buckets()?, None, config.run.seed)?;
    words::tokenizer(&images, config.vocabulary(), None)?;
    for (_, fault) in images.manifest.dropped().take(20) {
        eprintln!("dropped {fault}");
    }
    println!("{} images to train on, {} held out", images.trained().count(), images.held_out().len());
    Ok(())
}

/// A whole run, from wherever its folder says it is.
fn train(folder: &Folder, mut config: Config, source: Box<dyn Source>, devices: &Devices) -> Result<()> {
    let device = &devices.first;
    let buckets = config.run.buckets()?;
    let images = Images::new((source, &config.data), buckets, Some(&folder.0), config.run.seed)?;
    let images = Arc::new(images);
    let tokenizer = words::tokenizer(&images, config.vocabulary(), Some(&folder.0))?;
    eprintln!(
        "{}: {} images to train on, {} held out",
        folder.0.display(),
        images.trained().count(),
        images.held_out().len()
    );
    let interrupt = Interrupt::listen()?;
    let stages =
        Stages { folder, images: &images, tokenizer: &tokenizer, device, devices, interrupt: &interrupt };
    if let Some(minutes) = config.minutes.take() {
        stages.fit_to_minutes(&mut config, minutes)?;
        config::write(&folder.0, &config)?;
    }
    let watch = run::watching(folder, &config.run.watch, &config, device)?;
    let autoencoder = stages.first(&config, &watch)?;
    let latents = config.cache.clone().unwrap_or_else(|| folder.0.join("latents"));
    let latents = Latents::open(&autoencoder, &latents, device)?;
    stages.second(&config, &watch, (&autoencoder, &latents))?;
    finish::write_report(folder, &config)?;
    println!("report: {}", folder.0.join("report.html").display());
    Ok(())
}

/// What both stages are trained on.
struct Stages<'a> {
    folder: &'a Folder,
    images: &'a Arc<Images>,
    tokenizer: &'a WordTokenizer,
    device: &'a Device,
    devices: &'a Devices,
    interrupt: &'a Interrupt,
}

impl Stages<'_> {
    /// Trains the autoencoder, or takes the one that was given.
    fn first(&self, config: &Config, watch: &Watching) -> Result<AutoencoderTiny> {
        let (run, folder) = (&config.run, self.folder.autoencoder());
        if run.first.images == 0 {
            let given = self.folder.0.join("autoencoder.safetensors");
            return Ok(weights::load(new_autoencoder(run, self.device), &given, &[])?);
        }
        let autodiff = self.device.clone().autodiff();
        let stage = TrainLoop {
            name: "autoencoder",
            folder: folder.clone(),
            config: &run.first,
            watch,
            interrupt: self.interrupt,
            devices: None,
        };
        let mut task = self.autoencoder_task(run, &folder, &autodiff)?;
        Ok(stage.run(new_autoencoder(run, &autodiff), &mut task)?.0.average)
    }

    /// On random parts of the images.
    fn autoencoder_task<'c>(
        &self,
        run: &'c RunConfig,
        folder: &Path,
        autodiff: &Device,
    ) -> Result<AutoencoderTask<'c, Feed<RgbImage>>> {
        let images = self.images;
        let picture = |crop: Crop| {
            let prepare = Prepare { crop, ..Prepare::default() };
            move |given: &Given| -> Result<RgbImage, Fault> { Ok(given.prepared(&prepare)?.rgb) }
        };
        let feed = Feed::new(images, ("autoencoder", run.first.batch), picture(Crop::Random));
        let middle = picture(Crop::Centre);
        let read = |indices: Vec<usize>| -> Result<Vec<Arc<RgbImage>>, Fault> {
            indices.into_iter().map(|index| Ok(Arc::new(images.read(index, 0, &middle)?))).collect()
        };
        let held_out = images.held_out().to_vec();
        let seen = [read(images.some_trained(held_out.len()))?, read(held_out)?];
        Ok(AutoencoderTask::new(run, feed, seen, folder, autodiff))
    }

    /// Trains the denoiser, and draws with it.
    fn second(
        &self,
        config: &Config,
        watch: &Watching,
        (autoencoder, latents): (&AutoencoderTiny, &Latents),
    ) -> Result<()> {
        let (run, folder, autodiff) = (&config.run, self.folder.denoiser(), self.device.clone().autodiff());
        let scale = self.scale(autoencoder, latents)?;
        let (process, _) = process(&run.prediction)?;
        let trained = Trained {
            config: run,
            images: self.images,
            latents,
            autoencoder,
            scale: &scale,
            tokenizer: self.tokenizer,
            process: &process,
        };
        let stage = TrainLoop {
            name: "denoiser",
            folder: folder.clone(),
            config: &run.second,
            watch,
            interrupt: self.interrupt,
            devices: Some(self.devices),
        };
        let mut task = Denoise::new(&trained, &folder, &autodiff)?;
        let model = new_model(run, self.tokenizer, config.backbone(), &autodiff)?;
        let model = stage.run(model, &mut task)?.0.average;
        weights::save(&model, &self.folder.0.join("model.safetensors"), &BTreeMap::new())?;
        // Nothing is lost from here on: the next Ctrl-C ends the program at once.
        self.interrupt.ask();
        eprintln!("drawing");
        finish::draw(self.folder, &trained, &model, self.device)
    }

    /// The latents' scale: measured once, and written beside the autoencoder.
    fn scale(&self, autoencoder: &AutoencoderTiny, latents: &Latents) -> Result<canvas_core::LatentScale> {
        let path = self.folder.0.join("latent_scale.json");
        if path.exists() {
            let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
            return serde_json::from_slice(&text).with_context(|| format!("{}: no scale", path.display()));
        }
        let scale = task::measure_scale(self.images, latents, SCALED)?;
        save_autoencoder(self.folder, autoencoder, &scale)?;
        Ok(scale)
    }

    /// Sets the images of both stages to what takes about `minutes` on this machine, by a few steps of fresh networks.
    fn fit_to_minutes(&self, config: &mut Config, minutes: f64) -> Result<()> {
        let (run, autodiff, nowhere) = (&config.run, self.device.clone().autodiff(), Path::new(""));
        let first = match run.first.images {
            0 => None,
            _ => {
                let task = self.autoencoder_task(run, nowhere, &autodiff)?;
                Some(speed(new_autoencoder(run, &autodiff), &task, &run.first)?)
            }
        };
        let autoencoder = new_autoencoder(run, self.device);
        let place = self.folder.0.join("speed");
        let latents = Latents::open(&autoencoder, &place, self.device)?;
        let (process, _) = process(&run.prediction)?;
        let scale = task::measure_scale(self.images, &latents, 1)?;
        let trained = Trained {
            config: run,
            images: self.images,
            latents: &latents,
            autoencoder: &autoencoder,
            scale: &scale,
            tokenizer: self.tokenizer,
            process: &process,
        };
        let task = Denoise::new(&trained, nowhere, &autodiff)?;
        let mut second = 0.0;
        for _ in 0..2 {
            // The second time with latents from the cache, as in all but the first steps of a run.
            second =
                speed(new_model(run, self.tokenizer, config.backbone(), &autodiff)?, &task, &run.second)?;
        }
        std::fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
        config.run.fit(minutes, first, second);
        eprintln!(
            "{minutes} minutes: {} images for the autoencoder, {} for the denoiser at {second:.0} images/s",
            config.run.first.images, config.run.second.images
        );
        Ok(())
    }
}

/// Draws prompts with a trained run.
fn sample(args: &Args, folder: &Path, device: &Device) -> Result<()> {
    let config = Config::read(folder)?;
    let mut request = args.drawing.request(folder, args.seed)?;
    request.size = args.size;
    draw::draw(&Folder(folder.to_owned()), &config.run, config.backbone(), &request, device)
}
