//! Training on a part of an image's tokens. What goes around which blocks is a [`Route`](canvas_core::trace::Route), for any
//! transformer; here is what the papers have beside that.
//!
//! | | route | losses |
//! |---|---|---|
//! | TREAD | around the middle, and back as they were | of all pixels |
//! | MaskDiT | around all but the last blocks; then learned tokens stand instead ([`MaskTokens`]) | of what was kept; and what was not is [rebuilt](reconstruction) |
//! | MicroDiT, deferred masking | all tokens go through a few blocks that mix them, then a quarter of them through the others | of what was kept |
//!
//! Krause et al., "TREAD", 2025, <https://arxiv.org/abs/2501.04765>; Zheng et al., "Fast Training of Diffusion Models with Masked
//! Transformers", 2023, <https://arxiv.org/abs/2306.09305>; Sehwag et al., "Stretching Each Dollar", 2024,
//! <https://arxiv.org/abs/2407.15811>.
//!
//! The papers fine-tune without masks at the end, and draw without: no route, and the network is itself.
//!
//! # Differs from the papers
//! Blocks are the network's own. MaskDiT's decoder is narrower than its encoder, and MicroDiT's mixer is; MaskDiT gives all
//! tokens a second position before its decoder, here those that were kept have theirs from before.
//!
//! # Cost
//! A training step of four images of 256 tokens, 12 blocks of width 256, on two cores of an AMD EPYC (AVX-512, f32, 2026-12-01, development build): 1225 ms;
//! 894 with half of the tokens in blocks 2 to 7, as TREAD; 494 with a quarter in blocks 2 to 11, as MicroDiT. `cargo test --workspace --test train
//! a_route_takes_less_time -- --ignored --nocapture` prints them.
//!
//! # Example
//! All three on a DiT of 6 patches and 4 blocks:
//! ```
//! use burn::prelude::*;
//! use canvas_core::trace::{Kept, Route};
//! use canvas_core::{Class, Denoiser, NoiseSchedule, Process};
//! use canvas_dit::DitConfig;
//! use canvas_sched::{predict, schedule};
//! use canvas_train::masking::{MaskTokens, reconstruction};
//! use canvas_train::{Noised, Objective};
//!
//! let device = Device::flex();
//! let dit = DitConfig::new([4, 6], 16, 4, 2).with_classes(10).init(&device);
//! let process = Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
//! let (x0, class) = (Tensor::<4>::ones([2, 4, 4, 6], &device), Class::new(&[3, 7], &device));
//! let at = [0.3, 0.8].map(|t| process.schedule.level(t)).to_vec();
//! let noised = Noised::new(x0.clone(), x0 * 0.1, at);
//! let (network, objective) = (process.denoiser(&dit), Objective::default());
//!
//! // TREAD: images 17 and 18 of the run.
//! let kept = Kept::draw(0.5, 6, 0, &[17, 18]);
//! let losses = Route::new("blocks.1", "blocks.2").through(&kept, || objective.losses(network, &noised, &class));
//! assert_eq!(losses.dims(), [2]);
//!
//! // MicroDiT: one block mixes.
//! let few = Kept::draw(0.25, 6, 0, &[17, 18]);
//! let seen = noised.clone().masked(few.mask([2, 3], 2, &device));
//! let losses = Route::new("blocks.1", "blocks.3").through(&few, || objective.losses(network, &seen, &class));
//! assert_eq!(losses.dims(), [2]);
//!
//! // MaskDiT: the last block decodes. The tokens are trained with the network.
//! let tokens = MaskTokens::new(16, &device);
//! let route = Route::new("blocks.0", "blocks.2").instead(tokens.at([2, 3]));
//! let raw = route.through(&kept, || network.raw(noised.x.clone(), &noised.at, &class));
//! let estimate = network.estimate(raw.clone(), noised.x.clone(), &noised.at).x0;
//! let rebuilt = reconstruction(estimate, noised.x.clone(), &kept, 2) * 0.1;
//! let seen = noised.masked(kept.mask([2, 3], 2, &device));
//! let losses = objective.of_answer(raw, &seen, &*process.prediction) + rebuilt;
//! assert_eq!(losses.dims(), [2]);
//! ```

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::prelude::*;
use canvas_core::nn::{patch, position};
use canvas_core::trace::Kept;

/// What stands in the places of tokens that were left out: one learned token, told apart by its place.
///
/// # Reference
/// Zheng et al., 2023, section 3.2, <https://arxiv.org/abs/2306.09305>; drawn with a deviation of 0.02, as in its code.
#[derive(Module, Debug)]
pub struct MaskTokens {
    token: Param<Tensor<3>>, // [1, 1, W]
}

impl MaskTokens {
    /// For a network of this width, which 4 must divide.
    pub fn new(width: usize, device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        Self { token: normal.init([1, 1, width], device) }
    }

    /// The token at each place of a grid of patches, for [`Route::instead`](canvas_core::trace::Route::instead).
    ///
    /// # Shapes
    /// Output: `[1, rows * columns, W]`.
    ///
    /// # Panics
    /// If 4 does not divide the width.
    pub fn at(&self, [rows, columns]: [usize; 2]) -> Tensor<3> {
        let token = self.token.val();
        let [_, _, width] = token.dims();
        position::sincos_2d(rows, columns, width, &token.device()) + token
    }
}

/// How far an estimate is from what was noised, at the patches that were left out: the mean square, where each of these patches
/// is brought to mean 0 and variance 1. Times 0.1 beside the objective.
///
/// # Shapes
/// - `estimate`: of the clean image, `[B, C, H, S]`; `x`: what the network would have seen; output: `[B]`
///
/// # Panics
/// If all tokens are kept, or the patches are not as many as the tokens.
///
/// # Reference
/// Zheng et al., 2023, equation 6, <https://arxiv.org/abs/2306.09305>, whose code has these patches, with the unbiased variance and
/// 1e-6 added to it.
pub fn reconstruction(estimate: Tensor<4>, x: Tensor<4>, kept: &Kept, patch: usize) -> Tensor<1> {
    assert!(!kept.is_all(), "all {} tokens are kept: there is nothing to rebuild", kept.tokens());
    let grid = [x.dims()[2] / patch, x.dims()[3] / patch];
    let [found, target] = [estimate, x].map(|x| patch::split(x, patch)); // [B, N, C p p]
    let [batch, tokens, size] = target.dims();
    let centred = target.clone() - target.mean_dim(2);
    let variance = centred.clone().square().sum_dim(2) / (size - 1) as f64;
    let target = centred / (variance + 1e-6).sqrt();
    let each = (found - target).square().mean_dim(2); // [B, N, 1]
    let gone = kept.mask(grid, 1, &each.device()).neg() + 1.0; // [B, 1, rows, columns]
    let gone: Tensor<3> = gone.reshape([batch, tokens, 1]);
    ((each * gone.clone()).sum_dim(1) / gone.sum_dim(1)).reshape([batch])
}
