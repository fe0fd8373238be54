//! Host pictures and image tensors.

mod resize;

pub use resize::{Axis, Filter, resize, resized};

use burn::prelude::*;
use image::RgbImage;

/// Pictures of one size to a tensor.
///
/// # Shapes
/// `B` pictures of `W` by `H` pixels to `[B, 3, H, W]` in `[-1, 1]`: byte 0 is -1, byte 255 is 1.
///
/// # Panics
/// If there is no picture or their sizes differ.
pub fn to_tensor<'a>(pictures: impl IntoIterator<Item = &'a RgbImage>, device: &Device) -> Tensor<4> {
    let pictures: Vec<&RgbImage> = pictures.into_iter().collect();
    let (width, height) = pictures.first().expect("at least one picture").dimensions();
    let mut bytes = Vec::with_capacity(pictures.len() * (width * height * 3) as usize);
    for picture in &pictures {
        assert_eq!(picture.dimensions(), (width, height), "pictures of one batch have one size");
        bytes.extend(picture.as_raw().iter().map(|&byte| f32::from(byte) / 127.5 - 1.0));
    }
    let shape = [pictures.len(), height as usize, width as usize, 3];
    Tensor::<4>::from_data(TensorData::new(bytes, shape), device).permute([0, 3, 1, 2])
}

/// A tensor to pictures, values outside `[-1, 1]` clamped, rounded to the nearest byte.
///
/// # Shapes
/// `[B, 3, H, W]` to `B` pictures.
///
/// # Panics
/// If there are not three channels.
pub fn from_tensor(images: Tensor<4>) -> Vec<RgbImage> {
    let [_, channels, height, width] = images.dims();
    assert_eq!(channels, 3, "pictures have three channels, found {channels}");
    let data = images.permute([0, 2, 3, 1]).into_data();
    let bytes: Vec<u8> =
        data.iter::<f32>().map(|v| ((v.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8).collect();
    let size = channels * height * width;
    let picture = |raw: &[u8]| RgbImage::from_raw(width as u32, height as u32, raw.to_vec());
    bytes.chunks(size).map(|raw| picture(raw).expect("as many bytes as pixels")).collect()
}
