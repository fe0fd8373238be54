//! `SanaPipeline`: Gemma 2's last states, behind an instruction.

use super::bin_tables::Bin;
use super::text::{LanguageModel, reads};
use super::{Defaults, Folder, Given, Guidance, Length, Pipeline, Request, Shape, Sizes, bins};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::model::Vae;
use anyhow::{Result, bail};
use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Text, params};
use canvas_dit::{Prompt, Sana, SanaConfig};
use canvas_text::templates::SANA_INSTRUCTION;
use canvas_text::{RowLength, Side};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 300;

/// Sana with Gemma 2.
pub struct SanaPipeline {
    network: Sana,
    config: SanaConfig,
    vae: Vae,
    text: LanguageModel,
    bins: &'static [Bin],
}

impl Pipeline for SanaPipeline {
    type Cond = Prompt;
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
        Ok(Self { network, config, vae: folder.vae()?, text, bins })
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [1024, 1024],
            multiple: self.config.patch * self.vae.factor,
            steps: 20,
            guidance: Guidance::Free { scale: 4.5, off: 1.0 },
            length: Some(Length::any(LENGTH)),
            strength: None,
            sizes: Sizes::Bins(self.bins),
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

    fn network(&self) -> &impl Backbone<4, Cond = Prompt> {
        &self.network
    }

    fn cast(self, dtype: FloatDType) -> Self {
        Self { network: params::cast(self.network, dtype), ..self }
    }

    fn vae(&self) -> Option<&Vae> {
        Some(&self.vae)
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
            text => (self.text.tokenizer.ids(text)?.len() + length).saturating_sub(2).max(length),
        };
        let text = self.text.read(&told, RowLength::Exactly(whole))?;
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
