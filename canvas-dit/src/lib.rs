//! The transformer family of denoising networks: one architecture, one file.
//!
//! Which file is which paper, of those that are told a class; each also reads text, or what a layer of your own reads
//! ([`Embed`], [`EmbedTokens`]):
//!
//! | file | network | paper | answers |
//! |---|---|---|---|
//! | `dit.rs` | [`Dit`] | Peebles & Xie, 2022, [2212.09748](https://arxiv.org/abs/2212.09748) | noise, variance |
//! | `sit.rs` | [`Sit`] | Ma et al., 2024, [2401.08740](https://arxiv.org/abs/2401.08740) | velocity, noise or score |
//! | `u_vit.rs` | [`UVit`] | Bao et al., 2022, [2209.12152](https://arxiv.org/abs/2209.12152) | noise |
//! | `lightning.rs` | [`LightningDit`] | Yao et al., 2025, [2501.01423](https://arxiv.org/abs/2501.01423) | velocity |
//! | `jit.rs` | [`Jit`] | Li & He, 2025, [2511.13720](https://arxiv.org/abs/2511.13720) | the clean image |
//! | `ddt.rs` | [`Ddt`] | Wang et al., 2025, [2504.05741](https://arxiv.org/abs/2504.05741); Zheng et al., 2025, [2510.11690](https://arxiv.org/abs/2510.11690) | velocity |
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
mod ddt;
mod dit;
mod embed;
mod flux;
mod flux2;
mod jit;
mod latents;
mod lightning;
mod patches;
mod pixart;
mod prompt;
mod qwen_image;
mod redux;
mod sana;
mod sd3;
mod sit;
mod streams;
mod text_dit;
mod u_vit;

pub use auraflow::{AuraFlow, AuraFlowConfig};
pub use chroma::{Chroma, ChromaConfig, ChromaMask};
pub use ddt::{Ddt, DdtConfig};
pub use dit::{Dit, DitConfig};
pub use embed::{Embed, EmbedTokens, NoTokens};
pub use flux::{Flux, FluxConfig, fill_channels};
pub use flux2::{Flux2, Flux2Config};
pub use jit::{Jit, JitConfig};
pub use lightning::{LightningDit, LightningDitConfig};
pub use pixart::{PixArt, PixArtCondition, PixArtConfig};
pub use prompt::Prompt;
pub use qwen_image::{QwenImage, QwenImageConfig};
pub use redux::{Redux, ReduxConfig};
pub use sana::{Sana, SanaCondition, SanaConfig};
pub use sd3::{Sd3, Sd3Config};
pub use sit::{Sit, SitConfig, SitTarget};
pub use text_dit::{TextDit, TextDitConfig};
pub use u_vit::{UVit, UVitConfig};
