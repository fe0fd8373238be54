//! The autoencoder of Qwen-Image, which is one of videos, for their first frame.

use crate::halves::{apply, conv3, doubled, halve};
use crate::norms::wide;
use crate::shape::{check_channels, latent_size};
use burn::module::Param;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use canvas_core::nn::{Attention, AttentionConfig, conv2d};
use canvas_core::ops::silu;
use canvas_core::{Autoencoder, ConfigError, LatentScale, Posterior, check, trace};

/// Bounds of the log variance, in nats, so that its exponential stays finite.
const LOG_VARIANCE: (f32, f32) = (-30.0, 20.0);

/// Sizes of an [`AutoencoderKlQwenImage`]; the defaults are the published ones, without time.
///
/// # Example
/// ```
/// use canvas_vae::AutoencoderKlQwenImageConfig;
/// let config = AutoencoderKlQwenImageConfig::new();
/// assert_eq!((config.latent, config.downsampling()), (16, 8));
/// ```
#[derive(Config, Debug)]
pub struct AutoencoderKlQwenImageConfig {
    /// Channels of the first level.
    #[config(default = 96)]
    pub width: usize,
    /// Channels of each level, in widths, from the image inwards; each but the last halves height and width.
    #[config(default = "vec![1, 2, 4, 4]")]
    pub multiples: Vec<usize>,
    /// Residual blocks of each level in the encoder; the decoder has one more.
    #[config(default = 2)]
    pub layers: usize,
    /// Channels of the latents.
    #[config(default = 16)]
    pub latent: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub image_channels: usize,
}

impl AutoencoderKlQwenImageConfig {
    /// The scale of Qwen-Image's latents (which are Wan 2.1's): a mean and a spread for each channel.
    pub fn qwen_scale() -> LatentScale {
        LatentScale::per_channel(&MEAN, &STD)
    }

    /// Pixels of an image's side per latent of its side: `2^(levels - 1)`.
    pub fn downsampling(&self) -> usize {
        1 << self.multiples.len().saturating_sub(1)
    }

    /// # Errors
    /// Names the fields that do not fit together, with their values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("levels of multiples", self.multiples.len()))?;
        let sizes =
            [("layers", self.layers), ("latent", self.latent), ("image_channels", self.image_channels)];
        sizes.into_iter().try_for_each(check::positive)?;
        for width in self.widths() {
            check::positive(("width of a level", width))?;
        }
        match self.widths()[1..].iter().find(|width| !width.is_multiple_of(2)) {
            Some(odd) => Err(ConfigError::new(format!(
                "width of a level ({odd}) must be even: the decoder halves it as it doubles the size"
            ))),
            None => Ok(()),
        }
    }

    fn widths(&self) -> Vec<usize> {
        self.multiples.iter().map(|multiple| self.width * multiple).collect()
    }

    /// # Panics
    /// If [`AutoencoderKlQwenImageConfig::validate`] finds an error, with its text.
    pub fn init(&self, device: &Device) -> AutoencoderKlQwenImage {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let quant = |width| Conv2dConfig::new([width, width], [1, 1]).init(device);
        AutoencoderKlQwenImage {
            encoder: self.encoder(device),
            quant: quant(2 * self.latent),
            post_quant: quant(self.latent),
            decoder: self.decoder(device),
            latent: self.latent,
            image_channels: self.image_channels,
            downsampling: self.downsampling(),
        }
    }

    fn encoder(&self, device: &Device) -> Half {
        let widths = self.widths();
        let (mut from, mut levels) = (self.width, Vec::new());
        for (i, &width) in widths.iter().enumerate() {
            let resize = (i + 1 < widths.len()).then(|| halve(width, device));
            levels.push(Level::new([from, width], self.layers, resize, device));
            from = width;
        }
        Half {
            input: conv3(self.image_channels, self.width, device),
            levels,
            middle: Middle::new(from, device),
            norm: Norm::new(from, device),
            output: conv3(from, 2 * self.latent, device),
        }
    }

    fn decoder(&self, device: &Device) -> Half {
        let widths = self.widths();
        let innermost = widths[widths.len() - 1];
        let (mut from, mut levels) = (innermost, Vec::new());
        for (i, &width) in widths.iter().enumerate().rev() {
            let resize = (i > 0).then(|| conv3(width, width / 2, device));
            levels.push(Level::new([from, width], self.layers + 1, resize, device));
            from = width / 2;
        }
        Half {
            input: conv3(self.latent, innermost, device),
            levels,
            middle: Middle::new(innermost, device),
            norm: Norm::new(widths[0], device),
            output: conv3(widths[0], self.image_channels, device),
        }
    }
}

/// Means of the published model's channels.
pub(crate) const MEAN: [f64; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632,
    -0.1922, -0.9497, 0.2503, -0.2921,
];
/// Standard deviations of the published model's channels.
pub(crate) const STD: [f64; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382,
    1.1253, 2.8251, 1.9160,
];

/// Each place over its channels' length: `sqrt(C) x / max(|x|, 1e-12) gamma`.
#[derive(Module, Debug)]
struct Norm {
    /// `[C, 1, 1]`.
    gamma: Param<Tensor<3>>,
}

impl Norm {
    fn new(width: usize, device: &Device) -> Self {
        Self { gamma: Initializer::Ones.init([width, 1, 1], device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let scale = (x.dims()[1] as f64).sqrt();
        let length = wide(x.clone()).square().sum_dim(1).sqrt().clamp_min(1e-12); // [B, 1, H, W]
        let factor = (length.recip() * scale).cast(x.dtype());
        x * factor * self.gamma.val().unsqueeze()
    }
}

/// Two convolutions, each after a norm and SiLU, and the way around them.
#[derive(Module, Debug)]
struct ResBlock {
    norm1: Norm,
    conv1: Conv2d,
    norm2: Norm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResBlock {
    fn new(from: usize, to: usize, device: &Device) -> Self {
        Self {
            norm1: Norm::new(from, device),
            conv1: conv3(from, to, device),
            norm2: Norm::new(to, device),
            conv2: conv3(to, to, device),
            shortcut: (from != to).then(|| Conv2dConfig::new([from, to], [1, 1]).init(device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = conv2d(&self.conv1, silu(self.norm1.forward(x.clone()))); // [B, D, H, W]
        let hidden = conv2d(&self.conv2, silu(self.norm2.forward(hidden))); // [B, D, H, W]
        apply(&self.shortcut, x) + hidden // [B, D, H, W]
    }
}

/// The innermost level: attention over all places between two residual blocks.
#[derive(Module, Debug)]
struct Middle {
    first: ResBlock,
    norm: Norm,
    attention: Attention,
    second: ResBlock,
}

impl Middle {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            first: ResBlock::new(width, width, device),
            norm: Norm::new(width, device),
            attention: AttentionConfig::new(width, 1).init(device),
            second: ResBlock::new(width, width, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.first.forward(x); // [B, C, h, w]
        let tokens: Tensor<3> = self.norm.forward(x.clone()).flatten(2, 3).swap_dims(1, 2); // [B, h w, C]
        let mixed = self.attention.forward(tokens.clone(), tokens, None); // [B, h w, C]
        let mixed = mixed.swap_dims(1, 2).reshape(x.dims()); // [B, C, h, w]
        self.second.forward(x + mixed) // [B, C, h, w]
    }
}

/// One level: its blocks, and the convolution that changes the size, if any.
#[derive(Module, Debug)]
struct Level {
    blocks: Vec<ResBlock>,
    resize: Option<Conv2d>,
}

impl Level {
    fn new([from, to]: [usize; 2], count: usize, resize: Option<Conv2d>, device: &Device) -> Self {
        let block = |i| ResBlock::new(if i == 0 { from } else { to }, to, device);
        Self { blocks: (0..count).map(block).collect(), resize }
    }

    fn blocks(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// The encoder or the decoder, whose levels lie in the order of their evaluation.
#[derive(Module, Debug)]
struct Half {
    input: Conv2d,
    levels: Vec<Level>,
    middle: Middle,
    norm: Norm,
    output: Conv2d,
}

impl Half {
    fn inwards(&self, images: Tensor<4>) -> Tensor<4> {
        let x = conv2d(&self.input, images); // [B, C0, H, W]
        let x = self.levels.iter().enumerate().fold(x, |x, (i, level)| {
            trace::tap(|| format!("encoder.levels.{i}"), apply(&level.resize, level.blocks(x)))
        });
        self.finish(self.middle.forward(x)) // [B, 2 Z, h, w]
    }

    fn outwards(&self, latents: Tensor<4>) -> Tensor<4> {
        let x = self.middle.forward(conv2d(&self.input, latents)); // [B, C, h, w]
        let x = self.levels.iter().enumerate().fold(x, |x, (i, level)| {
            let x = trace::tap(|| format!("decoder.levels.{i}"), level.blocks(x));
            match &level.resize {
                Some(conv) => conv2d(conv, doubled(x)), // [B, C / 2, 2 h, 2 w]
                None => x,
            }
        });
        self.finish(x) // [B, 3, H, W]
    }

    fn finish(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(&self.output, silu(self.norm.forward(x)))
    }
}

/// Autoencoder of Qwen-Image, in two dimensions.
///
/// The published network is Wan's, for videos: its convolutions run over time as well, and see zeros before the first
/// frame. Of a single image only the last slice of each kernel sees anything, and the layers between frames are not
/// reached. So this network holds the last slices only; [`published`](AutoencoderKlQwenImageConfig::published) takes
/// them from the kernels over three axes.
///
/// # Reference
/// Wu et al., "Qwen-Image Technical Report" (2025), section 2.3, [arXiv:2508.02324](https://arxiv.org/abs/2508.02324);
/// Wan team, "Wan: Open and Advanced Large-Scale Video Generative Models" (2025), section 4.1,
/// [arXiv:2503.20314](https://arxiv.org/abs/2503.20314).
///
/// # Differs from the published code
/// Decoded images are not clamped to `[-1, 1]`, which would stop gradients.
#[derive(Module, Debug)]
pub struct AutoencoderKlQwenImage {
    encoder: Half,
    quant: Conv2d,
    post_quant: Conv2d,
    decoder: Half,
    latent: usize,
    image_channels: usize,
    downsampling: usize,
}

impl Autoencoder for AutoencoderKlQwenImage {
    /// The log variance is clamped to `[-30, 20]`.
    ///
    /// # Panics
    /// If the images have another number of channels, or sides that are no multiple of the downsampling.
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, channels, height, width] = images.dims();
        check_channels("images", channels, "image_channels", self.image_channels);
        latent_size(height, width, self.downsampling);
        let moments = conv2d(&self.quant, self.encoder.inwards(images)); // [B, 2 Z, h, w]
        let mean = moments.clone().narrow(1, 0, self.latent); // [B, Z, h, w]
        let log_variance = moments.narrow(1, self.latent, self.latent); // [B, Z, h, w]
        Posterior { mean, log_variance: Some(log_variance.clamp(LOG_VARIANCE.0, LOG_VARIANCE.1)) }
    }

    /// # Panics
    /// If the latents have another number of channels.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        check_channels("latents", latents.dims()[1], "latent", self.latent);
        self.decoder.outwards(conv2d(&self.post_quant, latents)) // [B, 3, H, W]
    }

    /// # Panics
    /// If a side is no multiple of the downsampling.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        let [h, w] = latent_size(height, width, self.downsampling);
        [self.latent, h, w]
    }
}
