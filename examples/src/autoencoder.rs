//! The first stage of a latent diffusion model: pictures to latents and back.

use crate::config::RunConfig;
use crate::emoji_set::EmojiSet;
use crate::measure::psnr;
use crate::seeing::{Seeing, evaluated};
use crate::train_loop::Task;
use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Autoencoder, Noise, Seeded, picture, seed_for};
use canvas_train::Order;
use canvas_vae::AutoencoderTiny;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pictures of a run by number, each a function of its own.
pub trait Pictures: Sync {
    /// Those of some images of the run, all of one size.
    ///
    /// # Errors
    /// If one cannot be read.
    fn pictures(&self, images: Range<u64>) -> Result<Vec<Arc<RgbImage>>>;

    /// Which picture, in words, is number `number` of the run.
    fn name(&self, number: u64) -> String;
}

/// First stage: pictures to latents and back.
pub struct AutoencoderTask<'a, P> {
    config: &'a RunConfig,
    pictures: P,
    trained: Vec<Arc<RgbImage>>,
    held_out: Vec<Arc<RgbImage>>,
    device: Device,
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

impl<'a, P: Pictures> AutoencoderTask<'a, P> {
    /// On pictures. Quality is measured on some that are trained on and on those that are held out, equal sizes side by side.
    /// `device` tracks gradients.
    pub fn new(
        config: &'a RunConfig,
        pictures: P,
        [trained, held_out]: [Vec<Arc<RgbImage>>; 2],
        folder: &Path,
        device: &Device,
    ) -> Self {
        Self { config, pictures, trained, held_out, device: device.clone(), folder: folder.to_owned() }
    }
}

/// The trained pictures of a set, in an order of their own each time they are gone through.
pub struct EmojiPictures {
    captioned: Vec<(String, Arc<RgbImage>)>,
    order: Order,
}

impl EmojiPictures {
    /// Of a run.
    pub fn new(config: &RunConfig, set: &EmojiSet) -> Self {
        let trained = set.trained();
        let captioned: Vec<_> =
            trained.map(|emoji| (emoji.caption.clone(), Arc::new(emoji.picture.clone()))).collect();
        let order = Order::new(seed_for(config.seed, "autoencoder"), captioned.len());
        Self { captioned, order }
    }
}

impl Pictures for EmojiPictures {
    fn pictures(&self, images: Range<u64>) -> Result<Vec<Arc<RgbImage>>> {
        let rows = self.order.batch(images.start, (images.end - images.start) as usize);
        Ok(rows.into_iter().map(|row| Arc::clone(&self.captioned[row].1)).collect())
    }

    fn name(&self, number: u64) -> String {
        format!("{:?}", self.captioned[self.order.batch(number, 1)[0]].0)
    }
}

impl<P: Pictures> Task<AutoencoderTiny> for AutoencoderTask<'_, P> {
    /// The pictures `[B, 3, H, W]`, and their numbers.
    type Batch = (Tensor<4>, Vec<u64>);

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let pictures = self.pictures.pictures(images.clone())?;
        Ok((picture::to_tensor(pictures.iter().map(|picture| &**picture), &self.device), images.collect()))
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
        let row = AutoencoderRow {
            images,
            trained_psnr: mean_psnr(average, &self.trained),
            held_out_psnr: mean_psnr(average, &self.held_out),
        };
        evaluated(&self.folder, images, &row)?;
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
        self.pictures.name(number)
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

fn mean_psnr(autoencoder: &AutoencoderTiny, pictures: &[Arc<RgbImage>]) -> f64 {
    let device = autoencoder.devices().first().cloned().expect("a module with parameters");
    let of_one_size = |some: &[Arc<RgbImage>]| {
        let real: Vec<&RgbImage> = some.iter().map(|picture| &**picture).collect();
        let drawn = reconstruct(autoencoder, &real, &device);
        drawn.iter().zip(real).map(|(drawn, real)| psnr(drawn, real)).sum::<f64>()
    };
    let sizes = pictures.chunk_by(|a, b| a.dimensions() == b.dimensions());
    sizes.map(of_one_size).sum::<f64>() / pictures.len().max(1) as f64
}

/// Latents of a set of pictures, in the model's units once scaled: `[N, C, h, w]`.
pub fn latents(autoencoder: &AutoencoderTiny, pictures: &[&RgbImage], device: &Device) -> Tensor<4> {
    let encode =
        |part: &[&RgbImage]| autoencoder.encode(picture::to_tensor(part.iter().copied(), device)).mode();
    Tensor::cat(pictures.chunks(64).map(encode).collect(), 0)
}
