//! The transformer family of denoising networks: one architecture, one file.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::{Backbone, Class};
//! use canvas_dit::DitConfig;
//!
//! let device = Device::flex();
//! let net = DitConfig::new([4, 6], 16, 2, 2).with_classes(10).init(&device);
//! let x = Tensor::zeros([2, 4, 4, 6], &device);
//! let time = Tensor::from_floats([0.3, 0.9], &device);
//! let out = net.forward(x, time, &Class::new(&[7, 10], &device));
//! assert_eq!(out.dims(), [2, 4, 4, 6]);
//! ```

mod auraflow;
mod chroma;
mod cross;
mod dit;
mod flux;
mod flux2;
mod latents;
mod pixart;
mod prompt;
mod qwen_image;
mod redux;
mod sana;
mod sd3;
mod streams;
mod text_dit;

pub use auraflow::{AuraFlow, AuraFlowConfig};
pub use chroma::{Chroma, ChromaConfig, ChromaMask};
pub use dit::{Dit, DitConfig};
pub use flux::{Flux, FluxConfig, fill_channels};
pub use flux2::{Flux2, Flux2Config};
pub use pixart::{PixArt, PixArtCondition, PixArtConfig};
pub use prompt::Prompt;
pub use qwen_image::{QwenImage, QwenImageConfig};
pub use redux::{Redux, ReduxConfig};
pub use sana::{Sana, SanaConfig};
pub use sd3::{Sd3, Sd3Config};
pub use text_dit::{TextDit, TextDitConfig};
