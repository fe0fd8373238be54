//! Noise that is not the same in every pixel by itself, which training sometimes asks for.

use burn::prelude::*;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use canvas_core::Noise;

/// Noise with a common part in each channel, so that a network learns to change how bright a picture is as a whole:
/// `eps + strength n`, `n` the same for all of a channel.
///
/// Where the schedule ends in pure noise there is no need for it.
///
/// # Shapes
/// - `eps`, output: `[B, C, ..]`
///
/// # Reference
/// Guttenberg, "Diffusion with Offset Noise", 2023, <https://www.crosslabs.org/blog/diffusion-with-offset-noise>: 0.1.
pub fn offset<const D: usize>(eps: Tensor<D>, strength: f64, noise: &mut impl Noise<D>) -> Tensor<D> {
    let mut one = eps.clone();
    for axis in 2..D {
        one = one.narrow(axis, 0, 1);
    }
    eps + noise.normal_like(&one) * strength
}

/// Multi-resolution noise: to noise of each pixel comes noise of half the size, magnified, times `discount`, of a quarter times
/// its square, and so on to a single pixel; then every image is scaled to a variance of 1.
///
/// # Shapes
/// - `eps`, output: `[B, C, H, S]`
///
/// # Differs from other trainers
/// kohya's and Whitaker's halve by a random factor between 2 and 4 and scale the whole batch by one number, by which an
/// image's noise depends on its neighbours.
///
/// # Reference
/// Whitaker, "Multi-Resolution Noise for Diffusion Model Training", 2023; a `discount` of 0.3 to 0.9.
pub fn multi_resolution(eps: &Tensor<4>, discount: f64, noise: &mut impl Noise<4>) -> Tensor<4> {
    let [batch, channels, height, width] = eps.dims();
    let (mut sum, mut size, mut factor) = (eps.clone(), [height, width], 1.0);
    while size != [1, 1] {
        size = size.map(|side| (side / 2).max(1));
        factor *= discount;
        let coarse = eps.clone().narrow(2, 0, size[0]).narrow(3, 0, size[1]);
        let options = InterpolateOptions::new(InterpolateMode::Bilinear)
            .with_align_corners(false)
            .with_output_size([height, width]);
        sum = sum + interpolate(noise.normal_like(&coarse), options) * factor;
    }
    let rows: Tensor<2> = sum.clone().reshape([batch, channels * height * width]);
    let mean = rows.clone().mean_dim(1);
    let variance = (rows - mean).square().mean_dim(1);
    sum / variance.sqrt().reshape([batch, 1, 1, 1])
}
