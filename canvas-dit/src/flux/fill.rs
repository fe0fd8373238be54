//! What FLUX.1 Fill reads beside the latents.

use burn::prelude::*;
use canvas_core::Channels;
use canvas_core::nn::patch;

/// What FLUX.1 Fill reads beside the latents: those of the masked picture, and the mask's 8x8 pixels at each place.
///
/// Join them to the input with [`Concatenated`](canvas_core::Concatenated).
///
/// # Shapes
/// - `masked`: `[B, C, h, w]`, latents of the picture with zeros where it is to be painted, scaled as those that are drawn
/// - `mask`: `[B, 1, f h, f w]`, 1 where it is to be painted; `f` is 8
/// - output: `[B, C + f f, h, w]`
///
/// # Panics
/// If the mask is not a whole number of times as large as the latents.
pub fn fill_channels(masked: Tensor<4>, mask: Tensor<4>) -> Channels<4> {
    let ([batch, _, height, width], found) = (masked.dims(), mask.dims());
    let factor = found[2] / height.max(1);
    let expected = [batch, 1, factor * height, factor * width];
    assert!(factor > 0 && found == expected, "the mask is {found:?} for latents of {:?}", masked.dims());
    let pixels = patch::split(mask, factor); // [B, h w, f f]
    let pixels = pixels.swap_dims(1, 2).reshape([batch, factor * factor, height, width]);
    Channels { values: Tensor::cat(vec![masked, pixels], 1) }
}
