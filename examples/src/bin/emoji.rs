//! Trains a text-to-image latent diffusion model on emoji and their names, and draws with it.
//!
//! Without arguments: about 15 minutes on two CPU cores, then look at `runs/emoji/report.html`.

use anyhow::{Context, Result, bail};
use canvas_examples::args::{Drawing, Place, RECIPE, Recipe};
use canvas_examples::backbones::AnyBackbone;
use canvas_examples::config::RunConfig;
use canvas_examples::emoji_set::{EmojiSet, normalise_prompts};
use canvas_examples::run::{self, Folder};
use canvas_examples::{draw, emoji_report, finish, interrupt};
use clap::Parser;
use std::path::{Path, PathBuf};

/// What else is said of a new run only.
const NEW: [&str; 2] = ["out", "set"];

/// Trains a text-to-image model on emoji from scratch, on the CPU, and draws with it.
#[derive(Parser, Debug)]
#[command(version, allow_negative_numbers = true)]
struct Args {
    /// Folder of the new run [default: runs/emoji, or the next free runs/emoji-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Go on with the run in this folder; bit for bit as if it had not stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = NEW, conflicts_with_all = RECIPE)]
    resume: Option<PathBuf>,

    /// Draw with the run in this folder instead of training
    #[arg(long, value_name = "DIR", requires = "prompt", conflicts_with = "resume", conflicts_with_all = NEW, conflicts_with_all = RECIPE)]
    sample: Option<PathBuf>,

    /// Pictures to train on: simple (about 240) or all (about 1,900)
    #[arg(long, default_value = "simple")]
    set: String,

    #[command(flatten)]
    recipe: Recipe,

    /// Write report.html from what the files of the run in this folder say so far, also while it trains
    #[arg(long, value_name = "DIR", conflicts_with_all = NEW, conflicts_with_all = RECIPE, conflicts_with_all = ["resume", "sample"])]
    report: Option<PathBuf>,

    /// Seed of initialization, data order and noise; when drawing, of the noise
    #[arg(long)]
    seed: Option<u64>,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    drawing: Drawing,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.report {
        return report(folder);
    }
    let devices = args.place.open()?;
    if let Some(folder) = &args.sample {
        return sample(&args, folder, &devices.first);
    }
    let (folder, config) = match &args.resume {
        Some(path) => {
            let config = RunConfig::read(path)?;
            config.expect_program("emoji", path)?;
            if args.seed.is_some_and(|seed| seed != config.seed) {
                bail!("--seed: the run in {} has seed {}", path.display(), config.seed);
            }
            devices.fit(&config)?;
            (Folder(path.clone()), config)
        }
        None => {
            let mut config = new_config(&args)?;
            devices.fit(&config)?;
            if let Some(minutes) = args.recipe.minutes {
                run::fit_to_minutes(&mut config, minutes, backbone(&args.recipe.backbone), &devices.first)?;
            }
            let path = args.out.clone().unwrap_or_else(|| Folder::fresh("runs/emoji".as_ref()));
            (Folder::create(&path, &config)?, config)
        }
    };
    let _lock = folder.lock()?;
    let done = run::run(&folder, &config, backbone(&config.backbone), &devices);
    interrupt::ended(done, &format!("go on with --resume {}", folder.0.display())).map(drop)
}

/// Makes backbones of this name.
fn backbone(
    name: &str,
) -> impl Fn(canvas_examples::model::BackboneSizes, &burn::prelude::Device) -> Result<AnyBackbone> {
    let name = name.to_owned();
    move |sizes, device| AnyBackbone::new(&name, sizes, device)
}

/// The configuration that the arguments ask for.
fn new_config(args: &Args) -> Result<RunConfig> {
    let mut config = args.recipe.config("emoji", args.seed)?;
    config.set.clone_from(&args.set);
    config.which().context("--set")?;
    args.recipe.configure_steps(&mut config)?;
    Ok(config)
}

/// Writes the report of a run that may not have ended.
fn report(folder: &Path) -> Result<()> {
    let config = RunConfig::read(folder)?;
    config.expect_program("emoji", folder)?;
    let set = EmojiSet::build(config.which()?, config.side)?;
    let folder = Folder(folder.to_owned());
    let results = finish::Results::read(&folder)?;
    emoji_report::write_report(&folder, &config, &set, results.as_ref())?;
    println!("report: {}", folder.0.join("report.html").display());
    Ok(())
}

/// Draws prompts with a trained run.
fn sample(args: &Args, folder: &Path, device: &burn::prelude::Device) -> Result<()> {
    let config = RunConfig::read(folder)?;
    config.expect_program("emoji", folder)?;
    let mut request = args.drawing.request(folder, args.seed)?;
    request.prompts = normalise_prompts(&request.prompts)?;
    draw::draw(&Folder(folder.to_owned()), &config, backbone(&config.backbone), &request, device)
}
