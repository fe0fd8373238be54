//! Resizing as Pillow does it, byte for byte.
//!
//! Published pipelines prepare their pictures with Pillow, so a picture that another filter made is another input.

use image::RgbImage;
use std::ops::Range;

/// How pixels between pixels are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Keys' cubic with a = -1/2, two pixels to each side: CLIP's.
    Bicubic,
    /// Lanczos' windowed sinc, three pixels to each side: diffusers'.
    Lanczos,
}

impl Filter {
    /// Pixels to each side, where the picture does not shrink.
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let (x, sinc) = (x.abs(), |x: f64| if x == 0.0 { 1.0 } else { x.sin() / x });
        let pi = std::f64::consts::PI;
        match self {
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((x - 5.0) * x + 8.0) * x * -0.5 + 2.0,
            Self::Lanczos if x < 3.0 => sinc(x * pi) * sinc(x * pi / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

/// One axis of a picture: its pixels before and after, and those that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Pixels before.
    pub from: usize,
    /// Pixels after.
    pub to: usize,
    /// Which of those after are computed, within `0..to`.
    pub keep: Range<usize>,
}

impl Axis {
    /// An axis that is kept whole.
    pub fn whole(from: usize, to: usize) -> Self {
        Self { from, to, keep: 0..to }
    }

    fn lost(&self) -> i64 {
        self.from as i64 - self.to as i64
    }
}

/// A picture in another size, its proportions given up if need be.
///
/// # Panics
/// If a size is zero.
pub fn resized(picture: &RgbImage, (width, height): (usize, usize), filter: Filter) -> RgbImage {
    let tall = Axis::whole(picture.height() as usize, height);
    let wide = Axis::whole(picture.width() as usize, width);
    let bytes = resize(picture.as_raw(), 3, (&tall, &wide), filter);
    RgbImage::from_raw(width as u32, height as u32, bytes).expect("as many bytes as pixels")
}

/// Bytes `[height, width, channels]` of one size to another, each axis by itself, rounded to bytes between.
///
/// Pillow 13.0.0 goes down the columns first where a picture loses more than twice as many rows as columns, and
/// along the rows otherwise: measured, on 678 random sizes. Where shrinking, the orders mostly differ by one at most.
///
/// # Panics
/// If a size is zero, there are not as many bytes as the axes say, or more is kept than there is.
pub fn resize(bytes: &[u8], channels: usize, (tall, wide): (&Axis, &Axis), filter: Filter) -> Vec<u8> {
    let sizes = [tall.from, tall.to, wide.from, wide.to, channels];
    assert!(!sizes.contains(&0), "a picture from {}x{} to {}x{}", tall.from, wide.from, tall.to, wide.to);
    let (found, expected) = (bytes.len(), tall.from * wide.from * channels);
    assert_eq!(found, expected, "{found} bytes for {}x{} pixels of {channels}", tall.from, wide.from);
    if tall.lost() > 0 && tall.lost() > 2 * wide.lost() {
        let flat = resample(bytes, 1, (tall, filter), wide.from * channels);
        return resample(&flat, tall.keep.len(), (wide, filter), channels);
    }
    let narrow = resample(bytes, tall.from, (wide, filter), channels);
    resample(&narrow, 1, (tall, filter), wide.keep.len() * channels)
}

/// Bits behind the point of Pillow's weights. Of the 32 of a sum 8 are a byte's, and two are left for its sign and for what sharpens.
const BITS: u32 = 22;

/// One axis of bytes `[outer, from, inner]`, to the kept `[outer, keep, inner]`.
fn resample(bytes: &[u8], outer: usize, (axis, filter): (&Axis, Filter), inner: usize) -> Vec<u8> {
    let taps: Vec<(usize, Vec<i32>)> = axis.keep.clone().map(|place| taps(place, axis, filter)).collect();
    let mut out = Vec::with_capacity(outer * taps.len() * inner);
    let mut sums = vec![0; inner];
    for block in 0..outer {
        let block = &bytes[block * axis.from * inner..][..axis.from * inner];
        for (low, weights) in &taps {
            let window = &block[low * inner..][..weights.len() * inner];
            // A pixel's sums stay in registers; those of a row are added to a weight at a time, in vectors.
            match inner {
                1 => out.extend(pixel::<1>(window, weights)),
                3 => out.extend(pixel::<3>(window, weights)),
                _ => {
                    row(window, weights, &mut sums);
                    out.extend(sums.iter().map(|&sum| rounded(sum)));
                }
            }
        }
    }
    out
}

/// The weighted sum of neighbouring pixels of `N` channels.
fn pixel<const N: usize>(window: &[u8], weights: &[i32]) -> [u8; N] {
    let mut sums = [0; N];
    for (pixel, weight) in window.as_chunks::<N>().0.iter().zip(weights) {
        sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += i32::from(value) * weight);
    }
    sums.map(rounded)
}

/// The weighted sum of neighbouring rows.
fn row(window: &[u8], weights: &[i32], sums: &mut [i32]) {
    sums.fill(0);
    for (pixels, weight) in window.chunks_exact(sums.len()).zip(weights) {
        sums.iter_mut().zip(pixels).for_each(|(sum, &value)| *sum += i32::from(value) * weight);
    }
}

fn rounded(sum: i32) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// Where the pixels begin that one pixel of the result reads, and their weights times `2^22`.
fn taps(place: usize, axis: &Axis, filter: Filter) -> (usize, Vec<i32>) {
    let scale = axis.from as f64 / axis.to as f64;
    let stretch = scale.max(1.0); // smaller pictures read more pixels: no aliasing
    let (centre, support) = ((place as f64 + 0.5) * scale, filter.support() * stretch);
    let low = (centre - support + 0.5).max(0.0) as usize;
    let high = ((centre + support + 0.5) as usize).min(axis.from);
    let shrink = 1.0 / stretch;
    let weights: Vec<f64> =
        (low..high).map(|pixel| filter.weight((pixel as f64 - centre + 0.5) * shrink)).collect();
    let sum: f64 = weights.iter().sum();
    let fixed = |weight: &f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
    (low, weights.iter().map(fixed).collect())
}
