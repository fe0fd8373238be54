//! `SanaPipeline`: Gemma 2's last states, behind an instruction.

use super::bin_tables::Bin;
use super::text::{LanguageModel, reads};
use super::{Defaults, Folder, Given, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes, bins};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use anyhow::{Result, bail};
use burn::prelude::*;
use canvas_core::Text;
use canvas_dit::{Prompt, Sana, SanaConfig};
use canvas_text::templates::SANA_INSTRUCTION;
use canvas_text::{RowLength, Side};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 300;

/// Sana with Gemma 2.
pub struct SanaPipeline {
    parts: Parts<Sana, LanguageModel>,
    bins: &'static [Bin],
}

impl Pipeline for SanaPipeline {
    type Network = Sana;
    type Text = LanguageModel;
    const TAKES: &'static [&'static str] =
        &["--guidance", "--negative-prompt", "--max-sequence-length", "--exact-size", "--instruction"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let mut text = folder.language_model(|depth| vec![depth])?;
        text.tokenizer = text.tokenizer.with_padding_side(Side::Right);
        let path = folder.component("transformer")?;
        let config = SanaConfig::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(1), config.context)?;
        if config.guidance_scale.is_some() {
            bail!(
                "{}: guidance_embeds: this network is Sana-Sprint's, whose sampler is not here",
                path.display()
            );
        }
        let network = folder.network(config.init(folder.device), &config.published())?;
        let [sample, _] = folder.sample("transformer")?;
        let bins = match bins::sana(sample) {
            Some(bins) => bins,
            None if folder.args.exact_size => &[],
            None => bail!(
                "{}: sample_size {sample}: sizes are known for 16, 32, 64 and 128; --exact-size draws any",
                path.display()
            ),
        };
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape }, bins })
    }

    fn parts(&self) -> &Parts<Sana, LanguageModel> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [1024, 1024],
            multiple: self.parts.token_pixels(),
            steps: 20,
            guidance: Guidance::Free { scale: 4.5, off: 1.0 },
            length: Some(Length::any(LENGTH)),
            strength: None,
            sizes: Sizes::Bins(self.bins),
        }
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Prompt>> {
        let length = ask.length;
        let instruction = if ask.args.instruction.is_some() { "" } else { SANA_INSTRUCTION };
        let positive = self.read(ask, &ask.prompts(), instruction, length)?;
        let negative = ask.guidance.map(|_| self.read(ask, &ask.negatives(), "", length)).transpose()?;
        Ok(Given { positive, negative })
    }
}

impl SanaPipeline {
    /// Of a text behind an instruction the first state and as many of the last as make up the length.
    fn read(
        &self,
        ask: &Request<'_>,
        prompts: &[String],
        instruction: &str,
        length: usize,
    ) -> Result<Prompt> {
        let told: Vec<String> =
            prompts.iter().map(|prompt| format!("{instruction}{}", prompt.to_lowercase().trim())).collect();
        let whole = match instruction {
            "" => length,
            text => (self.parts.text.tokenizer.ids(text)?.len() + length).saturating_sub(2).max(length),
        };
        let text = self.parts.text.read(&told, RowLength::Exactly(whole))?;
        let kept = length - 1;
        let cut = |x: Tensor<3>| match (x.clone().narrow(1, 0, 1), kept) {
            (first, 0) => first,
            (first, _) => Tensor::cat(vec![first, x.narrow(1, whole - kept, kept)], 1),
        };
        let text = match instruction {
            "" => text,
            _ => {
                let mask = cut(text.mask.float().unsqueeze_dim::<3>(2)).squeeze_dim::<2>(2).greater_elem(0.5);
                Text { tokens: cut(text.tokens), mask, pooled: text.pooled }
            }
        };
        Ok(ask.cast(text).into())
    }
}
