//! Masks to train painting within one: which pixels are to be painted (1), and which are given (0).
//!
//! A mask is a function of seed and image number, as all that is drawn in training.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_train::masks::{Mask, batch};
//!
//! let mix = [(0.5, Mask::strokes()), (0.3, Mask::Boxes { most: 3, least_side: 0.1, most_side: 0.5 }), (0.2, Mask::borders())];
//! let masks = batch(&mix, [64, 96], 0, &[17, 18, 19], &Device::flex());
//! assert_eq!(masks.dims(), [3, 1, 64, 96]);
//! ```

use burn::prelude::*;
use canvas_core::generator;
use rand::{Rng, RngExt};
use std::f64::consts::TAU;

/// A kind of masks. Lengths are parts of the image's shorter side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mask {
    /// Thick strokes of several turns, as of a hand that wipes something out.
    ///
    /// Yu et al., "Free-Form Image Inpainting with Gated Convolution", 2018, algorithm 1, <https://arxiv.org/abs/1806.03589>.
    Strokes {
        /// Largest number of strokes; at least one is drawn.
        most: usize,
        /// Largest number of turns of a stroke.
        turns: usize,
        /// Largest length from turn to turn.
        length: f64,
        /// Largest width.
        width: f64,
    },
    /// Rectangles.
    Boxes {
        /// Largest number; at least one is drawn.
        most: usize,
        /// Smallest side.
        least_side: f64,
        /// Largest side.
        most_side: f64,
    },
    /// Borders to paint an image further: of each side by chance, of one at least.
    Borders {
        /// Largest width of a border, below half the image.
        most: f64,
    },
    /// Everything.
    Whole,
}

impl Mask {
    /// Up to five strokes of up to twelve turns.
    pub fn strokes() -> Self {
        Self::Strokes { most: 5, turns: 12, length: 0.4, width: 0.2 }
    }

    /// Borders of up to 0.4.
    pub fn borders() -> Self {
        Self::Borders { most: 0.4 }
    }

    /// The mask of an image, row after row.
    fn draw(self, [height, width]: [usize; 2], generator: &mut impl Rng) -> Vec<f32> {
        let mut canvas = Canvas { height, width, pixels: vec![0.0; height * width] };
        let side = height.min(width) as f64;
        match self {
            Self::Whole => canvas.pixels.fill(1.0),
            Self::Strokes { most, turns, length, width } => {
                for _ in 0..generator.random_range(1..=most.max(1)) {
                    canvas.stroke(turns, [length * side, width * side], generator);
                }
            }
            Self::Boxes { most, least_side, most_side } => {
                let sides = (least_side * side).max(1.0)..=(most_side * side).max(least_side * side).max(1.0);
                for _ in 0..generator.random_range(1..=most.max(1)) {
                    let size = [height, width].map(|whole| {
                        let size = generator.random_range(sides.clone()).round() as usize;
                        size.clamp(1, whole)
                    });
                    let [top, left] =
                        [height - size[0], width - size[1]].map(|most| generator.random_range(0..=most));
                    canvas.fill(top..top + size[0], left..left + size[1]);
                }
            }
            Self::Borders { most } => {
                let mut sides: [bool; 4] = generator.random();
                sides[generator.random_range(0..4)] = true;
                for (side_number, _) in sides.iter().enumerate().filter(|(_, is_on)| **is_on) {
                    let wide = (generator.random::<f64>() * most * side).ceil().max(1.0) as usize;
                    match side_number {
                        0 => canvas.fill(0..wide.min(height), 0..width),
                        1 => canvas.fill(height - wide.min(height)..height, 0..width),
                        2 => canvas.fill(0..height, 0..wide.min(width)),
                        _ => canvas.fill(0..height, width - wide.min(width)..width),
                    }
                }
            }
        }
        canvas.pixels
    }
}

struct Canvas {
    height: usize,
    width: usize,
    pixels: Vec<f32>,
}

impl Canvas {
    fn fill(&mut self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) {
        for row in rows {
            self.pixels[row * self.width..][columns.clone()].fill(1.0);
        }
    }

    /// One stroke, turning about right round at every turn.
    fn stroke(&mut self, turns: usize, [length, width]: [f64; 2], generator: &mut impl Rng) {
        let mut at = [self.height, self.width].map(|whole| generator.random::<f64>() * whole as f64);
        let radius = 0.5 * (0.25 + 0.75 * generator.random::<f64>()) * width;
        let mut angle = generator.random::<f64>() * TAU;
        for _ in 0..generator.random_range(1..=turns.max(1)) {
            angle += TAU * (0.5 + 0.3 * (generator.random::<f64>() - 0.5));
            let far = length * (0.25 + 0.75 * generator.random::<f64>());
            let to = [at[0] + far * angle.sin(), at[1] + far * angle.cos()];
            let to = [to[0].clamp(0.0, self.height as f64), to[1].clamp(0.0, self.width as f64)];
            self.line(at, to, radius.max(0.75));
            at = to;
        }
    }

    /// Every pixel whose centre is no further from a line.
    fn line(&mut self, from: [f64; 2], to: [f64; 2], radius: f64) {
        let range = |axis: usize, whole: usize| {
            let low = (from[axis].min(to[axis]) - radius).floor().max(0.0) as usize;
            let high = (from[axis].max(to[axis]) + radius).ceil().min(whole as f64) as usize;
            low.min(whole)..high
        };
        let along = [to[0] - from[0], to[1] - from[1]];
        let square = along[0] * along[0] + along[1] * along[1];
        for row in range(0, self.height) {
            for column in range(1, self.width) {
                let here = [row as f64 + 0.5 - from[0], column as f64 + 0.5 - from[1]];
                let part =
                    if square > 0.0 { (here[0] * along[0] + here[1] * along[1]) / square } else { 0.0 };
                let part = part.clamp(0.0, 1.0);
                let off = [here[0] - part * along[0], here[1] - part * along[1]];
                if off[0].hypot(off[1]) <= radius {
                    self.pixels[row * self.width + column] = 1.0;
                }
            }
        }
    }
}

/// A mask for each image, of kinds that come as often as their weights say: `[B, 1, H, W]`.
///
/// # Panics
/// If there is no kind with a weight above 0.
pub fn batch(
    kinds: &[(f64, Mask)],
    size: [usize; 2],
    seed: u64,
    images: &[u64],
    device: &Device,
) -> Tensor<4> {
    let total: f64 = kinds.iter().map(|(weight, _)| weight.max(0.0)).sum();
    assert!(total > 0.0, "kinds of masks with weights above 0, found {kinds:?}");
    let mut values: Vec<f32> = Vec::with_capacity(images.len() * size[0] * size[1]);
    for &image in images {
        let mut generator = generator(seed, image, 0);
        let mut left = generator.random::<f64>() * total;
        let chosen = kinds.iter().filter(|(weight, _)| *weight > 0.0).find(|(weight, _)| {
            left -= weight;
            left < 0.0
        });
        let (_, kind) = chosen.or(kinds.last()).expect("a kind");
        values.extend(kind.draw(size, &mut generator));
    }
    Tensor::from_data(TensorData::new(values, [images.len(), 1, size[0], size[1]]), device)
}

/// The background of cut-outs: 1 where there is less than half of something.
///
/// # Shapes
/// - `alpha`: `[B, 1, H, W]`, from 0 to 1, as is the output
pub fn background(alpha: Tensor<4>) -> Tensor<4> {
    alpha.lower_elem(0.5).float()
}
