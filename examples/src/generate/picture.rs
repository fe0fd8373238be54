//! Pictures that come in, prepared as diffusers' `VaeImageProcessor` does: its sizes, its filter, its ranges.

use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::picture::{Axis, Filter, resize, resized, to_tensor};
use image::{DynamicImage, RgbImage};
use std::path::Path;

/// Reads a picture.
///
/// # Errors
/// If the file cannot be read or is no picture.
pub fn open(path: &Path) -> Result<DynamicImage> {
    let reader = image::ImageReader::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    reader.decode().with_context(|| format!("{} is not a PNG picture", path.display()))
}

/// A size as people say it.
pub fn describe(dims: &[usize]) -> String {
    format!("{dims:?}")
}

/// The picture's own size, each side cut down to a multiple of the autoencoder's factor: `[height, width]`.
pub fn own_size(picture: &DynamicImage, factor: usize) -> [usize; 2] {
    [picture.height(), picture.width()].map(|side| side as usize / factor * factor)
}

/// In colour and in this size, whatever that does to its proportions.
pub fn fitted(picture: &DynamicImage, [height, width]: [usize; 2]) -> RgbImage {
    resized(&picture.to_rgb8(), (width, height), Filter::Lanczos)
}

/// `[1, 3, H, W]` in `[-1, 1]`: what an autoencoder reads.
pub fn signed(picture: &DynamicImage, size: [usize; 2], device: &Device) -> Tensor<4> {
    to_tensor([&fitted(picture, size)], device)
}

/// `[1, 3, H, W]` in `[0, 1]`: what ControlNets and T2I-Adapters read.
pub fn unsigned(picture: &DynamicImage, size: [usize; 2], device: &Device) -> Tensor<4> {
    let [height, width] = size;
    let bytes = fitted(picture, size).into_raw();
    let values: Vec<f32> = bytes.into_iter().map(|byte| f32::from(byte) / 255.0).collect();
    Tensor::<4>::from_data(TensorData::new(values, [1, height, width, 3]), device).permute([0, 3, 1, 2])
}

/// `[1, 1, H, W]` of zeros and ones: 1 where the mask is at least half white, after resizing.
///
/// # Errors
/// If nothing is white.
pub fn mask(picture: &DynamicImage, [height, width]: [usize; 2], device: &Device) -> Result<Tensor<4>> {
    let (from_width, from_height) = (picture.width() as usize, picture.height() as usize);
    // Pillow's weights of red, green and blue.
    let grey = |rgb: &[u8]| {
        let sum = 19595 * u32::from(rgb[0]) + 38470 * u32::from(rgb[1]) + 7471 * u32::from(rgb[2]);
        ((sum + 0x8000) >> 16) as u8
    };
    let grey: Vec<u8> = match picture {
        DynamicImage::ImageLuma8(grey) => grey.as_raw().clone(),
        other => other.to_rgb8().as_raw().chunks(3).map(grey).collect(),
    };
    let axes = (&Axis::whole(from_height, height), &Axis::whole(from_width, width));
    let bytes = resize(&grey, 1, axes, Filter::Lanczos);
    let values: Vec<f32> = bytes.into_iter().map(|byte| if byte >= 128 { 1.0 } else { 0.0 }).collect();
    if values.iter().all(|&value| value == 0.0) {
        bail!("the mask is black everywhere: there is nothing to paint; white is drawn anew");
    }
    Ok(Tensor::from_data(TensorData::new(values, [1, 1, height, width]), device))
}

/// A mask in the latents' size, by the nearest pixel above and to the left: PyTorch's `interpolate`.
pub fn nearest(mask: &Tensor<4>, factor: usize) -> Tensor<4> {
    let [_, _, height, width] = mask.dims();
    let device = mask.device();
    let every = |side: usize| {
        let rows: Vec<i64> = (0..side / factor).map(|i| (i * factor) as i64).collect();
        Tensor::<1, Int>::from_data(TensorData::new(rows, [side / factor]), &device)
    };
    mask.clone().select(2, every(height)).select(3, every(width))
}
