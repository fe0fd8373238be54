//! The UNet family of denoising networks.
//!
//! One architecture is one file named after where it comes from:
//! - [`Unet`]: the text-conditioned UNet of latent diffusion and Stable Diffusion 1.x, 2.x and XL.
//! - [`Ddpm`]: the UNet of DDPM, without text; [`Adm`]: its successor for images of a class.
//! - [`Edm2`]: a UNet for images of a class whose layers preserve magnitudes, which [`magnitude`] holds.
//! - [`ControlNet`]: a copy of its way down that reads an image and adds to the UNet.
//! - [`T2iAdapter`]: a small network that reads an image once and adds to the UNet.
//! - [`IpAdapter`]: attentions beside those to the text, which read an image as a prompt.
//!
//! [`blocks`] holds what they are made of.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::{Backbone, Text};
//! use canvas_unet::UnetConfig;
//!
//! let device = Device::flex();
//! let config = UnetConfig::new(4, 24, vec![8, 16], vec![1, 1], vec![2, 2]).with_norm_groups(4);
//! let unet = config.init(&device);
//!
//! let text = Text {
//!     tokens: Tensor::ones([2, 5, 24], &device),
//!     mask: Tensor::<2, Int>::ones([2, 5], &device).bool(),
//!     pooled: Tensor::ones([2, 24], &device),
//! };
//! let x = Tensor::ones([2, 4, 8, 6], &device);
//! let time = Tensor::from_floats([0.25, 0.75], &device);
//! assert_eq!(unet.forward(x, time, &text).dims(), [2, 4, 8, 6]);
//! ```

mod adm;
pub mod blocks;
mod controlnet;
mod ddpm;
mod detect;
mod diffusers;
mod edm2;
mod embed;
mod ip_adapter;
mod levels;
pub mod magnitude;
mod memory;
mod original;
mod published;
mod residuals;
mod sd;
mod t2i_adapter;

pub use adm::{Adm, AdmConfig};
pub use controlnet::{ControlNet, ControlNetConfig, Controlled, Hints};
pub use ddpm::{Ddpm, DdpmConfig, Resample};
pub use edm2::{Edm2, Edm2Config, Uncertainty};
pub use embed::{Conditions, Label, LabelKind};
pub use ip_adapter::{ImagePrompted, ImageReader, ImageTokens, IpAdapter, IpAdapterConfig};
pub use residuals::{Adapted, Residuals};
pub use sd::{Told, Unet, UnetConfig};
pub use t2i_adapter::{AdapterKind, T2iAdapter, T2iAdapterConfig};
