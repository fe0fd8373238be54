//! `StableDiffusion3Pipeline` and its image-to-image: two CLIP encoders and T5.

use super::text::{T5, behind, beside, clip};
use super::{
    Defaults, Encoders, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes,
};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::scheduler::Scheduler;
use crate::generate::text::Reader as Clip;
use anyhow::{Result, bail};
use burn::prelude::*;
use canvas_core::Text;
use canvas_dit::{Sd3, Sd3Config};
use canvas_text::ClipLayer;
use std::path::Path;

/// Stable Diffusion 3 or 3.5 with its encoders.
pub struct StableDiffusion3 {
    parts: Parts<Sd3, Sd3Text>,
    config: Sd3Config,
    sample: [usize; 2],
}

/// The text encoders of Stable Diffusion 3.
pub struct Sd3Text {
    clips: [Clip; 2],
    t5: Option<T5>,
    /// Width of the tokens that the transformer reads.
    width: usize,
}

/// Tokens that T5 is given where nothing is said, and the most.
const LENGTH: usize = 256;
const LONGEST: usize = 512;
/// Tokens that CLIP is given.
const CLIP: usize = 77;

impl Pipeline for StableDiffusion3 {
    type Network = Sd3;
    type Text = Sd3Text;
    const TAKES: &'static [&'static str] = &[
        "--guidance",
        "--prompt-2",
        "--prompt-3",
        "--negative-prompt",
        "--negative-prompt-2",
        "--negative-prompt-3",
        "--max-sequence-length",
        "--clip-skip",
        "--image",
        "--strength",
    ];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        check_third(folder)?;
        let path = folder.component("transformer")?;
        let config = Sd3Config::from_diffusers_file(&path.join("config.json"))?;
        let clips =
            [folder.clip("text_encoder", "tokenizer")?, folder.clip("text_encoder_2", "tokenizer_2")?];
        let t5 = match folder.has("text_encoder_3") {
            true => Some(folder.t5("text_encoder_3", "tokenizer_3")?),
            false => None,
        };
        check_widths(&path, &clips, t5.as_ref(), &config)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let (text, sample) = (Sd3Text { clips, t5, width: config.context }, folder.sample("transformer")?);
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: CLIP };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape }, config, sample })
    }

    fn parts(&self) -> &Parts<Sd3, Sd3Text> {
        &self.parts
    }

    fn defaults(&self, args: &Args) -> Defaults {
        Defaults {
            size: self.sample.map(|side| side * self.parts.vae.factor),
            multiple: self.parts.token_pixels(),
            steps: if args.start().is_some() { 50 } else { 28 },
            guidance: Guidance::Free { scale: 7.0, off: 1.0 },
            length: Some(Length::up_to(LENGTH, LONGEST)),
            strength: Some(0.6),
            sizes: Sizes::UpTo(self.config.table * self.parts.token_pixels()),
        }
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        Grid::Own { mu: scheduler.mu(self.parts.tokens(ask)) }
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let (args, first) = (ask.args, ask.prompts());
        let [second, third] = [&args.prompt_2, &args.prompt_3].map(|given| ask.spread(given, &first));
        let positive = self.parts.text.read(ask, [first, second, third], args.clip_skip.unwrap_or(0))?;
        let negative = match ask.guidance {
            None => None,
            Some(_) => {
                let first = ask.negatives();
                let others = [&args.negative_prompt_2, &args.negative_prompt_3];
                let [second, third] = others.map(|given| ask.spread(given, &first));
                // Layers are skipped for the prompt only.
                Some(self.parts.text.read(ask, [first, second, third], 0)?)
            }
        };
        Ok(Given { positive, negative })
    }
}

/// An error for what a text encoder would read that is not there.
fn check_third(folder: &Folder<'_>) -> Result<()> {
    let Args { prompt_3, negative_prompt_3, .. } = folder.args;
    let third = [("--prompt-3", prompt_3), ("--negative-prompt-3", negative_prompt_3)];
    match third.iter().find(|(_, given)| !given.is_empty() && !folder.has("text_encoder_3")) {
        Some((flag, _)) => {
            bail!("{flag} does nothing: {} names no text_encoder_3", folder.index_path().display())
        }
        None => Ok(()),
    }
}

/// An error if the text encoders make other tokens or other pooled prompts than the transformer reads.
fn check_widths(path: &Path, clips: &[Clip; 2], t5: Option<&T5>, config: &Sd3Config) -> Result<()> {
    let path = path.display();
    let tokens: usize = clips.iter().map(|clip| clip.encoder.width()).sum();
    let (expected, widest) = (config.context, t5.map_or(config.context, T5::width));
    if tokens > widest || widest != expected {
        bail!(
            "{path}: the text encoders make tokens of width {tokens} (CLIP) and {widest} (T5), the transformer reads \
             {expected} (joint_attention_dim)"
        );
    }
    let pooled: usize = clips.iter().map(|clip| clip.encoder.pooled_width()).sum();
    if pooled != config.pooled {
        bail!(
            "{path}: the text encoders make pooled prompts of width {pooled}, the transformer reads {} \
             (pooled_projection_dim)",
            config.pooled
        );
    }
    Ok(())
}

impl Encoders for Sd3Text {
    fn numbers(&self, batch: usize, length: usize) -> f64 {
        self.t5.numbers(batch, length)
    }
}

impl Sd3Text {
    /// CLIP's states side by side, filled up with zeros, and T5's behind them; without T5 zeros stand for it.
    fn read(&self, ask: &Request<'_>, [first, second, third]: [Vec<String>; 3], skip: usize) -> Result<Text> {
        let layer = ClipLayer::sdxl(skip);
        let [one, two] = &self.clips;
        let clips = beside(clip(one, &first, layer)?, clip(two, &second, layer)?);
        let length = ask.length;
        let long = match &self.t5 {
            Some(t5) => t5.read(&third, length, false)?,
            None => {
                let dims = [ask.batch, length, self.width];
                let mask = Tensor::<2, Int>::ones([ask.batch, length], ask.device).bool();
                Text { tokens: Tensor::zeros(dims, ask.device), mask, pooled: clips.pooled.clone() }
            }
        };
        let text = behind(clips, long);
        // Nothing is masked, not even padding.
        let mask = text.mask.full_like(true);
        Ok(ask.cast(Text { mask, ..text }))
    }
}
