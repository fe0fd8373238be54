//! A style LoRA: the emoji network, which draws as Twemoji does, learns the style of another vendor from its pictures.
//!
//! `cargo run --release --bin style -- --run runs/emoji --pictures FOLDER` trains and measures; `docs/style.md` has what it found, and
//! where pictures come from.

mod judge;
mod page;
mod pictures;
mod task;

use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{Part, Rules};
use canvas_examples::backbones::AnyBackbone;
use canvas_examples::config::{RunConfig, StageConfig, unknown};
use canvas_examples::denoiser::draw_options;
use canvas_examples::draw::Opened;
use canvas_examples::emoji_set::EmojiSet;
use canvas_examples::interrupt::Interrupt;
use canvas_examples::model::{Painter, TextToImage, process};
use canvas_examples::run::{self, Folder, latent_shape};
use canvas_examples::train_loop::TrainLoop;
use canvas_examples::{autoencoder, device, interrupt};
use canvas_train::adapters::{AdapterConfig, Adapters, Kind};
use canvas_train::{ConditionDropout, Objective};
use clap::Parser;
use image::RgbImage;
use page::{Drawn, Measured};
use pictures::{Both, Pictures};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Teaches a trained emoji network another vendor's style by small changes of its layers, and measures what it draws.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of a finished run of `emoji`
    #[arg(long, value_name = "DIR", default_value = "runs/emoji")]
    run: PathBuf,

    /// Folder of the other vendor's pictures: 1f34e.webp and so on
    #[arg(long, value_name = "DIR")]
    pictures: PathBuf,

    /// Folder of the LoRA, the page, the pictures and the log; a run that was stopped goes on
    #[arg(long, value_name = "DIR", default_value = "runs/style")]
    out: PathBuf,

    /// How layers change: lora, dora, loha or lokr
    #[arg(long, default_value = "lora")]
    kind: String,

    /// Rank of the changes
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    rank: u16,

    /// Images to train on, repeats counted
    #[arg(long, value_name = "N", default_value_t = 24_000, value_parser = clap::value_parser!(u64).range(1..))]
    images: u64,

    /// Largest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    rate: f64,

    /// Seed of the changes' beginning, data order and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Names that `--kind` knows.
const KINDS: [(&str, Kind); 4] =
    [("lora", Kind::Lora), ("dora", Kind::Dora), ("loha", Kind::Loha), ("lokr", Kind::Lokr { factor: 8 })];

/// Steps of the drawings.
const STEPS: usize = 20;

fn main() -> Result<()> {
    let args = Args::parse();
    if !(args.rate.is_finite() && args.rate > 0.0) {
        bail!("--rate {}: a learning rate is a number above 0", args.rate);
    }
    let Some((_, kind)) = KINDS.into_iter().find(|(name, _)| *name == args.kind) else {
        return Err(unknown("--kind", &args.kind, &KINDS.map(|(name, _)| name)));
    };
    let device = device::open(&args.device)?;
    let config = RunConfig::read(&args.run)?;
    config.expect_program("emoji", &args.run)?;
    let set = EmojiSet::build(config.which()?, config.side)?;
    let pictures = Pictures::read(&args.pictures, &set).context("--pictures")?;
    let make = |sizes, device: &Device| AnyBackbone::new(&config.backbone, sizes, device);
    let run = Opened::new(&Folder(args.run.clone()), &config, make, &device).context("--run")?;
    eprintln!(
        "{} captions to learn the style from, {} to see it on, {} that the other vendor has not drawn",
        pictures.trained.len(),
        pictures.tested.len(),
        pictures.missing.len()
    );

    let settings = Settings::new(&args, kind, &config)?;
    let (folder, _lock) = Folder::claim(&args.out, &settings)?;
    let given = Given { config: &config, run: &run, pictures: &pictures, device: &device };
    interrupt::ended(given.learn(&settings, &folder), "the same command goes on")
}

/// What determines the changes, for the folder.
#[derive(Serialize)]
struct Settings {
    program: &'static str,
    run: PathBuf,
    pictures: PathBuf,
    adapters: AdapterConfig,
    seed: u64,
    stage: StageConfig,
}

impl Settings {
    fn new(args: &Args, kind: Kind, config: &RunConfig) -> Result<Self> {
        let whole = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
        let rank = usize::from(args.rank);
        let stage = StageConfig {
            images: args.images,
            peak_rate: args.rate,
            weight_decay: 0.0,
            checkpoints: 4,
            evaluations: 8,
            ..config.second.clone()
        };
        Ok(Self {
            program: "style",
            run: whole(&args.run)?,
            pictures: whole(&args.pictures)?,
            adapters: AdapterConfig { kind, rank, alpha: rank as f64 },
            seed: args.seed,
            stage,
        })
    }
}

/// A trained network, and the pictures of both styles.
struct Given<'a> {
    config: &'a RunConfig,
    run: &'a Opened<AnyBackbone>,
    pictures: &'a Pictures,
    device: &'a Device,
}

impl<'a> Given<'a> {
    /// Trains, and says what came of it.
    fn learn(&self, settings: &Settings, folder: &Folder) -> Result<()> {
        let interrupt = Interrupt::listen()?;
        let adapters = self.train(settings, folder, &interrupt)?;
        interrupt.ask();
        let file = folder.0.join("pytorch_lora_weights.safetensors");
        adapters.save(&file, Part::Unet, &Rules::new())?;
        let measured = self.measure(&adapters)?;
        page::write(&folder.0, &measured)?;
        println!("{}", page::table(&measured));
        println!("{}, {}", folder.0.join("style.md").display(), file.display());
        Ok(())
    }

    /// Trains the changes of all linear layers and convolutions.
    fn train(&self, settings: &Settings, folder: &Folder, interrupt: &Interrupt) -> Result<Adapters> {
        let Settings { adapters, seed, stage, .. } = settings;
        let (config, backbone) = (self.config, &self.run.model.backbone);
        let autodiff = self.device.clone().autodiff();
        self.device.seed(*seed);
        let AdapterConfig { kind, rank, .. } = adapters;
        let adapters = Adapters::new(backbone, *adapters, |_| true, &autodiff)?;
        let [changed, all] = [adapters.num_params(), backbone.num_params()];
        eprintln!("{kind:?} of rank {rank}: {changed} numbers beside the network's {all}");

        let (process, levels) = process(&config.prediction)?;
        let objective = Objective { levels, ..Objective::default() };
        let split = [self.pictures.trained.as_slice(), &self.pictures.tested];
        let keys = (ConditionDropout::new().with("captions", config.caption_dropout), *seed);
        let place = (folder.0.clone(), self.device);
        let mut task = task::Style::new(self.run, split, (&process, objective), keys, place)?;
        let watch = &run::watching(folder, &config.watch, settings, self.device)?;
        let folder = folder.0.clone();
        let training = TrainLoop { name: "style", folder, config: stage, watch, interrupt, devices: None };
        Ok(training.run(adapters, &mut task)?.0.average)
    }

    /// Draws captions whose new pictures were not trained on, without and with the changes, and judges both.
    fn measure(&self, adapters: &Adapters) -> Result<Measured<'a>> {
        let Pictures { trained, tested, .. } = self.pictures;
        let backbone = &self.run.model.backbone;
        let drawn =
            Drawn { before: self.draw(backbone.clone())?, after: self.draw(adapters.apply(backbone))? };
        // Through the autoencoder, as drawings are: its traces tell nothing then.
        let judge = judge::Judge::new(&self.rebuilt(trained, false), &self.rebuilt(trained, true));
        let real = [false, true].map(|new| self.rebuilt(tested, new));
        Ok(Measured::new(&judge, self.pictures, &real, drawn))
    }

    /// Draws the tested captions.
    fn draw(&self, backbone: AnyBackbone) -> Result<Vec<RgbImage>> {
        let Self { config, run, device, .. } = self;
        let (process, _) = process(&config.prediction)?;
        let model = TextToImage { text: run.model.text.clone(), backbone };
        let painter = Painter {
            model: &model,
            autoencoder: &run.autoencoder,
            scale: &run.scale,
            process: &process,
            latent: latent_shape(config, device),
        };
        let captions: Vec<&str> = self.pictures.tested.iter().map(|both| both.caption.as_str()).collect();
        let [prompts, null] = [&captions[..], &[""]].map(|text| run.tokenizer.tokenize(text));
        let numbers: Vec<u64> = (0..captions.len() as u64).collect();
        painter.draw(&prompts?.tokens, &null?.tokens, &numbers, &draw_options(config, STEPS))
    }

    /// Pictures through the autoencoder and back.
    fn rebuilt(&self, both: &[Both], new: bool) -> Vec<RgbImage> {
        let pictures: Vec<&RgbImage> =
            both.iter().map(|both| if new { &both.new } else { &both.old }).collect();
        autoencoder::reconstruct(&self.run.autoencoder, &pictures, self.device)
    }
}
