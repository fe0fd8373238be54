//! The tiny autoencoder: plain 3x3 convolutions and ReLUs, nothing else.

use crate::shape::{check_channels, latent_size};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::interpolate::{Interpolate2d, Interpolate2dConfig, InterpolateMode};
use burn::nn::{
    Initializer, PaddingConfig2d, PixelShuffle, PixelShuffleConfig, PixelUnshuffle, PixelUnshuffleConfig,
};
use burn::prelude::*;
use burn::tensor::activation::relu;
use canvas_core::nn::conv2d;
use canvas_core::{Autoencoder, ConfigError, Posterior, check, trace};

/// Sizes of an [`AutoencoderTiny`].
///
/// Levels are numbered from the image inwards; the decoder mirrors the encoder. Each level after the first
/// halves height and width.
///
/// # Example
/// ```
/// use canvas_vae::AutoencoderTinyConfig;
/// // 64x64 images to 8x8 latents: a patch of 4 and one halving.
/// let config = AutoencoderTinyConfig::new().with_patch(4).with_channels(vec![64, 64]).with_blocks(vec![1, 2]);
/// assert_eq!(config.downsampling(), 8);
/// ```
#[derive(Config, Debug)]
pub struct AutoencoderTinyConfig {
    /// Channels of each level, at least 1 each.
    #[config(default = "vec![64, 64, 64, 64]")]
    pub channels: Vec<usize>,
    /// Residual blocks of each level, in the encoder and again in the decoder; 0 is allowed.
    #[config(default = "vec![1, 3, 3, 3]")]
    pub blocks: Vec<usize>,
    /// Channels of the latents.
    #[config(default = 4)]
    pub latent: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub image_channels: usize,
    /// Side in pixels of the squares that are folded into channels before the first convolution and unfolded
    /// after the last; 1 for none.
    #[config(default = 1)]
    pub patch: usize,
    /// Whether the decoder bounds its input softly to `(-3, 3)` by `3 tanh(z / 3)`.
    #[config(default = true)]
    pub clamp_latents: bool,
}

impl AutoencoderTinyConfig {
    /// TAESD: images to the latents of Stable Diffusion, 8 times smaller, 4 channels.
    ///
    /// Published weights already include the scale: `LatentScale` is the identity.
    ///
    /// # Reference
    /// Ollin Boer Bohan, "Tiny AutoEncoder for Stable Diffusion" (2023), <https://github.com/madebyollin/taesd>;
    /// no paper.
    pub fn taesd() -> Self {
        Self::new()
    }

    /// Pixels of an image's side per latent of its side: `patch * 2^(levels - 1)`.
    pub fn downsampling(&self) -> usize {
        self.patch << self.channels.len().saturating_sub(1)
    }

    /// # Errors
    /// Names the fields that do not fit together, with their values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (channels, blocks) = (self.channels.len(), self.blocks.len());
        check::positive(("levels of channels", channels))?;
        if channels != blocks {
            return Err(ConfigError::new(format!(
                "channels ({channels} levels) and blocks ({blocks} levels) must have the same length"
            )));
        }
        self.channels.iter().try_for_each(|&width| check::positive(("channels", width)))?;
        check::positive(("latent", self.latent))?;
        check::positive(("image_channels", self.image_channels))?;
        check::positive(("patch", self.patch))
    }

    /// # Panics
    /// If [`AutoencoderTinyConfig::validate`] finds an error, with its text.
    pub fn init(&self, device: &Device) -> AutoencoderTiny {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        AutoencoderTiny {
            encoder: TinyEncoder::new(self, device),
            decoder: TinyDecoder::new(self, device),
            latent: self.latent,
            image_channels: self.image_channels,
            downsampling: self.downsampling(),
        }
    }

    /// Channels of a folded image.
    fn folded(&self) -> usize {
        self.image_channels * self.patch * self.patch
    }
}

/// Autoencoder of 3x3 convolutions with ReLUs: no normalisation, no attention, no spread.
///
/// Everything is local: away from the borders a latent does not depend on the image's size, and further inside a
/// tile than the receptive field it decodes exactly as in the whole.
///
/// # Differs from the original
/// - Levels may have different numbers of channels: the convolution that changes the size changes them.
/// - `patch` folds squares of pixels into channels (space to depth) before the first convolution, and unfolds
///   after the last. Convolutions of few channels at full resolution are most of the original's time on a CPU;
///   a patch of 4 has a sixteenth of the places and keeps every number of the image.
/// - `clamp_latents` can switch the decoder's bound off.
///
/// # Reference
/// Ollin Boer Bohan, "Tiny AutoEncoder for Stable Diffusion" (2023), <https://github.com/madebyollin/taesd>.
#[derive(Module, Debug)]
pub struct AutoencoderTiny {
    encoder: TinyEncoder,
    decoder: TinyDecoder,
    latent: usize,
    image_channels: usize,
    downsampling: usize,
}

impl Autoencoder for AutoencoderTiny {
    /// The log variance is `None`.
    ///
    /// # Panics
    /// If the images have another number of channels, or sides that are no multiple of the downsampling.
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, channels, height, width] = images.dims();
        check_channels("images", channels, "image_channels", self.image_channels);
        latent_size(height, width, self.downsampling);
        Posterior { mean: self.encoder.forward(images), log_variance: None }
    }

    /// # Panics
    /// If the latents have another number of channels.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        check_channels("latents", latents.dims()[1], "latent", self.latent);
        self.decoder.forward(latents)
    }

    /// # Panics
    /// If a side is no multiple of the downsampling.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        let [h, w] = latent_size(height, width, self.downsampling);
        [self.latent, h, w]
    }
}

/// A 3x3 convolution that keeps the size, or halves it with stride 2: He-normal weight, zero bias.
fn conv3(from: usize, to: usize, stride: usize, bias: bool, device: &Device) -> Conv2d {
    let mut conv = Conv2dConfig::new([from, to], [3, 3])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_initializer(Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: false })
        .with_bias(bias)
        .init(device);
    conv.bias = conv.bias.map(|_| Initializer::Zeros.init([to], device));
    conv
}

/// Three convolutions and the way around them.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Conv2d,
}

impl Block {
    fn new(width: usize, device: &Device) -> Self {
        let conv = || conv3(width, width, 1, true, device);
        let mut last = conv();
        last.weight = Initializer::Zeros.init([width, width, 3, 3], device);
        Self { conv1: conv(), conv2: conv(), conv3: last }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = relu(conv2d(&self.conv1, x.clone())); // [B, C, H, W]
        let hidden = relu(conv2d(&self.conv2, hidden)); // [B, C, H, W]
        relu(conv2d(&self.conv3, hidden) + x) // [B, C, H, W]
    }
}

/// One level: its blocks, and the convolution that leads into it (encoder) or out of it (decoder).
#[derive(Module, Debug)]
struct Stage {
    blocks: Vec<Block>,
    conv: Conv2d,
}

impl Stage {
    fn new(width: usize, blocks: usize, conv: Conv2d, device: &Device) -> Self {
        Self { blocks: (0..blocks).map(|_| Block::new(width, device)).collect(), conv }
    }

    fn blocks(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// Images to latents.
#[derive(Module, Debug)]
struct TinyEncoder {
    fold: PixelUnshuffle,
    stages: Vec<Stage>,
    output: Conv2d,
}

impl TinyEncoder {
    fn new(config: &AutoencoderTinyConfig, device: &Device) -> Self {
        let mut from = config.folded();
        let mut stages = Vec::new();
        for (level, (&width, &blocks)) in config.channels.iter().zip(&config.blocks).enumerate() {
            // The first convolution keeps the size and has a bias; the halving ones have none.
            let conv = if level == 0 {
                conv3(from, width, 1, true, device)
            } else {
                conv3(from, width, 2, false, device)
            };
            stages.push(Stage::new(width, blocks, conv, device));
            from = width;
        }
        Self {
            fold: PixelUnshuffleConfig::new(config.patch).init(),
            stages,
            output: conv3(from, config.latent, 1, true, device),
        }
    }

    /// # Shapes
    /// - `images`: `[B, C, H, W]` in `[-1, 1]`
    /// - output: `[B, latent, H / f, W / f]` with the downsampling `f`
    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = (images + 1.0) / 2.0; // [B, C, H, W] in [0, 1], the range of the published weights
        let x = self.fold.forward(x); // [B, C p^2, H / p, W / p]
        let x = self.stages.iter().enumerate().fold(x, |x, (i, stage)| {
            trace::tap(|| format!("encoder.stages.{i}"), stage.blocks(conv2d(&stage.conv, x)))
        });
        conv2d(&self.output, x) // [B, latent, h, w]
    }
}

/// Latents to images.
#[derive(Module, Debug)]
struct TinyDecoder {
    input: Conv2d,
    stages: Vec<Stage>,
    double: Interpolate2d,
    unfold: PixelShuffle,
    clamp: bool,
}

impl TinyDecoder {
    fn new(config: &AutoencoderTinyConfig, device: &Device) -> Self {
        let mut stages = Vec::new();
        for level in (0..config.channels.len()).rev() {
            let width = config.channels[level];
            // Mirror of the encoder: the outermost convolution keeps the size and has a bias.
            let conv = match level.checked_sub(1) {
                Some(outer) => conv3(width, config.channels[outer], 1, false, device),
                None => conv3(width, config.folded(), 1, true, device),
            };
            stages.push(Stage::new(width, config.blocks[level], conv, device));
        }
        let innermost = config.channels[config.channels.len() - 1];
        Self {
            input: conv3(config.latent, innermost, 1, true, device),
            stages,
            double: Interpolate2dConfig::new()
                .with_scale_factor(Some([2.0, 2.0]))
                .with_mode(InterpolateMode::Nearest)
                .init(),
            unfold: PixelShuffleConfig::new(config.patch).init(),
            clamp: config.clamp_latents,
        }
    }

    /// # Shapes
    /// - `latents`: `[B, latent, h, w]`
    /// - output: `[B, C, f h, f w]`, about `[-1, 1]`, with the downsampling `f`
    fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let z = if self.clamp { (latents / 3.0).tanh() * 3.0 } else { latents }; // [B, latent, h, w]
        let mut x = relu(conv2d(&self.input, z)); // [B, C, h, w]
        let last = self.stages.len() - 1;
        for (i, stage) in self.stages.iter().enumerate() {
            x = stage.blocks(x);
            if i < last {
                x = self.double.forward(x); // [B, C, 2h, 2w]
            }
            x = trace::tap(|| format!("decoder.stages.{i}"), conv2d(&stage.conv, x));
        }
        self.unfold.forward(x) * 2.0 - 1.0 // [B, C, H, W]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    #[test]
    fn taesd_has_the_published_sizes() {
        let model = AutoencoderTinyConfig::taesd().init(&Device::flex());
        // As counted from diffusers 0.42.1's AutoencoderTiny.
        assert_eq!((model.encoder.num_params(), model.decoder.num_params()), (1_222_532, 1_222_531));
    }

    #[test]
    fn the_patch_only_moves_pixels() {
        let config = AutoencoderTinyConfig::new().with_patch(4).with_channels(vec![2]).with_blocks(vec![0]);
        let model = config.init(&Device::flex());
        let images: Tensor<4> = Tensor::random([2, 3, 8, 12], Distribution::Default, &Device::flex());
        let folded = model.encoder.fold.forward(images.clone());
        assert_eq!(folded.dims(), [2, 48, 2, 3]);
        model.decoder.unfold.forward(folded).into_data().assert_eq(&images.into_data(), true);
    }
}
