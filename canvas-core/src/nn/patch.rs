//! Images to token sequences and back.

use crate::trace::needs_all_tokens;
use burn::prelude::*;

/// Cuts images into `patch` by `patch` tokens, row by row; inside a token the order is (channel, row, column).
///
/// A linear layer after this equals a convolution with kernel and stride `patch`.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, (H/p) (W/p), C p p]`.
///
/// # Panics
/// If `patch` does not divide both sides.
pub fn split(x: Tensor<4>, patch: usize) -> Tensor<3> {
    let [batch, channels, height, width] = x.dims();
    let count = (height / patch.max(1)) * (width / patch.max(1));
    cut(x, patch).permute([0, 2, 4, 1, 3, 5]).reshape([batch, count, channels * patch * patch])
}

/// As [`split`], but inside a token the order is (row, column, channel), as Lumina has it.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, (H/p) (W/p), p p C]`.
///
/// # Panics
/// If `patch` does not divide both sides.
pub fn split_channels_last(x: Tensor<4>, patch: usize) -> Tensor<3> {
    let [batch, channels, height, width] = x.dims();
    let count = (height / patch.max(1)) * (width / patch.max(1));
    cut(x, patch).permute([0, 2, 4, 3, 5, 1]).reshape([batch, count, channels * patch * patch])
}

/// `[B, C, H, W]` to `[B, C, H/p, p, W/p, p]`.
fn cut(x: Tensor<4>, patch: usize) -> Tensor<6> {
    let [batch, channels, height, width] = x.dims();
    assert!(
        height.is_multiple_of(patch) && width.is_multiple_of(patch),
        "patch ({patch}) must divide height ({height}) and width ({width})"
    );
    let (rows, columns) = (height / patch, width / patch);
    x.reshape([batch, channels, rows, patch, columns, patch])
}

/// The inverse of [`split`]: inside a token the order is (channel, row, column), as Flux has it.
///
/// # Shapes
/// `[B, (H/p) (W/p), C p p]` to `[B, C, H, W]`.
///
/// # Panics
/// If the tokens do not make an image of `height` by `width`.
pub fn join(tokens: Tensor<3>, patch: usize, height: usize, width: usize) -> Tensor<4> {
    needs_all_tokens("an image");
    let [batch, count, size] = tokens.dims();
    let (rows, columns) = (height / patch, width / patch);
    assert_eq!(count, rows * columns, "{count} tokens for {rows} by {columns} patches");
    let channels = size / (patch * patch);
    tokens
        .reshape([batch, rows, columns, channels, patch, patch])
        .permute([0, 3, 1, 4, 2, 5])
        .reshape([batch, channels, height, width])
}

/// Joins tokens into images; inside a token the order is (row, column, channel), as DiT's last layer has it.
///
/// # Shapes
/// `[B, (H/p) (W/p), p p C]` to `[B, C, H, W]`.
///
/// # Panics
/// If the tokens do not make an image of `height` by `width`.
pub fn join_channels_last(tokens: Tensor<3>, patch: usize, height: usize, width: usize) -> Tensor<4> {
    needs_all_tokens("an image");
    let [batch, count, size] = tokens.dims();
    let (rows, columns) = (height / patch, width / patch);
    assert_eq!(count, rows * columns, "{count} tokens for {rows} by {columns} patches");
    let channels = size / (patch * patch);
    tokens
        .reshape([batch, rows, columns, patch, patch, channels])
        .permute([0, 5, 1, 3, 2, 4])
        .reshape([batch, channels, height, width])
}
