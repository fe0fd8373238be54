//! SiT: DiT's network, trained on an interpolant between data and noise.
//!
//! Ma et al., "SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant Transformers", 2024,
//! sections 2 and 3, <https://arxiv.org/abs/2401.08740>.
//!
//! The network is [`Dit`]; what differs is the process around it, and none of that is here: the interpolants are the
//! schedules `Flow` (linear) and `Gvp` of `canvas_sched`, the three quantities that the paper's networks predict are its
//! `predict::{PathVelocity, Raw(Epsilon), Score}`, the solvers are its `Dopri5`, `Euler`, `Heun`, `SitEuler` and
//! `SitHeun`, and any combination is a `Process`.
//!
//! The paper's time is 0 at the noise and 1 at the data; levels here run the other way. So the network itself is told
//! `1 - time`, and a velocity is negated: published weights are at home.
//!
//! # Differs from the paper
//! Half of the published networks' outputs, the variance they inherited from DiT and were not trained for, is dropped.

use crate::{Dit, DitConfig, Embed};
use burn::nn::{Embedding, Linear};
use burn::prelude::*;
use canvas_core::weights::Rules;
use canvas_core::{Backbone, ConfigError};
use serde::{Deserialize, Serialize};

/// What a [`Sit`] answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SitTarget {
    /// The velocity from data to noise; the paper's own points the other way.
    #[default]
    Velocity,
    /// The noise.
    Noise,
    /// The score, `-noise / sigma`.
    Score,
}

/// Sizes of a [`Sit`].
#[derive(Config, Debug)]
pub struct SitConfig {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Model width; `heads` must divide it, and so must 4.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch; must divide both sides.
    #[config(default = 2)]
    pub patch: usize,
    /// Channels in and out.
    #[config(default = 4)]
    pub channels: usize,
    /// Classes; label `classes` stands for "no class".
    #[config(default = 1000)]
    pub classes: usize,
    /// Whether the last layer is as wide as DiT's with a variance, as the published networks' is.
    #[config(default = true)]
    pub spare_variance: bool,
    /// What the network answers.
    #[config(default = "SitTarget::Velocity")]
    pub target: SitTarget,
}

impl SitConfig {
    /// SiT-S/2 for inputs of `side` by `side`: 32 for the latents of a 256 px image.
    pub fn small(side: usize) -> Self {
        Self::new([side, side], 384, 12, 6)
    }

    /// SiT-B/2.
    pub fn base(side: usize) -> Self {
        Self::new([side, side], 768, 12, 12)
    }

    /// SiT-L/2.
    pub fn large(side: usize) -> Self {
        Self::new([side, side], 1024, 24, 16)
    }

    /// SiT-XL/2.
    pub fn xl(side: usize) -> Self {
        Self::new([side, side], 1152, 28, 16)
    }

    /// The network's own sizes, as DiT's; it is told the time itself, not a step.
    pub fn dit(&self) -> DitConfig {
        DitConfig::new(self.size, self.width, self.depth, self.heads)
            .with_patch(self.patch)
            .with_channels(self.channels)
            .with_classes(self.classes)
            .with_learn_variance(self.spare_variance)
            .with_time_scale(1.0)
    }

    /// # Errors
    /// Names the two sizes that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.dit().validate()
    }

    /// A network that is told classes, drawn as [`DitConfig::init`].
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Sit {
        Sit { dit: self.dit().init(device), points_to_data: self.target == SitTarget::Velocity }
    }

    /// A network that is told pooled prompts of this width.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_text(&self, pooled: usize, device: &Device) -> Sit<Linear> {
        let dit = self.dit().init_text(pooled, device);
        Sit { dit, points_to_data: self.target == SitTarget::Velocity }
    }

    /// A network whose conditions this layer reads.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init_with<E: Embed>(&self, cond: E, device: &Device) -> Sit<E> {
        Sit { dit: self.dit().init_with(cond, device), points_to_data: self.target == SitTarget::Velocity }
    }

    /// The names in the authors' files.
    pub fn published(&self) -> Rules {
        self.dit().original().prefix("", "dit")
    }
}

/// DiT's network, told and asked as SiT's.
#[derive(Module, Debug)]
pub struct Sit<E: Module = Embedding> {
    dit: Dit<E>,
    points_to_data: bool,
}

impl<E: Embed> Backbone<4> for Sit<E> {
    type Cond = E::Cond;

    /// # Panics
    /// As [`Dit`]'s.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &E::Cond) -> Tensor<4> {
        let answer = self.dit.forward(x, 1.0 - time, cond); // [B, C, H, S]
        if self.points_to_data { -answer } else { answer }
    }
}
