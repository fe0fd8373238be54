//! ADM: the UNet of "Diffusion Models Beat GANs", for images of a class.
//!
//! Dhariwal and Nichol, 2021, <https://arxiv.org/abs/2105.05233>, section 3 and appendix I: norms that the time scales
//! and shifts, attention at several resolutions with heads of 64 channels, residual blocks that resize.
//!
//! # Differs from the original
//! - Time is in `[0, 1]`, as in [`Ddpm`]. No dropout.

use crate::{Ddpm, DdpmConfig, Resample};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::prelude::*;
use canvas_core::{Backbone, Class, ConfigError, check};

/// Sizes of an [`Adm`].
#[derive(Config, Debug)]
pub struct AdmConfig {
    /// The network.
    pub body: DdpmConfig,
    /// Classes, one learned vector each; add one for "no class", if it is to be trained with guidance.
    pub classes: usize,
}

impl AdmConfig {
    /// ImageNet at 64x64 (table 11): 1000 classes, learned variance, 295,904,454 parameters.
    pub fn imagenet64() -> Self {
        let (channels, attends) = (vec![192, 384, 576, 768], vec![false, true, true, true]);
        Self::new(Self::body(channels, attends).with_blocks(3), 1000)
    }

    /// ImageNet at 256x256 (table 11): 1000 classes, learned variance, 553,838,086 parameters.
    pub fn imagenet256() -> Self {
        let attends = vec![false, false, false, true, true, true];
        Self::new(Self::body(vec![256, 256, 512, 512, 1024, 1024], attends), 1000)
    }

    /// The choices of the paper; a variance for each of three channels is learned.
    fn body(channels: Vec<usize>, attends: Vec<bool>) -> DdpmConfig {
        DdpmConfig::new(3, channels, attends)
            .with_out_channels(Some(6))
            .with_head_width(Some(64))
            .with_scale_shift(true)
            .with_resample(Resample::Residual)
    }

    /// # Errors
    /// Names the values that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.body.validate()?;
        check::positive(("classes", self.classes))
    }

    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Adm {
        self.validate().unwrap_or_else(|error| panic!("AdmConfig: {error}"));
        Adm {
            body: self.body.init(device),
            classes: EmbeddingConfig::new(self.classes, self.body.embedding()).init(device),
        }
    }
}

/// A [`Ddpm`] whose time embedding has that of a class added.
///
/// With twice the output channels, the second half is a learned variance, which a
/// [`Denoiser`](canvas_core::Denoiser) hands on.
///
/// # Reference
/// Dhariwal and Nichol, 2021, <https://arxiv.org/abs/2105.05233>.
#[derive(Module, Debug)]
pub struct Adm {
    body: Ddpm,
    classes: Embedding,
}

impl Backbone<4> for Adm {
    type Cond = Class;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`, `time`: `[B]`, `class`: `[B]`
    /// - output: `[B, C, H, S]`, or `[B, 2 C, H, S]` with a learned variance
    ///
    /// # Panics
    /// As [`Ddpm`]'s.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, class: &Class) -> Tensor<4> {
        let labels = class.labels.clone().unsqueeze_dim::<2>(1); // [B, 1]
        self.body.run(x, time, Some(self.classes.forward(labels).squeeze_dim(1))) // [B, 2 C, H, S]
    }
}
