//! `AuraFlowPipeline`: UMT5, whose padding becomes zeros.

use super::text::{T5, reads};
use super::{Defaults, Folder, Given, Guidance, Length, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::model::Vae;
use anyhow::Result;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Text, params};
use canvas_dit::{AuraFlow, AuraFlowConfig};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 256;

/// AuraFlow with UMT5.
pub struct AuraFlowPipeline {
    network: AuraFlow,
    config: AuraFlowConfig,
    vae: Vae,
    text: T5,
}

impl Pipeline for AuraFlowPipeline {
    type Cond = Text;
    const TAKES: &'static [&'static str] = &["--guidance", "--negative-prompt", "--max-sequence-length"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let text = folder.t5("text_encoder", "tokenizer")?;
        let path = folder.component("transformer")?;
        let config = AuraFlowConfig::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(), config.context)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        Ok(Self { network, config, vae: folder.vae()?, text })
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [1024, 1024],
            multiple: self.config.patch * self.vae.factor,
            steps: 50,
            guidance: Guidance::Free { scale: 3.5, off: 1.0 },
            length: Some(Length::any(LENGTH)),
            strength: None,
            sizes: Sizes::UpTo(self.config.table * self.config.patch * self.vae.factor),
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
        let length = ask.length;
        let read = |prompts: Vec<String>| -> Result<Text> {
            let text = self.text.read(&prompts, length, true)?;
            // The network has no mask: it was trained on zeros where there is no word.
            let real = text.mask.clone().unsqueeze_dim::<3>(2).float();
            let (tokens, mask) = (text.tokens * real, text.mask.full_like(true));
            Ok(ask.cast(Text { tokens, mask, pooled: text.pooled }))
        };
        ask.both(read)
    }
}
