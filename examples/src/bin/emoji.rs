//! Trains a text-to-image latent diffusion model on emoji and their names, and draws with it.
//!
//! Without arguments: about 15 minutes on two CPU cores, then look at `runs/emoji/report.html`.

use anyhow::{Context, Result, bail};
use canvas_examples::backbones::{AnyBackbone, BACKBONES};
use canvas_examples::config::RunConfig;
use canvas_examples::emoji_set::EmojiSet;
use canvas_examples::interrupt::Interrupted;
use canvas_examples::model::{DrawOptions, PREDICTIONS};
use canvas_examples::run::{self, Folder};
use canvas_examples::scheduler::Scheduler;
use canvas_examples::{config, device, draw, emoji_report, finish, schedule};
use clap::Parser;
use std::path::{Path, PathBuf};

/// What is said of a new run only.
const NEW: [&str; 14] = [
    "out",
    "set",
    "backbone",
    "prediction",
    "minutes",
    "smoke",
    "rate",
    "accumulate",
    "recompute",
    "averages",
    "decay",
    "layers",
    "peak",
    "tensorboard",
];

/// Trains a text-to-image model on emoji from scratch, on the CPU, and draws with it.
#[derive(Parser, Debug)]
#[command(version, allow_negative_numbers = true)]
struct Args {
    /// Folder of the new run [default: runs/emoji, or the next free runs/emoji-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Go on with the run in this folder; bit for bit as if it had not stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = NEW)]
    resume: Option<PathBuf>,

    /// Draw with the run in this folder instead of training
    #[arg(long, value_name = "DIR", requires = "prompt", conflicts_with = "resume", conflicts_with_all = NEW)]
    sample: Option<PathBuf>,

    /// Pictures to train on: simple (about 240) or all (about 1,900)
    #[arg(long, default_value = "simple")]
    set: String,

    /// Denoising network: dit, unet, adaln, u-vit, lightning or mmdit
    #[arg(long, default_value = "dit")]
    backbone: String,

    /// What the network predicts: flow, epsilon, velocity, sample or edm
    #[arg(long, default_value = "flow")]
    prediction: String,

    /// Train for about this many minutes on this machine, instead of the default number of images
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,

    /// Walk the whole path in seconds with tiny networks; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// Largest learning rate of the denoiser
    #[arg(long, value_name = "RATE")]
    rate: Option<f64>,

    /// Images of a step whose gradients are computed at once; those of all are added up, in the memory of so many (denoiser)
    #[arg(long, value_name = "N", conflicts_with = "recompute")]
    accumulate: Option<usize>,

    /// Blocks of the network whose activations are kept at once; the others are computed again (denoiser)
    #[arg(long, value_name = "N")]
    recompute: Option<usize>,

    /// Moving averages to keep in the checkpoints beside the usual one, as in power:0.05,power:0.1 (denoiser); also
    /// half-life:IMAGES, warm-up:DECAY, constant:DECAY
    #[arg(long, value_name = "LIST")]
    averages: Option<String>,

    /// How the learning rate falls (denoiser): none, or cosine, linear (both take a floor, as in cosine:0.1), tail or
    /// inverse-root (both take images, as in tail:8000)
    #[arg(long, default_value = "cosine")]
    decay: String,

    /// Steps from one look at the layers' norms to the next; 0 is never [default: 50]
    #[arg(long, value_name = "N")]
    layers: Option<u64>,

    /// What the machine can do in 1e12 operations a second, for the share of it that is used [default: measured on the CPU]
    #[arg(long, value_name = "TFLOPS")]
    peak: Option<f64>,

    /// Write event files: tensorboard --logdir shows them
    #[arg(long)]
    tensorboard: bool,

    /// Write report.html from what the files of the run in this folder say so far, also while it trains
    #[arg(long, value_name = "DIR", conflicts_with_all = NEW, conflicts_with_all = ["resume", "sample"])]
    report: Option<PathBuf>,

    /// Seed of initialization, data order and noise; when drawing, of the noise
    #[arg(long)]
    seed: Option<u64>,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,

    /// What to draw; repeat for several pictures
    #[arg(long, value_name = "TEXT", requires = "sample")]
    prompt: Vec<String>,

    /// How to draw: a sampler and its grid (dpmpp-2m, heun, dpmpp-2m-karras, euler-trailing, ..., by the names of
    /// canvas_sched::by_name), or a scheduler_config.json of diffusers or its folder
    #[arg(
        long,
        visible_alias = "sampler",
        value_name = "NAME|FILE",
        requires = "sample",
        default_value = "dpmpp-2m"
    )]
    scheduler: String,

    /// Steps of a drawing
    #[arg(long, requires = "sample", default_value_t = 20)]
    steps: usize,

    /// Guidance scale of a drawing; 1 is off
    #[arg(long, requires = "sample", default_value_t = 3.0)]
    guidance: f64,

    /// File of the drawing [default: drawn.png in the run's folder]
    #[arg(long, value_name = "FILE", requires = "sample")]
    picture: Option<PathBuf>,
}

/// What a shell expects of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.report {
        return report(folder);
    }
    let device = device::open(&args.device)?;
    if let Some(folder) = &args.sample {
        return sample(&args, folder, &device);
    }
    let (folder, config) = match &args.resume {
        Some(path) => {
            let config = RunConfig::read(path)?;
            config.expect_program("emoji", path)?;
            if args.seed.is_some_and(|seed| seed != config.seed) {
                bail!("--seed: the run in {} has seed {}", path.display(), config.seed);
            }
            (Folder(path.clone()), config)
        }
        None => {
            let mut config = new_config(&args)?;
            if let Some(minutes) = args.minutes {
                run::fit_to_minutes(&mut config, minutes, backbone(&args.backbone), &device)?;
            }
            let path = args.out.clone().unwrap_or_else(|| Folder::fresh("runs/emoji".as_ref()));
            (Folder::create(&path, &config)?, config)
        }
    };
    let _lock = folder.lock()?;
    let again = format!("go on with --resume {}", folder.0.display());
    match run::run(&folder, &config, backbone(&config.backbone), &device) {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("{error}; {again}");
            std::process::exit(INTERRUPTED)
        }
        done => done.map(drop).with_context(|| format!("the run stopped; {again}")),
    }
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
    let mut config = if args.smoke { RunConfig::smoke("emoji") } else { RunConfig::standard("emoji") };
    for (flag, value, known) in
        [("--backbone", &args.backbone, &BACKBONES[..]), ("--prediction", &args.prediction, &PREDICTIONS[..])]
    {
        if !known.contains(&value.as_str()) {
            return Err(config::unknown(flag, value, known));
        }
    }
    config.set_backbone(&args.backbone);
    config.prediction.clone_from(&args.prediction);
    config.set.clone_from(&args.set);
    config.which().context("--set")?;
    config.seed = args.seed.unwrap_or(0);
    if let Some(rate) = args.rate {
        if !(rate.is_finite() && rate > 0.0) {
            bail!("--rate {rate}: a learning rate is a number above 0");
        }
        config.second.peak_rate = rate;
    }
    configure_steps(args, &mut config)?;
    Ok(config)
}

/// How steps are taken, and what is watched of them.
fn configure_steps(args: &Args, config: &mut RunConfig) -> Result<()> {
    let stage = &mut config.second;
    for (flag, value) in [("--accumulate", args.accumulate), ("--recompute", args.recompute)] {
        if value == Some(0) {
            bail!("{flag} 0: at least 1 is needed");
        }
    }
    if let Some(at_once) = args.accumulate.filter(|&at_once| at_once > stage.batch) {
        bail!("--accumulate {at_once}: a step has {} images", stage.batch);
    }
    (stage.at_once, stage.recompute) = (args.accumulate, args.recompute);
    if let Some(averages) = &args.averages {
        stage.averages = schedule::averages(averages)?;
    }
    stage.decay.clone_from(&args.decay);
    stage.rate()?;
    if let Some(peak) = args.peak.filter(|peak| !(peak.is_finite() && *peak > 0.0)) {
        bail!("--peak {peak}: a number of 1e12 operations a second, above 0, is needed");
    }
    let watch = &mut config.watch;
    (watch.peak, watch.tensorboard) = (args.peak, args.tensorboard);
    watch.layers = args.layers.unwrap_or(watch.layers);
    Ok(())
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
    let scheduler = Scheduler::parse(&args.scheduler).context("--scheduler")?;
    let seed = args.seed.unwrap_or(0);
    let request = draw::Request {
        prompts: args.prompt.clone(),
        scheduler: scheduler.title(&args.scheduler),
        options: DrawOptions { scheduler, steps: args.steps, guidance: args.guidance, seed },
        picture: args.picture.clone().unwrap_or_else(|| folder.join("drawn.png")),
    };
    draw::draw(&Folder(folder.to_owned()), &config, backbone(&config.backbone), &request, device)
}
