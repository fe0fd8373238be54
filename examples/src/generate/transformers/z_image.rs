//! `ZImagePipeline`: Qwen 3's penultimate states of a chat.

use super::text::{LanguageModel, check_places, packed, reads};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::scheduler::Scheduler;
use anyhow::Result;
use canvas_core::Text;
use canvas_dit::{ZImage, ZImageConfig};
use canvas_text::{Message, RowLength};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 512;

/// Texts are filled up to a multiple of so many tokens.
const FILLED: usize = 32;
/// Positions of text beside its tokens: the first is not used, and the image takes one.
const BESIDE: usize = 2;

/// Z-Image with Qwen 3.
pub struct ZImagePipeline {
    parts: Parts<ZImage, LanguageModel>,
    config: ZImageConfig,
}

impl Pipeline for ZImagePipeline {
    type Network = ZImage;
    type Text = LanguageModel;
    const TAKES: &'static [&'static str] = &["--guidance", "--negative-prompt", "--max-sequence-length"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let text = folder.language_model(|depth| vec![depth - 1])?;
        let path = folder.component("transformer")?;
        let config = ZImageConfig::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(1), config.text)?;
        check_places(&path, config.places, FILLED + BESIDE)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape }, config })
    }

    fn parts(&self) -> &Parts<ZImage, LanguageModel> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [1024, 1024],
            multiple: self.parts.token_pixels(),
            steps: 50,
            guidance: Guidance::Free { scale: 5.0, off: 0.0 },
            length: Some(Length::up_to(LENGTH, (self.config.places[0] - BESIDE) / FILLED * FILLED)),
            strength: None,
            sizes: Sizes::UpTo(self.config.places[1].min(self.config.places[2]) * self.parts.token_pixels()),
        }
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(self.parts.tokens(ask)))
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let length = ask.length;
        ask.both(|prompts| {
            let chat =
                |prompt: &String| self.parts.text.chat(&[Message::new("user", prompt)], true, Some(true));
            let chats = prompts.iter().map(chat).collect::<Result<Vec<_>>>()?;
            let text = self.parts.text.read(&chats, RowLength::Exactly(length))?;
            Ok(ask.cast(packed(&text, 0, length)))
        })
    }
}
