use crate::{assert_near, host, tensor};
use burn::prelude::*;
use canvas_core::picture::{Axis, Filter, from_tensor, resize, resized, to_tensor};
use image::{Rgb, RgbImage};

#[test]
fn every_byte_survives_the_round_trip() {
    // All 256 values in each channel, in different orders, in two pictures that are not square.
    let picture = |k: u8| {
        RgbImage::from_fn(64, 4, |x, y| {
            let value = (y * 64 + x) as u8;
            Rgb([value, value.wrapping_add(k), value.wrapping_mul(3)])
        })
    };
    let pictures = [picture(7), picture(101)];
    let images = to_tensor(&pictures, &Device::flex());
    assert_eq!(images.dims(), [2, 3, 4, 64]);
    assert_eq!(from_tensor(images), pictures);
}

#[test]
fn pixels_lie_where_they_should() {
    let mut picture = RgbImage::new(3, 2);
    picture.put_pixel(2, 1, Rgb([255, 0, 51]));
    let images = to_tensor([&picture], &Device::flex());
    let pixel = images.slice([0..1, 0..3, 1..2, 2..3]);
    assert_near(&pixel, &[1.0, -1.0, -0.6], 1e-6);
}

#[test]
fn values_outside_the_range_are_clamped_and_the_rest_rounded() {
    let near = 1.0 / 127.5;
    let values =
        [-7.0, -1.0, -1.0 + 0.49 * near, -1.0 + 0.51 * near, 1.0, 9.0, f32::INFINITY, f32::NEG_INFINITY, 0.0];
    let images = tensor(&values, [1, 3, 1, 3]);
    // Channels are planes: red is the first three values.
    assert_eq!(host(&images).len(), 9);
    assert_eq!(from_tensor(images)[0].as_raw()[..], [0, 1, 255, 0, 255, 0, 0, 255, 128]);
}

#[test]
#[should_panic(expected = "one size")]
fn refuses_pictures_of_two_sizes() {
    to_tensor(&[RgbImage::new(2, 2), RgbImage::new(2, 3)], &Device::flex());
}

#[test]
#[should_panic(expected = "three channels, found 4")]
fn refuses_four_channels() {
    from_tensor(tensor(&[0.0; 4], [1, 4, 1, 1]));
}

/// A picture's bytes times 1, 2, .. 251, 1, 2, ..: what Pillow 13.0.0's `resize` gives of [`noise`].
const PILLOW: [(usize, usize, usize, usize, usize, Filter, u64); 12] = [
    (37, 23, 16, 24, 3, Filter::Lanczos, 17589362),
    (37, 23, 16, 24, 3, Filter::Bicubic, 17586430),
    (16, 24, 40, 56, 3, Filter::Lanczos, 107498312),
    (16, 24, 40, 56, 3, Filter::Bicubic, 107533441),
    (64, 48, 24, 40, 3, Filter::Lanczos, 45317586),
    (50, 50, 50, 50, 3, Filter::Lanczos, 120088584),
    (50, 50, 50, 50, 3, Filter::Bicubic, 120088584),
    (31, 90, 32, 24, 3, Filter::Lanczos, 36433324),
    (31, 90, 32, 24, 3, Filter::Bicubic, 36439717),
    (20, 12, 8, 16, 1, Filter::Lanczos, 1071375),
    (9, 70, 64, 8, 1, Filter::Lanczos, 8110661),
    (100, 37, 24, 33, 3, Filter::Lanczos, 37160698),
];

fn noise(count: usize) -> Vec<u8> {
    (0..count as u64).map(|i| (((i * 2_654_435_761 + 12_345) >> 7) % 256) as u8).collect()
}

#[test]
fn resizing_gives_pillows_bytes() {
    for (width, height, to_width, to_height, channels, filter, expected) in PILLOW {
        let (tall, wide) = (Axis::whole(height, to_height), Axis::whole(width, to_width));
        let bytes = resize(&noise(width * height * channels), channels, (&tall, &wide), filter);
        assert_eq!(bytes.len(), to_width * to_height * channels);
        let sum: u64 =
            bytes.iter().enumerate().map(|(i, &byte)| u64::from(byte) * (i as u64 % 251 + 1)).sum();
        assert_eq!(sum, expected, "{width}x{height} to {to_width}x{to_height}, {filter:?}");
    }
    let picture = RgbImage::from_raw(37, 23, noise(37 * 23 * 3)).unwrap();
    assert_eq!(resized(&picture, (37, 23), Filter::Lanczos), picture);
}
