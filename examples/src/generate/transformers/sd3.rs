//! `StableDiffusion3Pipeline` and its image-to-image: two CLIP encoders and T5.

use super::flux::tokens;
use super::text::{T5, behind, beside, clip};
use super::{Defaults, Folder, Given, Grid, Guidance, Pipeline, Request, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::model::Vae;
use crate::generate::scheduler::Scheduler;
use crate::generate::text::Reader as Clip;
use anyhow::{Result, bail};
use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Text, params};
use canvas_dit::{Sd3, Sd3Config};
use canvas_text::ClipLayer;

/// Stable Diffusion 3 or 3.5 with its encoders.
pub struct StableDiffusion3 {
    network: Sd3,
    config: Sd3Config,
    sample: [usize; 2],
    vae: Vae,
    clips: [Clip; 2],
    t5: Option<T5>,
}

/// The most tokens that T5 is given.
const LONGEST: usize = 512;

impl Pipeline for StableDiffusion3 {
    type Cond = Text;
    const TAKES: &'static [&'static str] = &[
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
        let clips =
            [folder.clip("text_encoder", "tokenizer")?, folder.clip("text_encoder_2", "tokenizer_2")?];
        let t5 = match folder.has("text_encoder_3") {
            true => Some(folder.t5("text_encoder_3", "tokenizer_3")?),
            false => None,
        };
        let path = folder.component("transformer")?;
        let config = Sd3Config::from_diffusers_file(&path.join("config.json"))?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let pipeline =
            Self { network, config, sample: folder.sample("transformer")?, vae: folder.vae()?, clips, t5 };
        let [first, second] = pipeline.clips.each_ref().map(|clip| clip.encoder.width());
        let widest = pipeline.t5.as_ref().map_or(pipeline.config.context, T5::width);
        if first + second > widest || widest != pipeline.config.context {
            bail!(
                "the text encoders make tokens of width {} (CLIP) and {widest} (T5), the transformer reads {}",
                first + second,
                pipeline.config.context
            );
        }
        Ok(pipeline)
    }

    fn defaults(&self, args: &Args) -> Defaults {
        Defaults {
            size: self.sample.map(|side| side * self.vae.factor),
            multiple: self.config.patch * self.vae.factor,
            steps: if args.start().is_some() { 50 } else { 28 },
            guidance: Guidance::Free { scale: 7.0, off: 1.0 },
            strength: Some(0.6),
            sizes: Sizes::UpTo(self.config.table * self.config.patch * self.vae.factor),
        }
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

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        Grid::Own { mu: scheduler.mu(tokens(ask, &self.vae, self.config.patch)) }
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let (args, first) = (ask.args, ask.prompts());
        let [second, third] = [&args.prompt_2, &args.prompt_3].map(|given| ask.spread(given, &first));
        let positive = self.read(ask, [first, second, third], args.clip_skip.unwrap_or(0))?;
        let negative = match ask.guidance {
            None => None,
            Some(_) => {
                let first = ask.negatives();
                let others = [&args.negative_prompt_2, &args.negative_prompt_3];
                let [second, third] = others.map(|given| ask.spread(given, &first));
                // Layers are skipped for the prompt only.
                Some(self.read(ask, [first, second, third], 0)?)
            }
        };
        Ok(Given { positive, negative })
    }
}

impl StableDiffusion3 {
    /// CLIP's states side by side, filled up with zeros, and T5's behind them; without T5 zeros stand for it.
    fn read(&self, ask: &Request<'_>, [first, second, third]: [Vec<String>; 3], skip: usize) -> Result<Text> {
        let layer = ClipLayer::sdxl(skip);
        let [one, two] = &self.clips;
        let clips = beside(clip(one, &first, layer)?, clip(two, &second, layer)?);
        let length = ask.length(256, Some(LONGEST))?;
        let long = match &self.t5 {
            Some(t5) => t5.read(&third, length, false)?,
            None => {
                let dims = [ask.batch, length, self.config.context];
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
