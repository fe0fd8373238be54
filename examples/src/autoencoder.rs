//! The first stage of a latent diffusion model: pictures to latents and back.

use crate::config::RunConfig;
use crate::emoji_set::{Emoji, EmojiSet};
use crate::measure::psnr;
use crate::seeing::Seeing;
use crate::train_loop::Task;
use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Autoencoder, Noise, Seeded, picture, seed_for};
use canvas_train::{Log, Order};
use canvas_vae::AutoencoderTiny;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// First stage: pictures to latents and back.
pub struct AutoencoderTask<'a> {
    config: &'a RunConfig,
    trained: Vec<&'a Emoji>,
    held_out: Vec<&'a RgbImage>,
    device: Device,
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
        let order = Order::new(seed_for(config.seed, "autoencoder"), trained.len());
        let held_out = set.held_out().map(|emoji| &emoji.picture).collect();
        Self { config, trained, held_out, device: device.clone(), order, folder: folder.to_owned() }
    }
}

impl Task<AutoencoderTiny> for AutoencoderTask<'_> {
    /// The pictures `[B, 3, S, S]`, and their numbers.
    type Batch = (Tensor<4>, Vec<u64>);

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let rows = self.order.batch(images.start, (images.end - images.start) as usize);
        let pictures = rows.into_iter().map(|row| &self.trained[row].picture);
        Ok((picture::to_tensor(pictures, &self.device), images.collect()))
    }

    /// Mean absolute error of the reconstruction, plus a light pull of the latents to the origin.
    ///
    /// The latents carry noise of a fixed deviation `s`, as those of a variational autoencoder whose posterior
    /// has one deviation: near latents then mean near pictures, which is what a denoiser needs. The pull is that
    /// autoencoder's Kullback-Leibler term.
    fn losses(&self, model: &AutoencoderTiny, (images, numbers): &Self::Batch) -> Tensor<1> {
        let posterior = model.encode(images.clone());
        let mut noise = Seeded::new(seed_for(self.config.seed, "latent noise"), numbers.clone());
        let latents = posterior.mean.clone();
        let noised = latents.clone() + noise.normal_like(&latents) * self.config.latent_noise;
        let error: Tensor<2> = (model.decode(noised) - images.clone()).abs().flatten(1, 3);
        let pull: Tensor<2> = latents.square().flatten(1, 3);
        (error.mean_dim(1) + pull.mean_dim(1) * 1e-3).reshape([numbers.len()])
    }

    fn evaluate(&mut self, average: &AutoencoderTiny, images: u64, seeing: &mut Seeing) -> Result<()> {
        let trained: Vec<&RgbImage> = self.trained.iter().take(64).map(|emoji| &emoji.picture).collect();
        let row = AutoencoderRow {
            images,
            trained_psnr: mean_psnr(average, &trained),
            held_out_psnr: mean_psnr(average, &self.held_out),
        };
        let path = self.folder.join("evaluation.jsonl");
        Log::resume(&path, |old: &AutoencoderRow| old.images < images)?.push(&row)?;
        seeing.scalars(
            images,
            [("trained", row.trained_psnr), ("held out", row.held_out_psnr)]
                .map(|(name, value)| (format!("quality dB/{name}"), value)),
        )?;
        seeing.note(&format!(
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
