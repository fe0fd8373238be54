//! What programs share that train a finished network further.

use crate::denoiser::fixed_levels;
use crate::seeing::{Seeing, evaluated};
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Backbone, Process, Text, seed_for};
use canvas_train::Objective;
use canvas_train::seeing::HeldOut;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A row of `evaluation.jsonl`: mean losses at fixed levels with fixed noise.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// Images trained on.
    pub images: u64,
    /// Over some that are trained on.
    pub trained: f64,
    /// Over others.
    pub tested: f64,
}

impl Evaluation {
    /// Writes it down, and says it of a stage.
    ///
    /// # Errors
    /// Names the file.
    pub fn record(&self, stage: &str, folder: &Path, seeing: &mut Seeing) -> Result<()> {
        let Self { images, trained, tested } = *self;
        evaluated(folder, images, self)?;
        let values = [("held out/trained", trained), ("held out/tested", tested)];
        seeing.scalars(images, values.map(|(name, value)| (name.to_owned(), value)))?;
        seeing.note(&format!("{stage}: loss {trained:.3} on what it learns from, {tested:.3} on the rest"));
        Ok(())
    }
}

/// The mean loss of images at fixed levels, with fixed noise.
///
/// # Errors
/// If the process has no such levels.
pub fn fixed_loss<B: Backbone<4>>(
    network: &B,
    (process, objective): (&Process, Objective),
    (x0, cond): (&Tensor<4>, &B::Cond),
    seed: u64,
) -> Result<f64> {
    let (levels, seed) = (fixed_levels(process)?, seed_for(seed, "evaluation"));
    let losses = HeldOut { levels, seed, objective, at_once: 48 }.losses(process.denoiser(network), x0, cond);
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// The same text on a device.
pub fn on(text: &Text, device: &Device) -> Text {
    let Text { tokens, mask, pooled } = text.clone();
    Text { tokens: tokens.to_device(device), mask: mask.to_device(device), pooled: pooled.to_device(device) }
}
