//! What the networks that cut an image into patches share: the first layer, positions, and checks of what comes in.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear};
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::{Pairs, Rope, conv2d};
use canvas_core::{ConfigError, check};

/// A convolution whose kernel and stride are the patch, Xavier-uniform as the linear layer that it is.
pub(crate) fn embedding(channels: usize, width: usize, patch: usize, bias: bool, device: &Device) -> Conv2d {
    let config =
        Conv2dConfig::new([channels, width], [patch, patch]).with_stride([patch, patch]).with_bias(bias);
    let inputs = channels * patch * patch;
    let mut layer = config.init(device);
    let xavier = Initializer::XavierUniform { gain: 1.0 };
    layer.weight = xavier.init_with([width, channels, patch, patch], Some(inputs), Some(width), device);
    layer.bias = bias.then(|| Initializer::Zeros.init([width], device));
    layer
}

/// `[B, C, H, S]` to patches `[B, N, W]`, row by row.
pub(crate) fn tokens(layer: &Conv2d, x: Tensor<4>) -> Tensor<3> {
    conv2d(layer, x).flatten::<3>(2, 3).swap_dims(1, 2)
}

/// Patches with their places of a table: `[B, N, W]` and `[1, N, W]`.
pub(crate) fn placed(h: Tensor<3>, table: &Tensor<3>) -> Tensor<3> {
    let table = table.clone().cast(h.dtype()); // a network in 16 bits keeps its table in 32
    h + table
}

/// One of several layers that the authors hold and draw as one: its Xavier bound is that of all `outputs` together.
pub(crate) fn xavier_of(outputs: usize, from: usize, to: usize, device: &Device) -> Linear {
    let weight = Initializer::XavierUniform { gain: 1.0 };
    Linear {
        weight: weight.init_with([from, to], Some(from), Some(outputs), device),
        bias: Some(Initializer::Zeros.init([to], device)),
    }
}

/// Rotations by row and column, half of a head's features each, neighbours in pairs, after `before` tokens that are not
/// rotated: EVA-02's, which LightningDiT and JiT took over. Kept over a run.
pub(crate) fn rope(before: usize, [rows, columns]: [usize; 2], head: usize, device: &Device) -> Rope {
    let make = || {
        let grid = (0..rows).flat_map(|row| (0..columns).map(move |column| [row as f64, column as f64]));
        let places: Vec<[f64; 2]> = std::iter::repeat_n([0.0; 2], before).chain(grid).collect();
        Rope::new(&places, &[head / 2, head / 2], 10000.0, Pairs::Neighbours, device)
    };
    keep(|| format!("rope {before} {rows}x{columns} of {head}"), Constant::Condition, make)
}

/// The checks of sizes that all of these networks need.
pub(crate) fn divide(size: [usize; 2], patch: usize, [width, heads]: [usize; 2]) -> Result<(), ConfigError> {
    check::divides(("heads", heads), ("width", width))?;
    check::divides(("4, of the position table,", 4), ("width", width))?;
    check::divides(("patch", patch), ("height", size[0]))?;
    check::divides(("patch", patch), ("width of the input", size[1]))
}

/// Rotations by row and column need heads of a width that 4 divides.
pub(crate) fn rotates([width, heads]: [usize; 2]) -> Result<(), ConfigError> {
    check::divides(("4, of the rotations by row and column,", 4), ("width of a head", width / heads))
}

/// # Panics
/// If `x` is not of the size that the network `takes`, or there is not one time and one condition a sample.
pub(crate) fn check_input(who: &str, takes: [usize; 3], x: &Tensor<4>, time: &Tensor<1>, conditions: usize) {
    let [batch, channels, height, width] = x.dims();
    let found = [channels, height, width];
    // A turned image has as many patches, and would be given the positions of another.
    assert_eq!(found, takes, "x is [C, H, S] = {found:?}, the {who} takes {takes:?}");
    let times = time.dims()[0];
    let fit = times == batch && conditions == batch;
    assert!(fit, "{times} times and {conditions} conditions for a batch of {batch}");
}
