//! Arguments that the programs that train a model from scratch share.

use crate::backbones::BACKBONES;
use crate::config::{self, RunConfig};
use crate::device::{self, Devices};
use crate::generate::args::Weighed;
use crate::model::{DrawOptions, PREDICTIONS};
use crate::scheduler::Scheduler;
use crate::{draw, schedule};
use anyhow::{Context, Result, bail};
use canvas_train::Precision;
use std::path::{Path, PathBuf};

/// What is trained, and how.
#[derive(clap::Args, Debug)]
pub struct Recipe {
    /// Denoising network: dit, unet, adaln, u-vit, lightning or mmdit
    #[arg(long, default_value = "dit")]
    pub backbone: String,

    /// What the network predicts: flow, epsilon, velocity, sample or edm
    #[arg(long, default_value = "flow")]
    pub prediction: String,

    /// Train for about this many minutes on this machine, instead of the default number of images
    #[arg(long, value_name = "N")]
    pub minutes: Option<f64>,

    /// Walk the whole path in seconds with tiny networks; nothing worth looking at comes out
    #[arg(long)]
    pub smoke: bool,

    /// Largest learning rate of the denoiser
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,

    /// Images of a step whose gradients are computed at once; those of all are added up, in the memory of so many (denoiser)
    #[arg(long, value_name = "N", conflicts_with = "recompute")]
    pub accumulate: Option<usize>,

    /// Blocks of the network whose activations are kept at once; the others are computed again (denoiser)
    #[arg(long, value_name = "N")]
    pub recompute: Option<usize>,

    /// What the denoiser computes in while it trains: f32, or bf16 with parameters in f32
    #[arg(long, default_value = "f32")]
    pub precision: Precision,

    /// Moving averages to keep in the checkpoints beside the usual one, as in power:0.05,power:0.1 (denoiser); also
    /// half-life:IMAGES, warm-up:DECAY, constant:DECAY
    #[arg(long, value_name = "LIST")]
    pub averages: Option<String>,

    /// How the learning rate falls (denoiser): none, or cosine, linear (both take a floor, as in cosine:0.1), tail or
    /// inverse-root (both take images, as in tail:8000)
    #[arg(long, default_value = "cosine")]
    pub decay: String,

    /// Steps from one look at the layers' norms to the next; 0 is never [default: 50]
    #[arg(long, value_name = "N")]
    pub layers: Option<u64>,

    /// What the machine can do in 1e12 operations a second, for the share of it that is used [default: measured on the CPU]
    #[arg(long, value_name = "TFLOPS")]
    pub peak: Option<f64>,

    /// Write event files: tensorboard --logdir shows them
    #[arg(long)]
    pub tensorboard: bool,
}

/// The names of a [`Recipe`]'s arguments, which are said of a new run only.
pub const RECIPE: [&str; 13] = [
    "backbone",
    "prediction",
    "minutes",
    "smoke",
    "rate",
    "accumulate",
    "recompute",
    "precision",
    "averages",
    "decay",
    "layers",
    "peak",
    "tensorboard",
];

impl Recipe {
    /// A program's configuration with what is asked for.
    ///
    /// # Errors
    /// Names the argument, what it was and what it may be.
    pub fn config(&self, program: &str, seed: Option<u64>) -> Result<RunConfig> {
        let mut config = if self.smoke { RunConfig::smoke(program) } else { RunConfig::standard(program) };
        for (flag, value, known) in [
            ("--backbone", &self.backbone, &BACKBONES[..]),
            ("--prediction", &self.prediction, &PREDICTIONS[..]),
        ] {
            if !known.contains(&value.as_str()) {
                return Err(config::unknown(flag, value, known));
            }
        }
        config.set_backbone(&self.backbone);
        config.prediction.clone_from(&self.prediction);
        config.seed = seed.unwrap_or(0);
        if let Some(rate) = self.rate {
            if !(rate.is_finite() && rate > 0.0) {
                bail!("--rate {rate}: a learning rate is a number above 0");
            }
            config.second.peak_rate = rate;
        }
        Ok(config)
    }

    /// How steps are taken, and what is watched of them: when batches and images are as they will be.
    ///
    /// # Errors
    /// Names the argument, what it was and what it may be.
    pub fn configure_steps(&self, config: &mut RunConfig) -> Result<()> {
        let stage = &mut config.second;
        for (flag, value) in [("--accumulate", self.accumulate), ("--recompute", self.recompute)] {
            if value == Some(0) {
                bail!("{flag} 0: at least 1 is needed");
            }
        }
        if let Some(at_once) = self.accumulate.filter(|&at_once| at_once > stage.batch) {
            bail!("--accumulate {at_once}: a step has {} images", stage.batch);
        }
        (stage.at_once, stage.recompute) = (self.accumulate, self.recompute);
        stage.precision = self.precision;
        if let Some(averages) = &self.averages {
            stage.averages = schedule::averages(averages)?;
        }
        stage.decay.clone_from(&self.decay);
        stage.rate()?;
        if let Some(peak) = self.peak.filter(|peak| !(peak.is_finite() && *peak > 0.0)) {
            bail!("--peak {peak}: a number of 1e12 operations a second, above 0, is needed");
        }
        let watch = &mut config.watch;
        (watch.peak, watch.tensorboard) = (self.peak, self.tensorboard);
        watch.layers = self.layers.unwrap_or(watch.layers);
        Ok(())
    }
}

/// Where it is trained.
#[derive(clap::Args, Debug)]
pub struct Place {
    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    pub device: String,

    /// Several devices of one kind, which share the steps of the denoiser, as in cuda:0,cuda:1; the rest is done on the first
    #[arg(long, value_name = "LIST", conflicts_with_all = ["device", "sample", "minutes"])]
    pub devices: Option<String>,
}

impl Place {
    /// The devices.
    ///
    /// # Errors
    /// As [`Devices::open`].
    pub fn open(&self) -> Result<Devices> {
        match &self.devices {
            Some(names) => Devices::open(names),
            None => Ok(device::open(&self.device)?.into()),
        }
    }
}

/// What is drawn with a run, and how.
#[derive(clap::Args, Debug)]
pub struct Drawing {
    /// What to draw; repeat for several pictures
    #[arg(long, value_name = "TEXT", requires = "sample")]
    pub prompt: Vec<String>,

    /// How to draw: a sampler and its grid (dpmpp-2m, heun, dpmpp-2m-karras, euler-trailing, ..., by the names of
    /// canvas_sched::by_name), or a scheduler_config.json of diffusers or its folder
    #[arg(
        long,
        visible_alias = "sampler",
        value_name = "NAME|FILE",
        requires = "sample",
        default_value = "dpmpp-2m"
    )]
    pub scheduler: String,

    /// Steps of a drawing
    #[arg(long, requires = "sample", default_value_t = 20)]
    pub steps: usize,

    /// Guidance scale of a drawing; 1 is off
    #[arg(long, requires = "sample", default_value_t = 3.0)]
    pub guidance: f64,

    /// LoRA of the denoiser with a weight, FILE or FILE:0.7, such as `style` trains; repeat for several
    #[arg(long, value_name = "FILE[:WEIGHT]", requires = "sample")]
    pub lora: Vec<Weighed>,

    /// File of the drawing [default: drawn.png in the run's folder]
    #[arg(long, value_name = "FILE", requires = "sample")]
    pub picture: Option<PathBuf>,
}

impl Drawing {
    /// What is asked for, of the run in a folder.
    ///
    /// # Errors
    /// If there is no such scheduler.
    pub fn request(&self, folder: &Path, seed: Option<u64>) -> Result<draw::Request> {
        let scheduler = Scheduler::parse(&self.scheduler).context("--scheduler")?;
        Ok(draw::Request {
            prompts: self.prompt.clone(),
            scheduler: scheduler.title(&self.scheduler),
            options: DrawOptions {
                scheduler,
                steps: self.steps,
                guidance: self.guidance,
                seed: seed.unwrap_or(0),
            },
            loras: self.lora.clone(),
            size: None,
            picture: self.picture.clone().unwrap_or_else(|| folder.join("drawn.png")),
        })
    }
}
