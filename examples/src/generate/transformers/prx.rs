//! `PRXPipeline`: T5Gemma's encoder, of captions cleaned as in training.

use super::bin_tables::Bin;
use super::text::{LanguageModel, reads};
use super::{Defaults, Folder, Given, Guidance, Length, Pipeline, Request, Shape, Sizes, bins};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::model::Vae;
use anyhow::{Result, bail};
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Text, params};
use canvas_dit::{Prx, PrxConfig};
use canvas_text::{RowLength, clean_caption};

/// PRX with T5Gemma.
pub struct PrxPipeline {
    network: Prx,
    config: PrxConfig,
    vae: Vae,
    text: LanguageModel,
    /// Side of pictures in pixels where nothing is said.
    side: usize,
    /// Tokens of a prompt where nothing is said.
    length: usize,
    bins: &'static [Bin],
}

impl Pipeline for PrxPipeline {
    type Cond = Text;
    const TAKES: &'static [&'static str] =
        &["--guidance", "--negative-prompt", "--max-sequence-length", "--exact-size"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let text = folder.language_model(|depth| vec![depth])?;
        let path = folder.component("transformer")?;
        let config = PrxConfig::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(1), config.text)?;
        let Some(length) = text.tokenizer.limit().or(folder.args.max_sequence_length) else {
            bail!("the tokenizer does not say how long prompts are: --max-sequence-length N");
        };
        if !folder.has("vae") {
            bail!(
                "{}: vae: expected the component; PRX without one is not read",
                folder.index_path().display()
            );
        }
        let side = folder.index["default_sample_size"].as_u64().unwrap_or(512) as usize;
        let bins = match bins::prx(side) {
            Some(bins) => bins,
            None if folder.args.exact_size => &[],
            None => bail!(
                "{}: default_sample_size {side}: sizes are known for 256, 512 and 1024; --exact-size draws any",
                folder.index_path().display()
            ),
        };
        let network = folder.network(config.init(folder.device), &config.published())?;
        Ok(Self { network, config, vae: folder.vae()?, text, side, length, bins })
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [self.side; 2],
            multiple: self.config.patch * self.vae.factor,
            steps: 28,
            guidance: Guidance::Free { scale: 4.0, off: 1.0 },
            length: Some(Length::any(self.length)),
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

    fn network(&self) -> &impl Backbone<4, Cond = Text> {
        &self.network
    }

    fn cast(self, dtype: FloatDType) -> Self {
        Self { network: params::cast(self.network, dtype), ..self }
    }

    fn vae(&self) -> Option<&Vae> {
        Some(&self.vae)
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let length = RowLength::Exactly(ask.length);
        ask.both(|prompts| {
            let clean: Vec<String> = prompts.iter().map(|prompt| clean_caption(prompt)).collect();
            Ok(ask.cast(self.text.read(&clean, length)?))
        })
    }
}
