//! Backgrounds for cut-outs: a network that draws things at places learns to paint a place around a thing that it is given.
//!
//! `cargo run --release --bin background -- --things FOLDER --places FOLDER` trains and measures; `docs/background.md` has what it found,
//! and where pictures come from. The way there is that of Pinterest Canvas: a base model first, then masks in more input channels, which
//! begin at zero.

mod judge;
mod page;
mod scenes;
mod task;

use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::{
    Autoencoder, Channels, Concatenated, Condition, Denoiser, Noise, Process, Run, Seeded, Text, TextEncoder,
    params, picture, seed_for, weights,
};
use canvas_examples::config::{CONTEXT, RunConfig, StageConfig};
use canvas_examples::denoiser::draw_options;
use canvas_examples::emoji_set::{Emoji, EmojiSet};
use canvas_examples::interrupt::Interrupt;
use canvas_examples::model::{BackboneSizes, process};
use canvas_examples::run::{self, Folder, Trained};
use canvas_examples::train_loop::TrainLoop;
use canvas_examples::{backbones, denoiser, device, interrupt};
use canvas_sched::Cfg;
use canvas_text::WordTokenizer;
use canvas_train::{ConditionDropout, Objective, Order};
use canvas_unet::Unet;
use clap::Parser;
use image::RgbImage;
use scenes::{Scene, Stock};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use task::{Latents, Painting, Scenes};

/// Trains a text-to-image model on things at places, then to paint a place around a thing that it is given.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of cut-outs: PNG with alpha, named by the first line of a text beside each
    #[arg(long, value_name = "DIR")]
    things: PathBuf,

    /// Folder of photographs, named by their files
    #[arg(long, value_name = "DIR")]
    places: PathBuf,

    /// Leave out cut-outs with this in their path; repeat for several
    #[arg(long, value_name = "TEXT", default_values = ["cartoon", "symbols", "seasonal"])]
    skip: Vec<String>,

    /// Folder of the runs, the page and the pictures; a run that was stopped goes on
    #[arg(long, value_name = "DIR", default_value = "runs/background")]
    out: PathBuf,

    /// Scenes to train on
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(64..))]
    scenes: u64,

    /// Images to learn masks from, repeats counted
    #[arg(long, value_name = "N", default_value_t = 24_000, value_parser = clap::value_parser!(u64).range(1..))]
    images: u64,

    /// Tiny networks and few images: the whole path in seconds; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Steps of the drawings.
const STEPS: usize = 20;
/// Key of the scenes that things are tested in; those to train on have 0.
const TESTED: u64 = 1;

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::open(&args.device)?;
    let stock = Stock::read(&args.things, &args.places, &args.skip)?;
    let mut config =
        if args.smoke { RunConfig::smoke("background") } else { RunConfig::standard("background") };
    config.set_backbone("unet");
    config.set = format!("{} scenes", args.scenes);
    eprintln!(
        "{} things to train on, {} to paint around only, {} places",
        stock.things.len(),
        stock.tested.len(),
        stock.places.len()
    );

    if args.scenes < stock.places.len() as u64 {
        bail!("--scenes {}: fewer than the {} places", args.scenes, stock.places.len());
    }
    let settings = Settings::new(&args, config)?;
    let (folder, _lock) = Folder::claim(&args.out, &settings)?;
    let program = Program {
        settings: &settings,
        config: &settings.run,
        stock: &stock,
        folder: &folder,
        device: &device,
        interrupt: Interrupt::listen()?,
    };
    interrupt::ended(program.run(), "the same command goes on")
}

/// What determines a run, for its folder.
#[derive(Serialize)]
struct Settings {
    #[serde(flatten)]
    run: RunConfig,
    things: PathBuf,
    places: PathBuf,
    skip: Vec<String>,
    scenes: u64,
    painting: StageConfig,
}

impl Settings {
    fn new(args: &Args, run: RunConfig) -> Result<Self> {
        let whole = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
        let painting = StageConfig {
            images: if args.smoke { 64 } else { args.images },
            peak_rate: 5e-4,
            checkpoints: 4,
            evaluations: 8,
            ..run.second.clone()
        };
        let (things, places) = (whole(&args.things)?, whole(&args.places)?);
        Ok(Self { run, things, places, skip: args.skip.clone(), scenes: args.scenes, painting })
    }
}

struct Program<'a> {
    settings: &'a Settings,
    config: &'a RunConfig,
    stock: &'a Stock,
    folder: &'a Folder,
    device: &'a Device,
    interrupt: Interrupt,
}

impl Program<'_> {
    fn run(&self) -> Result<()> {
        let Self { settings, config, stock, folder, device, interrupt } = self;
        let seen: Vec<Scene> = (0..settings.scenes).map(|n| stock.scene((0, n), config.side, None)).collect();
        let tested = self.tested_scenes();
        let set = as_set(config.side, &seen, &tested);
        let base = run::train(
            folder,
            config,
            &set,
            |sizes, device| Ok(backbones::unet(sizes).init(device)),
            (&(*device).clone().into(), interrupt),
        )?;

        let tokenizer = denoiser::tokenizer(&set)?;
        let (process, levels) = process(&config.prediction)?;
        let text = |scenes: &[Scene]| self.text(&base, &tokenizer, scenes);
        let mut task = Painting {
            latents: Latents { autoencoder: &base.autoencoder, scale: &base.data.scale },
            trained: Scenes::new(&seen, text(&seen)?, device),
            tested: Scenes::new(&tested, text(&tested)?, device),
            null: base.model.text.encode(&base.data.null),
            captions: seen.iter().map(|scene| scene.caption.as_str()).collect(),
            process: &process,
            objective: Objective { levels, ..Objective::default() },
            order: Order::new(seed_for(config.seed, "painting"), seen.len()),
            folder: folder.0.join("painting"),
            dropout: ConditionDropout::new().with("captions", config.caption_dropout),
            seed: config.seed,
            device: (*device).clone().autodiff(),
        };
        let painter = self.learn(&base, &mut task)?;
        interrupt.ask();
        weights::save(&painter, &folder.0.join("painter.safetensors"), &BTreeMap::new())?;
        self.measure(&base, &task, &painter, &seen, &tested)
    }

    /// Every tested thing at each of a few places, so that all places come equally often.
    fn tested_scenes(&self) -> Vec<Scene> {
        const EACH: usize = 4;
        let places = self.stock.places.len();
        let things = self.stock.tested.iter().enumerate();
        let chosen = things.flat_map(|(number, thing)| {
            (0..EACH).map(move |turn| (thing, number, (number * EACH + turn) % places))
        });
        let numbered = (0..).zip(chosen);
        numbered.map(|(n, chosen)| self.stock.scene((TESTED, n), self.config.side, Some(chosen))).collect()
    }

    fn text(&self, base: &Trained<Unet>, tokenizer: &WordTokenizer, scenes: &[Scene]) -> Result<Text> {
        let captions: Vec<&str> = scenes.iter().map(|scene| scene.caption.as_str()).collect();
        Ok(base.model.text.encode(&tokenizer.tokenize(&captions)?.tokens))
    }

    /// The base network with inputs for a mask and what is given, trained to heed them.
    fn learn(&self, base: &Trained<Unet>, task: &mut Painting<'_>) -> Result<Unet> {
        let Self { settings, config, device, .. } = self;
        let autodiff = (*device).clone().autodiff();
        let latent = run::latent_shape(config, device);
        let (text, context, smoke) = (config.text_width, CONTEXT, config.smoke);
        let sizes = BackboneSizes { latent, text, context, smoke };
        let wide = backbones::unet(sizes).with_in_channels(2 * latent[0] + 1);
        let wide = params::realise(wide.init(&autodiff));
        let network = params::widened(wide, &base.model.backbone)?;
        let watch = &run::watching(self.folder, &config.watch, settings, device)?;
        let (folder, interrupt) = (task.folder.clone(), &self.interrupt);
        let config = &settings.painting;
        let training = TrainLoop { name: "painting", folder, config, watch, interrupt, devices: None };
        Ok(training.run(network, task)?.0.average)
    }

    /// Draws the tested scenes with and without their things given, and judges both.
    fn measure(
        &self,
        base: &Trained<Unet>,
        task: &Painting<'_>,
        painter: &Unet,
        seen: &[Scene],
        tested: &[Scene],
    ) -> Result<()> {
        let rows: Vec<usize> = (0..tested.len()).collect();
        let draw = |rows: &[usize], given: bool| -> Result<Vec<RgbImage>> {
            let Scenes { pictures, masks, text } = task.tested.rows(rows);
            let numbers: Vec<u64> = rows.iter().map(|&row| row as u64).collect();
            let channels = given.then(|| task.latents.given(pictures, masks));
            self.draw((base, painter), (task.process, &task.null), (text, channels), numbers)
        };
        let all = |given: bool| -> Result<Vec<RgbImage>> {
            Ok(rows.chunks(32).map(|rows| draw(rows, given)).collect::<Result<Vec<_>>>()?.concat())
        };
        let rebuilt = |scenes: &[Scene]| {
            let pictures: Vec<&RgbImage> = scenes.iter().map(|scene| &scene.picture).collect();
            canvas_examples::autoencoder::reconstruct(&base.autoencoder, &pictures, self.device)
        };
        let judge = judge::Judge::new(seen, &rebuilt(seen), self.stock.places.len());
        let drawn = page::Drawn { free: all(false)?, around: all(true)?, rebuilt: rebuilt(tested) };
        let measured = page::Measured::new(&judge, tested, drawn);
        page::write(&self.folder.0, &measured, self.stock)?;
        println!("{}", page::table(&measured));
        println!("{}", self.folder.0.join("background.md").display());
        Ok(())
    }

    /// Draws scenes; around what is given, if something is.
    fn draw(
        &self,
        (base, painter): (&Trained<Unet>, &Unet),
        (process, null): (&Process, &Text),
        (text, given): (Text, Option<Channels<4>>),
        numbers: Vec<u64>,
    ) -> Result<Vec<RgbImage>> {
        let options = draw_options(self.config, STEPS);
        let levels = options.scheduler.levels(process, options.steps)?;
        let batch = numbers.len();
        let [channels, height, width] = run::latent_shape(self.config, self.device);
        let mut noise = Seeded::new(seed_for(options.seed, "draw"), numbers);
        let start = noise.normal_like(&Tensor::<4>::zeros([batch, channels, height, width], self.device))
            * options.scheduler.start_scale(&levels);
        let run = Run::new(options.scheduler.sampler(), &*process.schedule, &levels, &mut noise)?;
        let null = null.spread(batch);
        let latents = match given {
            Some(given) => {
                let network = Concatenated { backbone: painter };
                let null = (null, given.clone());
                let guided = Cfg::new(process.denoiser(&network), null, options.guidance);
                let cond = (text, given);
                run.sample(|x, level| guided.denoise(x, &[level], &cond), start)
            }
            None => {
                let network = Remembering::new(&base.model.backbone);
                let (text, null) = (Tagged::new(text, 0), Tagged::new(null, batch as u64));
                let guided = Cfg::new(process.denoiser(&network), null, options.guidance);
                run.sample(|x, level| guided.denoise(x, &[level], &text), start)
            }
        };
        Ok(picture::from_tensor(base.autoencoder.decode(base.data.scale.restore(latents))))
    }
}

/// Scenes as the set of captioned pictures that the base model is trained on.
fn as_set(side: u32, seen: &[Scene], tested: &[Scene]) -> EmojiSet {
    let both = seen.iter().map(|scene| (scene, false)).chain(tested.iter().map(|scene| (scene, true)));
    let item = |(id, (scene, held_out)): (usize, (&Scene, bool))| Emoji {
        id,
        glyph: String::new(),
        caption: scene.caption.clone(),
        group: String::new(),
        picture: scene.picture.clone(),
        held_out,
    };
    EmojiSet { side, items: both.enumerate().map(item).collect() }
}
