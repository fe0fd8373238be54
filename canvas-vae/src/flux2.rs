//! The autoencoder of Flux.2: that of latent diffusion, its latents in patches with measured statistics.

use crate::norms::frozen;
use crate::shape::{check_channels, latent_size};
use crate::{AutoencoderKl, AutoencoderKlConfig};
use burn::module::Param;
use burn::nn::{PixelShuffle, PixelShuffleConfig, PixelUnshuffle, PixelUnshuffleConfig};
use burn::prelude::*;
use canvas_core::{Autoencoder, ConfigError, LatentScale, Posterior, check};

/// Sizes of an [`AutoencoderKlFlux2`].
///
/// # Example
/// ```
/// use canvas_vae::AutoencoderKlFlux2Config;
/// let config = AutoencoderKlFlux2Config::new();
/// assert_eq!((config.channels(), config.downsampling()), (128, 16));
/// ```
#[derive(Config, Debug)]
pub struct AutoencoderKlFlux2Config {
    /// The network, whose latents are 32 channels.
    #[config(default = "AutoencoderKlConfig::new().with_latent(32)")]
    pub network: AutoencoderKlConfig,
    /// Side of the squares of latents that become one place.
    #[config(default = 2)]
    pub patch: usize,
    /// Added to the measured variances.
    #[config(default = 1e-4)]
    pub epsilon: f64,
}

impl AutoencoderKlFlux2Config {
    /// Channels of the latents: those of the network, `patch^2` times.
    pub fn channels(&self) -> usize {
        self.network.latent * self.patch * self.patch
    }

    /// Pixels of an image's side per latent of its side.
    pub fn downsampling(&self) -> usize {
        self.network.downsampling() * self.patch
    }

    /// # Errors
    /// Names the fields that do not fit together, with their values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.network.validate()?;
        check::positive(("patch", self.patch))
    }

    /// # Panics
    /// If [`AutoencoderKlFlux2Config::validate`] finds an error, with its text.
    pub fn init(&self, device: &Device) -> AutoencoderKlFlux2 {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        AutoencoderKlFlux2 {
            network: self.network.init(device),
            mean: frozen(0.0, self.channels(), device),
            variance: frozen(1.0, self.channels(), device),
            fold: PixelUnshuffleConfig::new(self.patch).init(),
            unfold: PixelShuffleConfig::new(self.patch).init(),
            epsilon: self.epsilon,
        }
    }
}

/// Autoencoder of Flux.2: an [`AutoencoderKl`] whose latents are folded, two by two places into channels, and
/// brought to unit variance by statistics of a batch norm, which lie in the weights.
///
/// As an [`Autoencoder`] it speaks of folded latents, `[B, 128, H / 16, W / 16]` in the published model, not
/// normalised: [`scale`](Self::scale) brings them to what the transformer sees. Inside a channel's group the order is
/// (channel, row, column).
///
/// # Reference
/// Black Forest Labs, "FLUX.2: Analyzing and Enhancing the Latent Space of FLUX" (2025).
#[derive(Module, Debug)]
pub struct AutoencoderKlFlux2 {
    network: AutoencoderKl,
    mean: Param<Tensor<1>>,
    variance: Param<Tensor<1>>,
    fold: PixelUnshuffle,
    unfold: PixelShuffle,
    epsilon: f64,
}

impl AutoencoderKlFlux2 {
    /// Between the folded latents and those of unit variance: `(latent - mean) / sqrt(variance + epsilon)`.
    pub fn scale(&self) -> LatentScale {
        let list = |param: &Param<Tensor<1>>| param.val().into_data().iter::<f64>().collect::<Vec<_>>();
        let std: Vec<f64> = list(&self.variance).iter().map(|var| (var + self.epsilon).sqrt()).collect();
        LatentScale::per_channel(&list(&self.mean), &std)
    }
}

impl Autoencoder for AutoencoderKlFlux2 {
    /// # Panics
    /// If the images have another number of channels, or sides that are no multiple of the downsampling.
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, _, height, width] = images.dims();
        self.latent_shape(height, width);
        let Posterior { mean, log_variance } = self.network.encode(images);
        Posterior {
            mean: self.fold.forward(mean),                                // [B, C p^2, h, w]
            log_variance: log_variance.map(|log| self.fold.forward(log)), // [B, C p^2, h, w]
        }
    }

    /// # Panics
    /// If the latents have another number of channels.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        check_channels("latents", latents.dims()[1], "channels", self.mean.dims()[0]);
        self.network.decode(self.unfold.forward(latents)) // [B, 3, H, W]
    }

    /// # Panics
    /// If a side is no multiple of the downsampling.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        let patch = self.fold.downscale_factor;
        let [h, w] = latent_size(height, width, self.network.downsampling() * patch);
        [self.mean.dims()[0], h, w]
    }
}
