//! Autoencoders between images and latents.
//!
//! | want | take |
//! |---|---|
//! | a small one that trains in minutes, or previews of Stable Diffusion's latents | [`AutoencoderTiny`] |
//! | the one of Stable Diffusion, SDXL, SD3 and Flux, with a spread | [`AutoencoderKl`] |
//! | the one of Flux.2, whose latents are patches of 2x2 with measured statistics | [`AutoencoderKlFlux2`] |
//! | the one of Sana, 32 times smaller without a spread | [`AutoencoderDc`] |
//! | the one of Qwen-Image (and of Wan's videos, by their first frame) | [`AutoencoderKlQwenImage`] |
//! | latents of a network that was trained to see: DINOv2, SigLIP 2, MAE | [`AutoencoderRae`] |
//! | latents from a list of vectors: the first latent diffusion's | [`VqModel`] |
//! | images that do not fit into the memory, or whole batches of them | [`Tiled`], [`Sliced`] |
//!
//! Each has one file, with its presets and the network; what `kl.rs` and `vq.rs` share lies in `halves.rs`. All speak
//! [`canvas_core::Autoencoder`], in the encoder's own units; a [`canvas_core::LatentScale`] brings latents to
//! the unit variance a denoiser expects.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::{Autoencoder, LatentScale, params};
//! use canvas_vae::AutoencoderTinyConfig;
//!
//! // 32x32 images to 4x4 latents: patches of 4 and one halving.
//! let config = AutoencoderTinyConfig::new().with_patch(4).with_channels(vec![16, 32]).with_blocks(vec![1, 1]);
//! let model = params::realise(config.init(&Device::flex()));
//! assert_eq!(model.latent_shape(32, 32), [4, 4, 4]);
//!
//! let images: Tensor<4> = Tensor::ones([2, 3, 32, 32], &Device::flex());
//! let latents = model.encode(images).mode(); // [2, 4, 4, 4]
//! let scale = LatentScale::measure(latents.clone());
//! let seen_by_the_denoiser = scale.normalise(latents);
//! let decoded = model.decode(scale.restore(seen_by_the_denoiser));
//! assert_eq!(decoded.dims(), [2, 3, 32, 32]);
//! ```

mod dc_ae;
mod dc_blocks;
mod diffusers;
mod flux2;
mod halves;
mod kl;
mod memory;
mod norms;
mod original;
mod published;
mod qwen_image;
mod rae;
mod resample;
mod shape;
mod tiled;
mod tiny;
mod vit;
mod vq;

pub use dc_ae::{AutoencoderDc, AutoencoderDcConfig, DcLevel};
pub use dc_blocks::{DcDown, DcNorm, DcUp};
pub use flux2::{AutoencoderKlFlux2, AutoencoderKlFlux2Config};
pub use kl::{AutoencoderKl, AutoencoderKlConfig};
pub use qwen_image::{AutoencoderKlQwenImage, AutoencoderKlQwenImageConfig};
pub use rae::{AutoencoderRae, AutoencoderRaeConfig};
pub use tiled::{Sliced, Tiled};
pub use tiny::{AutoencoderTiny, AutoencoderTinyConfig};
pub use vit::RaeEncoder;
pub use vq::{Quantised, VqConfig, VqModel};
