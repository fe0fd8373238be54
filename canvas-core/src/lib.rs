//! The vocabulary every canvas crate shares. No backend, no training, no sampling method lives here.
//!
//! A text-to-image system is made of parts that know nothing of each other. A [`NoiseSchedule`] makes
//! [`Level`]s. A [`Prediction`] says what a network's output means at a level. A [`Backbone`] is the network;
//! with a prediction it becomes a [`Denoiser`], and guidance methods are denoisers around denoisers. A
//! [`Sampler`] takes one step from level to level, knowing only a denoiser bound to its [`Condition`]. An
//! [`Autoencoder`] and a [`TextEncoder`] stand at the two ends.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::*;
//!
//! /// Data that is always 2: the clean estimate needs no network.
//! struct AlwaysTwo;
//! impl Denoiser<2> for AlwaysTwo {
//!     type Cond = Unconditional;
//!     fn denoise(&self, x: Tensor<2>, _at: &[Level], _cond: &Unconditional) -> Estimate<2> {
//!         x.full_like(2.0).into()
//!     }
//! }
//!
//! /// Follows the clean estimate.
//! struct Follow;
//! impl<const D: usize> Sampler<D> for Follow {
//!     fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
//!         let here = hop.start(x);
//!         Step::exact(here.carry(hop.to), here)
//!     }
//! }
//!
//! /// A straight line from data to noise.
//! struct Line;
//! impl NoiseSchedule for Line {
//!     fn level(&self, t: f64) -> Level {
//!         Level { time: t, alpha: 1.0 - t, sigma: t }
//!     }
//! }
//!
//! let levels = [1.0, 0.5, 0.0].map(|t| Line.level(t));
//! let mut noise = Seeded::new(0, [0, 1, 2]);
//! let start: Tensor<2> = noise.normal_like(&Tensor::zeros([3, 4], &Device::flex()));
//! let run = Run::new(&Follow, &Line, &levels, &mut noise)?;
//! let drawn = run.sample(|x, level| AlwaysTwo.denoise(x, &[level], &Unconditional(3)), start);
//! assert_eq!(drawn.mean().into_scalar::<f32>(), 2.0);
//! # Ok::<(), GridError>(())
//! ```

mod autoencoder;
pub mod check;
mod concat;
mod condition;
pub mod config_file;
mod denoiser;
mod level;
pub mod macs;
pub mod memo;
pub mod memory;
pub mod nn;
mod noise;
pub mod ops;
pub mod params;
pub mod picture;
mod prediction;
pub mod recompute;
mod run;
mod sampler;
mod text;
pub mod trace;
mod trajectory;
pub mod weights;

pub use autoencoder::{Autoencoder, LatentScale, Posterior};
pub use check::ConfigError;
pub use concat::{Channels, Concatenated};
pub use condition::{Class, Condition, Text, Unconditional};
pub use denoiser::{Backbone, Denoiser, Estimate, Preconditioned, Process, TwoTimes};
pub use level::{Level, NoiseSchedule, mix, per_sample};
pub use memory::Memory;
pub use noise::{DeviceNoise, Noise, Seeded, TorchCpu, TorchCuda, generator, seed_for};
pub use prediction::{Coefficients, Prediction};
pub use run::{GridError, Progress, Run, falling, falling_with_signal, rising};
pub use sampler::{Evaluation, Hop, Sampler, Std, Step};
pub use text::{TextEncoder, Tokens};
pub use trajectory::{Trajectory, Transition, per_element};
