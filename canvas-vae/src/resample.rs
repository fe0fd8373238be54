//! Pictures and tables in another size, as PyTorch's `interpolate` makes them, and with gradients.

use burn::prelude::*;

/// How a picture shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bicubic {
    /// From four pixels, however much it shrinks: Keys' cubic with a = -3/4.
    Sharp,
    /// From all pixels below the shrunken one: Keys' cubic with a = -1/2, as wide as the scale.
    Smooth,
}

impl Bicubic {
    fn weight(self, x: f64) -> f64 {
        let (x, a) = (x.abs(), if self == Self::Sharp { -0.75 } else { -0.5 });
        match x {
            _ if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            _ if x < 2.0 => ((x - 5.0) * x + 8.0) * x * a - 4.0 * a,
            _ => 0.0,
        }
    }

    /// What each pixel of a line takes from those before, row by row; pixels beyond the ends are those at the ends, or
    /// where it is smooth, left out.
    fn matrix(self, from: usize, to: usize) -> Vec<f32> {
        let scale = from as f64 / to as f64;
        let stretch = if self == Self::Smooth { scale.max(1.0) } else { 1.0 };
        let mut matrix = vec![0.0; to * from];
        for (i, row) in matrix.chunks_mut(from).enumerate() {
            let centre = scale * (i as f64 + 0.5) - 0.5;
            let reach = (2.0 * stretch).ceil() as i64;
            for j in centre.floor() as i64 - reach..=centre.floor() as i64 + reach + 1 {
                let weight = self.weight((j as f64 - centre) / stretch);
                let inside = j.clamp(0, from as i64 - 1);
                if inside == j || self == Self::Sharp {
                    row[inside as usize] += weight;
                }
            }
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
        matrix.into_iter().map(|weight| weight as f32).collect()
    }
}

/// Every channel in another size.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, C, h, w]`.
pub(crate) fn resized(x: Tensor<4>, [height, width]: [usize; 2], filter: Bicubic) -> Tensor<4> {
    let [_, _, rows, columns] = x.dims();
    let line = |from: usize, to: usize| {
        let data = TensorData::new(filter.matrix(from, to), [1, 1, to, from]);
        Tensor::<4>::from_data(data, (&x.device(), x.dtype()))
    };
    let (down, across) = (line(rows, height), line(columns, width));
    down.matmul(x).matmul(across.swap_dims(2, 3)) // [B, C, h, w]
}
