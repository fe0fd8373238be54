//! Trains a text-to-image latent diffusion model from scratch on captioned images of the user's.
//!
//! `cargo run --release --bin train -- --data FOLDER` looks at each image once, trains an autoencoder and then a diffusion model with
//! its text encoder, and ends with a page. `docs/train.md` says what is understood, and what it does with it.

mod data;
mod finish;
mod images;
mod latents;
mod stages;
mod task;
mod words;

use anyhow::{Context, Result, anyhow, bail};
use burn::prelude::*;
use canvas_examples::args::{Drawing, Place, RECIPE, Recipe};
use canvas_examples::backbones::{AnyBackbone, OF_ANY_SIZE};
use canvas_examples::config::RunConfig;
use canvas_examples::run::Folder;
use canvas_examples::{draw, interrupt};
use clap::Parser;
use data::{DATA, Data};
use images::Images;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    interrupt::ended(stages::train(&folder, config, source, &devices), &again)
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

/// Draws prompts with a trained run.
fn sample(args: &Args, folder: &Path, device: &Device) -> Result<()> {
    let config = Config::read(folder)?;
    let mut request = args.drawing.request(folder, args.seed)?;
    request.size = args.size;
    draw::draw(&Folder(folder.to_owned()), &config.run, config.backbone(), &request, device)
}
