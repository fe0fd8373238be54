//! The second stage of a latent diffusion model: captions and latents to a text encoder and a denoiser.

use crate::autoencoder::latents;
use crate::config::{CONTEXT, RunConfig};
use crate::emoji_set::{Emoji, EmojiSet};
use crate::measure::{Retrieval, retrieval};
use crate::model::{DrawOptions, Network, Painter, TextToImage, levels, process};
use crate::scheduler::Scheduler;
use crate::seeing::{Seeing, evaluated};
use crate::sheet::{Cell, save_png, sheet};
use crate::train_loop::Task;
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{
    Condition, LatentScale, Level, Noise, Process, Seeded, TextEncoder, Tokens, generator, seed_for,
};
use canvas_text::WordTokenizer;
use canvas_train::seeing::HeldOut;
use canvas_train::{ConditionDropout, Draws, Noised, Objective, Order};
use canvas_vae::AutoencoderTiny;
use image::RgbImage;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};

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
    /// Retrieval by quick drawings of the measured prompts, if it was measured: top-1 and top-5, in `[0, 1]`.
    pub retrieval: Option<[f64; 2]>,
}

impl DenoiserRow {
    /// Writes it down, and says it.
    ///
    /// # Errors
    /// Names the file.
    pub fn record(&self, folder: &Path, seeing: &mut Seeing) -> Result<()> {
        evaluated(folder, self.images, self)?;
        seeing.scalars(self.images, self.scalars())?;
        let found = self.retrieval.map(|[top1, _]| format!("; retrieval top-1 {:.1}%", 100.0 * top1));
        seeing.note(&format!(
            "denoiser: loss {:.3} on trained pictures, {:.3} on held-out ones{}",
            mean(&self.trained),
            mean(&self.held_out),
            found.unwrap_or_default()
        ));
        Ok(())
    }

    /// For TensorBoard: losses by level, their means, retrieval.
    fn scalars(&self) -> Vec<(String, f64)> {
        let mut values = vec![
            ("held out/mean".to_owned(), mean(&self.held_out)),
            ("trained, fixed levels/mean".to_owned(), mean(&self.trained)),
        ];
        let found = self.retrieval.iter().flatten().zip(["top-1", "top-5"]);
        values.extend(found.map(|(share, name)| (format!("retrieval/{name}"), *share)));
        for (time, (held_out, trained)) in self.times.iter().zip(self.held_out.iter().zip(&self.trained)) {
            values.push((format!("held out/{time:.3}"), *held_out));
            values.push((format!("trained, fixed levels/{time:.3}"), *trained));
        }
        values
    }
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
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
    dropout: ConditionDropout,
    order: Order,
    folder: PathBuf,
    device: Device,
}

impl<'a> DenoiserTask<'a> {
    /// On the latents of a set; `device` tracks gradients.
    ///
    /// # Errors
    /// For an unknown prediction type, or a dropout of captions that is no probability.
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
        let objective = Objective { levels, ..Objective::default() };
        let dropout = ConditionDropout::new().with("captions", config.caption_dropout);
        dropout.validate()?;
        let (folder, device) = (folder.to_owned(), device.clone());
        Ok(Self { config, set, data, autoencoder, process, objective, dropout, order, folder, device })
    }

    /// Draws levels and dropped captions; image `n` of the run always has the same.
    fn draws(&self, numbers: &[u64]) -> (Vec<Level>, Vec<bool>) {
        let levels = seed_for(self.config.seed, "levels");
        let draw = |&number: &u64| {
            self.objective.level(&*self.process.schedule, Draws::Stratified.at(levels, number))
        };
        (numbers.iter().map(draw).collect(), self.dropout.dropped("captions", self.config.seed, numbers))
    }

    /// What losses are followed with over the run.
    fn held_out(&self) -> Result<HeldOut> {
        let seed = seed_for(self.config.seed, "evaluation");
        Ok(HeldOut { levels: fixed_levels(&self.process)?, seed, objective: self.objective, at_once: 64 })
    }
}

/// These rows of a tensor.
pub fn picked(x: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &x.device());
    x.clone().select(0, index)
}

/// Levels at which losses are followed over a run, the cleanest first.
///
/// # Errors
/// If the process has no such levels.
pub fn fixed_levels(process: &Process) -> Result<Vec<Level>> {
    let grid = levels(process, 2 * HELD_OUT_LEVELS)?;
    Ok(grid.into_iter().skip(1).step_by(2).collect::<Vec<_>>().into_iter().rev().collect())
}

impl<B: Network> Task<TextToImage<B>> for DenoiserTask<'_> {
    /// Noised latents, and their captions.
    type Batch = (Noised<4>, Tokens);

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let (start, batch) = (images.start, (images.end - images.start) as usize);
        let numbers: Vec<u64> = images.collect();
        let rows = self.order.batch(start, batch);
        let (at, dropped) = self.draws(&numbers);

        let x0 = picked(&self.data.trained, &rows); // [B, C, h, w]
        let eps = Seeded::new(seed_for(self.config.seed, "noise"), numbers).normal_like(&x0);
        let tokens = self.data.trained_tokens.select(&rows).drop_rows(&dropped, &self.data.null);
        Ok((Noised::new(x0.to_device(&self.device), eps.to_device(&self.device), at), tokens))
    }

    fn losses(&self, model: &TextToImage<B>, (noised, tokens): &Self::Batch) -> Tensor<1> {
        let precision = self.config.second.precision;
        let model = precision.model(model);
        let cond = model.text.encode(tokens);
        let network = precision.network(&model.backbone);
        self.objective.losses(self.process.denoiser(&network), noised, &cond)
    }

    fn to_device(&self, (noised, tokens): &Self::Batch, device: &Device) -> Option<Self::Batch> {
        Some((noised.clone().to_device(device), tokens.clone()))
    }

    fn levels<'b>(&self, (noised, _): &'b Self::Batch) -> &'b [Level] {
        &noised.at
    }

    fn evaluate(&mut self, average: &TextToImage<B>, images: u64, seeing: &mut Seeing) -> Result<()> {
        let some = self.data.trained.dims()[0].min(32);
        let first: Vec<usize> = (0..some).collect();
        let trained = self.data.trained.clone().narrow(0, 0, some);
        let (drawn, found) = self.draw_measured(average)?;
        let held_out = self.held_out()?;
        let losses = |latents: &Tensor<4>, tokens: &Tokens| {
            held_out.losses(self.process.denoiser(&average.backbone), latents, &average.text.encode(tokens))
        };
        let row = DenoiserRow {
            images,
            times: held_out.levels.iter().map(|level| level.time).collect(),
            trained: losses(&trained, &self.data.trained_tokens.select(&first)),
            held_out: losses(&self.data.held_out, &self.data.held_out_tokens),
            retrieval: Some([found.top1, found.top5]),
        };
        row.record(&self.folder, seeing)?;
        let sheet = self.preview(&drawn, images)?;
        seeing.picture(images, "samples", &sheet)
    }

    fn name(&self, number: u64) -> String {
        let caption = self.set.trained().nth(self.order.batch(number, 1)[0]).map(|e| e.caption.as_str());
        format!("{:?}", caption.unwrap_or_default())
    }
}

impl DenoiserTask<'_> {
    /// Quick drawings of the measured prompts, and how often the right picture is the nearest.
    fn draw_measured<B: Network>(&self, average: &TextToImage<B>) -> Result<(Vec<RgbImage>, Retrieval)> {
        let rows = measured_rows(self.set);
        let numbers: Vec<u64> = rows.iter().map(|&row| row as u64).collect();
        let tokens = self.data.trained_tokens.select(&rows);
        let drawn =
            self.painter(average).draw(&tokens, &self.data.null, &numbers, &draw_options(self.config, 10))?;
        let gallery: Vec<RgbImage> = self.set.trained().map(|emoji| emoji.picture.clone()).collect();
        let answers: Vec<(usize, RgbImage)> = rows.into_iter().zip(drawn.iter().cloned()).collect();
        let found = retrieval(&answers, &gallery);
        Ok((drawn, found))
    }

    /// A sheet of some of the drawings, beside the checkpoints.
    fn preview(&self, drawn: &[RgbImage], images: u64) -> Result<RgbImage> {
        let items: Vec<&Emoji> = self.set.trained().collect();
        let rows = measured_rows(self.set);
        let cells: Vec<Cell> = drawn
            .iter()
            .zip(&rows)
            .take(16)
            .map(|(picture, &row)| Cell { picture, label: &items[row].caption })
            .collect();
        let title = format!("after {images} images");
        let picture = sheet(&title, &cells, 8, (128 / self.config.side).max(1))?;
        save_png(self.folder.join(format!("preview-{images:07}.png")), &picture)?;
        Ok(picture)
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

/// Trained prompts that retrieval is measured on: the same 64 for every run of a set, whatever its seed.
pub fn measured_rows(set: &EmojiSet) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..set.trained().count()).collect();
    rows.shuffle(&mut generator(0, 0, 0));
    rows.truncate(64);
    rows
}

/// The settings that sheets and measurements use: DPM-Solver++(2M), guidance 3; two steps in a smoke run.
pub fn draw_options(config: &RunConfig, steps: usize) -> DrawOptions {
    DrawOptions {
        scheduler: Scheduler::of(canvas_sched::DpmPp::two_m()),
        steps: if config.smoke { 2 } else { steps },
        guidance: 3.0,
        seed: config.seed,
    }
}
