//! `ChromaPipeline`: T5 alone, and guidance as in days of old.

use super::flux::tokens;
use super::text::{T5, reads};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::model::Vae;
use crate::generate::scheduler::Scheduler;
use anyhow::Result;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Text, params};
use canvas_dit::{Chroma, ChromaConfig, ChromaMask};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 512;

/// Chroma with T5.
pub struct ChromaPipeline {
    network: Chroma,
    config: ChromaConfig,
    vae: Vae,
    text: T5,
}

impl Pipeline for ChromaPipeline {
    type Cond = Text;
    const TAKES: &'static [&'static str] = &["--guidance", "--negative-prompt", "--max-sequence-length"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let text = folder.t5("text_encoder", "tokenizer")?;
        let path = folder.component("transformer")?;
        // As diffusers draws it, whose mask hides nothing.
        let config =
            ChromaConfig::from_diffusers_file(&path.join("config.json"))?.with_mask(ChromaMask::Favours);
        reads(&path, text.width(), config.text)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        Ok(Self { network, config, vae: folder.vae()?, text })
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [128 * self.vae.factor; 2],
            multiple: self.config.patch * self.vae.factor,
            steps: 35,
            guidance: Guidance::Free { scale: 5.0, off: 1.0 },
            length: Some(Length::any(LENGTH)),
            strength: None,
            sizes: Sizes::Any,
        }
    }

    fn shape(&self, _args: &Args) -> Shape {
        Shape {
            channels: self.config.channels,
            patch: self.config.patch,
            width: self.config.width(),
            beside: 0,
        }
    }

    fn reading(&self, ask: &Request<'_>) -> f64 {
        self.text.numbers(ask.batch, ask.length)
    }

    fn network(&self) -> &impl Backbone<4, Cond = Text> {
        &self.network
    }

    fn cast(self, dtype: FloatDType) -> Self {
        Self { network: params::cast(self.network, dtype), ..self }
    }

    fn vae(&self) -> Option<&Vae> {
        Some(&self.vae)
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(tokens(ask, &self.vae, self.config.patch)))
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let length = ask.length;
        ask.both(|prompts| Ok(ask.cast(self.text.read(&prompts, length, true)?)))
    }
}
