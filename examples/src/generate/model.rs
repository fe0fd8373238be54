//! A published model, taken apart: its networks with their weights, its tokenizers, what its pipeline says.

use super::args::Args;
use super::loader::Loader;
use super::text::Reader;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::weights::Report;
use canvas_core::{Autoencoder, LatentScale};
use canvas_sched::diffusers::quoted;
use canvas_unet::{Unet, UnetConfig};
use canvas_vae::AutoencoderKlConfig;
use serde_json::Value;
use std::path::Path;

/// How a model reads prompts and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stable Diffusion 1 and 2: one text encoder, its last states.
    Sd,
    /// SDXL: one or two text encoders, their penultimate states, a pooled prompt and sizes.
    Sdxl,
}

/// A model, ready to draw.
pub struct Model {
    /// How it reads prompts and sizes.
    pub kind: Kind,
    /// Of its UNet.
    pub config: UnetConfig,
    /// The network.
    pub unet: Unet,
    /// Side of the latents it was trained with, height and width.
    pub sample: [usize; 2],
    /// Between images and latents.
    pub vae: Vae,
    /// Text encoders with their tokenizers, in the order in which their tokens are joined.
    pub readers: Vec<Reader>,
    /// What LoRA files call each text encoder.
    pub reader_names: Vec<&'static str>,
    /// Its `scheduler_config.json`.
    pub scheduler: Value,
    /// SDXL: a missing negative prompt is zeros (`force_zeros_for_empty_prompt`).
    pub zero_negative: bool,
    /// What became of every key, by component.
    pub reports: Vec<(String, Report)>,
}

/// An autoencoder with what the pipeline has to know of it.
pub struct Vae {
    /// The network.
    pub network: Box<dyn Autoencoder>,
    /// Its latents to unit variance.
    pub scale: LatentScale,
    /// Pixels of a side per latent.
    pub factor: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// Whether its posterior has a spread to draw from.
    pub spread: bool,
    /// What decoding takes is estimated from this; an AutoencoderTiny takes little.
    pub config: Option<AutoencoderKlConfig>,
}

/// A JSON file.
///
/// # Errors
/// Names the file.
pub fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Python writes infinities that JSON has not got.
    serde_json::from_str(&quoted(&text)).with_context(|| format!("{} is not JSON", path.display()))
}

impl Model {
    /// Opens what `--model` names: a folder, or one file.
    ///
    /// # Errors
    /// Names the folder, file or key, what was expected and what was found.
    pub fn open(args: &Args, device: &Device) -> Result<Self> {
        let mut model = match args.model.is_dir() {
            true => Self::folder(args, device)?,
            false => Self::file(args, device)?,
        };
        if let Some(folder) = &args.vae {
            model.vae = Loader { args, device, reports: &mut model.reports }.vae(folder)?;
        }
        if let Some(prediction) = &args.prediction_type {
            model.scheduler["prediction_type"] = prediction.as_str().into();
        }
        model.check()?;
        Ok(model)
    }

    /// Whether the parts are of one model.
    fn check(&self) -> Result<()> {
        if self.readers.is_empty() {
            bail!("this model has no text encoder: text_encoder or text_encoder_2 is expected");
        }
        let width: usize = self.readers.iter().map(|reader| reader.encoder.width()).sum();
        if width != self.config.context_width {
            bail!(
                "the text encoders ({}) make tokens of width {width}, the UNet reads {}",
                self.reader_names.join(" and "),
                self.config.context_width
            );
        }
        let (found, latents) = (self.config.in_channels, self.vae.channels);
        if found != latents && !self.reads_mask() {
            bail!(
                "the UNet reads {found} channels, the autoencoder's latents have {latents} (and with those of a masked \
                 picture and a mask {})",
                2 * latents + 1
            );
        }
        Ok(())
    }

    /// Whether its UNet reads a mask and a masked picture: an inpainting model.
    pub fn reads_mask(&self) -> bool {
        self.config.in_channels == 2 * self.vae.channels + 1
    }
}
