//! `DiTPipeline`: pictures of classes.

use super::{Defaults, Folder, Given, Guidance, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::memory;
use anyhow::{Context, Result, bail};
use burn::module::Module;
use canvas_core::Class;
use canvas_core::weights::Source;
use canvas_dit::{Dit, DitConfig};

/// DiT with its autoencoder.
pub struct ClassCond {
    parts: Parts<Dit, ()>,
    config: DitConfig,
}

impl Pipeline for ClassCond {
    type Network = Dit;
    type Text = ();
    const CLASSES: bool = true;
    const TAKES: &'static [&'static str] = &["--guidance"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let path = folder.component("transformer")?;
        let config = DitConfig::from_diffusers_file(&path.join("config.json"))?;
        memory::component("transformer", 4 * config.init(folder.device).num_params() as u64, folder.args)?;
        // Its blocks' embedders have to be copies of one: the rules alone would not look.
        let source = Source::open(&path, folder.args.variant.as_deref())?;
        let (network, report) =
            config.load_diffusers(&source, folder.device).context("loading transformer")?;
        folder.reports.push(("transformer".to_owned(), report));
        let network = folder.cast(network);
        let shape = Shape { channels: config.channels, patch: config.patch, width: config.width, beside: 0 };
        Ok(Self { parts: Parts { network, text: (), vae: folder.vae()?, shape }, config })
    }

    fn parts(&self) -> &Parts<Dit, ()> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: self.config.size.map(|side| side * self.parts.vae.factor),
            multiple: self.parts.token_pixels(),
            steps: 50,
            guidance: Guidance::Free { scale: 4.0, off: 1.0 },
            length: None,
            strength: None,
            sizes: Sizes::One,
        }
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Class>> {
        let (classes, known) = (&ask.args.classes, self.config.classes);
        if let Some(wrong) = classes.iter().find(|&&class| class >= known) {
            bail!("--classes {wrong}: this model knows the classes 0 to {}", known - 1);
        }
        // The label behind the last class is "none".
        let none = || Class::new(&vec![known; classes.len()], ask.device);
        Ok(Given { positive: Class::new(classes, ask.device), negative: ask.guidance.map(|_| none()) })
    }
}
