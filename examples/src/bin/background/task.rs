//! Training a network to paint around what it is given.

use crate::scenes::Scene;
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{
    Autoencoder, Channels, Concatenated, Condition, LatentScale, Level, Noise, Process, Seeded, Text,
    generator, picture, seed_for,
};
use canvas_examples::denoiser::picked;
use canvas_examples::fine_tune::{Evaluation, fixed_loss, on};
use canvas_examples::seeing::Seeing;
use canvas_examples::train_loop::Task;
use canvas_train::masks::{self, Mask};
use canvas_train::{ConditionDropout, Draws, Noised, Objective, Order};
use canvas_unet::Unet;
use canvas_vae::AutoencoderTiny;
use rand::RngExt as _;
use std::ops::Range;
use std::path::PathBuf;

/// How often the thing is what is given; else strokes, boxes or borders are painted.
const THINGS: f64 = 0.7;

/// Between pictures and what a network of latents reads.
pub struct Latents<'a> {
    /// Frozen.
    pub autoencoder: &'a AutoencoderTiny,
    /// Of its latents.
    pub scale: &'a LatentScale,
}

/// Scenes as tensors.
pub struct Scenes {
    /// `[N, 3, S, S]`
    pub pictures: Tensor<4>,
    /// 1 where the place is, 0 where the thing is: `[N, 1, S, S]`.
    pub masks: Tensor<4>,
    /// What they are said to be.
    pub text: Text,
}

impl Latents<'_> {
    /// Latents of pictures: `[B, 3, S, S]` to `[B, C, s, s]`.
    pub fn of(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.scale.normalise(self.autoencoder.encode(pictures).mode())
    }

    /// What a network reads beside the noised latents, in the order of Stable Diffusion's: the share of each latent pixel that is to be
    /// painted, and the latents of the picture without that.
    pub fn given(&self, pictures: Tensor<4>, masks: Tensor<4>) -> Channels<4> {
        let latents = self.of(pictures * (1.0 - masks.clone()));
        let ([batch, _, high, wide], [_, _, rows, columns]) = (masks.dims(), latents.dims());
        let patches: Tensor<5> = masks.reshape([batch, rows, high / rows, columns, wide / columns]);
        let shares: Tensor<4> = patches.mean_dim(4).mean_dim(2).reshape([batch, 1, rows, columns]);
        Channels { values: Tensor::cat(vec![shares, latents], 1) }
    }
}

impl Scenes {
    /// On a device, with the text of their captions.
    pub fn new(scenes: &[Scene], text: Text, device: &Device) -> Self {
        let pictures = picture::to_tensor(scenes.iter().map(|scene| &scene.picture), device);
        let [count, channels, high, wide] = pictures.dims();
        // Laid out as they are read: rows of a turned tensor would turn all of it each time.
        let pictures =
            pictures.reshape([count, channels * high * wide]).reshape([count, channels, high, wide]);
        let bytes = scenes.iter().flat_map(|scene| scene.mask.as_raw());
        let shares: Vec<f32> = bytes.map(|&byte| f32::from(byte) / 255.0).collect();
        let masks = Tensor::from_data(TensorData::new(shares, [count, 1, high, wide]), device);
        Self { pictures, masks, text }
    }

    /// Some of them.
    pub fn rows(&self, rows: &[usize]) -> Self {
        let [pictures, masks] = [&self.pictures, &self.masks].map(|all| picked(all, rows));
        Self { pictures, masks, text: self.text.select(rows) }
    }
}

/// Painting what is not given.
pub struct Painting<'a> {
    /// To latents.
    pub latents: Latents<'a>,
    /// Trained on.
    pub trained: Scenes,
    /// Of things that are not trained on.
    pub tested: Scenes,
    /// Of no caption.
    pub null: Text,
    /// Captions of those that are trained on.
    pub captions: Vec<&'a str>,
    /// What is trained in.
    pub process: &'a Process,
    /// What an error is.
    pub objective: Objective,
    /// Which scene comes when.
    pub order: Order,
    /// Of the log.
    pub folder: PathBuf,
    /// How often the caption is left out.
    pub dropout: ConditionDropout,
    /// Of everything.
    pub seed: u64,
    /// What is trained on, with gradients.
    pub device: Device,
}

impl Painting<'_> {
    /// What is to be painted of images of the run: around the thing, or whatever a mask says.
    fn masks(&self, numbers: &[u64], things: Tensor<4>) -> Tensor<4> {
        let mix = [
            (0.4, Mask::strokes()),
            (0.3, Mask::Boxes { most: 3, least_side: 0.2, most_side: 0.6 }),
            (0.3, Mask::borders()),
        ];
        let [batch, _, high, wide] = things.dims();
        let drawn = masks::batch(&mix, [high, wide], seed_for(self.seed, "masks"), numbers, &things.device());
        let kind = seed_for(self.seed, "kinds of masks");
        let chosen: Vec<bool> =
            numbers.iter().map(|&n| generator(kind, n, 0).random::<f64>() < THINGS).collect();
        let chosen = Tensor::<1, Bool>::from_data(TensorData::new(chosen, [batch]), &things.device());
        let chosen = chosen.reshape([batch, 1, 1, 1]).expand([batch, 1, high, wide]);
        drawn.mask_where(chosen, things)
    }

    fn fixed_loss(&self, network: &Unet, scenes: &Scenes) -> Result<f64> {
        let rows: Vec<usize> = (0..scenes.text.batch().min(48)).collect();
        let Scenes { pictures, masks, text } = scenes.rows(&rows);
        let x0 = self.latents.of(pictures.clone());
        let cond = (text, self.latents.given(pictures, masks));
        let network = Concatenated { backbone: network };
        fixed_loss(&network, (self.process, self.objective), (&x0, &cond), self.seed)
    }
}

impl Task<Unet> for Painting<'_> {
    /// Noised latents, and what is said and given of them.
    type Batch = (Noised<4>, (Text, Channels<4>));

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let (start, numbers) = (images.start, images.collect::<Vec<u64>>());
        let levels = seed_for(self.seed, "levels");
        let level = |&n: &u64| self.objective.level(&*self.process.schedule, Draws::Stratified.at(levels, n));
        let at = numbers.iter().map(level).collect();
        let dropped = self.dropout.dropped("captions", self.seed, &numbers);

        let Scenes { pictures, masks, text } = self.trained.rows(&self.order.batch(start, numbers.len()));
        let masks = self.masks(&numbers, masks);
        let x0 = self.latents.of(pictures.clone()); // [B, C, s, s]
        let given = self.latents.given(pictures, masks);
        let eps = Seeded::new(seed_for(self.seed, "noise"), numbers).normal_like(&x0);
        let text = text.drop_rows(&dropped, &self.null);
        let here = |x: Tensor<4>| x.to_device(&self.device);
        let cond = (on(&text, &self.device), Channels { values: here(given.values) });
        Ok((Noised::new(here(x0), here(eps), at), cond))
    }

    fn losses(&self, model: &Unet, (noised, cond): &Self::Batch) -> Tensor<1> {
        let network = Concatenated { backbone: model };
        self.objective.losses(self.process.denoiser(&network), noised, cond)
    }

    fn levels<'b>(&self, (noised, _): &'b Self::Batch) -> &'b [Level] {
        &noised.at
    }

    fn evaluate(&mut self, average: &Unet, images: u64, seeing: &mut Seeing) -> Result<()> {
        let [trained, tested] = [&self.trained, &self.tested].map(|set| self.fixed_loss(average, set));
        let row = Evaluation { images, trained: trained?, tested: tested? };
        row.record("painting", &self.folder, seeing)
    }

    fn name(&self, number: u64) -> String {
        format!("{:?}", self.captions[self.order.batch(number, 1)[0]])
    }
}
