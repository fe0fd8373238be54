//! The two stages of a run on a user's images, one after the other.

use crate::images::{Feed, Given, Images};
use crate::latents::Latents;
use crate::task::{self, Denoise, Trained};
use crate::{Config, finish, words};
use anyhow::{Context, Result};
use burn::prelude::*;
use canvas_core::weights;
use canvas_data::{Crop, Fault, Prepare, Source};
use canvas_examples::autoencoder::AutoencoderTask;
use canvas_examples::config::{self, RunConfig};
use canvas_examples::device::Devices;
use canvas_examples::interrupt::Interrupt;
use canvas_examples::model::process;
use canvas_examples::run::{self, Folder, new_autoencoder, new_model, save_autoencoder};
use canvas_examples::seeing::Watching;
use canvas_examples::train_loop::{TrainLoop, speed};
use canvas_text::WordTokenizer;
use canvas_vae::AutoencoderTiny;
use image::RgbImage;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Images of which the latents' scale is measured.
const SCALED: usize = 512;

/// A whole run, from wherever its folder says it is.
///
/// # Errors
/// If a file cannot be read or written, training breaks down, or is asked to stop.
pub fn train(folder: &Folder, mut config: Config, source: Box<dyn Source>, devices: &Devices) -> Result<()> {
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
