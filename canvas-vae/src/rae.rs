//! The representation autoencoder: latents of a network that was trained to see, and a decoder for them.

use crate::resample::{Bicubic, resized};
use crate::shape::check_channels;
use crate::vit::{Block, BlockSizes, RaeEncoder, Vit, VitSizes};
use burn::module::{Param, ParamId};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, LayerNorm, LayerNormConfig, dense, patch, position};
use canvas_core::{Autoencoder, ConfigError, Posterior, check, trace};

/// Added to the latents' standard deviations.
const STD_EPSILON: f64 = 1e-5;

/// Added to the variances of the decoder's norms.
const EPSILON: f64 = 1e-12;

/// Places of a side that the decoder's table of positions is stretched over, as diffusers' is.
const TABLE: usize = 16;

/// Sizes of an [`AutoencoderRae`]; the defaults are those of diffusers' class.
///
/// # Example
/// ```
/// use canvas_vae::AutoencoderRaeConfig;
/// let config = AutoencoderRaeConfig::dinov2_base();
/// assert_eq!((config.width, config.grid(), config.image_side()), (768, 16, 256));
/// ```
#[derive(Config, Debug)]
pub struct AutoencoderRaeConfig {
    /// The network that encodes.
    #[config(default = "RaeEncoder::Dinov2")]
    pub encoder: RaeEncoder,
    /// Its width, which is the channels of the latents.
    #[config(default = 768)]
    pub width: usize,
    /// Width of its heads.
    #[config(default = 64)]
    pub head: usize,
    /// Its blocks.
    #[config(default = 12)]
    pub layers: usize,
    /// Side of its patches.
    #[config(default = 14)]
    pub encoder_patch: usize,
    /// Side of the images that it sees; images of [another](Self::image_side) are resized.
    #[config(default = 224)]
    pub input_side: usize,
    /// The colours' means that it expects to be taken away, of images in `[0, 1]`.
    #[config(default = "[0.485, 0.456, 0.406]")]
    pub colour_mean: [f64; 3],
    /// The colours' standard deviations, likewise.
    #[config(default = "[0.229, 0.224, 0.225]")]
    pub colour_std: [f64; 3],
    /// Width of the decoder.
    #[config(default = 512)]
    pub decoder_width: usize,
    /// Blocks of the decoder.
    #[config(default = 8)]
    pub decoder_layers: usize,
    /// Heads of the decoder.
    #[config(default = 16)]
    pub decoder_heads: usize,
    /// Width between the layers of the decoder's perceptrons.
    #[config(default = 2048)]
    pub decoder_hidden: usize,
    /// Side of the squares of pixels that the decoder draws.
    #[config(default = 16)]
    pub patch: usize,
    /// Shape of the latents' means: `[1]` for one, `[C, h, w]` or `[1, C, h, w]` with a 1 for each axis without.
    #[config(default = "vec![1]")]
    pub mean_shape: Vec<usize>,
    /// Shape of the latents' standard deviations, likewise.
    #[config(default = "vec![1]")]
    pub std_shape: Vec<usize>,
}

impl AutoencoderRaeConfig {
    /// DINOv2 of the base size and the largest decoder, the paper's default: 768 channels, 16 by 16 places of a 256 by
    /// 256 image.
    ///
    /// # Reference
    /// Zheng et al., "Diffusion Transformers with Representation Autoencoders" (2025), section 3,
    /// [arXiv:2510.11690](https://arxiv.org/abs/2510.11690).
    pub fn dinov2_base() -> Self {
        Self::new().with_decoder_width(1152).with_decoder_layers(28).with_decoder_hidden(4096)
    }

    /// Places of a side of the latents.
    pub fn grid(&self) -> usize {
        self.input_side / self.encoder_patch
    }

    /// Side of the images that it encodes and decodes.
    pub fn image_side(&self) -> usize {
        self.patch * self.grid()
    }

    /// # Errors
    /// Names the fields that do not fit together, with their values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::divides(("encoder_patch", self.encoder_patch), ("input_side", self.input_side))?;
        check::divides(("head", self.head), ("width", self.width))?;
        check::divides(("decoder_heads", self.decoder_heads), ("decoder_width", self.decoder_width))?;
        check::divides(("the parts of a position", 4), ("decoder_width", self.decoder_width))?;
        for size in [
            ("input_side", self.input_side),
            ("width", self.width),
            ("patch", self.patch),
            ("decoder_hidden", self.decoder_hidden),
            ("places in the table of positions", self.encoder.trained_side() / self.encoder_patch),
        ] {
            check::positive(size)?;
        }
        let all = [self.width, self.grid(), self.grid()];
        for (field, shape) in [("mean_shape", &self.mean_shape), ("std_shape", &self.std_shape)] {
            let axes = shape.strip_prefix(&[1]).filter(|axes| axes.len() == 3).unwrap_or(shape);
            let each = axes.iter().zip(all).all(|(&size, whole)| size == 1 || size == whole);
            if axes != [1] && !(axes.len() == 3 && each) {
                let expected = format!("[1], or {all:?} with 1 for any of them");
                return Err(ConfigError::new(format!("{field} must be {expected}, found {shape:?}")));
            }
        }
        Ok(())
    }

    /// # Panics
    /// If [`AutoencoderRaeConfig::validate`] finds an error, with its text.
    pub fn init(&self, device: &Device) -> AutoencoderRae {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let vit = VitSizes {
            kind: self.encoder,
            width: self.width,
            heads: self.width / self.head,
            patch: self.encoder_patch,
            layers: self.layers,
        };
        AutoencoderRae {
            encoder: Vit::new(&vit, device),
            decoder: self.decoder(device),
            colour_mean: constant(self.colour_mean, device),
            colour_std: constant(self.colour_std, device),
            mean: Statistic::new(0.0, &self.mean_shape, device),
            std: Statistic::new(1.0, &self.std_shape, device),
            width: self.width,
            input_side: self.input_side,
            grid: self.grid(),
            patch: self.patch,
        }
    }

    fn decoder(&self, device: &Device) -> Decoder {
        let block = BlockSizes {
            width: self.decoder_width,
            heads: self.decoder_heads,
            hidden: self.decoder_hidden,
            epsilon: EPSILON,
            activation: Activation::Gelu,
            scaled: false,
        };
        Decoder {
            input: LinearConfig::new(self.width, self.decoder_width).init(device),
            class: Initializer::Zeros.init([1, self.decoder_width], device),
            blocks: (0..self.decoder_layers).map(|_| Block::new(block, device)).collect(),
            norm: LayerNormConfig::new(self.decoder_width).with_epsilon(EPSILON).init(device),
            output: LinearConfig::new(self.decoder_width, 3 * self.patch * self.patch).init(device),
        }
    }
}

/// A number a colour, which is loaded and not trained: `[1, 3, 1, 1]`.
fn constant(values: [f64; 3], device: &Device) -> Param<Tensor<4>> {
    let data = TensorData::new(values.map(|value| value as f32).to_vec(), [1, 3, 1, 1]);
    Param::initialized(ParamId::new(), Tensor::from_data(data, device))
}

/// Numbers of latents that are loaded and not trained.
#[derive(Module, Debug)]
enum Statistic {
    One(Param<Tensor<1>>),
    /// `[C, h, w]`, with a 1 for each axis along which they are the same.
    Each(Param<Tensor<3>>),
}

impl Statistic {
    fn new(value: f64, shape: &[usize], device: &Device) -> Self {
        let fill = Initializer::Constant { value };
        match *shape {
            [.., channels, height, width] => {
                Self::Each(fill.init([channels, height, width], device).set_require_grad(false))
            }
            _ => Self::One(fill.init([1], device).set_require_grad(false)),
        }
    }

    /// To be spread over `[B, C, h, w]`.
    fn row(&self) -> Tensor<4> {
        match self {
            Self::One(one) => one.val().unsqueeze(),
            Self::Each(each) => each.val().unsqueeze(),
        }
    }
}

/// Latents to squares of pixels, behind a class token that nothing reads.
#[derive(Module, Debug)]
struct Decoder {
    input: Linear,
    /// `[1, D]`.
    class: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    output: Linear,
}

impl Decoder {
    /// `[B, C, h, w]` to `[B, h w, 3 p^2]`.
    fn forward(&self, latents: Tensor<4>) -> Tensor<3> {
        let [batch, _, height, columns] = latents.dims();
        let places = dense(&self.input, latents.flatten(2, 3).swap_dims(1, 2)); // [B, N, D]
        let width = places.dims()[2];
        let along = |count: usize| (0..count).map(|i| (i * TABLE) as f64 / count as f64).collect::<Vec<_>>();
        let table = position::sincos_2d_at(&along(height), &along(columns), width, &places.device());
        let places = places + table; // [B, N, D]
        let class = self.class.val().unsqueeze::<3>().expand([batch, 1, width]);
        let tokens = Tensor::cat(vec![class, places], 1); // [B, 1 + N, D]
        let tokens = self.blocks.iter().fold(tokens, |x, block| block.forward(x)); // [B, 1 + N, D]
        dense(&self.output, self.norm.forward(tokens).narrow(1, 1, height * columns)) // [B, N, 3 p^2]
    }
}

/// Representation autoencoder: a vision transformer that others trained to see, kept as it is, makes the latents, and
/// a decoder learns to draw from them. A latent has as many numbers as the network is wide.
///
/// Every image is a square of one size, [`image_side`](AutoencoderRaeConfig::image_side). The latents are brought to
/// unit variance inside, by statistics that lie in the weights. The encoder is a part of the module and has gradients
/// as any other; the paper freezes it (`Module::no_grad`), and trains the decoder with noise on the latents.
///
/// # Reference
/// Zheng et al., "Diffusion Transformers with Representation Autoencoders" (2025), section 3,
/// [arXiv:2510.11690](https://arxiv.org/abs/2510.11690).
///
/// # Differs from the published code
/// Images are in `[-1, 1]`, as of all autoencoders here, not in `[0, 1]`.
#[derive(Module, Debug)]
pub struct AutoencoderRae {
    encoder: Vit,
    decoder: Decoder,
    colour_mean: Param<Tensor<4>>,
    colour_std: Param<Tensor<4>>,
    mean: Statistic,
    std: Statistic,
    width: usize,
    input_side: usize,
    grid: usize,
    patch: usize,
}

impl AutoencoderRae {
    fn spread(&self) -> Tensor<4> {
        self.std.row() + STD_EPSILON
    }
}

impl Autoencoder for AutoencoderRae {
    /// The log variance is `None`.
    ///
    /// # Panics
    /// If the images have not three channels or are no squares of the one size.
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, channels, height, columns] = images.dims();
        check_channels("images", channels, "image_channels", 3);
        self.latent_shape(height, columns);
        let mut images = (images + 1.0) * 0.5; // [B, 3, H, H] in [0, 1]
        if height != self.input_side {
            images = resized(images, [self.input_side; 2], Bicubic::Sharp);
        }
        let images = (images - self.colour_mean.val()) / self.colour_std.val();
        let latents = trace::tap(|| "encoder".into(), self.encoder.forward(images)); // [B, C, h, h]
        Posterior { mean: (latents - self.mean.row()) / self.spread(), log_variance: None }
    }

    /// # Panics
    /// If the latents have another number of channels, or of places.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let ([_, channels, height, columns], grid) = (latents.dims(), self.grid);
        check_channels("latents", channels, "width", self.width);
        let here = format!("latents have {height} by {columns} places");
        assert!([height, columns] == [grid; 2], "{here}, but the autoencoder's are {grid} by {grid}");
        let latents = latents * self.spread() + self.mean.row(); // [B, C, h, h]
        let side = self.patch * grid;
        let image = patch::join_channels_last(self.decoder.forward(latents), self.patch, side, side);
        (image * self.colour_std.val() + self.colour_mean.val()) * 2.0 - 1.0 // [B, 3, H, H]
    }

    /// # Panics
    /// If the sides are not those of the one size.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        let side = self.patch * self.grid;
        assert!(
            [height, width] == [side; 2],
            "images are {height} by {width}, but the autoencoder's are {side} by {side}"
        );
        [self.width, self.grid, self.grid]
    }
}
