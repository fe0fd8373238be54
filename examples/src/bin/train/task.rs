//! The second stage on a user's images: captions to latents.

use crate::images::{Feed, Images};
use crate::latents::{Item, Latents};
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Condition, LatentScale, Level, Noise, Process, Seeded, TextEncoder, Tokens, seed_for};
use canvas_data::Prepare;
use canvas_examples::config::RunConfig;
use canvas_examples::denoiser::{DenoiserRow, draw_options, fixed_levels};
use canvas_examples::model::{Network, Painter, TextToImage, process};
use canvas_examples::seeing::Seeing;
use canvas_examples::sheet::{Cell, save_png, sheet};
use canvas_examples::train_loop::Task;
use canvas_text::WordTokenizer;
use canvas_train::seeing::HeldOut;
use canvas_train::{ConditionDropout, Draws, Noised, Objective};
use canvas_vae::AutoencoderTiny;
use image::RgbImage;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Latents of so many images at a time, where no run says how many.
const AT_ONCE: usize = 32;
/// Drawings of a preview, half of them for captions that are held out.
const SHOWN: usize = 16;

/// Images of one size, to look at a model with.
pub struct Group {
    /// In the model's units, `[N, C, h, w]`, without gradients.
    pub latents: Tensor<4>,
    /// A caption of each.
    pub captions: Vec<String>,
    /// The captions, as the text encoder reads them.
    pub tokens: Tokens,
    /// The images.
    pub real: Vec<RgbImage>,
}

/// What a model of latents needs beside itself.
pub struct Trained<'a> {
    /// How it was trained.
    pub config: &'a RunConfig,
    /// The user's images.
    pub images: &'a Arc<Images>,
    /// Their latents.
    pub latents: &'a Latents,
    /// From latents to pictures.
    pub autoencoder: &'a AutoencoderTiny,
    /// Between the autoencoder's latents and the model's.
    pub scale: &'a LatentScale,
    /// Of captions.
    pub tokenizer: &'a WordTokenizer,
    /// Between data and noise.
    pub process: &'a Process,
}

impl Trained<'_> {
    /// Images by their numbers in the source, those of one size side by side.
    ///
    /// # Errors
    /// If one cannot be read any more.
    pub fn groups(&self, indices: &[usize]) -> Result<Vec<Group>> {
        let bucket =
            |index: usize| self.images.manifest.assignment(index).map(|assignment| assignment.bucket);
        indices.chunk_by(|&a, &b| bucket(a) == bucket(b)).map(|same| self.group(same)).collect()
    }

    fn group(&self, indices: &[usize]) -> Result<Group> {
        let picture =
            |&index: &usize| self.images.read(index, 0, |given| Ok(given.prepared(&Prepare::default())?.rgb));
        let items = self.latents.items(self.images, indices)?;
        let latents = items.chunks(AT_ONCE).map(|items| self.latents.of(items)).collect::<Result<_, _>>()?;
        let captions: Vec<String> = items.into_iter().map(|item| item.caption).collect();
        Ok(Group {
            latents: self.scale.normalise(Tensor::cat(latents, 0)),
            tokens: self.tokenizer.tokenize_cut(&captions)?,
            captions,
            real: indices.iter().map(picture).collect::<Result<_, _>>()?,
        })
    }

    /// Draws the first captions of a group; picture `i` has noise number `first + i`.
    ///
    /// # Errors
    /// If there are no such steps.
    pub fn draw<B: Network>(
        &self,
        model: &TextToImage<B>,
        (group, count): (&Group, usize),
        first: u64,
        steps: usize,
    ) -> Result<Vec<RgbImage>> {
        let [_, channels, height, width] = group.latents.dims();
        let painter = Painter {
            model,
            autoencoder: self.autoencoder,
            scale: self.scale,
            process: self.process,
            latent: [channels, height, width],
        };
        let rows: Vec<usize> = (0..count.min(group.captions.len())).collect();
        let numbers: Vec<u64> = rows.iter().map(|&row| first + row as u64).collect();
        let null = self.tokenizer.tokenize_cut(&[""])?;
        painter.draw(&group.tokens.select(&rows), &null, &numbers, &draw_options(self.config, steps))
    }
}

/// The latents' scale, measured on some images.
///
/// # Errors
/// If one cannot be read any more.
pub fn measure_scale(images: &Images, latents: &Latents, most: usize) -> Result<LatentScale> {
    let mut all = Vec::new();
    for index in images.some_trained(most) {
        let of_one = latents.of(&latents.items(images, &[index])?)?; // [1, C, h, w]
        let [_, channels, height, width] = of_one.dims();
        all.push(of_one.reshape([1, channels, 1, height * width]));
    }
    Ok(LatentScale::measure(Tensor::cat(all, 3)))
}

/// Second stage: text encoder and denoiser.
pub struct Denoise<'a> {
    trained: &'a Trained<'a>,
    feed: Feed<Item>,
    objective: Objective,
    dropout: ConditionDropout,
    null: Tokens,
    /// Some that are trained on, and those that are held out.
    seen: [Vec<Group>; 2],
    folder: PathBuf,
    device: Device,
}

impl<'a> Denoise<'a> {
    /// On the latents of the user's images; `device` tracks gradients.
    ///
    /// # Errors
    /// If an image cannot be read any more.
    pub fn new(trained: &'a Trained, folder: &Path, device: &Device) -> Result<Self> {
        let Trained { config, images, .. } = trained;
        let (_, levels) = process(&config.prediction)?;
        let dropout = ConditionDropout::new().with("captions", config.caption_dropout);
        dropout.validate()?;
        let some = images.some_trained(images.held_out().len());
        Ok(Self {
            trained,
            feed: trained.latents.feed(images, config.second.batch),
            objective: Objective { levels, ..Objective::default() },
            dropout,
            null: trained.tokenizer.tokenize_cut(&[""])?,
            seen: [trained.groups(&some)?, trained.groups(images.held_out())?],
            folder: folder.to_owned(),
            device: device.clone(),
        })
    }

    /// Mean losses at fixed levels with fixed noise.
    fn losses_of<B: Network>(&self, average: &TextToImage<B>, groups: &[Group]) -> Result<Vec<f64>> {
        let (config, process) = (self.trained.config, self.trained.process);
        let seed = seed_for(config.seed, "evaluation");
        let held_out =
            HeldOut { levels: fixed_levels(process)?, seed, objective: self.objective, at_once: 64 };
        let mut sums = vec![0.0; held_out.levels.len()];
        for Group { latents, tokens, .. } in groups {
            let losses =
                held_out.losses(process.denoiser(&average.backbone), latents, &average.text.encode(tokens));
            sums.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss * tokens.batch() as f64);
        }
        let count: usize = groups.iter().map(|group| group.captions.len()).sum();
        Ok(sums.into_iter().map(|sum| sum / count as f64).collect())
    }

    /// Quick drawings of some captions, beside the checkpoints.
    fn preview<B: Network>(&self, average: &TextToImage<B>, images: u64) -> Result<RgbImage> {
        let (mut drawn, mut labels, mut trained) = (Vec::new(), Vec::new(), 0);
        for groups in &self.seen {
            trained = drawn.len();
            let end = drawn.len() + SHOWN / 2;
            for group in groups {
                let some = self.trained.draw(average, (group, end - drawn.len()), drawn.len() as u64, 10)?;
                labels.extend(group.captions.iter().take(some.len()));
                drawn.extend(some);
            }
        }
        let cells: Vec<Cell> =
            drawn.iter().zip(labels).map(|(picture, label)| Cell { picture, label }).collect();
        let title =
            format!("after {images} images; the last {} captions are held out", cells.len() - trained);
        let page = sheet(&title, &cells, SHOWN / 2, (128 / self.trained.config.side).max(1))?;
        save_png(self.folder.join(format!("preview-{images:09}.png")), &page)?;
        Ok(page)
    }
}

impl<B: Network> Task<TextToImage<B>> for Denoise<'_> {
    /// Noised latents, and their captions.
    type Batch = (Noised<4>, Tokens);

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let Trained { config, latents, scale, tokenizer, process, .. } = self.trained;
        let items = self.feed.take(images.clone())?;
        let numbers: Vec<u64> = images.collect();
        let levels = seed_for(config.seed, "levels");
        let level = |&n: &u64| self.objective.level(&*process.schedule, Draws::Stratified.at(levels, n));
        let at = numbers.iter().map(level).collect();
        let dropped = self.dropout.dropped("captions", config.seed, &numbers);

        let x0 = scale.normalise(latents.of(&items)?); // [B, C, h, w]
        let eps = Seeded::new(seed_for(config.seed, "noise"), numbers).normal_like(&x0);
        let captions: Vec<&str> = items.iter().map(|item| item.caption.as_str()).collect();
        let tokens = tokenizer.tokenize_cut(&captions)?.drop_rows(&dropped, &self.null);
        Ok((Noised::new(x0.to_device(&self.device), eps.to_device(&self.device), at), tokens))
    }

    fn losses(&self, model: &TextToImage<B>, (noised, tokens): &Self::Batch) -> Tensor<1> {
        let precision = self.trained.config.second.precision;
        let model = precision.model(model);
        let cond = model.text.encode(tokens);
        let network = precision.network(&model.backbone);
        self.objective.losses(self.trained.process.denoiser(&network), noised, &cond)
    }

    fn to_device(&self, (noised, tokens): &Self::Batch, device: &Device) -> Option<Self::Batch> {
        Some((noised.clone().to_device(device), tokens.clone()))
    }

    fn levels<'b>(&self, (noised, _): &'b Self::Batch) -> &'b [Level] {
        &noised.at
    }

    fn evaluate(&mut self, average: &TextToImage<B>, images: u64, seeing: &mut Seeing) -> Result<()> {
        let [trained, held_out] = &self.seen;
        let row = DenoiserRow {
            images,
            times: fixed_levels(self.trained.process)?.iter().map(|level| level.time).collect(),
            trained: self.losses_of(average, trained)?,
            held_out: self.losses_of(average, held_out)?,
            retrieval: None,
        };
        row.record(&self.folder, seeing)?;
        let page = self.preview(average, images)?;
        seeing.picture(images, "samples", &page)
    }

    fn name(&self, number: u64) -> String {
        self.feed.name(number)
    }
}
