//! What networks that read latents beside text share: patches, positions from a table, projections, modulation.

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::xavier_linear;
use canvas_core::nn::{Activation, Mlp, MlpConfig, linear};
use canvas_core::ops::silu;

/// A convolution of kernel and stride `patch`: Xavier-uniform weight, zero bias.
pub(crate) fn embedding(channels: usize, width: usize, patch: usize, device: &Device) -> Conv2d {
    let config = Conv2dConfig::new([channels, width], [patch, patch]).with_stride([patch, patch]);
    let layer = config.with_initializer(Initializer::XavierUniform { gain: 1.0 }).init(device);
    Conv2d { bias: Some(Initializer::Zeros.init([width], device)), ..layer }
}

/// Two layers from another width to the model's.
pub(crate) fn projection(from: usize, width: usize, activation: Activation, device: &Device) -> Mlp {
    let mut mlp = MlpConfig::new(width, width).with_activation(activation).init(device);
    mlp.up = xavier_linear(from, width, device);
    mlp
}

/// Modulation that blocks share, `[B, W]` to `[B, 1, V]`; kept over a run if the vector follows from the time alone.
pub(crate) fn shared(name: &str, layer: &Linear, c: &Tensor<2>, of_time: bool) -> Tensor<3> {
    let make = || linear(layer, silu(c.clone())).unsqueeze_dim::<3>(1);
    if of_time { keep(|| name.into(), Constant::Time, make) } else { make() }
}

/// The same layer without its bias.
pub(crate) fn unbiased(layer: Linear) -> Linear {
    Linear { bias: None, ..layer }
}

/// Rows and columns of patches of latents.
///
/// # Panics
/// If the patch does not divide both sides.
pub(crate) fn grid(x: &Tensor<4>, patch: usize) -> [usize; 2] {
    let [_, _, height, width] = x.dims();
    assert!(
        height.is_multiple_of(patch) && width.is_multiple_of(patch),
        "patch ({patch}) must divide height ({height}) and width ({width})"
    );
    [height / patch, width / patch]
}

/// What a table of `side` by `side` positions, `[1, side^2, W]`, holds for so many rows and columns, beginning where
/// `corner` says of each: `[1, rows * columns, W]`.
///
/// # Panics
/// If the table is smaller.
pub(crate) fn cut(
    table: &Param<Tensor<3>>,
    side: usize,
    [rows, columns]: [usize; 2],
    corner: impl Fn(usize) -> usize,
) -> Tensor<3> {
    assert!(
        rows <= side && columns <= side,
        "{rows} by {columns} patches, the position table holds {side} by {side}"
    );
    let all = table.val();
    let width = all.dims()[2];
    let cut =
        all.reshape([side, side, width]).narrow(0, corner(rows), rows).narrow(1, corner(columns), columns);
    cut.reshape([1, rows * columns, width])
}
