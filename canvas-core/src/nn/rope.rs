//! Rotary position embedding over any number of axes.

use crate::ops;
use crate::trace::route;
use burn::prelude::*;

/// Which features make up a pair that is rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Features `2i` and `2i + 1`: Flux, Lumina, Qwen-Image, LightningDiT and most image transformers.
    Neighbours,
    /// Features `i` and `i + D/2`: language models.
    Halves,
}

/// Rotations of queries and keys by their positions.
///
/// A position has one number an axis, such as `[reference, row, column]`; each axis rotates its own features, by
/// `position * theta^(-2i / size)`. Angles are computed in f64.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::nn::{Pairs, Rope};
///
/// let device = Device::flex();
/// let positions = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]];
/// let rope = Rope::new(&positions, &[4, 4], 10000.0, Pairs::Neighbours, &device);
/// let x = Tensor::ones([2, 3, 3, 8], &device); // [B, H, N, D]
/// assert_eq!(rope.rotate(x).dims(), [2, 3, 3, 8]);
/// ```
///
/// # Reference
/// Su et al., "RoFormer", 2021, <https://arxiv.org/abs/2104.09864>; several axes as in Flux.
#[derive(Clone, Debug)]
pub struct Rope {
    cos: Tensor<4>, // [B or 1, 1, N, D/2]
    sin: Tensor<4>,
    pairs: Pairs,
}

impl Rope {
    /// Rotations for `N` positions, alike for all samples.
    ///
    /// `axes` says how many features each axis rotates; their sum is the heads' width.
    ///
    /// # Panics
    /// If an axis has an odd size, or a position has not one number an axis.
    pub fn new<P: AsRef<[f64]>>(
        positions: &[P],
        axes: &[usize],
        theta: f64,
        pairs: Pairs,
        device: &Device,
    ) -> Self {
        let mut angles = Vec::with_capacity(positions.len() * axes.iter().sum::<usize>() / 2);
        for position in positions {
            let position = position.as_ref();
            assert_eq!(position.len(), axes.len(), "a position has one number for each of the axes {axes:?}");
            for (&place, &size) in position.iter().zip(axes) {
                assert!(
                    size.is_multiple_of(2),
                    "an axis of rotary positions needs an even size, found {size}"
                );
                angles.extend((0..size / 2).map(|i| place * theta.powf(-2.0 * i as f64 / size as f64)));
            }
        }
        Self::from_angles(&angles, positions.len(), pairs, device)
    }

    /// Rotations by given angles, position after position: for frequencies that are not plain powers.
    ///
    /// # Panics
    /// If `positions` does not divide the number of angles.
    pub fn from_angles(angles: &[f64], positions: usize, pairs: Pairs, device: &Device) -> Self {
        assert!(
            positions > 0 && angles.len().is_multiple_of(positions),
            "{} angles for {positions} positions",
            angles.len()
        );
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, positions, angles.len() / positions]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin), pairs }
    }

    /// Rotations of samples with positions of their own, one batch from many.
    ///
    /// # Panics
    /// If there are none, or they differ in length.
    pub fn stack(samples: &[Self]) -> Self {
        let join = |part: fn(&Self) -> &Tensor<4>| {
            Tensor::cat(samples.iter().map(|one| part(one).clone()).collect(), 0)
        };
        Self { cos: join(|one| &one.cos), sin: join(|one| &one.sin), pairs: samples[0].pairs }
    }

    /// How many positions there are.
    pub fn positions(&self) -> usize {
        self.cos.dims()[2]
    }

    /// Those of some positions only.
    pub fn narrow(&self, start: usize, length: usize) -> Self {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().narrow(2, start, length));
        Self { cos, sin, pairs: self.pairs }
    }

    /// Turns each pair of features by its angle; in 32 bits at least.
    ///
    /// # Shapes
    /// `[B, H, N, D]` to `[B, H, N, D]`.
    ///
    /// # Panics
    /// If `x` has another number of positions, or `D` is not the sum of the axes.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, length, width] = x.dims();
        // Of the tokens that are there, where some go around a block.
        let [cos, sin] = [&self.cos, &self.sin].map(|table| route::follow_positions(table, length));
        let [_, _, positions, half] = cos.dims();
        assert_eq!(
            [length, width],
            [positions, 2 * half],
            "[tokens, width] of what is rotated, and what the rotations are for"
        );
        ops::rotate(x, cos, sin, self.pairs)
    }
}
