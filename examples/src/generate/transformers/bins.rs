//! Sizes that some models were trained at: others are drawn at the one of nearest proportions, and cut out of it.

use super::bin_tables::{self as tables, Bin};
use burn::prelude::*;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};

/// Those of PixArt for latents of this side; 2048 pixels are Sigma's.
pub fn pixart(sample: usize, sigma: bool) -> Option<&'static [Bin]> {
    match sample {
        32 => Some(tables::PIXELS_256),
        64 => Some(tables::PIXELS_512),
        128 => Some(tables::PIXELS_1024),
        256 if sigma => Some(tables::PIXELS_2048),
        _ => None,
    }
}

/// Those of Sana for latents of this side.
pub fn sana(sample: usize) -> Option<&'static [Bin]> {
    match sample {
        16 => Some(tables::PIXELS_512),
        32 => Some(tables::PIXELS_1024),
        64 => Some(tables::PIXELS_2048),
        128 => Some(tables::PIXELS_4096),
        _ => None,
    }
}

/// Those of PRX for pictures of this side.
pub fn prx(side: usize) -> Option<&'static [Bin]> {
    match side {
        256 => Some(tables::PRX_256),
        512 => Some(tables::PRX_512),
        1024 => Some(tables::PRX_1024),
        _ => None,
    }
}

/// The size whose proportions are nearest to those of `[height, width]`, the first of several.
pub fn nearest(bins: &[Bin], [height, width]: [usize; 2]) -> [usize; 2] {
    let asked = height as f64 / width as f64;
    let mut best = bins[0];
    for bin in bins {
        if (bin.0 - asked).abs() < (best.0 - asked).abs() {
            best = *bin;
        }
    }
    best.1
}

/// A size of about so many pixels in the proportions of `[height, width]`, both sides cut down to a multiple.
pub fn of_area(pixels: usize, [height, width]: [usize; 2], multiple: usize) -> [usize; 2] {
    let aspect = width as f64 / height as f64;
    let pixels = pixels as f64;
    // Python's round, which goes to the even neighbour from the middle.
    let [height, width] = [(pixels / aspect).sqrt(), (pixels * aspect).sqrt()].map(f64::round_ties_even);
    [height as usize / multiple * multiple, width as usize / multiple * multiple]
}

/// Pictures `[B, 3, H, W]` brought to `[height, width]`: scaled until both sides reach, and cut at the centre.
pub fn cut_out(pictures: Tensor<4>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [_, _, own_height, own_width] = pictures.dims();
    if [own_height, own_width] == [height, width] {
        return pictures;
    }
    let ratio = (height as f64 / own_height as f64).max(width as f64 / own_width as f64);
    let scaled = [(own_height, height), (own_width, width)]
        .map(|(own, asked)| ((own as f64 * ratio) as usize).max(asked)); // rounding must not take the last pixel
    let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_align_corners(false);
    let pictures = interpolate(pictures, options.with_output_size(scaled));
    pictures.narrow(2, (scaled[0] - height) / 2, height).narrow(3, (scaled[1] - width) / 2, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_proportions_win() {
        let bins = pixart(128, false).unwrap();
        assert_eq!(nearest(bins, [1024, 1024]), [1024, 1024]);
        assert_eq!(nearest(bins, [400, 100]), [2048, 512]);
        assert_eq!(nearest(bins, [64, 128]), [704, 1408]);
        assert!(pixart(256, false).is_none() && pixart(256, true).is_some());
    }

    #[test]
    fn pictures_are_cut_at_the_centre() {
        let ramp = Tensor::<1, Int>::arange(0..12, &Device::flex()).float().reshape([1, 1, 2, 6]);
        let cut = cut_out(ramp.clone(), [2, 2]);
        assert_eq!(cut.into_data(), ramp.narrow(3, 2, 2).into_data());
    }

    #[test]
    fn rounding_takes_no_pixel() {
        // In f64, 49 times a 49th is a little less than 1.
        let picture = Tensor::<4>::ones([1, 1, 49, 98], &Device::flex());
        assert_eq!(cut_out(picture, [1, 1]).dims(), [1, 1, 1, 1]);
    }
}
