//! `FluxPipeline`, its image-to-image, `FluxKontextPipeline` and Redux: CLIP's pooled prompt, T5's tokens.

use super::redux::ReduxReader;
use super::text::{T5, clip};
use super::{
    Defaults, Encoders, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes,
};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::picture;
use crate::generate::scheduler::Scheduler;
use crate::generate::text::Reader as Clip;
use anyhow::{Result, bail};
use burn::prelude::*;
use canvas_core::Text;
use canvas_dit::{Flux, FluxConfig, Prompt};
use canvas_text::ClipLayer;

/// The most tokens that T5 is given.
pub const LONGEST: usize = 512;
/// Sides of latents where no size is asked for.
const SIDE: usize = 128;
/// Pixels of Kontext's pictures.
const KONTEXT: usize = 1024 * 1024;
/// Sizes, height and width, that Kontext looks at pictures in.
const PREFERRED: [[usize; 2]; 17] = [
    [1568, 672],
    [1504, 688],
    [1456, 720],
    [1392, 752],
    [1328, 800],
    [1248, 832],
    [1184, 880],
    [1104, 944],
    [1024, 1024],
    [944, 1104],
    [880, 1184],
    [832, 1248],
    [800, 1328],
    [752, 1392],
    [720, 1456],
    [688, 1504],
    [672, 1568],
];

/// The text encoders of Flux.
pub struct FluxText {
    clip: Clip,
    t5: T5,
}

impl FluxText {
    /// Reads both.
    ///
    /// # Errors
    /// Names the file and the key, or the widths if they are not those that the network reads.
    pub fn open(folder: &mut Folder<'_>, config: &FluxConfig) -> Result<Self> {
        let read = Self {
            clip: folder.clip("text_encoder", "tokenizer")?,
            t5: folder.t5("text_encoder_2", "tokenizer_2")?,
        };
        let found = [read.t5.width(), read.clip.encoder.pooled_width()];
        let expected = [config.text, config.pooled];
        if found != expected {
            bail!(
                "{}: T5's tokens and CLIP's prompt are {found:?} wide, the transformer reads {expected:?} \
                 (joint_attention_dim, pooled_projection_dim)",
                folder.component("transformer")?.display()
            );
        }
        Ok(read)
    }

    /// T5's tokens of the second prompts, CLIP's vector of the first.
    ///
    /// # Errors
    /// If a prompt cannot be tokenized.
    pub fn read(&self, ask: &Request<'_>, first: &[String], second: &[String]) -> Result<Text> {
        let length = ask.length;
        let text = self.t5.read(second, length, false)?;
        Ok(ask.cast(Text { pooled: clip(&self.clip, first, ClipLayer::last())?.pooled, ..text }))
    }

    /// As [`read`](Self::read), of what is asked for and, where guidance is on, what is not.
    ///
    /// # Errors
    /// As there.
    pub fn both(&self, ask: &Request<'_>) -> Result<[Option<Text>; 2]> {
        let first = ask.prompts();
        let positive = self.read(ask, &first, &ask.spread(&ask.args.prompt_2, &first))?;
        let negative = match ask.guidance {
            None => None,
            Some(_) => {
                let first = ask.negatives();
                Some(self.read(ask, &first, &ask.spread(&ask.args.negative_prompt_2, &first))?)
            }
        };
        Ok([Some(positive), negative])
    }
}

impl Encoders for FluxText {
    fn numbers(&self, batch: usize, length: usize) -> f64 {
        self.t5.numbers(batch, length)
    }
}

/// Flux.1 dev, schnell or Kontext with its encoders.
pub struct FluxPipeline {
    parts: Parts<Flux, Option<FluxText>>,
    config: FluxConfig,
    redux: Option<ReduxReader>,
    kontext: bool,
}

impl Pipeline for FluxPipeline {
    type Network = Flux;
    type Text = Option<FluxText>;
    const TAKES: &'static [&'static str] = &[
        "--guidance",
        "--prompt-2",
        "--negative-prompt",
        "--negative-prompt-2",
        "--max-sequence-length",
        "--true-cfg",
        "--image",
        "--strength",
        "--redux",
    ];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let kontext = folder.class() == "FluxKontextPipeline";
        if folder.args.strength.is_some() && (kontext || folder.args.redux.is_some()) {
            bail!("--strength: here the picture is looked at, not started from");
        }
        if kontext && folder.args.redux.is_some() {
            bail!("--redux does nothing with {}: leave it out", folder.class());
        }
        let path = folder.component("transformer")?;
        let config = FluxConfig::from_diffusers_file(&path.join("config.json"))?;
        // Redux alone is a prompt, too.
        let text = match folder.args.prompt.is_empty() {
            true => None,
            false => Some(FluxText::open(folder, &config)?),
        };
        let redux = folder.args.redux.clone();
        let redux = redux.map(|path| ReduxReader::open(folder, &path)).transpose()?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let vae = folder.vae()?;
        let looked_at = kontext && folder.args.start().is_some();
        let beside = if looked_at { KONTEXT / (config.patch * vae.factor).pow(2) } else { 0 };
        let shape = Shape { channels: config.channels, patch: config.patch, width: config.width(), beside };
        Ok(Self { parts: Parts { network, text, vae, shape }, config, redux, kontext })
    }

    fn parts(&self) -> &Parts<Flux, Option<FluxText>> {
        &self.parts
    }

    fn defaults(&self, args: &Args) -> Defaults {
        let from_picture = !self.kontext && self.redux.is_none();
        let told = if from_picture && args.start().is_some() { 7.0 } else { 3.5 };
        let told = self.config.guidance.then_some(told);
        Defaults {
            size: [SIDE * self.parts.vae.factor; 2],
            multiple: self.parts.token_pixels(),
            steps: 28,
            guidance: Guidance::True { told, scale: 1.0 },
            length: Some(Length::up_to(LONGEST, LONGEST)),
            strength: from_picture.then_some(0.6),
            sizes: if self.kontext { Sizes::Area(KONTEXT) } else { Sizes::Any },
        }
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(self.parts.tokens(ask)))
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Prompt>> {
        let [positive, negative] = match &self.parts.text {
            Some(text) => text.both(ask)?,
            None => [None, None],
        };
        let positive = match (&self.redux, positive) {
            (Some(redux), text) => redux.behind(ask, text, [self.config.text, self.config.pooled])?,
            (None, Some(text)) => text,
            (None, None) => bail!("--prompt TEXT is missing"),
        };
        let references = match ask.args.start().filter(|_| self.kontext) {
            Some(_) => vec![self.reference(ask)?],
            None => Vec::new(),
        };
        let told = |text: Text| prompt(text, ask, self.config.guidance, &references);
        Ok(Given { positive: told(positive), negative: negative.map(told) })
    }
}

impl FluxPipeline {
    /// Latents of the picture that Kontext looks at, in the preferred size of nearest proportions: their mean.
    fn reference(&self, ask: &Request<'_>) -> Result<Tensor<4>> {
        let Some(path) = ask.args.start() else { bail!("--image PNG is missing") };
        let file = picture::open(path)?;
        let multiple = self.parts.token_pixels();
        let own = picture::own_size(&file, multiple);
        if own.contains(&0) {
            bail!("{}: expected at least {multiple} pixels a side", path.display());
        }
        let aspect = |[height, width]: [usize; 2]| width as f64 / height as f64;
        let off = |size: &[usize; 2]| (aspect(own) - aspect(*size)).abs();
        let mut best = PREFERRED[0];
        for size in PREFERRED {
            if off(&size) < off(&best) {
                best = size;
            }
        }
        let size = best.map(|side| side / multiple * multiple);
        let image = picture::signed(&file, size, ask.device);
        let vae = &self.parts.vae;
        let latents = vae.scale.normalise(vae.network.encode(image).mode());
        Ok(latents.repeat_dim(0, ask.batch).cast(ask.dtype))
    }
}

/// What a network of this kind is told.
pub fn prompt(text: Text, ask: &Request<'_>, embeds_guidance: bool, references: &[Tensor<4>]) -> Prompt {
    let prompt = Prompt::from(text);
    let prompt = match ask.told.filter(|_| embeds_guidance) {
        Some(scale) => prompt.with_guidance(scale),
        None => prompt,
    };
    references.iter().fold(prompt, |prompt, latents| prompt.with_reference(latents.clone()))
}
