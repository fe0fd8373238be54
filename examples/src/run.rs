//! A whole run in one folder: data, two stages, drawings, measurements, report.

use crate::autoencoder::{AutoencoderTask, EmojiPictures};
use crate::config::{self, RunConfig, WatchConfig};
use crate::denoiser::{self, DenoiserTask, LatentSet};
use crate::device::{self, Devices};
use crate::emoji_set::{Emoji, EmojiSet};
use crate::finish;
use crate::interrupt::Interrupt;
use crate::machine::{self, Process};
use crate::model::{BackboneSizes, Network, TextToImage};
use crate::seeing::Watching;
use crate::train_loop::{self, TrainLoop};
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::{Autoencoder, LatentScale, params, seed_for, weights};
use canvas_text::{TextTransformerConfig, WordTokenizer};
use canvas_train::Log;
use canvas_vae::AutoencoderTiny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a run's files lie.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// If it holds another run, or cannot be made.
    pub fn create(path: &Path, config: &impl Serialize) -> Result<Self> {
        if path.join("run.json").exists() {
            bail!(
                "{} holds a run already: go on with it by --resume {}, or choose another folder by --out",
                path.display(),
                path.display()
            );
        }
        let occupied = path.is_dir() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            bail!("{} holds other files: choose an empty or a new folder by --out", path.display());
        }
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        config::write(path, config)?;
        Ok(Self(path.to_owned()))
    }

    /// The folder of a run of these settings: a new one, or that of one that was stopped. Keeps other processes from it until the
    /// returned file is dropped.
    ///
    /// # Errors
    /// If it holds a run of other settings (names them), or other files, or another process works on it.
    pub fn claim(path: &Path, settings: &impl Serialize) -> Result<(Self, File)> {
        let folder = match path.join("run.json").exists() {
            true => Self(path.to_owned()),
            false => Self::create(path, settings)?,
        };
        config::compare(path, settings)?;
        let lock = folder.lock()?;
        Ok((folder, lock))
    }

    /// The first of `base`, `base-2`, `base-3` ... that does not exist.
    pub fn fresh(base: &Path) -> PathBuf {
        let numbered = |n: u32| match n {
            1 => base.to_owned(),
            _ => PathBuf::from(format!("{}-{n}", base.display())),
        };
        (1..).map(numbered).find(|path| !path.exists()).expect("a number that is free")
    }

    /// Keeps other processes from working on the same run, until the returned file is dropped.
    ///
    /// # Errors
    /// If one does already.
    pub fn lock(&self) -> Result<File> {
        let path = self.0.join("lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!("{}: another process works on this run", self.0.display()),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// The autoencoder's part.
    pub fn autoencoder(&self) -> PathBuf {
        self.0.join("autoencoder")
    }

    /// The denoiser's part.
    pub fn denoiser(&self) -> PathBuf {
        self.0.join("denoiser")
    }
}

/// A trained model with all it needs to draw.
pub struct Trained<B: Network> {
    /// Text encoder and backbone, averaged.
    pub model: TextToImage<B>,
    /// The autoencoder, averaged.
    pub autoencoder: AutoencoderTiny,
    /// Latents, captions and scales of the run's data.
    pub data: LatentSet,
    /// Images per second of each stage, where this process trained it.
    pub speed: Speed,
}

/// Images per second of training, evaluations and checkpoints included.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Speed {
    /// First stage.
    pub autoencoder: Option<f64>,
    /// Second stage.
    pub denoiser: Option<f64>,
}

/// Latent channels, height and width of a run.
pub fn latent_shape(config: &RunConfig, device: &Device) -> [usize; 3] {
    let side = config.side as usize;
    config.autoencoder.init(device).latent_shape(side, side)
}

/// The same, as high and as wide as the highest and the widest of the run's sizes.
///
/// # Errors
/// If there are no such sizes.
pub fn largest_latent(config: &RunConfig, device: &Device) -> Result<[usize; 3]> {
    let sizes = config.buckets()?;
    let longest = |side: usize| sizes.sizes().iter().map(|size| size[side] as usize).max().unwrap_or(0);
    Ok(config.autoencoder.init(device).latent_shape(longest(1), longest(0)))
}

/// An untrained model of a run: the same weights every time, and for every backbone the same text encoder.
///
/// # Errors
/// What `make` returns.
pub fn new_model<B: Network>(
    config: &RunConfig,
    tokenizer: &WordTokenizer,
    make: impl Fn(BackboneSizes, &Device) -> Result<B>,
    device: &Device,
) -> Result<TextToImage<B>> {
    device.seed(seed_for(config.seed, "model"));
    let text = TextTransformerConfig::new(tokenizer.vocabulary(), tokenizer.context())
        .with_width(config.text_width)
        .with_depth(config.text_depth)
        .with_heads(4)
        .init(device);
    let text = params::realise(text);
    let sizes = BackboneSizes {
        latent: largest_latent(config, device)?,
        text: config.text_width,
        context: tokenizer.context(),
        smoke: config.smoke,
    };
    Ok(params::realise(TextToImage { text, backbone: make(sizes, device)? }))
}

/// An untrained autoencoder of a run.
pub fn new_autoencoder(config: &RunConfig, device: &Device) -> AutoencoderTiny {
    device.seed(seed_for(config.seed, "autoencoder"));
    params::realise(config.autoencoder.init(device))
}

/// What is watched of a run on a device; writes down that this process works on it. `about` is what TensorBoard shows of the run.
///
/// # Errors
/// If a file cannot be written.
pub fn watching(
    folder: &Folder,
    config: &WatchConfig,
    about: &impl Serialize,
    device: &Device,
) -> Result<Watching> {
    Log::resume(&folder.0.join("processes.jsonl"), |_: &Process| true)?.push(&Process::here(device))?;
    let cpu = device::is_cpu(device);
    // Anything but a CPU does its products of matrices in numbers that are not known here.
    let peak = match config.peak {
        Some(peak) => Some(peak * 1e12),
        None if cpu => Some(machine::roof(&folder.0, device)?),
        None => None,
    };
    let queues = (!cpu).then(|| device.clone());
    let about = format!("```\n{}\n```", serde_json::to_string_pretty(about)?);
    Ok(Watching { config: config.clone(), peak, queues, about })
}

/// Trains both stages from wherever the folder says they are, and returns the trained model; stops when asked. Several devices
/// share the steps of the second stage; all else is done on the first.
///
/// # Errors
/// If files cannot be read or written, or training breaks down.
pub fn train<B: Network>(
    folder: &Folder,
    config: &RunConfig,
    set: &EmojiSet,
    make: impl Fn(BackboneSizes, &Device) -> Result<B>,
    (devices, interrupt): (&Devices, &Interrupt),
) -> Result<Trained<B>> {
    let device = &devices.first;
    let watch = &watching(folder, &config.watch, config, device)?;
    let autodiff = device.clone().autodiff();
    let tokenizer = denoiser::tokenizer(set)?;
    tokenizer.save(&folder.0.join("tokenizer.json"))?;

    let place = folder.autoencoder();
    let first = TrainLoop {
        name: "autoencoder",
        folder: place.clone(),
        config: &config.first,
        watch,
        interrupt,
        devices: None,
    };
    let mut task = autoencoder_task(config, set, &place, &autodiff);
    let (state, first_speed) = first.run(new_autoencoder(config, &autodiff), &mut task)?;
    let autoencoder = state.average;

    let data = LatentSet::new(set, &autoencoder, &tokenizer, device)?;
    save_autoencoder(folder, &autoencoder, &data.scale)?;
    let place = folder.denoiser();
    let second = TrainLoop {
        name: "denoiser",
        folder: place.clone(),
        config: &config.second,
        watch,
        interrupt,
        devices: Some(devices),
    };
    let mut task = DenoiserTask::new(config, set, &data, &autoencoder, &place, &autodiff)?;
    let (state, second_speed) = second.run(new_model(config, &tokenizer, make, &autodiff)?, &mut task)?;

    let model = state.average;
    weights::save(&model, &folder.0.join("model.safetensors"), &BTreeMap::new())?;
    let known = |speed: f64| speed.is_finite().then_some(speed);
    let speed = Speed { autoencoder: known(first_speed), denoiser: known(second_speed) };
    Ok(Trained { model, autoencoder, data, speed })
}

/// The first stage on emoji.
fn autoencoder_task<'a>(
    config: &'a RunConfig,
    set: &EmojiSet,
    folder: &Path,
    autodiff: &Device,
) -> AutoencoderTask<'a, EmojiPictures> {
    let shared = |emoji: &Emoji| Arc::new(emoji.picture.clone());
    let measured = [set.trained().take(64).map(shared).collect(), set.held_out().map(shared).collect()];
    AutoencoderTask::new(config, EmojiPictures::new(config, set), measured, folder, autodiff)
}

/// Writes the averaged autoencoder and the latent scale: with a denoiser's checkpoint, all that drawing needs.
///
/// # Errors
/// Names the file.
pub fn save_autoencoder(folder: &Folder, autoencoder: &AutoencoderTiny, scale: &LatentScale) -> Result<()> {
    weights::save(autoencoder, &folder.0.join("autoencoder.safetensors"), &BTreeMap::new())?;
    let scale = serde_json::to_vec_pretty(scale)?;
    Ok(weights::write_atomically(&folder.0.join("latent_scale.json"), &scale)?)
}

/// Sets the number of images of both stages so that a run takes about `minutes` on this machine.
///
/// Up to 60,000 images, two fifths of the time go to the autoencoder, which then has little to learn. Speeds are measured on a few
/// steps of fresh networks; the numbers are then fixed in the configuration, so that the run can be resumed exactly.
///
/// # Errors
/// If `minutes` is not a number above 0.
pub fn fit_to_minutes<B: Network>(
    config: &mut RunConfig,
    minutes: f64,
    make: impl Fn(BackboneSizes, &Device) -> Result<B>,
    device: &Device,
) -> Result<()> {
    if !(minutes.is_finite() && minutes > 0.0) {
        bail!("--minutes {minutes}: a number above 0 is needed");
    }
    let set = EmojiSet::build(config.which()?, config.side)?;
    let (first, second) = measure_speeds(config, &set, make, device)?;
    config.fit(minutes, Some(first), second);
    eprintln!(
        "{minutes} minutes at {first:.0} and {second:.0} images/s: {} images for the autoencoder, {} for the denoiser",
        config.first.images, config.second.images
    );
    Ok(())
}

/// Images per second of the training steps of both stages.
fn measure_speeds<B: Network>(
    config: &RunConfig,
    set: &EmojiSet,
    make: impl Fn(BackboneSizes, &Device) -> Result<B>,
    device: &Device,
) -> Result<(f64, f64)> {
    let autodiff = device.clone().autodiff();
    let nowhere = PathBuf::new();
    let tokenizer = denoiser::tokenizer(set)?;
    let task = autoencoder_task(config, set, &nowhere, &autodiff);
    let first = train_loop::speed(new_autoencoder(config, &autodiff), &task, &config.first)?;
    let data = LatentSet::new(set, &new_autoencoder(config, device), &tokenizer, device)?;
    let autoencoder = new_autoencoder(config, device);
    let task = DenoiserTask::new(config, set, &data, &autoencoder, &nowhere, &autodiff)?;
    let second = train_loop::speed(new_model(config, &tokenizer, make, &autodiff)?, &task, &config.second)?;
    Ok((first, second))
}

/// A whole run: training, then sheets, measurements and the report.
///
/// # Errors
/// As [`train`].
pub fn run<B: Network>(
    folder: &Folder,
    config: &RunConfig,
    make: impl Fn(BackboneSizes, &Device) -> Result<B>,
    devices: &Devices,
) -> Result<finish::Results> {
    let interrupt = Interrupt::listen()?;
    let set = EmojiSet::build(config.which()?, config.side)?;
    let (trained, held_out) = (set.trained().count(), set.held_out().count());
    eprintln!("{}: {trained} captioned pictures to train on, {held_out} held out", folder.0.display());
    let trained = train(folder, config, &set, make, (devices, &interrupt))?;
    // Nothing is lost from here on: the next Ctrl-C ends the program at once.
    interrupt.ask();
    finish::finish(folder, config, &set, &trained, &devices.first)
}
