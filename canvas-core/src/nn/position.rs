//! Position tables.

use burn::prelude::*;

/// The fixed sine-cosine table of a `height` by `width` grid, as in MAE and DiT: the first half of the
/// channels encodes the column, the second half the row, each as all sines then all cosines with frequencies
/// `10000^(-i / (W/4))`.
///
/// # Shapes
/// Output `[1, height * width, W]`, row by row.
///
/// # Panics
/// If 4 does not divide `channels`.
pub fn sincos_2d(height: usize, width: usize, channels: usize, device: &Device) -> Tensor<3> {
    let places = |count: usize| (0..count).map(|place| place as f64).collect::<Vec<_>>();
    sincos_2d_at(&places(height), &places(width), channels, device)
}

/// As [`sincos_2d`], of rows and columns at any places: scaled to another resolution, or cut out of a larger table.
///
/// # Shapes
/// Output `[1, rows * columns, W]`, row by row.
///
/// # Panics
/// If 4 does not divide `channels`.
pub fn sincos_2d_at(rows: &[f64], columns: &[f64], channels: usize, device: &Device) -> Tensor<3> {
    assert!(channels.is_multiple_of(4), "4 must divide the channels of a 2-d position table ({channels})");
    let features = |&place: &f64| half(place, channels / 4);
    // Each row's and column's once: a table of a large picture is copied, not computed.
    let [down, across]: [Vec<Vec<f32>>; 2] =
        [rows, columns].map(|places| places.iter().map(features).collect());
    let (height, width) = (rows.len(), columns.len());
    let mut table = Vec::with_capacity(height * width * channels);
    for row in &down {
        for column in &across {
            table.extend_from_slice(column);
            table.extend_from_slice(row);
        }
    }
    Tensor::from_data(TensorData::new(table, [1, height * width, channels]), device)
}

/// All sines, then all cosines, of one place.
fn half(place: f64, quarter: usize) -> Vec<f32> {
    let angle = |i: usize| place / 10000f64.powf(i as f64 / quarter as f64);
    let sines = (0..quarter).map(|i| angle(i).sin() as f32);
    sines.chain((0..quarter).map(|i| angle(i).cos() as f32)).collect()
}
