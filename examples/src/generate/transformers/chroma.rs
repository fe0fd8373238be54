//! `ChromaPipeline`: T5 alone, and guidance as in days of old.

use super::text::{T5, reads};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::scheduler::Scheduler;
use anyhow::Result;
use canvas_core::Text;
use canvas_dit::{Chroma, ChromaConfig, ChromaMask};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 512;

/// Chroma with T5.
pub struct ChromaPipeline {
    parts: Parts<Chroma, T5>,
}

impl Pipeline for ChromaPipeline {
    type Network = Chroma;
    type Text = T5;
    const TAKES: &'static [&'static str] = &["--guidance", "--negative-prompt", "--max-sequence-length"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let text = folder.t5("text_encoder", "tokenizer")?;
        let path = folder.component("transformer")?;
        // As diffusers draws it, whose mask hides nothing.
        let config =
            ChromaConfig::from_diffusers_file(&path.join("config.json"))?.with_mask(ChromaMask::Favours);
        reads(&path, text.width(), config.text)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape } })
    }

    fn parts(&self) -> &Parts<Chroma, T5> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [128 * self.parts.vae.factor; 2],
            multiple: self.parts.token_pixels(),
            steps: 35,
            guidance: Guidance::Free { scale: 5.0, off: 1.0 },
            length: Some(Length::any(LENGTH)),
            strength: None,
            sizes: Sizes::Any,
        }
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(self.parts.tokens(ask)))
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let length = ask.length;
        ask.both(|prompts| Ok(ask.cast(self.parts.text.read(&prompts, length, true)?)))
    }
}
