//! Rotary positions: pairs of features turned by angles.

use super::simd::{CHUNK, dispatch, each, fresh, written};
use crate::nn::Pairs;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// Cosines and sines of `T` rows of half the width, and which of them a row of `x` is turned by.
#[derive(Clone, Copy)]
pub struct Angles<'a> {
    /// `[T, D / 2]`.
    pub cos: &'a [f32],
    /// `[T, D / 2]`.
    pub sin: &'a [f32],
    /// Numbers of a row of `x`: `D`.
    pub width: usize,
    /// Rows of `x` one after another that have the same angles: the heads, where they lie within a token.
    pub repeat: usize,
    /// Whether it is turned back.
    pub back: bool,
}

/// Turns the pairs of every row, starting again with the first angles after the last.
pub fn rotate(x: &[f32], angles: Angles<'_>, pairs: Pairs) -> Vec<f32> {
    let mut y = fresh(x.len());
    let rows = (CHUNK / angles.width.max(1)).max(1);
    let size = rows * angles.width.max(1);
    let tasks: Vec<_> = x
        .chunks(size)
        .zip(y.chunks_mut(size))
        .enumerate()
        .map(|(i, (x, y))| Task { x, y, first: i * rows, angles, pairs })
        .collect();
    each(tasks, dispatch);
    written(y)
}

struct Task<'a> {
    x: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
    /// The number of the first row.
    first: usize,
    angles: Angles<'a>,
    pairs: Pairs,
}

impl WithSimd for Task<'_> {
    type Output = ();

    // Loops that the compiler vectorises for the instructions that are there.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, y, first, angles: Angles { cos, sin, width, repeat, back }, pairs } = self;
        let (half, sign) = (width / 2, if back { -1.0 } else { 1.0 });
        let tables = cos.len() / half;
        for (i, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
            let table = (first + i) / repeat % tables;
            let angles = cos[table * half..][..half].iter().zip(&sin[table * half..][..half]);
            match pairs {
                Pairs::Neighbours => {
                    for ((x, y), (&cos, &sin)) in x.chunks_exact(2).zip(y.chunks_exact_mut(2)).zip(angles) {
                        let sin = sign * sin;
                        y[0].write(x[0] * cos - x[1] * sin);
                        y[1].write(x[0] * sin + x[1] * cos);
                    }
                }
                Pairs::Halves => {
                    let ((a, b), (to_a, to_b)) = (x.split_at(half), y.split_at_mut(half));
                    let (from, to) = (a.iter().zip(b), to_a.iter_mut().zip(to_b));
                    for (((a, b), (to_a, to_b)), (&cos, &sin)) in from.zip(to).zip(angles) {
                        let sin = sign * sin;
                        to_a.write(a * cos - b * sin);
                        to_b.write(a * sin + b * cos);
                    }
                }
            }
        }
    }
}
