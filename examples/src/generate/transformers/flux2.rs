//! `Flux2Pipeline` and `Flux2KleinPipeline`: three states of a language model side by side; pictures to look at.

use super::ask::MORE_IMAGES;
use super::flux::prompt;
use super::text::{LanguageModel, reads};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::picture;
use crate::generate::scheduler::Scheduler;
use anyhow::{Result, bail};
use burn::prelude::*;
use canvas_core::Text;
use canvas_core::picture::{Filter, resized, to_tensor};
use canvas_dit::{Flux2, Flux2Config, Prompt};
use canvas_sched::schedule::mu;
use canvas_text::templates::FLUX2_SYSTEM;
use canvas_text::{Message, RowLength};
use image::RgbImage;
use image::imageops::crop_imm;
use std::path::Path;

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 512;
/// Pictures to look at are made smaller than this.
const AREA: usize = 1024 * 1024;
/// The least pixels of their sides, and the most that one side may be longer than the other.
const LEAST: u32 = 64;
const LONGEST: f64 = 8.0;

/// Flux.2 dev with Mistral 3, or klein with Qwen 3.
pub struct Flux2Pipeline {
    parts: Parts<Flux2, LanguageModel>,
    config: Flux2Config,
    /// klein, and whether it was distilled.
    klein: Option<bool>,
    pictures: Vec<RgbImage>,
}

impl Pipeline for Flux2Pipeline {
    type Network = Flux2;
    type Text = LanguageModel;
    const TAKES: &'static [&'static str] = &["--guidance", "--max-sequence-length", "--image", MORE_IMAGES];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let distilled = folder.index["is_distilled"].as_bool().unwrap_or(false);
        let klein = (folder.class() == "Flux2KleinPipeline").then_some(distilled);
        let states = if klein.is_some() { [9, 18, 27] } else { [10, 20, 30] };
        let mut text = folder.language_model(|_| states.to_vec())?;
        if klein.is_none() {
            // The chat holds them.
            text.tokenizer = text.tokenizer.with_special_tokens(false);
        }
        let path = folder.component("transformer")?;
        let config = Flux2Config::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(states.len()), config.text)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let vae = folder.vae()?;
        let pictures: Vec<RgbImage> =
            folder.args.image.iter().map(|path| look_at(path, vae.factor)).collect::<Result<_>>()?;
        let pixels: usize = pictures.iter().map(|file| file.width() as usize * file.height() as usize).sum();
        let beside = pixels / vae.factor.pow(2);
        let shape = Shape { channels: config.channels, patch: 1, width: config.width(), beside };
        Ok(Self { parts: Parts { network, text, vae, shape }, config, klein, pictures })
    }

    fn parts(&self) -> &Parts<Flux2, LanguageModel> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        let size = match self.pictures.first() {
            Some(first) => [first.height() as usize, first.width() as usize],
            None => [64 * self.parts.vae.factor; 2],
        };
        let guidance = match self.klein {
            None => Guidance::Told(4.0),
            Some(false) => Guidance::Free { scale: 4.0, off: 1.0 },
            Some(true) => Guidance::None,
        };
        Defaults {
            size,
            multiple: self.parts.token_pixels(),
            steps: 50,
            guidance,
            length: Some(Length::any(LENGTH)),
            strength: None,
            sizes: Sizes::Any,
        }
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        // The line of the file is not asked, but whether it shifts by size.
        let tokens = self.parts.tokens(ask);
        scheduler.even(scheduler.mu(tokens).map(|_| mu::flux2(tokens, ask.steps)))
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Prompt>> {
        let vae = &self.parts.vae;
        let references: Vec<Tensor<4>> = self
            .pictures
            .iter()
            .map(|picture| {
                let image = to_tensor([picture], ask.device);
                let latents = vae.scale.normalise(vae.network.encode(image).mode());
                latents.repeat_dim(0, ask.batch).cast(ask.dtype)
            })
            .collect();
        let length = RowLength::Exactly(ask.length);
        let Given { positive, negative } = ask.both(|prompts| {
            let chats = prompts.iter().map(|prompt| self.chat(prompt)).collect::<Result<Vec<_>>>()?;
            let text = self.parts.text.read(&chats, length)?;
            // Padding is read, as in training.
            let mask = text.mask.full_like(true);
            Ok(ask.cast(Text { mask, ..text }))
        })?;
        let told = |text: Text| prompt(text, ask, self.config.guidance, &references);
        Ok(Given { positive: told(positive), negative: negative.map(told) })
    }
}

impl Flux2Pipeline {
    fn chat(&self, prompt: &str) -> Result<String> {
        match self.klein {
            Some(_) => self.parts.text.chat(&[Message::new("user", prompt)], true, Some(false)),
            None => {
                let said = prompt.replace("[IMG]", "");
                self.parts.text.chat(
                    &[Message::part("system", FLUX2_SYSTEM), Message::part("user", &said)],
                    false,
                    None,
                )
            }
        }
    }
}

/// A picture as the pipeline looks at it: not too large, and cut at the centre to whole tokens.
fn look_at(path: &Path, multiple: usize) -> Result<RgbImage> {
    let file = picture::open(path)?.to_rgb8();
    let (width, height) = file.dimensions();
    if width.min(height) < LEAST {
        bail!("{}: expected at least {LEAST} pixels a side, found {width}x{height}", path.display());
    }
    let aspect = f64::from(width.max(height)) / f64::from(width.min(height));
    if aspect > LONGEST {
        bail!("{}: expected sides of 1:{LONGEST} at most, found {width}x{height}", path.display());
    }
    let area = width as usize * height as usize;
    let file = if area > AREA {
        let scale = (AREA as f64 / area as f64).sqrt();
        let smaller = |side: u32| (f64::from(side) * scale) as usize;
        resized(&file, (smaller(width), smaller(height)), Filter::Lanczos)
    } else {
        file
    };
    let whole = |side: u32| side / multiple as u32 * multiple as u32;
    let (own, cut) = (file.dimensions(), (whole(file.width()), whole(file.height())));
    Ok(crop_imm(&file, (own.0 - cut.0) / 2, (own.1 - cut.1) / 2, cut.0, cut.1).to_image())
}
