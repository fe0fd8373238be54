//! The components of a pipeline: what every one holds, and how a folder's are read.

use super::{Request, Shape};
use crate::generate::args::numbers;
use crate::generate::folder::Folder;
use crate::generate::memory;
use crate::generate::model::Vae;
use crate::generate::unet_folder::sample_size;
use anyhow::Result;
use burn::module::Module;
use canvas_core::params;
use canvas_core::weights::{Rules, Source};

/// What every pipeline holds.
pub struct Parts<N, T> {
    /// The network, in the numbers of the run.
    pub network: N,
    /// The text encoders; `()` where nothing is read.
    pub text: T,
    /// Between pictures and latents.
    pub vae: Vae,
    /// Sizes of the network.
    pub shape: Shape,
}

impl<N, T> Parts<N, T> {
    /// Pixels of a side per token.
    pub fn token_pixels(&self) -> usize {
        self.shape.patch * self.vae.factor
    }

    /// Tokens of what is drawn.
    pub fn tokens(&self, ask: &Request<'_>) -> usize {
        ask.size.iter().map(|side| side / self.vae.factor / self.shape.patch).product()
    }

    /// Shape `[C, h, w]` of the latents of one picture of `height` by `width` pixels.
    pub fn latent(&self, [height, width]: [usize; 2]) -> [usize; 3] {
        [self.vae.channels, height / self.vae.factor, width / self.vae.factor]
    }
}

/// The text encoders of a pipeline: none, one, or several.
pub trait Encoders {
    /// Numbers that reading so many prompts of so many tokens takes at the worst moment, about, beside the weights.
    fn numbers(&self, batch: usize, length: usize) -> f64;
}

/// Nothing is read.
impl Encoders for () {
    fn numbers(&self, _batch: usize, _length: usize) -> f64 {
        0.0
    }
}

/// There may be none.
impl<T: Encoders> Encoders for Option<T> {
    fn numbers(&self, batch: usize, length: usize) -> f64 {
        self.as_ref().map_or(0.0, |text| text.numbers(batch, length))
    }
}

impl Folder<'_> {
    /// The transformer's weights, in the numbers of the run.
    ///
    /// # Errors
    /// Names the file and lists every key that does not fit.
    pub fn network<M: Module>(&mut self, network: M, rules: &Rules) -> Result<M> {
        let network = self.weights("transformer", network, rules)?;
        Ok(self.cast(network))
    }

    /// A network in the numbers of the run.
    pub fn cast<M: Module>(&self, network: M) -> M {
        params::cast(network, numbers(&self.args.dtype))
    }

    /// A component's weights, if they fit into memory.
    ///
    /// # Errors
    /// Names the file and lists every key that does not fit.
    pub fn weights<M: Module>(&mut self, name: &str, network: M, rules: &Rules) -> Result<M> {
        memory::component(name, 4 * network.num_params() as u64, self.args)?;
        let source = Source::open(&self.component(name)?, self.args.variant.as_deref())?;
        self.loader().load(name, network, &source, rules)
    }

    /// Side of the latents that a network was trained with, height and width.
    ///
    /// # Errors
    /// If its configuration cannot be read.
    pub fn sample(&self, name: &str) -> Result<[usize; 2]> {
        Ok(sample_size(&self.config(name, "config.json")?))
    }

    /// The autoencoder, or the one of `--vae`.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn vae(&mut self) -> Result<Vae> {
        let folder = match &self.args.vae {
            Some(folder) => folder.clone(),
            None => self.component("vae")?,
        };
        self.loader().vae(&folder)
    }
}
