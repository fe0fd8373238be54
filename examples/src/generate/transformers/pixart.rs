//! `PixArtAlphaPipeline` and `PixArtSigmaPipeline`: T5, and the largest of the alpha models are told sizes.

use super::bin_tables::Bin;
use super::text::{T5, reads};
use super::{Defaults, Folder, Given, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes, bins};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use anyhow::{Result, bail};
use canvas_dit::{PixArt, PixArtCondition, PixArtConfig};

/// PixArt-alpha or Sigma with T5.
pub struct PixArtPipeline {
    parts: Parts<PixArt, T5>,
    config: PixArtConfig,
    sample: usize,
    /// Tokens of a prompt where nothing is said.
    length: usize,
    bins: &'static [Bin],
}

impl Pipeline for PixArtPipeline {
    type Network = PixArt;
    type Text = T5;
    const TAKES: &'static [&'static str] =
        &["--guidance", "--negative-prompt", "--max-sequence-length", "--exact-size"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let sigma = folder.class() == "PixArtSigmaPipeline";
        let text = folder.t5("text_encoder", "tokenizer")?;
        let path = folder.component("transformer")?;
        let config = PixArtConfig::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(), config.context)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let [sample, _] = folder.sample("transformer")?;
        let bins = match bins::pixart(sample, sigma) {
            Some(bins) => bins,
            None if folder.args.exact_size => &[],
            None => bail!(
                "{}: sample_size {sample}: sizes are known for 32, 64, 128 and, of Sigma, 256; --exact-size draws any",
                path.display()
            ),
        };
        let length = if sigma { 300 } else { 120 };
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape }, config, sample, length, bins })
    }

    fn parts(&self) -> &Parts<PixArt, T5> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [self.sample * self.parts.vae.factor; 2],
            multiple: self.parts.token_pixels(),
            steps: 20,
            guidance: Guidance::Free { scale: 4.5, off: 1.0 },
            length: Some(Length::any(self.length)),
            strength: None,
            sizes: Sizes::Bins(self.bins),
        }
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<PixArtCondition>> {
        let length = ask.length;
        let read = |prompts: Vec<String>| -> Result<PixArtCondition> {
            // What diffusers does to captions without the packages that would clean them.
            let prompts: Vec<String> =
                prompts.iter().map(|text| text.to_lowercase().trim().to_owned()).collect();
            let text = ask.cast(self.parts.text.read(&prompts, length, true)?);
            let [height, width] = ask.size;
            Ok(match self.config.micro_conditions {
                true => PixArtCondition::new(text, height, width),
                false => text.into(),
            })
        };
        let positive = read(ask.prompts())?;
        let negative = ask.guidance.map(|_| read(ask.negatives())).transpose()?;
        Ok(Given { positive, negative })
    }
}
