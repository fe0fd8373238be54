//! The autoencoder of latent diffusion: residual convolutions with group norms, and a spread.

use crate::halves::{Decoder, Encoder, Sizes, apply};
use crate::shape::{check_channels, latent_size};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use canvas_core::{Autoencoder, ConfigError, LatentScale, Posterior, check};

/// Bounds of the log variance, in nats, so that its exponential stays finite.
const LOG_VARIANCE: (f32, f32) = (-30.0, 20.0);

/// Sizes of an [`AutoencoderKl`].
///
/// Levels are numbered from the image inwards; the decoder mirrors the encoder. Each level but the last halves
/// height and width. The presets differ in `latent`, in `quant_convs` and in the [`LatentScale`] between the
/// encoder's units and the denoiser's, which is not part of the network and so has functions of its own.
///
/// # Example
/// ```
/// use canvas_vae::AutoencoderKlConfig;
/// let config = AutoencoderKlConfig::flux();
/// assert_eq!((config.latent, config.downsampling()), (16, 8));
/// assert_eq!(AutoencoderKlConfig::flux_scale().shift[0], 0.1159);
/// ```
#[derive(Config, Debug)]
pub struct AutoencoderKlConfig {
    /// Channels of each level; `groups` must divide each.
    #[config(default = "vec![128, 256, 512, 512]")]
    pub channels: Vec<usize>,
    /// Channels of each level in the decoder, from the image inwards as well; as `channels` when not given.
    pub decoder_channels: Option<Vec<usize>>,
    /// Residual blocks of each level in the encoder, at least 1; the decoder has one more.
    #[config(default = 2)]
    pub layers: usize,
    /// Channels of the latents.
    #[config(default = 4)]
    pub latent: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub image_channels: usize,
    /// Groups of every group norm.
    #[config(default = 32)]
    pub groups: usize,
    /// Whether a 1x1 convolution follows the encoder and another precedes the decoder. They are left from the
    /// vector-quantised form; models with 16 channels dropped them.
    #[config(default = true)]
    pub quant_convs: bool,
    /// Whether there is attention at the innermost level.
    #[config(default = true)]
    pub middle_attention: bool,
}

impl AutoencoderKlConfig {
    /// Stable Diffusion 1 and 2: 8 times smaller, 4 channels, 83,653,863 parameters.
    ///
    /// # Reference
    /// Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), appendix G,
    /// [arXiv:2112.10752](https://arxiv.org/abs/2112.10752).
    pub fn sd() -> Self {
        Self::new()
    }

    /// Stable Diffusion XL: the same network trained anew. Its published weights overflow 16-bit floats.
    ///
    /// # Reference
    /// Podell et al., "SDXL" (2023), section 2.4, [arXiv:2307.01952](https://arxiv.org/abs/2307.01952).
    pub fn sdxl() -> Self {
        Self::new()
    }

    /// Stable Diffusion 3 and 3.5: 16 channels, 83,819,683 parameters.
    ///
    /// # Reference
    /// Esser et al., "Scaling Rectified Flow Transformers" (2024), section 5.2.1,
    /// [arXiv:2403.03206](https://arxiv.org/abs/2403.03206).
    pub fn sd3() -> Self {
        Self::new().with_latent(16).with_quant_convs(false)
    }

    /// Flux.1: the network of [`AutoencoderKlConfig::sd3`] with other weights and another scale.
    pub fn flux() -> Self {
        Self::sd3()
    }

    /// Scale of [`AutoencoderKlConfig::sd`]: 0.18215, no shift.
    pub fn sd_scale() -> LatentScale {
        LatentScale::uniform(4, 0.0, 0.18215)
    }

    /// Scale of [`AutoencoderKlConfig::sdxl`]: 0.13025, no shift.
    pub fn sdxl_scale() -> LatentScale {
        LatentScale::uniform(4, 0.0, 0.13025)
    }

    /// Scale of [`AutoencoderKlConfig::sd3`]: 1.5305 after a shift of 0.0609.
    pub fn sd3_scale() -> LatentScale {
        LatentScale::uniform(16, 0.0609, 1.5305)
    }

    /// Scale of [`AutoencoderKlConfig::flux`]: 0.3611 after a shift of 0.1159.
    pub fn flux_scale() -> LatentScale {
        LatentScale::uniform(16, 0.1159, 0.3611)
    }

    /// Pixels of an image's side per latent of its side: `2^(levels - 1)`.
    pub fn downsampling(&self) -> usize {
        self.sizes().downsampling()
    }

    /// # Errors
    /// Names the fields that do not fit together, with their values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.sizes().validate()?;
        self.decoder_sizes().validate()?;
        let (inwards, outwards) = (self.channels.len(), self.decoder_levels().len());
        if inwards != outwards {
            let both = format!("decoder_channels ({outwards} levels) and channels ({inwards} levels)");
            return Err(ConfigError::new(format!("{both} must have the same length")));
        }
        check::positive(("latent", self.latent))
    }

    /// # Panics
    /// If [`AutoencoderKlConfig::validate`] finds an error, with its text.
    pub fn init(&self, device: &Device) -> AutoencoderKl {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let quant = |width| self.quant_convs.then(|| Conv2dConfig::new([width, width], [1, 1]).init(device));
        AutoencoderKl {
            encoder: Encoder::new(&self.sizes(), 2 * self.latent, device),
            quant: quant(2 * self.latent),
            post_quant: quant(self.latent),
            decoder: Decoder::new(&self.decoder_sizes(), self.latent, device),
            latent: self.latent,
            image_channels: self.image_channels,
            downsampling: self.downsampling(),
        }
    }

    fn sizes(&self) -> Sizes<'_> {
        Sizes {
            channels: &self.channels,
            layers: self.layers,
            image_channels: self.image_channels,
            groups: self.groups,
            attends: self.middle_attention,
        }
    }

    /// Channels of the decoder's levels, from the image inwards.
    pub(crate) fn decoder_levels(&self) -> &[usize] {
        self.decoder_channels.as_ref().unwrap_or(&self.channels)
    }

    fn decoder_sizes(&self) -> Sizes<'_> {
        Sizes { channels: self.decoder_levels(), ..self.sizes() }
    }
}

/// Autoencoder of latent diffusion: residual blocks with group norms and SiLU, one attention over all places at
/// the innermost level, a diagonal Gaussian over latents.
///
/// Group norms and the attention see the whole image: latents depend on the image's size, and decoding by tiles
/// shows seams (measured at [`Tiled`](crate::Tiled)).
///
/// # Reference
/// Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), appendix G,
/// [arXiv:2112.10752](https://arxiv.org/abs/2112.10752), with the network of Esser et al., "Taming Transformers
/// for High-Resolution Image Synthesis" (2021), table 7, [arXiv:2012.09841](https://arxiv.org/abs/2012.09841).
///
/// # Differs from the paper
/// As in the published code: no attention outside the innermost level, and the encoder's halving convolutions
/// see one more row below and one more column to the right, instead of one on every side.
#[derive(Module, Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    quant: Option<Conv2d>,
    post_quant: Option<Conv2d>,
    decoder: Decoder,
    latent: usize,
    image_channels: usize,
    downsampling: usize,
}

impl AutoencoderKl {
    /// Pixels of an image's side per latent of its side.
    pub(crate) fn downsampling(&self) -> usize {
        self.downsampling
    }
}

impl Autoencoder for AutoencoderKl {
    /// The log variance is clamped to `[-30, 20]`.
    ///
    /// # Panics
    /// If the images have another number of channels, or sides that are no multiple of the downsampling.
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, channels, height, width] = images.dims();
        check_channels("images", channels, "image_channels", self.image_channels);
        latent_size(height, width, self.downsampling);
        let moments = self.encoder.forward(images); // [B, 2 latent, h, w]
        let moments = apply(&self.quant, moments);
        let mean = moments.clone().narrow(1, 0, self.latent); // [B, latent, h, w]
        let log_variance = moments.narrow(1, self.latent, self.latent); // [B, latent, h, w]
        Posterior { mean, log_variance: Some(log_variance.clamp(LOG_VARIANCE.0, LOG_VARIANCE.1)) }
    }

    /// # Panics
    /// If the latents have another number of channels.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        check_channels("latents", latents.dims()[1], "latent", self.latent);
        self.decoder.forward(apply(&self.post_quant, latents))
    }

    /// # Panics
    /// If a side is no multiple of the downsampling.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        let [h, w] = latent_size(height, width, self.downsampling);
        [self.latent, h, w]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;

    fn count(config: &AutoencoderKlConfig) -> usize {
        config.init(&Device::flex()).num_params() // reads shapes only: nothing is drawn
    }

    #[test]
    fn presets_have_the_published_sizes() {
        // As counted from diffusers 0.42.1's AutoencoderKL.
        assert_eq!(count(&AutoencoderKlConfig::sd()), 83_653_863);
        assert_eq!(count(&AutoencoderKlConfig::sdxl()), 83_653_863);
        assert_eq!(count(&AutoencoderKlConfig::sd3()), 83_819_683);
        assert_eq!(count(&AutoencoderKlConfig::flux()), 83_819_683);
    }

    #[test]
    fn scales_have_a_value_for_every_channel() {
        for (config, scale) in [
            (AutoencoderKlConfig::sd(), AutoencoderKlConfig::sd_scale()),
            (AutoencoderKlConfig::sdxl(), AutoencoderKlConfig::sdxl_scale()),
            (AutoencoderKlConfig::sd3(), AutoencoderKlConfig::sd3_scale()),
            (AutoencoderKlConfig::flux(), AutoencoderKlConfig::flux_scale()),
        ] {
            assert_eq!((scale.shift.len(), scale.scale.len()), (config.latent, config.latent));
        }
    }

    #[test]
    fn the_log_variance_is_clamped_at_both_ends() {
        let device = Device::flex();
        let config = AutoencoderKlConfig::new().with_channels(vec![2]).with_layers(1).with_latent(1);
        let mut model = config.with_groups(1).init(&device);
        for (bias, expected) in [(1e3, 20.0), (-1e3, -30.0)] {
            let values = Tensor::from_data([bias, bias], &device);
            model.quant.as_mut().unwrap().bias = Some(Param::from_tensor(values));
            let posterior = model.encode(Tensor::zeros([1, 3, 2, 2], &device));
            assert_eq!(posterior.log_variance.unwrap().mean().into_scalar::<f32>(), expected);
            assert!((posterior.mean.mean().into_scalar::<f32>() - bias).abs() < 10.0); // the mean is not
        }
    }
}
