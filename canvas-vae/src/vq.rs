//! The autoencoder whose latents are vectors of a codebook.

use crate::halves::{Decoder, Encoder, Sizes};
use crate::shape::{check_channels, latent_size};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::prelude::*;
use canvas_core::nn::conv2d;
use canvas_core::{Autoencoder, ConfigError, Posterior, check};

/// Sizes of a [`VqModel`].
///
/// Levels are numbered from the image inwards; the decoder mirrors the encoder. Each level but the last halves
/// height and width.
///
/// # Example
/// ```
/// use canvas_vae::VqConfig;
/// let config = VqConfig::vq_f4();
/// assert_eq!((config.codes, config.width(), config.downsampling()), (8192, 3, 4));
/// ```
#[derive(Config, Debug)]
pub struct VqConfig {
    /// Channels of each level; `groups` must divide each.
    #[config(default = "vec![128, 256, 512]")]
    pub channels: Vec<usize>,
    /// Residual blocks of each level in the encoder, at least 1; the decoder has one more.
    #[config(default = 2)]
    pub layers: usize,
    /// Channels between the halves and the codebook's two 1x1 convolutions.
    #[config(default = 3)]
    pub latent: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub image_channels: usize,
    /// Groups of every group norm.
    #[config(default = 32)]
    pub groups: usize,
    /// Vectors of the codebook.
    #[config(default = 8192)]
    pub codes: usize,
    /// Numbers of a vector of the codebook; `latent` when not given.
    pub code_width: Option<usize>,
    /// Whether there is attention at the innermost level.
    #[config(default = true)]
    pub middle_attention: bool,
    /// Weight of the commitment term of [`Quantised::loss`].
    #[config(default = 0.25)]
    pub beta: f32,
    /// Whether `beta` stands, as in the published code, at the other term: see [`Quantised::loss`].
    #[config(default = true)]
    pub legacy: bool,
}

impl VqConfig {
    /// VQ-f4 of latent diffusion (the super-resolution model's): 4 times smaller, 8192 codes of 3 numbers,
    /// 55,322,782 parameters.
    ///
    /// # Reference
    /// Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), table 8,
    /// [arXiv:2112.10752](https://arxiv.org/abs/2112.10752).
    pub fn vq_f4() -> Self {
        Self::new()
    }

    /// Pixels of an image's side per latent of its side: `2^(levels - 1)`.
    pub fn downsampling(&self) -> usize {
        self.sizes().downsampling()
    }

    /// Numbers of a vector of the codebook, which are the channels of the latents.
    pub fn width(&self) -> usize {
        self.code_width.unwrap_or(self.latent)
    }

    /// # Errors
    /// Names the fields that do not fit together, with their values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.sizes().validate()?;
        check::positive(("latent", self.latent))?;
        check::positive(("codes", self.codes))?;
        check::positive(("code_width", self.width()))
    }

    /// The codebook starts uniform within `1 / codes` of zero, as in the published code.
    ///
    /// # Panics
    /// If [`VqConfig::validate`] finds an error, with its text.
    pub fn init(&self, device: &Device) -> VqModel {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let conv = |from, to| Conv2dConfig::new([from, to], [1, 1]).init(device);
        let bound = 1.0 / self.codes as f64;
        let codebook = EmbeddingConfig::new(self.codes, self.width())
            .with_initializer(Initializer::Uniform { min: -bound, max: bound });
        VqModel {
            encoder: Encoder::new(&self.sizes(), self.latent, device),
            quant: conv(self.latent, self.width()),
            codebook: codebook.init(device),
            post_quant: conv(self.width(), self.latent),
            decoder: Decoder::new(&self.sizes(), self.latent, device),
            image_channels: self.image_channels,
            downsampling: self.downsampling(),
            beta: self.beta,
            legacy: self.legacy,
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
}

/// Latents on the codebook: what [`VqModel::quantise`] answers.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// The nearest vectors `[B, D, h, w]`; their gradient is that of the latents they replace (straight through).
    pub latents: Tensor<4>,
    /// Which vectors of the codebook: `[B, h, w]`.
    pub codes: Tensor<3, Int>,
    /// What training adds to the reconstruction error, `[1]`: with `z` the latents, `e` their vectors and `sg` a
    /// stop of gradients, `mean((sg(z) - e)^2) + beta mean((z - sg(e))^2)`. With
    /// [`legacy`](VqConfig::legacy), `beta` stands at the first term in place of the second; the value is the
    /// same, the gradients are not.
    pub loss: Tensor<1>,
}

/// Autoencoder with a codebook: the halves of an [`AutoencoderKl`](crate::AutoencoderKl), and between them each
/// latent replaced by the nearest vector of a learned list.
///
/// As an [`Autoencoder`] it encodes to latents that are not yet replaced, without a spread, and
/// [`decode`](Autoencoder::decode) replaces them first; a denoiser works on the latents before. For training,
/// [`quantise`](Self::quantise) and [`decode_quantised`](Self::decode_quantised); for models of codes,
/// [`lookup`](Self::lookup).
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::Autoencoder;
/// use canvas_vae::VqConfig;
///
/// let config = VqConfig::new().with_channels(vec![4, 8]).with_groups(2).with_layers(1).with_codes(16);
/// let model = config.init(&Device::flex());
/// let images: Tensor<4> = Tensor::ones([2, 3, 8, 12], &Device::flex());
/// let quantised = model.quantise(model.encode(images).mode());
/// assert_eq!(quantised.codes.dims(), [2, 4, 6]);
/// let from_codes = model.decode_quantised(model.lookup(quantised.codes)); // [2, 3, 8, 12]
/// let decoded = model.decode_quantised(quantised.latents);
/// assert!((from_codes - decoded).abs().max().into_scalar::<f32>() < 1e-5);
/// ```
///
/// # Reference
/// van den Oord et al., "Neural Discrete Representation Learning" (2017), equation 3,
/// [arXiv:1711.00937](https://arxiv.org/abs/1711.00937); Esser et al., "Taming Transformers for High-Resolution
/// Image Synthesis" (2021), [arXiv:2012.09841](https://arxiv.org/abs/2012.09841).
#[derive(Module, Debug)]
pub struct VqModel {
    encoder: Encoder,
    quant: Conv2d,
    codebook: Embedding,
    post_quant: Conv2d,
    decoder: Decoder,
    image_channels: usize,
    downsampling: usize,
    beta: f32,
    legacy: bool,
}

impl VqModel {
    /// The nearest vector of the codebook to each latent, by Euclidean distance.
    ///
    /// # Shapes
    /// - `latents`: `[B, D, h, w]`
    /// - output: `[B, h, w]`, from 0
    ///
    /// # Panics
    /// If the latents have another number of channels than the codebook's vectors.
    pub fn codes(&self, latents: Tensor<4>) -> Tensor<3, Int> {
        let [batch, channels, height, width] = latents.dims();
        let book = self.codebook.weight.val().detach(); // [K, D]
        check_channels("latents", channels, "code_width", book.dims()[1]);
        let places = latents.detach().permute([0, 2, 3, 1]).reshape([batch * height * width, channels]);
        // |z - e|^2 less |z|^2, which is the same for all codes.
        let squares = book.clone().square().sum_dim(1).swap_dims(0, 1); // [1, K]
        let distances = squares - places.matmul(book.swap_dims(0, 1)) * 2.0; // [B h w, K]
        distances.argmin(1).reshape([batch, height, width]) // [B, h, w]
    }

    /// The codebook's vectors of these numbers.
    ///
    /// # Shapes
    /// - `codes`: `[B, h, w]`, below the number of codes
    /// - output: `[B, D, h, w]`
    pub fn lookup(&self, codes: Tensor<3, Int>) -> Tensor<4> {
        let [batch, height, width] = codes.dims();
        let found = self.codebook.forward(codes.reshape([batch, height * width])); // [B, h w, D]
        found.swap_dims(1, 2).reshape([batch, self.width(), height, width]) // [B, D, h, w]
    }

    /// Replaces every latent by the nearest vector of the codebook.
    ///
    /// # Shapes
    /// - `latents`: `[B, D, h, w]`
    ///
    /// # Panics
    /// As [`codes`](Self::codes).
    pub fn quantise(&self, latents: Tensor<4>) -> Quantised {
        let codes = self.codes(latents.clone()); // [B, h, w]
        let found = self.lookup(codes.clone()); // [B, D, h, w]
        let commitment = (latents.clone() - found.clone().detach()).square().mean();
        let codebook = (found.clone() - latents.clone().detach()).square().mean();
        let [heavy, light] = if self.legacy { [commitment, codebook] } else { [codebook, commitment] };
        let straight = latents.clone() + (found - latents).detach(); // [B, D, h, w]
        Quantised { latents: straight, codes, loss: heavy + light * self.beta }
    }

    /// Decodes latents as they are, without replacing them.
    ///
    /// # Shapes
    /// - `latents`: `[B, D, h, w]`
    /// - output: `[B, C, f h, f w]`, about `[-1, 1]`, with the downsampling `f`
    ///
    /// # Panics
    /// If the latents have another number of channels than the codebook's vectors.
    pub fn decode_quantised(&self, latents: Tensor<4>) -> Tensor<4> {
        check_channels("latents", latents.dims()[1], "code_width", self.width());
        self.decoder.forward(conv2d(&self.post_quant, latents)) // [B, C, H, W]
    }

    /// Numbers of a vector of the codebook.
    fn width(&self) -> usize {
        self.codebook.weight.shape()[1]
    }
}

impl Autoencoder for VqModel {
    /// The latents before they are replaced; the log variance is `None`.
    ///
    /// # Panics
    /// If the images have another number of channels, or sides that are no multiple of the downsampling.
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, channels, height, width] = images.dims();
        check_channels("images", channels, "image_channels", self.image_channels);
        latent_size(height, width, self.downsampling);
        Posterior { mean: conv2d(&self.quant, self.encoder.forward(images)), log_variance: None }
    }

    /// Replaces the latents by the nearest vectors of the codebook, then decodes those.
    ///
    /// # Panics
    /// If the latents have another number of channels than the codebook's vectors.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.decode_quantised(self.quantise(latents).latents)
    }

    /// # Panics
    /// If a side is no multiple of the downsampling.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        let [h, w] = latent_size(height, width, self.downsampling);
        [self.width(), h, w]
    }
}
