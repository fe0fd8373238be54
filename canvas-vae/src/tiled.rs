//! Autoencoders around autoencoders, for images that are too large for the memory: by tiles, and one at a time.

use burn::prelude::*;
use canvas_core::{Autoencoder, Posterior};

/// Encodes and decodes by overlapping tiles, so that the memory for activations is that of one tile.
///
/// Where tiles overlap, the new one fades in linearly: row `i` of an overlap of `n` rows is
/// `(1 - i / n)` of the tile above and `i / n` of the one below, columns likewise. With `tile` a network's
/// `sample_size` divided by its downsampling, and a quarter of it as `overlap`, this is diffusers'
/// `AutoencoderKL.enable_tiling()`. An image no larger than a tile is not tiled.
///
/// # What it costs
/// The result is not that of the whole image. A tile does not see beyond its border; the overlap hides that. But group
/// norms and attention see their whole input, so that a tile differs in its middle, too, and from its neighbours in
/// brightness and contrast; the overlap only spreads the step. Measured on 48x48 latents by tiles of 16, with small
/// networks of random weights: root mean square of the difference from the image decoded whole, and of that
/// difference's steps from pixel to pixel, in percent of the image's standard deviation, where columns of tiles
/// overlap (or meet) and at least 3 latents from any such place:
///
/// | network | overlap | deviation at seams | far from them | steps at seams | far from them |
/// |---|---|---|---|---|---|
/// | `AutoencoderKl` | 0 | 97.4 | 24.4 | 86.4 | 20.2 |
/// | `AutoencoderKl` | 2 | 56.1 | 18.9 | 47.9 | 15.8 |
/// | `AutoencoderKl` | 4 | 30.4 | 20.8 | 26.4 | 17.0 |
/// | without attention | 0 | 101.6 | 24.5 | 98.3 | 19.5 |
/// | without attention | 2 | 59.0 | 20.7 | 51.2 | 15.1 |
/// | without attention | 4 | 31.7 | 22.1 | 27.0 | 16.9 |
/// | `AutoencoderTiny` | 0 | 71.5 | 2.8 | 49.1 | 2.5 |
/// | `AutoencoderTiny` | 2 | 23.8 | 0.4 | 20.1 | 0.4 |
/// | `AutoencoderTiny` | 4 | 10.5 | 0.0 | 9.4 | 0.0 |
///
/// ```text
/// cargo test -p canvas-vae --test tiled -- --nocapture seams
/// ```
///
/// A larger overlap heals the seams and leaves the rest: that is the norms. To equal the whole image, every norm
/// (and the attention) would need the statistics of all tiles together, in a pass over all of them for each norm.
/// That is not here.
///
/// # Differs from diffusers
/// - `AutoencoderTiny` is blended there by other weights, from 0 to 1 including both ends.
/// - The log variance is blended after it was clamped, which differs where it is clamped.
/// - `tile` and `overlap` are whole latents. There, a fraction is cut to whole latents and to whole pixels
///   separately, so that tiles whose quarter is not whole do not meet.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::Autoencoder;
/// use canvas_vae::{AutoencoderKlConfig, Tiled};
///
/// let config = AutoencoderKlConfig::new().with_channels(vec![4, 8]).with_groups(2).with_layers(1);
/// let model = config.init(&Device::flex());
/// let tiled = Tiled::new(&model, 8, 2); // tiles of 8x8 latents, 16x16 pixels
/// assert_eq!(tiled.decode(Tensor::ones([1, 4, 14, 19], &Device::flex())).dims(), [1, 3, 28, 38]);
/// ```
#[derive(Debug)]
pub struct Tiled<'a, A: ?Sized> {
    autoencoder: &'a A,
    tile: usize,
    overlap: usize,
}

impl<'a, A: Autoencoder + ?Sized> Tiled<'a, A> {
    /// With tiles of `tile` by `tile` latents, neighbours sharing `overlap` of them.
    ///
    /// # Panics
    /// If the overlap is not smaller than the tile.
    pub fn new(autoencoder: &'a A, tile: usize, overlap: usize) -> Self {
        assert!(overlap < tile, "an overlap ({overlap}) must be smaller than its tile ({tile})");
        Self { autoencoder, tile, overlap }
    }
}

impl<A: Autoencoder + ?Sized> Autoencoder for Tiled<'_, A> {
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, _, height, width] = images.dims();
        let [channels, rows, columns] = self.latent_shape(height, width);
        if rows <= self.tile && columns <= self.tile {
            return self.autoencoder.encode(images);
        }
        let factor = height / rows;
        let moments = by_tiles(&images, self.tile * factor, self.overlap * factor, |tile| {
            let Posterior { mean, log_variance } = self.autoencoder.encode(tile);
            Tensor::cat([mean].into_iter().chain(log_variance).collect(), 1)
        }); // [B, C, h, w], or [B, 2 C, h, w]
        let spread = moments.dims()[1] > channels;
        Posterior {
            mean: moments.clone().narrow(1, 0, channels),
            log_variance: spread.then(|| moments.narrow(1, channels, channels)),
        }
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let [_, _, rows, columns] = latents.dims();
        if rows <= self.tile && columns <= self.tile {
            return self.autoencoder.decode(latents);
        }
        by_tiles(&latents, self.tile, self.overlap, |tile| self.autoencoder.decode(tile))
    }

    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        self.autoencoder.latent_shape(height, width)
    }
}

/// Runs tile by tile, row by row, and joins the results; `tile` and `overlap` are in pixels of `x`.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, D, r H, r W]`, if `run` makes that of every tile
fn by_tiles(x: &Tensor<4>, tile: usize, overlap: usize, run: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    let ([_, _, height, width], stride) = (x.dims(), tile - overlap);
    let (mut above, mut rows): (Vec<Tensor<4>>, _) = (Vec::new(), Vec::new());
    for top in (0..height).step_by(stride) {
        let mut row: Vec<Tensor<4>> = Vec::new();
        let mut kept = Vec::new();
        for left in (0..width).step_by(stride) {
            let (h, w) = (tile.min(height - top), tile.min(width - left));
            let part = x.clone().narrow(2, top, h).narrow(3, left, w); // [B, C, h, w]
            let mut out = run(part); // [B, D, r h, r w]
            let resized = |side: usize| side * out.dims()[2] / h;
            let (overlap, stride) = (resized(overlap), resized(stride));
            // The neighbours are blended with theirs already, as in the reference: it shows where four tiles meet.
            if let Some(other) = above.get(row.len()) {
                out = fade(2, other, out, overlap);
            }
            if let Some(other) = row.last() {
                out = fade(3, other, out, overlap);
            }
            let [_, _, h, w] = out.dims();
            kept.push(out.clone().narrow(2, 0, stride.min(h)).narrow(3, 0, stride.min(w)));
            row.push(out);
        }
        rows.push(Tensor::cat(kept, 3)); // [B, D, r stride, r W]
        above = row;
    }
    Tensor::cat(rows, 2)
}

/// The second tile, its first pixels along an axis faded in over the last ones of the first.
fn fade(axis: usize, first: &Tensor<4>, second: Tensor<4>, overlap: usize) -> Tensor<4> {
    let (before, after) = (first.dims()[axis], second.dims()[axis]);
    let overlap = overlap.min(before).min(after);
    if overlap == 0 {
        return second;
    }
    let mut shape = [1; 4];
    shape[axis] = overlap;
    let ramp: Vec<f32> = (0..overlap).map(|i| i as f32 / overlap as f32).collect();
    let ramp = Tensor::<4>::from_data(TensorData::new(ramp, shape), &second.device());
    let old = first.clone().narrow(axis, before - overlap, overlap);
    let new = second.clone().narrow(axis, 0, overlap);
    let faded = old * (1.0 - ramp.clone()) + new * ramp;
    if overlap == after {
        return faded;
    }
    Tensor::cat(vec![faded, second.narrow(axis, overlap, after - overlap)], axis)
}

/// Encodes and decodes the images of a batch one at a time, so that the memory for activations is that of one.
///
/// The results are those of the whole batch, bit by bit on the CPU. diffusers' `enable_slicing()`; around a
/// [`Tiled`], both.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::Autoencoder;
/// use canvas_vae::{AutoencoderTinyConfig, Sliced, Tiled};
///
/// let config = AutoencoderTinyConfig::new().with_channels(vec![4, 4]).with_blocks(vec![0, 1]);
/// let model = config.init(&Device::flex());
/// let (tiled, latents) = (Tiled::new(&model, 4, 1), Tensor::ones([3, 4, 6, 6], &Device::flex()));
/// assert_eq!(Sliced::new(&tiled).decode(latents).dims(), [3, 3, 12, 12]);
/// ```
#[derive(Debug)]
pub struct Sliced<'a, A: ?Sized> {
    autoencoder: &'a A,
}

impl<'a, A: Autoencoder + ?Sized> Sliced<'a, A> {
    /// Around this autoencoder.
    pub fn new(autoencoder: &'a A) -> Self {
        Self { autoencoder }
    }
}

impl<A: Autoencoder + ?Sized> Autoencoder for Sliced<'_, A> {
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let posteriors = images.split(1, 0).into_iter().map(|image| self.autoencoder.encode(image));
        let (means, spreads): (Vec<_>, Vec<_>) =
            posteriors.map(|posterior| (posterior.mean, posterior.log_variance)).unzip();
        let spreads: Option<Vec<_>> = spreads.into_iter().collect();
        Posterior {
            mean: Tensor::cat(means, 0),
            log_variance: spreads.map(|spreads| Tensor::cat(spreads, 0)),
        }
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let images = latents.split(1, 0).into_iter().map(|latents| self.autoencoder.decode(latents));
        Tensor::cat(images.collect(), 0)
    }

    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        self.autoencoder.latent_shape(height, width)
    }
}
