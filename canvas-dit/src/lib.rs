//! The transformer family of denoising networks: one architecture, one file.
//!
//! Which file is which paper, of those that are told a class; each also reads text, or what a layer of your own reads
//! ([`Embed`], [`EmbedTokens`]):
//!
//! | file | network | paper | answers |
//! |---|---|---|---|
//! | `dit.rs` | [`Dit`] | Peebles & Xie, 2022, [2212.09748](https://arxiv.org/abs/2212.09748) | noise; [`WithVariance`] its variance, too |
//! | `sit.rs` | [`Sit`] | Ma et al., 2024, [2401.08740](https://arxiv.org/abs/2401.08740) | velocity, noise or score |
//! | `u_vit.rs` | [`UVit`] | Bao et al., 2022, [2209.12152](https://arxiv.org/abs/2209.12152) | noise |
//! | `lightning.rs` | [`LightningDit`] | Yao et al., 2025, [2501.01423](https://arxiv.org/abs/2501.01423) | velocity |
//! | `jit.rs` | [`Jit`] | Li & He, 2025, [2511.13720](https://arxiv.org/abs/2511.13720) | the clean image |
//! | `ddt.rs` | [`Ddt`] | Wang et al., 2025, [2504.05741](https://arxiv.org/abs/2504.05741); Zheng et al., 2025, [2510.11690](https://arxiv.org/abs/2510.11690) | velocity |
//!
//! And of those that draw what a text says:
//!
//! | file | network | paper or release | text |
//! |---|---|---|---|
//! | `text_dit.rs` | [`TextDit`] | DiT with PixArt's cross-attention | any |
//! | `pixart.rs` | [`PixArt`] | Chen et al., 2023, [2310.00426](https://arxiv.org/abs/2310.00426); Sigma, 2024 | T5 |
//! | `sd3.rs` | [`Sd3`] | Esser et al., 2024, [2403.03206](https://arxiv.org/abs/2403.03206) | CLIP L, bigG, T5 |
//! | `auraflow.rs` | [`AuraFlow`] | Fal, 2024 | UMT5 |
//! | `sana.rs` | [`Sana`] | Xie et al., 2024, [2410.10629](https://arxiv.org/abs/2410.10629) | Gemma 2 |
//! | `flux.rs` | [`Flux`], [`Redux`] | Black Forest Labs, 2024; Kontext, 2025, [2506.15742](https://arxiv.org/abs/2506.15742) | T5, CLIP L |
//! | `chroma.rs` | [`Chroma`] | Lodestone Rock, 2025 | T5 |
//! | `lumina2.rs` | [`Lumina2`] | Qin et al., 2025, [2503.21758](https://arxiv.org/abs/2503.21758) | Gemma 2 |
//! | `qwen_image.rs` | [`QwenImage`] | Wu et al., 2025, [2508.02324](https://arxiv.org/abs/2508.02324) | Qwen 2.5 VL |
//! | `z_image.rs` | [`ZImage`] | Z-Image Team, 2025, [2511.22699](https://arxiv.org/abs/2511.22699) | Qwen 3 |
//! | `flux2.rs` | [`Flux2`] | Black Forest Labs, 2025 | Mistral 3, Qwen 3 |
//! | `prx.rs` | [`Prx`] | Photoroom, 2025 | T5Gemma |
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
mod lumina2;
mod patches;
mod pixart;
mod prompt;
mod prx;
mod qwen_image;
mod redux;
mod sana;
mod sandwich;
mod sd3;
mod sit;
mod streams;
mod text_dit;
mod u_vit;
mod variance;
mod z_image;

pub use auraflow::{AuraFlow, AuraFlowConfig};
pub use chroma::{Chroma, ChromaConfig, ChromaMask};
pub use ddt::{Ddt, DdtConfig};
pub use dit::{Dit, DitConfig};
pub use embed::{Embed, EmbedTokens, NoTokens};
pub use flux::{Flux, FluxConfig, fill_channels};
pub use flux2::{Flux2, Flux2Config};
pub use jit::{Jit, JitConfig};
pub use lightning::{LightningDit, LightningDitConfig};
pub use lumina2::{Lumina2, Lumina2Config};
pub use pixart::{PixArt, PixArtCondition, PixArtConfig};
pub use prompt::Prompt;
pub use prx::{Prx, PrxConfig};
pub use qwen_image::{QwenImage, QwenImageConfig};
pub use redux::{Redux, ReduxConfig};
pub use sana::{Sana, SanaConfig};
pub use sd3::{Sd3, Sd3Config};
pub use sit::{Sit, SitConfig, SitTarget};
pub use text_dit::{TextDit, TextDitConfig};
pub use u_vit::{UVit, UVitConfig};
pub use variance::{LearnsVariance, WithVariance};
pub use z_image::{ZImage, ZImageConfig};
