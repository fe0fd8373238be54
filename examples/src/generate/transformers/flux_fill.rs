//! `FluxFillPipeline`: paints within a mask, by a network that reads the mask and the picture around it.

use super::draw::encode;
use super::flux::{FluxText, LONGEST, prompt, tokens};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::model::Vae;
use crate::generate::picture;
use crate::generate::scheduler::Scheduler;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Channels, Concatenated, params};
use canvas_dit::{Flux, FluxConfig, Prompt, fill_channels};

/// Flux.1 Fill with its encoders.
pub struct FluxFill {
    network: Filled,
    config: FluxConfig,
    vae: Vae,
    text: FluxText,
}

/// The network, with the channels that it reads as a condition.
struct Filled(Flux);

impl Backbone<4> for Filled {
    type Cond = (Prompt, Channels<4>);
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Self::Cond) -> Tensor<4> {
        Concatenated { backbone: &self.0 }.forward(x, time, cond)
    }
}

impl Pipeline for FluxFill {
    type Cond = (Prompt, Channels<4>);
    const TAKES: &'static [&'static str] =
        &["--guidance", "--prompt-2", "--max-sequence-length", "--image", "--mask", "--strength"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        if folder.args.image.is_empty() || folder.args.mask.is_none() {
            bail!("{} paints within a mask: it needs --image and --mask", folder.args.model.display());
        }
        let path = folder.component("transformer")?;
        let config = FluxConfig::from_diffusers_file(&path.join("config.json"))?;
        let text = FluxText::open(folder, &config)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let vae = folder.vae()?;
        let expected = vae.channels + vae.factor * vae.factor;
        if config.extra != expected {
            bail!(
                "{}: expected {expected} channels beside the latents, for a masked picture and a mask, found {}",
                path.display(),
                config.extra
            );
        }
        Ok(Self { network: Filled(network), config, vae, text })
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [128 * self.vae.factor; 2],
            multiple: self.config.patch * self.vae.factor,
            steps: 50,
            guidance: Guidance::Told(30.0),
            length: Some(Length::up_to(LONGEST, LONGEST)),
            strength: Some(1.0),
            sizes: Sizes::Any,
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
        self.text.numbers(ask)
    }

    fn network(&self) -> &impl Backbone<4, Cond = Self::Cond> {
        &self.network
    }

    fn cast(self, dtype: FloatDType) -> Self {
        Self { network: Filled(params::cast(self.network.0, dtype)), ..self }
    }

    fn vae(&self) -> Option<&Vae> {
        Some(&self.vae)
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(tokens(ask, &self.vae, self.config.patch)))
    }

    fn conditions(&self, ask: &Request<'_>, draws: &mut Draws) -> Result<Given<Self::Cond>> {
        let [Some(text), _] = self.text.both(ask)? else { bail!("--prompt TEXT is missing") };
        let (Some(image), Some(mask)) = (ask.args.start(), &ask.args.mask) else {
            bail!("--image and --mask are missing");
        };
        let opened = picture::open(mask)?;
        let mask =
            picture::mask(&opened, ask.size, ask.device).with_context(|| mask.display().to_string())?;
        let image = picture::signed(&picture::open(image)?, ask.size, ask.device);
        let masked = image * (mask.clone() * -1.0 + 1.0);
        let [height, width] = ask.size.map(|side| side / self.vae.factor);
        let dims = [ask.batch, self.vae.channels, height, width];
        let masked = encode(&self.vae, masked, "posterior_masked", dims, draws)?;
        let Channels { values } = fill_channels(masked, mask.repeat_dim(0, ask.batch));
        let channels = Channels { values: values.cast(ask.dtype) };
        let prompt = prompt(text, ask, self.config.guidance, &[]);
        Ok(Given { positive: (prompt, channels), negative: None })
    }
}
