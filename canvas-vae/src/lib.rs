//! Autoencoders between images and latents.
//!
//! | want | take |
//! |---|---|
//! | a small one that trains in minutes, or previews of Stable Diffusion's latents | [`AutoencoderTiny`] |
//! | the one of Stable Diffusion, SDXL, SD3 and Flux, with a spread | [`AutoencoderKl`] |
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

mod diffusers;
mod halves;
mod kl;
mod memory;
mod original;
mod published;
mod shape;
mod tiled;
mod tiny;
mod vq;

pub use kl::{AutoencoderKl, AutoencoderKlConfig};
pub use tiled::{Sliced, Tiled};
pub use tiny::{AutoencoderTiny, AutoencoderTinyConfig};
pub use vq::{Quantised, VqConfig, VqModel};
