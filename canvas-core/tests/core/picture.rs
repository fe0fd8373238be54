use crate::{assert_near, host, tensor};
use burn::prelude::*;
use canvas_core::picture::{from_tensor, to_tensor};
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
