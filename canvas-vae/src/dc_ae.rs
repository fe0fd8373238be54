//! The deep compression autoencoder: 32 times smaller and more, with ways around every change of size.

use crate::dc_blocks::{DcDown, DcNorm, DcUp, EPSILON, ResBlock, Resize, VitBlock, Way};
use crate::norms::ChannelRms;
use crate::shape::{check_channels, latent_size};
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::{Autoencoder, ConfigError, Posterior, check, trace};

/// One level of an [`AutoencoderDc`]'s encoder or decoder.
#[derive(Config, Debug)]
pub struct DcLevel {
    /// Channels.
    pub width: usize,
    /// Blocks; only the level at the image may have none, and then the image changes its size at once.
    pub blocks: usize,
    /// Whether the blocks attend; else they are residual convolutions.
    #[config(default = false)]
    pub attends: bool,
    /// Sides of the neighbourhoods that further heads of an attention see, odd.
    #[config(default = "vec![]")]
    pub scales: Vec<usize>,
    /// Norm of residual blocks and attentions.
    #[config(default = "DcNorm::Rms")]
    pub norm: DcNorm,
    /// Of residual blocks.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
}

/// Sizes of an [`AutoencoderDc`]. Levels are numbered from the image inwards, on both sides.
///
/// # Example
/// ```
/// use canvas_vae::AutoencoderDcConfig;
/// let config = AutoencoderDcConfig::sana();
/// assert_eq!((config.latent, config.downsampling()), (32, 32));
/// ```
#[derive(Config, Debug)]
pub struct AutoencoderDcConfig {
    /// Levels of the encoder.
    pub encoder: Vec<DcLevel>,
    /// Levels of the decoder, as many.
    pub decoder: Vec<DcLevel>,
    /// Channels of the latents.
    #[config(default = 32)]
    pub latent: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub image_channels: usize,
    /// Channels of a head of every attention.
    #[config(default = 32)]
    pub head: usize,
    /// How the encoder halves.
    #[config(default = "DcDown::Unshuffle")]
    pub down: DcDown,
    /// How the decoder doubles.
    #[config(default = "DcUp::Shuffle")]
    pub up: DcUp,
    /// Whether averages of channels go around the encoder's last convolution.
    #[config(default = true)]
    pub encoder_around: bool,
    /// Whether copies of channels go around the decoder's first convolution.
    #[config(default = true)]
    pub decoder_around: bool,
    /// Before the decoder's last convolution.
    #[config(default = "Activation::Relu")]
    pub last_activation: Activation,
}

impl AutoencoderDcConfig {
    /// Sana's: 32 times smaller, 32 channels, 312,250,275 parameters. Its latents are scaled by 0.41407.
    ///
    /// # Reference
    /// Xie et al., "SANA: Efficient High-Resolution Image Synthesis with Linear Diffusion Transformers" (2024), section
    /// 2.1, [arXiv:2410.10629](https://arxiv.org/abs/2410.10629).
    pub fn sana() -> Self {
        let level = |(i, width): (usize, usize), blocks| {
            let scales = if i < 3 { vec![] } else { vec![5] };
            DcLevel::new(width, blocks).with_attends(i >= 3).with_scales(scales)
        };
        let widths = [128, 256, 512, 512, 1024, 1024];
        let encoder = widths.into_iter().enumerate().map(|at| level(at, if at.0 < 3 { 2 } else { 3 }));
        let decoder = widths.into_iter().enumerate().map(|at| level(at, 3));
        Self::new(encoder.collect(), decoder.collect()).with_down(DcDown::Conv).with_up(DcUp::Interpolate)
    }

    /// Pixels of an image's side per latent of its side: `2^(levels - 1)`.
    pub fn downsampling(&self) -> usize {
        1 << self.encoder.len().saturating_sub(1)
    }

    /// # Errors
    /// Names the fields that do not fit together, with their values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (encoder, decoder) = (self.encoder.len(), self.decoder.len());
        if encoder != decoder || encoder == 0 {
            let both = format!("encoder ({encoder} levels) and decoder ({decoder} levels)");
            return Err(ConfigError::new(format!("{both} must have the same number of levels, at least 1")));
        }
        let sizes = [("latent", self.latent), ("image_channels", self.image_channels), ("head", self.head)];
        sizes.into_iter().try_for_each(check::positive)?;
        for (levels, around) in [(&self.encoder, self.encoder_around), (&self.decoder, self.decoder_around)] {
            levels.iter().enumerate().try_for_each(|(i, level)| self.validate_level(i, level))?;
            for pair in levels.windows(2).skip(usize::from(levels[0].blocks == 0)) {
                let folded = ("four times the width of a level", 4 * pair[0].width);
                check::divides(("width of the next", pair[1].width), folded)?;
            }
            if around {
                check::divides(
                    ("latent", self.latent),
                    ("width of the last level", levels[encoder - 1].width),
                )?;
            }
        }
        if encoder == 1 && (self.encoder[0].blocks == 0 || self.decoder[0].blocks == 0) {
            return check::positive(("blocks of the only level", 0));
        }
        Ok(())
    }

    fn validate_level(&self, i: usize, level: &DcLevel) -> Result<(), ConfigError> {
        check::positive(("width", level.width))?;
        if i > 0 {
            check::positive(("blocks of a level behind the first", level.blocks))?;
            if self.down == DcDown::Unshuffle {
                check::divides(("the places of a square", 4), ("width", level.width))?;
            }
        }
        if level.attends {
            check::divides(("head", self.head), ("width", level.width))?;
        }
        match level.scales.iter().find(|kernel| kernel.is_multiple_of(2)) {
            Some(even) => Err(ConfigError::new(format!("scales must be odd, found {even}"))),
            None => Ok(()),
        }
    }

    /// # Panics
    /// If [`AutoencoderDcConfig::validate`] finds an error, with its text.
    pub fn init(&self, device: &Device) -> AutoencoderDc {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let (down, up) = (Way::Down(self.down), Way::Up(self.up));
        let (encoder_ends, decoder_ends) = (Ends::of(&self.encoder), Ends::of(&self.decoder));
        let latent = |levels: &[DcLevel]| [levels[levels.len() - 1].width, self.latent];
        let [inner, outer] = [latent(&self.encoder), latent(&self.decoder)];
        let at_latent = |widths, around| match around {
            true => Resize::around(widths, Way::Keep, device),
            false => Resize::plain(widths, Way::Keep, device),
        };
        AutoencoderDc {
            encoder: Encoder {
                input: Resize::plain(
                    [self.image_channels, encoder_ends.width],
                    encoder_ends.way(down),
                    device,
                ),
                levels: self.levels(&self.encoder, |pair| Resize::around(pair, down, device), device),
                output: at_latent(inner, self.encoder_around),
            },
            decoder: Decoder {
                input: at_latent([outer[1], outer[0]], self.decoder_around),
                levels: self.levels(
                    &self.decoder,
                    |[to, from]| Resize::around([from, to], up, device),
                    device,
                ),
                norm: ChannelRms::new(decoder_ends.width, EPSILON, device),
                output: Resize::plain(
                    [decoder_ends.width, self.image_channels],
                    decoder_ends.way(up),
                    device,
                ),
                activation: self.last_activation,
            },
            latent: self.latent,
            image_channels: self.image_channels,
            downsampling: self.downsampling(),
        }
    }

    /// Blocks of every level, and the change of size between it and the next, if there is one.
    fn levels(
        &self,
        levels: &[DcLevel],
        resize: impl Fn([usize; 2]) -> Resize,
        device: &Device,
    ) -> Vec<Level> {
        let block = |level: &DcLevel| match level.attends {
            true => Block::Attends(VitBlock::new(level.width, self.head, &level.scales, level.norm, device)),
            false => Block::Res(ResBlock::new(level.width, level.norm, level.activation, device)),
        };
        let one = |(i, level): (usize, &DcLevel)| Level {
            blocks: (0..level.blocks).map(|_| block(level)).collect(),
            resize: levels
                .get(i + 1)
                .filter(|_| level.blocks > 0)
                .map(|next| resize([level.width, next.width])),
        };
        levels.iter().enumerate().map(one).collect()
    }
}

/// The end of a half at the image.
pub(crate) struct Ends {
    /// Of the first level that has blocks.
    pub width: usize,
    /// Whether the image changes its size at once.
    pub resizes: bool,
}

impl Ends {
    pub fn of(levels: &[DcLevel]) -> Self {
        let resizes = levels[0].blocks == 0;
        Self { width: levels[usize::from(resizes)].width, resizes }
    }

    fn way(&self, way: Way) -> Way {
        if self.resizes { way } else { Way::Keep }
    }
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a few of them, and a box is no module")]
enum Block {
    Res(ResBlock),
    Attends(VitBlock),
}

#[derive(Module, Debug)]
struct Level {
    blocks: Vec<Block>,
    resize: Option<Resize>,
}

impl Level {
    fn blocks(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| match block {
            Block::Res(block) => block.forward(x),
            Block::Attends(block) => block.forward(x),
        })
    }

    fn resize(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.resize {
            Some(resize) => resize.forward(x),
            None => x,
        }
    }
}

#[derive(Module, Debug)]
struct Encoder {
    input: Resize,
    levels: Vec<Level>,
    output: Resize,
}

#[derive(Module, Debug)]
struct Decoder {
    input: Resize,
    levels: Vec<Level>,
    norm: ChannelRms,
    output: Resize,
    #[module(skip)]
    activation: Activation,
}

/// Deep compression autoencoder: residual convolutions at the image, linear attention inside, no spread, and around
/// every change of size a way without weights, so that each learns only what folding and averaging cannot do.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::Autoencoder;
/// use canvas_vae::{AutoencoderDcConfig, DcLevel};
///
/// let levels = vec![DcLevel::new(8, 1), DcLevel::new(16, 1).with_attends(true).with_scales(vec![3])];
/// let config = AutoencoderDcConfig::new(levels.clone(), levels).with_latent(4).with_head(8);
/// let model = config.init(&Device::flex());
/// let latents = model.encode(Tensor::ones([2, 3, 8, 12], &Device::flex())).mode();
/// assert_eq!(latents.dims(), [2, 4, 4, 6]);
/// assert_eq!(model.decode(latents).dims(), [2, 3, 8, 12]);
/// ```
///
/// # Reference
/// Chen et al., "Deep Compression Autoencoder for Efficient High-Resolution Diffusion Models" (2024), section 3,
/// [arXiv:2410.10733](https://arxiv.org/abs/2410.10733); Cai et al., "EfficientViT" (2022), section 3,
/// [arXiv:2205.14756](https://arxiv.org/abs/2205.14756).
#[derive(Module, Debug)]
pub struct AutoencoderDc {
    encoder: Encoder,
    decoder: Decoder,
    latent: usize,
    image_channels: usize,
    downsampling: usize,
}

impl Autoencoder for AutoencoderDc {
    /// The log variance is `None`.
    ///
    /// # Panics
    /// If the images have another number of channels, or sides that are no multiple of the downsampling.
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, channels, height, width] = images.dims();
        check_channels("images", channels, "image_channels", self.image_channels);
        latent_size(height, width, self.downsampling);
        let x = self.encoder.input.forward(images); // [B, C0, H, W]
        let x = self.encoder.levels.iter().enumerate().fold(x, |x, (i, level)| {
            trace::tap(|| format!("encoder.levels.{i}"), level.resize(level.blocks(x)))
        });
        Posterior { mean: self.encoder.output.forward(x), log_variance: None }
    }

    /// # Panics
    /// If the latents have another number of channels.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        check_channels("latents", latents.dims()[1], "latent", self.latent);
        let x = self.decoder.input.forward(latents); // [B, C, h, w]
        let x = self.decoder.levels.iter().enumerate().rev().fold(x, |x, (i, level)| {
            trace::tap(|| format!("decoder.levels.{i}"), level.blocks(level.resize(x)))
        });
        let x = self.decoder.activation.forward(self.decoder.norm.forward(x)); // [B, C0, H, W]
        self.decoder.output.forward(x) // [B, 3, H, W]
    }

    /// # Panics
    /// If a side is no multiple of the downsampling.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        let [h, w] = latent_size(height, width, self.downsampling);
        [self.latent, h, w]
    }
}
