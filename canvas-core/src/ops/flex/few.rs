//! Products with few rows on the left: what a prompt's tokens and small maps are.
//!
//! The left side is read as it lies, and each task packs the columns of the right side that it needs, of which it has few
//! uses. A general product packs both, in memory that all threads share, and here that is no longer little beside the rest.

use super::simd::dispatch;
use super::tile::{InTiles, PACKED, RESULTS, TALL, Tiled, WIDE, scratch, tile_of_rows};
use pulp::Simd;
use rayon::prelude::*;

/// Rows up to which this is faster.
pub const FEW: usize = 256;
/// Panels of columns of a task.
const PANELS: usize = 4;
/// Steps of the sums at a time: a panel of the right side stays in a core's cache.
const DEPTH: usize = 2048;

/// Writes `x w + b` to `y`: `[R, I]` by `[I, O]`, all row after row.
pub fn linear(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let (to, rows) = (bias.len(), y.len() / bias.len().max(1));
    if rows == 0 {
        return;
    }
    let wide = PANELS * WIDE;
    let mut parts: Vec<Vec<&mut [f32]>> = (0..to.div_ceil(wide)).map(|_| Vec::with_capacity(rows)).collect();
    for row in y.chunks_exact_mut(to) {
        parts.iter_mut().zip(row.chunks_mut(wide)).for_each(|(part, piece)| part.push(piece));
    }
    let depth = x.len() / rows;
    parts.into_par_iter().enumerate().for_each(|(i, rows)| {
        scratch(&PACKED, DEPTH.min(depth) * WIDE, |packed| {
            scratch(&RESULTS, rows.len().next_multiple_of(TALL) * WIDE, |results| {
                dispatch(InTiles(Task { x, weight, bias, depth, first: i * wide, rows, packed, results }));
            });
        });
    });
}

/// Some columns of the answer.
struct Task<'a, 'b> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    /// Numbers of a row of `x`.
    depth: usize,
    /// The first column.
    first: usize,
    /// These columns of all rows.
    rows: Vec<&'b mut [f32]>,
    /// Memory for a panel of the weight.
    packed: &'a mut [f32],
    /// Memory for the sums of a panel.
    results: &'a mut [f32],
}

impl Tiled for Task<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Self { x, weight, bias, depth, first, mut rows, packed, results } = self;
        let (to, last) = (bias.len(), rows.len() - 1);
        for start in (0..rows[0].len()).step_by(WIDE) {
            let columns = first + start..to.min(first + start + WIDE);
            for above in (0..depth).step_by(DEPTH) {
                let here = above..depth.min(above + DEPTH);
                for (packed, i) in packed.chunks_exact_mut(WIDE).zip(here.clone()) {
                    let row = &weight[i * to..][columns.clone()];
                    match <&[f32; WIDE]>::try_from(row) {
                        Ok(row) => packed.copy_from_slice(row),
                        Err(_) => packed[..row.len()].copy_from_slice(row),
                    }
                }
                for (t, results) in results.chunks_exact_mut(TALL * WIDE).enumerate() {
                    // Beyond the last row it comes again, and goes nowhere.
                    let row = |i: usize| &x[(t * TALL + i).min(last) * depth..][here.clone()];
                    let a = std::array::from_fn(row);
                    tile_of_rows::<S, V>(simd, a, &packed[..here.len() * WIDE], results, WIDE, above > 0);
                }
            }
            let bias = &bias[columns.clone()];
            for (row, sums) in rows.iter_mut().zip(results.chunks_exact(WIDE)) {
                let row = &mut row[start..][..bias.len()];
                row.iter_mut().zip(sums).zip(bias).for_each(|((y, sum), bias)| *y = sum + bias);
            }
        }
    }
}
