//! What an inpainting network of Stable Diffusion's kind reads beside the noised latents: the mask, and the latents of the image
//! without what is to be painted.
//!
//! Its channels are `[noised latents, mask, masked latents]`, 4 + 1 + 4: [`Concatenated`](canvas_core::Concatenated) joins them, and
//! [`params::widened`](canvas_core::params::widened) makes such a network of one that knows only the first. Conventions are those of
//! diffusers' `StableDiffusionInpaintPipeline`, which draws with what is trained so.
//!
//! # Reference
//! Rombach et al., 2021, section 4.5, <https://arxiv.org/abs/2112.10752>, and `stable-diffusion-inpainting`, 2022, whose new
//! channels began at zero.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::LatentScale;
//! use canvas_train::{inpainting, masks};
//! use canvas_vae::AutoencoderKlConfig;
//!
//! let device = Device::flex();
//! let config = AutoencoderKlConfig::new().with_channels(vec![8, 16]).with_layers(1).with_groups(4);
//! let autoencoder = config.init(&device);
//! let image = Tensor::<4>::ones([2, 3, 16, 24], &device);
//! let mask = masks::batch(&[(1.0, masks::Mask::strokes())], [16, 24], 0, &[17, 18], &device);
//! let noise = Tensor::zeros([2, 4, 8, 12], &device); // of the encoder's distribution
//! let scale = LatentScale::uniform(4, 0.0, 0.18215);
//! let channels = inpainting::channels(&autoencoder, &scale, (image, mask), noise);
//! assert_eq!(channels.values.dims(), [2, 5, 8, 12]); // goes into the condition
//! ```

use burn::prelude::*;
use canvas_core::{Autoencoder, Channels, LatentScale};

/// 1 where a mask is at least a half, else 0: what is to be painted.
///
/// # Shapes
/// `[B, 1, H, W]`, from 0 to 1; output alike.
pub fn binary(mask: Tensor<4>) -> Tensor<4> {
    mask.greater_equal_elem(0.5).float()
}

/// An image with zeros, which are grey, where it is to be painted.
///
/// # Shapes
/// - `image`: `[B, C, H, W]` in `[-1, 1]`; `mask`: `[B, 1, H, W]`
pub fn masked_image(image: Tensor<4>, mask: Tensor<4>) -> Tensor<4> {
    image * (binary(mask).neg() + 1.0)
}

/// A mask as large as latents: of each place the pixel at its upper left, as PyTorch's nearest neighbour takes it.
///
/// # Shapes
/// `[B, 1, H, W]` to `[B, 1, h, w]`.
///
/// # Panics
/// If a side is 0.
pub fn shrunk(mask: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = mask.dims();
    let along = |mask: Tensor<4>, axis: usize, from: usize, to: usize| {
        assert!(from > 0 && to > 0, "a mask with a side of {from}, for latents with one of {to}");
        let places: Vec<i64> = (0..to).map(|i| (i * from / to) as i64).collect();
        let places = Tensor::from_data(TensorData::new(places, [to]), &mask.device());
        mask.select(axis, places)
    };
    along(along(mask, 2, height, size[0]), 3, width, size[1])
}

/// Mask and masked latents, in this order, of images and their masks.
///
/// # Shapes
/// - `image`: `[B, 3, H, W]` in `[-1, 1]`; `mask`: `[B, 1, H, W]`, from 0 to 1, 1 where it is to be painted
/// - `noise`: of the encoder's distribution, `[B, C, h, w]`; zeros take its mean
/// - output: `[B, 1 + C, h, w]`
///
/// # Panics
/// If sizes disagree.
pub fn channels<A: Autoencoder>(
    autoencoder: &A,
    scale: &LatentScale,
    (image, mask): (Tensor<4>, Tensor<4>),
    noise: Tensor<4>,
) -> Channels<4> {
    let ([batch, _, height, width], found) = (image.dims(), mask.dims());
    assert_eq!(found, [batch, 1, height, width], "the mask of these images");
    let masked = autoencoder.encode(masked_image(image, mask.clone())).sample(noise);
    let masked = scale.normalise(masked).detach();
    let [_, _, rows, columns] = masked.dims();
    Channels { values: Tensor::cat(vec![shrunk(binary(mask), [rows, columns]), masked], 1) }
}
