//! Training adapters of a network that stays as it is.

use crate::pictures::Both;
use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Condition, Level, Noise, Process, Seeded, Text, TextEncoder, seed_for};
use canvas_examples::autoencoder::latents;
use canvas_examples::backbones::AnyBackbone;
use canvas_examples::denoiser::picked;
use canvas_examples::draw::Opened;
use canvas_examples::fine_tune::{Evaluation, fixed_loss, on};
use canvas_examples::seeing::Seeing;
use canvas_examples::train_loop::Task;
use canvas_train::adapters::Adapters;
use canvas_train::{ConditionDropout, Draws, Noised, Objective, Order};
use std::ops::Range;
use std::path::PathBuf;

/// Pictures of captions, as a network sees them.
struct Data {
    latents: Tensor<4>,
    text: Text,
}

/// The new pictures, drawn by the old network with adapters.
pub struct Style<'a> {
    base: AnyBackbone,
    average_base: AnyBackbone,
    trained: Data,
    tested: Data,
    null: Text,
    names: Vec<&'a str>,
    process: &'a Process,
    objective: Objective,
    order: Order,
    folder: PathBuf,
    dropout: ConditionDropout,
    seed: u64,
}

impl Data {
    fn new(run: &Opened<AnyBackbone>, pictures: &[Both], device: &Device) -> Result<Self> {
        let captions: Vec<&str> = pictures.iter().map(|both| both.caption.as_str()).collect();
        let news: Vec<_> = pictures.iter().map(|both| &both.new).collect();
        let text = run.model.text.encode(&run.tokenizer.tokenize(&captions)?.tokens);
        Ok(Self { latents: run.scale.normalise(latents(&run.autoencoder, &news, device)), text })
    }

    fn rows(&self, rows: &[usize]) -> (Tensor<4>, Text) {
        (picked(&self.latents, rows), self.text.select(rows))
    }
}

impl<'a> Style<'a> {
    /// On the new pictures that are trained on; `device` has no gradients.
    ///
    /// # Errors
    /// If a caption does not fit the tokenizer.
    pub fn new(
        run: &Opened<AnyBackbone>,
        [trained, tested]: [&'a [Both]; 2],
        (process, objective): (&'a Process, Objective),
        (dropout, seed): (ConditionDropout, u64),
        (folder, device): (PathBuf, &Device),
    ) -> Result<Self> {
        let null = run.model.text.encode(&run.tokenizer.tokenize(&[""])?.tokens);
        let base = run.model.backbone.clone().to_device(&device.clone().autodiff()).no_grad();
        Ok(Self {
            base,
            average_base: run.model.backbone.clone(),
            trained: Data::new(run, trained, device)?,
            tested: Data::new(run, tested, device)?,
            null,
            names: trained.iter().map(|both| both.caption.as_str()).collect(),
            process,
            objective,
            order: Order::new(seed_for(seed, "style"), trained.len()),
            folder,
            dropout,
            seed,
        })
    }

    fn fixed_loss(&self, adapters: &Adapters, data: &Data) -> Result<f64> {
        let network = adapters.apply(&self.average_base);
        let rows: Vec<usize> = (0..data.text.batch().min(48)).collect();
        let (x0, text) = data.rows(&rows);
        fixed_loss(&network, (self.process, self.objective), (&x0, &text), self.seed)
    }
}

impl Task<Adapters> for Style<'_> {
    /// Noised latents of new pictures, and what they are said to be.
    type Batch = (Noised<4>, Text);

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let (start, numbers) = (images.start, images.collect::<Vec<u64>>());
        let levels = seed_for(self.seed, "levels");
        let level = |&n: &u64| self.objective.level(&*self.process.schedule, Draws::Stratified.at(levels, n));
        let at = numbers.iter().map(level).collect();
        let dropped = self.dropout.dropped("captions", self.seed, &numbers);

        let (x0, text) = self.trained.rows(&self.order.batch(start, numbers.len())); // [B, C, h, w]
        let eps = Seeded::new(seed_for(self.seed, "noise"), numbers).normal_like(&x0);
        let device = self.base.devices().remove(0);
        let text = on(&text.drop_rows(&dropped, &self.null), &device);
        Ok((Noised::new(x0.to_device(&device), eps.to_device(&device), at), text))
    }

    fn losses(&self, model: &Adapters, (noised, text): &Self::Batch) -> Tensor<1> {
        let network = model.apply(&self.base);
        self.objective.losses(self.process.denoiser(&network), noised, text)
    }

    fn levels<'b>(&self, (noised, _): &'b Self::Batch) -> &'b [Level] {
        &noised.at
    }

    fn evaluate(&mut self, average: &Adapters, images: u64, seeing: &mut Seeing) -> Result<()> {
        let [trained, tested] = [&self.trained, &self.tested].map(|data| self.fixed_loss(average, data));
        let row = Evaluation { images, trained: trained?, tested: tested? };
        row.record("style", &self.folder, seeing)
    }

    fn name(&self, number: u64) -> String {
        format!("{:?}", self.names[self.order.batch(number, 1)[0]])
    }
}
