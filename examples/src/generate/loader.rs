//! Components of a model, from their files.

use super::args::Args;
use super::model::{Vae, json};
use super::show::Loading;
use super::text::Reader;
use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{Report, Rules, Source, load_published_with};
use canvas_core::{Autoencoder, LatentScale};
use canvas_text::{ClipTextConfig, ClipTokenizer};
use canvas_vae::{
    AutoencoderDcConfig, AutoencoderKlConfig, AutoencoderKlFlux2Config, AutoencoderKlQwenImageConfig,
    AutoencoderTinyConfig,
};
use std::path::Path;

/// Loads components, with a bar for each.
pub struct Loader<'a> {
    /// Of the program.
    pub args: &'a Args,
    /// Where the networks go.
    pub device: &'a Device,
    /// What became of every key, by component.
    pub reports: &'a mut Vec<(String, Report)>,
}

impl Loader<'_> {
    /// The variant of the weights.
    pub fn variant(&self) -> Option<&str> {
        self.args.variant.as_deref()
    }

    /// Weights into a network.
    ///
    /// # Errors
    /// Lists every key that does not fit.
    pub fn load<M: Module>(&mut self, name: &str, module: M, source: &Source, rules: &Rules) -> Result<M> {
        let mut bar = Loading::new(name);
        let loaded = load_published_with(module, source, rules, &mut |progress| bar.at(progress));
        let (module, report) = loaded.with_context(|| format!("loading {name}"))?;
        bar.finish();
        self.reports.push((name.to_owned(), report));
        Ok(module)
    }

    /// A text encoder's folder with its tokenizer's.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn reader(&mut self, root: &Path, encoder: &str, tokenizer: &str) -> Result<Reader> {
        let tokenizer = ClipTokenizer::from_folder(&root.join(tokenizer))?;
        let folder = root.join(encoder);
        let config = ClipTextConfig::from_file(&folder.join("config.json"))?;
        let (found, expected) = (tokenizer.vocabulary(), config.vocabulary);
        if found > expected {
            bail!(
                "{}: {found} tokens for an encoder that knows {expected}",
                root.join("tokenizer").display()
            );
        }
        let source = Source::open(&folder, self.variant())?;
        let encoder = self.load(encoder, config.init(self.device), &source, &config.published())?;
        Ok(Reader { tokenizer, encoder })
    }

    /// An autoencoder's folder.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn vae(&mut self, folder: &Path) -> Result<Vae> {
        let path = folder.join("config.json");
        let source = Source::open(folder, self.variant())?;
        let class = json(&path)?["_class_name"].as_str().unwrap_or("AutoencoderKL").to_owned();
        let plain = |network: Box<dyn Autoencoder>, scale: LatentScale, factor: usize, spread: bool| {
            let channels = network.latent_shape(factor, factor)[0];
            Vae { network, scale, factor, channels, spread, config: None }
        };
        match class.as_str() {
            "AutoencoderTiny" => {
                let (config, scale) = AutoencoderTinyConfig::from_diffusers_file(&path)?;
                let network = self.load("vae", config.init(self.device), &source, &config.published())?;
                Ok(plain(Box::new(network), scale, config.downsampling(), false))
            }
            "AutoencoderDC" => {
                let (config, scale) = AutoencoderDcConfig::from_diffusers_file(&path)?;
                let network = self.load("vae", config.init(self.device), &source, &config.published())?;
                Ok(plain(Box::new(network), scale, config.downsampling(), false))
            }
            "AutoencoderKLFlux2" => {
                let config = AutoencoderKlFlux2Config::from_diffusers_file(&path)?;
                let network = self.load("vae", config.init(self.device), &source, &config.published())?;
                let (scale, factor) = (network.scale(), config.downsampling());
                let vae = plain(Box::new(network), scale, factor, true);
                Ok(Vae { config: Some(config.network), ..vae })
            }
            "AutoencoderKLQwenImage" => {
                let (config, scale) = AutoencoderKlQwenImageConfig::from_diffusers_file(&path)?;
                let network = self.load("vae", config.init(self.device), &source, &config.published())?;
                Ok(plain(Box::new(network), scale, config.downsampling(), true))
            }
            _ => {
                let (config, scale) = AutoencoderKlConfig::from_diffusers_file(&path)?;
                let network = self.load("vae", config.init(self.device), &source, &config.published())?;
                let (factor, channels) = (config.downsampling(), config.latent);
                Ok(Vae {
                    network: Box::new(network),
                    scale,
                    factor,
                    channels,
                    spread: true,
                    config: Some(config),
                })
            }
        }
    }
}
