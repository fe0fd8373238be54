//! `AuraFlowPipeline`: UMT5, whose padding becomes zeros.

use super::text::{T5, reads};
use super::{Defaults, Folder, Given, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use anyhow::Result;
use canvas_core::Text;
use canvas_dit::{AuraFlow, AuraFlowConfig};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 256;

/// AuraFlow with UMT5.
pub struct AuraFlowPipeline {
    parts: Parts<AuraFlow, T5>,
    config: AuraFlowConfig,
}

impl Pipeline for AuraFlowPipeline {
    type Network = AuraFlow;
    type Text = T5;
    const TAKES: &'static [&'static str] = &["--guidance", "--negative-prompt", "--max-sequence-length"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let text = folder.t5("text_encoder", "tokenizer")?;
        let path = folder.component("transformer")?;
        let config = AuraFlowConfig::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(), config.context)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape }, config })
    }

    fn parts(&self) -> &Parts<AuraFlow, T5> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [1024, 1024],
            multiple: self.parts.token_pixels(),
            steps: 50,
            guidance: Guidance::Free { scale: 3.5, off: 1.0 },
            length: Some(Length::any(LENGTH)),
            strength: None,
            sizes: Sizes::UpTo(self.config.table * self.parts.token_pixels()),
        }
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let length = ask.length;
        let read = |prompts: Vec<String>| -> Result<Text> {
            let text = self.parts.text.read(&prompts, length, true)?;
            // The network has no mask: it was trained on zeros where there is no word.
            let real = text.mask.clone().unsqueeze_dim::<3>(2).float();
            let (tokens, mask) = (text.tokens * real, text.mask.full_like(true));
            Ok(ask.cast(Text { tokens, mask, pooled: text.pooled }))
        };
        ask.both(read)
    }
}
