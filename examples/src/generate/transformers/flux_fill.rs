//! `FluxFillPipeline`: paints within a mask, by a network that reads the mask and the picture around it.

use super::draw::encode;
use super::flux::{FluxText, LONGEST, prompt};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::picture;
use crate::generate::scheduler::Scheduler;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::{Backbone, Channels, Concatenated};
use canvas_dit::{Flux, FluxConfig, Prompt, fill_channels};

/// Flux.1 Fill with its encoders.
pub struct FluxFill {
    parts: Parts<Filled, FluxText>,
    config: FluxConfig,
}

/// The network, with the channels that it reads as a condition.
pub struct Filled(Flux);

impl Backbone<4> for Filled {
    type Cond = (Prompt, Channels<4>);
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Self::Cond) -> Tensor<4> {
        Concatenated { backbone: &self.0 }.forward(x, time, cond)
    }
}

impl Pipeline for FluxFill {
    type Network = Filled;
    type Text = FluxText;
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
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network: Filled(network), text, vae, shape }, config })
    }

    fn parts(&self) -> &Parts<Filled, FluxText> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [128 * self.parts.vae.factor; 2],
            multiple: self.parts.token_pixels(),
            steps: 50,
            guidance: Guidance::Told(30.0),
            length: Some(Length::up_to(LONGEST, LONGEST)),
            strength: Some(1.0),
            sizes: Sizes::Any,
        }
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(self.parts.tokens(ask)))
    }

    fn conditions(&self, ask: &Request<'_>, draws: &mut Draws) -> Result<Given<(Prompt, Channels<4>)>> {
        let [Some(text), _] = self.parts.text.both(ask)? else { bail!("--prompt TEXT is missing") };
        let (Some(image), Some(mask)) = (ask.args.start(), &ask.args.mask) else {
            bail!("--image and --mask are missing");
        };
        let opened = picture::open(mask)?;
        let mask =
            picture::mask(&opened, ask.size, ask.device).with_context(|| mask.display().to_string())?;
        let image = picture::signed(&picture::open(image)?, ask.size, ask.device);
        let masked = image * (mask.clone() * -1.0 + 1.0);
        let [height, width] = ask.size.map(|side| side / self.parts.vae.factor);
        let dims = [ask.batch, self.parts.vae.channels, height, width];
        let masked = encode(&self.parts.vae, masked, "posterior_masked", dims, draws)?;
        let Channels { values } = fill_channels(masked, mask.repeat_dim(0, ask.batch));
        let channels = Channels { values: values.cast(ask.dtype) };
        let prompt = prompt(text, ask, self.config.guidance, &[]);
        Ok(Given { positive: (prompt, channels), negative: None })
    }
}
