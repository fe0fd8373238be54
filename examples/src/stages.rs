//! The two stages of a latent diffusion model on captioned pictures.

use crate::config::{CONTEXT, RunConfig};
use crate::emoji_set::{Emoji, EmojiSet};
use crate::measure::psnr;
use crate::model::{Network, Painter, TextToImage, levels, process};
use crate::progress::Stage;
use crate::sheet::{Cell, save_png, sheet};
use crate::train_loop::Task;
use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Autoencoder, LatentScale, Level, Noise, Process, Seeded, TextEncoder, Tokens};
use canvas_core::{generator, picture, seed_for};
use canvas_text::WordTokenizer;
use canvas_train::{Log, Objective, Order, Weighting};
use canvas_vae::AutoencoderTiny;
use image::RgbImage;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// First stage: pictures to latents and back.
pub struct AutoencoderTask<'a> {
    config: &'a RunConfig,
    trained: Vec<&'a Emoji>,
    held_out: Vec<&'a RgbImage>,
    pixels: Tensor<4>,
    order: Order,
    folder: PathBuf,
}

/// A row of the autoencoder's `evaluation.jsonl`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AutoencoderRow {
    /// Images trained on.
    pub images: u64,
    /// Mean peak signal-to-noise ratio of up to 64 trained pictures, in dB.
    pub trained_psnr: f64,
    /// That of the held-out pictures.
    pub held_out_psnr: f64,
}

impl<'a> AutoencoderTask<'a> {
    /// On the trained pictures of a set; `device` tracks gradients.
    pub fn new(config: &'a RunConfig, set: &'a EmojiSet, folder: &Path, device: &Device) -> Self {
        let trained: Vec<&Emoji> = set.trained().collect();
        let pixels = picture::to_tensor(trained.iter().map(|emoji| &emoji.picture), device);
        let order = Order::new(seed_for(config.seed, "autoencoder"), trained.len());
        let held_out = set.held_out().map(|emoji| &emoji.picture).collect();
        Self { config, trained, held_out, pixels, order, folder: folder.to_owned() }
    }
}

impl Task<AutoencoderTiny> for AutoencoderTask<'_> {
    /// Mean absolute error of the reconstruction, plus a light pull of the latents to the origin.
    ///
    /// The latents carry noise of a fixed deviation `s`, as those of a variational autoencoder whose posterior
    /// has one deviation: near latents then mean near pictures, which is what a denoiser needs. The pull is that
    /// autoencoder's Kullback-Leibler term.
    fn losses(&self, model: &AutoencoderTiny, start: u64, batch: usize) -> Tensor<1> {
        let rows = self.order.batch(start, batch);
        let device = self.pixels.device();
        let rows: Vec<i64> = rows.into_iter().map(|row| row as i64).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [batch]), &device);
        let images = self.pixels.clone().select(0, rows); // [B, 3, S, S]

        let posterior = model.encode(images.clone());
        let numbers: Vec<u64> = (start..start + batch as u64).collect();
        let mut noise = Seeded::new(seed_for(self.config.seed, "latent noise"), numbers);
        let latents = posterior.mean.clone();
        let noised = latents.clone() + noise.normal_like(&latents) * self.config.latent_noise;
        let error: Tensor<2> = (model.decode(noised) - images).abs().flatten(1, 3);
        let pull: Tensor<2> = latents.square().flatten(1, 3);
        (error.mean_dim(1) + pull.mean_dim(1) * 1e-3).reshape([batch])
    }

    fn evaluate(&mut self, average: &AutoencoderTiny, images: u64, stage: &Stage) -> Result<()> {
        let trained: Vec<&RgbImage> = self.trained.iter().take(64).map(|emoji| &emoji.picture).collect();
        let row = AutoencoderRow {
            images,
            trained_psnr: mean_psnr(average, &trained),
            held_out_psnr: mean_psnr(average, &self.held_out),
        };
        let path = self.folder.join("evaluation.jsonl");
        Log::resume(&path, |old: &AutoencoderRow| old.images < images)?.push(&row)?;
        stage.note(&format!(
            "autoencoder: {:.1} dB on trained pictures, {:.1} dB on held-out ones",
            row.trained_psnr, row.held_out_psnr
        ));
        Ok(())
    }

    fn name(&self, number: u64) -> String {
        format!("{:?}", self.trained[self.order.batch(number, 1)[0]].caption)
    }
}

/// Pictures through the autoencoder and back.
pub fn reconstruct(autoencoder: &AutoencoderTiny, pictures: &[&RgbImage], device: &Device) -> Vec<RgbImage> {
    let through = |part: &[&RgbImage]| {
        let images = picture::to_tensor(part.iter().copied(), device);
        picture::from_tensor(autoencoder.decode(autoencoder.encode(images).mode()))
    };
    pictures.chunks(64).flat_map(through).collect()
}

fn mean_psnr(autoencoder: &AutoencoderTiny, pictures: &[&RgbImage]) -> f64 {
    let device = autoencoder.devices().first().cloned().expect("a module with parameters");
    let drawn = reconstruct(autoencoder, pictures, &device);
    let sum: f64 = drawn.iter().zip(pictures).map(|(drawn, real)| psnr(drawn, real)).sum();
    sum / pictures.len().max(1) as f64
}

/// Latents of a set of pictures, in the model's units once scaled: `[N, C, h, w]`.
pub fn latents(autoencoder: &AutoencoderTiny, pictures: &[&RgbImage], device: &Device) -> Tensor<4> {
    let encode =
        |part: &[&RgbImage]| autoencoder.encode(picture::to_tensor(part.iter().copied(), device)).mode();
    Tensor::cat(pictures.chunks(64).map(encode).collect(), 0)
}

/// Levels that held-out losses are measured at: evenly spaced in time, ends left out.
pub const HELD_OUT_LEVELS: usize = 8;

/// A row of the denoiser's `evaluation.jsonl`: losses of the average at fixed levels with fixed noise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenoiserRow {
    /// Images trained on.
    pub images: u64,
    /// Times of the levels, data to noise.
    pub times: Vec<f64>,
    /// Mean loss at each over trained pictures.
    pub trained: Vec<f64>,
    /// Mean loss at each over held-out pictures.
    pub held_out: Vec<f64>,
}

/// What of a data set the second stage works on.
pub struct LatentSet {
    /// Latents of the trained pictures in the model's units, `[N, C, h, w]`, on a device without gradients.
    pub trained: Tensor<4>,
    /// Those of the held-out pictures.
    pub held_out: Tensor<4>,
    /// Captions of the trained ones.
    pub trained_tokens: Tokens,
    /// Captions of the held-out ones.
    pub held_out_tokens: Tokens,
    /// The empty caption.
    pub null: Tokens,
    /// Between the autoencoder's latents and the model's.
    pub scale: LatentScale,
}

impl LatentSet {
    /// Encodes a set's pictures and captions.
    ///
    /// # Errors
    /// If a caption does not fit the tokenizer.
    pub fn new(
        set: &EmojiSet,
        autoencoder: &AutoencoderTiny,
        tokenizer: &WordTokenizer,
        device: &Device,
    ) -> Result<Self> {
        let pictures = |held_out: bool| -> Vec<&RgbImage> {
            set.items.iter().filter(|e| e.held_out == held_out).map(|e| &e.picture).collect()
        };
        let captions = |held_out: bool| -> Vec<&str> {
            set.items.iter().filter(|e| e.held_out == held_out).map(|e| e.caption.as_str()).collect()
        };
        let raw = latents(autoencoder, &pictures(false), device);
        let scale = LatentScale::measure(raw.clone());
        Ok(Self {
            trained: scale.normalise(raw),
            held_out: scale.normalise(latents(autoencoder, &pictures(true), device)),
            trained_tokens: tokenizer.tokenize(&captions(false))?.tokens,
            held_out_tokens: tokenizer.tokenize(&captions(true))?.tokens,
            null: tokenizer.tokenize(&[""])?.tokens,
            scale,
        })
    }
}

/// The tokenizer of a set: the words of its trained captions.
///
/// # Errors
/// If there are none.
pub fn tokenizer(set: &EmojiSet) -> Result<WordTokenizer> {
    let captions: Vec<&str> = set.trained().map(|emoji| emoji.caption.as_str()).collect();
    Ok(WordTokenizer::from_captions(&captions, CONTEXT)?)
}

/// Second stage: text encoder and denoiser.
pub struct DenoiserTask<'a> {
    config: &'a RunConfig,
    set: &'a EmojiSet,
    data: &'a LatentSet,
    autoencoder: &'a AutoencoderTiny,
    process: Process,
    objective: Objective,
    order: Order,
    folder: PathBuf,
    device: Device,
}

impl<'a> DenoiserTask<'a> {
    /// On the latents of a set; `device` tracks gradients.
    ///
    /// # Errors
    /// For an unknown prediction type.
    pub fn new(
        config: &'a RunConfig,
        set: &'a EmojiSet,
        data: &'a LatentSet,
        autoencoder: &'a AutoencoderTiny,
        folder: &Path,
        device: &Device,
    ) -> Result<Self> {
        let (process, levels) = process(&config.prediction)?;
        let order = Order::new(seed_for(config.seed, "denoiser"), data.trained.dims()[0]);
        let objective = Objective { levels, weighting: Weighting::Uniform };
        let (folder, device) = (folder.to_owned(), device.clone());
        Ok(Self { config, set, data, autoencoder, process, objective, order, folder, device })
    }

    /// Draws levels and dropped captions; image `n` of the run always has the same.
    fn draws(&self, numbers: &[u64]) -> (Vec<Level>, Vec<bool>) {
        let seed = seed_for(self.config.seed, "levels");
        let draw = |&number: &u64| {
            let mut generator = generator(seed, number, 0);
            let dropped = generator.random::<f64>() < self.config.caption_dropout;
            (self.objective.levels.draw(&*self.process.schedule, &mut generator), dropped)
        };
        numbers.iter().map(draw).unzip()
    }

    /// Mean loss of a few pictures at each of the fixed levels, with fixed noise.
    fn fixed_losses<B>(&self, model: &TextToImage<B>, latents: &Tensor<4>, tokens: &Tokens) -> Vec<f64>
    where
        B: Network,
    {
        let batch = latents.dims()[0];
        let cond = model.text.encode(tokens);
        let numbers: Vec<u64> = (0..batch as u64).collect();
        let loss = |level: &Level| {
            let mut noise = Seeded::new(seed_for(self.config.seed, "evaluation"), numbers.clone());
            let eps = noise.normal_like(latents);
            let at = vec![*level; batch];
            let network = self.process.denoiser(&model.backbone);
            let losses = self.objective.losses(network, latents.clone(), eps, &at, &cond);
            losses.mean().into_scalar::<f64>()
        };
        fixed_levels(&self.process).iter().map(loss).collect()
    }
}

/// Levels at which losses are followed over a run.
pub fn fixed_levels(process: &Process) -> Vec<Level> {
    let grid = levels(process, 2 * HELD_OUT_LEVELS);
    grid.into_iter().skip(1).step_by(2).collect::<Vec<_>>().into_iter().rev().collect()
}

impl<B: Network> Task<TextToImage<B>> for DenoiserTask<'_> {
    fn losses(&self, model: &TextToImage<B>, start: u64, batch: usize) -> Tensor<1> {
        let numbers: Vec<u64> = (start..start + batch as u64).collect();
        let rows = self.order.batch(start, batch);
        let (at, dropped) = self.draws(&numbers);

        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::from_data(TensorData::new(index, [batch]), &self.data.trained.device());
        let x0 = self.data.trained.clone().select(0, index); // [B, C, h, w]
        let eps = Seeded::new(seed_for(self.config.seed, "noise"), numbers).normal_like(&x0);
        let tokens = drop_captions(&self.data.trained_tokens.select(&rows), &self.data.null, &dropped);

        let cond = model.text.encode(&tokens);
        let network = self.process.denoiser(&model.backbone);
        self.objective.losses(network, x0.to_device(&self.device), eps.to_device(&self.device), &at, &cond)
    }

    fn evaluate(&mut self, average: &TextToImage<B>, images: u64, stage: &Stage) -> Result<()> {
        let some = self.data.trained.dims()[0].min(32);
        let first: Vec<usize> = (0..some).collect();
        let trained = self.data.trained.clone().narrow(0, 0, some);
        let row = DenoiserRow {
            images,
            times: fixed_levels(&self.process).iter().map(|level| level.time).collect(),
            trained: self.fixed_losses(average, &trained, &self.data.trained_tokens.select(&first)),
            held_out: self.fixed_losses(average, &self.data.held_out, &self.data.held_out_tokens),
        };
        let path = self.folder.join("evaluation.jsonl");
        Log::resume(&path, |old: &DenoiserRow| old.images < images)?.push(&row)?;
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        stage.note(&format!(
            "denoiser: loss {:.3} on trained pictures, {:.3} on held-out ones",
            mean(&row.trained),
            mean(&row.held_out)
        ));
        self.preview(average, images)
    }

    fn name(&self, number: u64) -> String {
        let caption = self.set.trained().nth(self.order.batch(number, 1)[0]).map(|e| e.caption.as_str());
        format!("{:?}", caption.unwrap_or_default())
    }
}

impl DenoiserTask<'_> {
    /// A sheet of trained and held-out prompts, beside the checkpoints.
    fn preview<B>(&self, average: &TextToImage<B>, images: u64) -> Result<()>
    where
        B: Network,
    {
        let all = self.set.trained().count();
        let rows: Vec<usize> = (0..16.min(all)).map(|i| i * all / 16.min(all)).collect();
        let names: Vec<&str> =
            rows.iter().filter_map(|&row| self.set.trained().nth(row)).map(|e| e.caption.as_str()).collect();
        let numbers: Vec<u64> = (0..rows.len() as u64).collect();
        let painter = self.painter(average);
        let options = draw_options(self.config, 12);
        let drawn =
            painter.draw(&self.data.trained_tokens.select(&rows), &self.data.null, &numbers, &options);
        let cells: Vec<Cell> =
            drawn.iter().zip(&names).map(|(picture, label)| Cell { picture, label }).collect();
        let title = format!("after {images} images");
        let picture = sheet(&title, &cells, 8, (128 / self.config.side).max(1))?;
        save_png(self.folder.join(format!("preview-{images:07}.png")), &picture)
    }

    /// A painter with this model.
    pub fn painter<'a, B: Module>(&'a self, model: &'a TextToImage<B>) -> Painter<'a, B> {
        let [_, channels, height, width] = self.data.trained.dims();
        Painter {
            model,
            autoencoder: self.autoencoder,
            scale: &self.data.scale,
            process: &self.process,
            latent: [channels, height, width],
        }
    }
}

/// The settings that sheets and measurements use: Heun, guidance 3 (2 for a smoke run's speed does not matter).
pub fn draw_options(config: &RunConfig, steps: usize) -> crate::model::DrawOptions {
    crate::model::DrawOptions {
        sampler: Box::new(canvas_sched::DpmPp2m),
        steps: if config.smoke { 2 } else { steps },
        guidance: 3.0,
        seed: config.seed,
    }
}

/// Replaces captions by the empty one where `dropped`.
fn drop_captions(tokens: &Tokens, null: &Tokens, dropped: &[bool]) -> Tokens {
    let mut kept = tokens.clone();
    for (row, _) in dropped.iter().enumerate().filter(|(_, gone)| **gone) {
        for column in 0..tokens.length {
            let place = row * tokens.length + column;
            kept.ids[place] = null.ids.get(column).copied().unwrap_or(0);
            kept.mask[place] = null.mask.get(column).copied().unwrap_or(false);
        }
    }
    kept
}
