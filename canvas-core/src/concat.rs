//! Channels that a network reads beside its input: masks, images to edit, low resolutions.

use crate::{Backbone, Condition};
use burn::prelude::*;

/// Channels to be joined to a network's input, already in the network's units.
///
/// Stable Diffusion's inpainting reads a mask and a masked latent (4 + 1 + 4 channels), InstructPix2Pix the
/// latent of the image to edit (4 + 4), its upscaler the small image (4 + 3).
#[derive(Clone, Debug)]
pub struct Channels<const D: usize> {
    /// `[B, C, ..]`, of the input's size.
    pub values: Tensor<D>,
}

impl<const D: usize> Condition for Channels<D> {
    fn batch(&self) -> usize {
        self.values.dims()[0]
    }
    fn cat(parts: &[Self]) -> Self {
        Self { values: Tensor::cat(parts.iter().map(|part| part.values.clone()).collect(), 0) }
    }
    fn select(&self, rows: &[usize]) -> Self {
        let parts = rows.iter().map(|&row| self.values.clone().narrow(0, row, 1)).collect();
        Self { values: Tensor::cat(parts, 0) }
    }
}

/// A network of more input channels than its sample has, which reads the others as a condition.
///
/// The input scaling of a [`Prediction`](crate::Prediction) touches the sample only.
#[derive(Clone, Copy, Debug)]
pub struct Concatenated<'a, B> {
    /// The network.
    pub backbone: &'a B,
}

impl<const D: usize, B: Backbone<D>> Backbone<D> for Concatenated<'_, B> {
    type Cond = (B::Cond, Channels<D>);

    /// # Shapes
    /// - `x`: `[B, C, ..]`, `time`: `[B]`, the condition's channels: `[B, X, ..]`
    /// - output: that of the network for `[B, C + X, ..]`
    fn forward(&self, x: Tensor<D>, time: Tensor<1>, (cond, extra): &Self::Cond) -> Tensor<D> {
        self.backbone.forward(Tensor::cat(vec![x, extra.values.clone()], 1), time, cond)
    }
}
