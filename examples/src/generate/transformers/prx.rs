//! `PRXPipeline`: T5Gemma's encoder, of captions cleaned as in training.

use super::bin_tables::Bin;
use super::text::{LanguageModel, reads};
use super::{Defaults, Folder, Given, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes, bins};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use anyhow::{Result, bail};
use canvas_core::Text;
use canvas_dit::{Prx, PrxConfig};
use canvas_text::{RowLength, clean_caption};

/// PRX with T5Gemma.
pub struct PrxPipeline {
    parts: Parts<Prx, LanguageModel>,
    /// Side of pictures in pixels where nothing is said.
    side: usize,
    /// Tokens of a prompt where nothing is said.
    length: usize,
    bins: &'static [Bin],
}

impl Pipeline for PrxPipeline {
    type Network = Prx;
    type Text = LanguageModel;
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
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape }, side, length, bins })
    }

    fn parts(&self) -> &Parts<Prx, LanguageModel> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [self.side; 2],
            multiple: self.parts.token_pixels(),
            steps: 28,
            guidance: Guidance::Free { scale: 4.0, off: 1.0 },
            length: Some(Length::any(self.length)),
            strength: None,
            sizes: Sizes::Bins(self.bins),
        }
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let length = RowLength::Exactly(ask.length);
        ask.both(|prompts| {
            let clean: Vec<String> = prompts.iter().map(|prompt| clean_caption(prompt)).collect();
            Ok(ask.cast(self.parts.text.read(&clean, length)?))
        })
    }
}
