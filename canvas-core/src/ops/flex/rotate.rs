//! Rotary positions: pairs of features turned by angles.

use super::simd::{CHUNK, dispatch, each, fresh, written};
use crate::nn::Pairs;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// Cosines and sines, and by which of them a row of `x` is turned.
#[derive(Clone, Copy)]
pub struct Angles<'a> {
    /// `[B or 1, N, D / 2]`.
    pub cos: &'a [f32],
    /// `[B or 1, N, D / 2]`.
    pub sin: &'a [f32],
    /// Heads.
    pub heads: usize,
    /// Tokens, `N`.
    pub length: usize,
    /// Numbers of a row of `x`: `D`.
    pub width: usize,
    /// Whether `x` is `[B, N, H, D]`, else `[B, H, N, D]`.
    pub within_tokens: bool,
    /// Whether it is turned back.
    pub back: bool,
}

impl<'a> Angles<'a> {
    /// Those of a row: pairs of a cosine and a sine.
    #[inline(always)]
    fn of(&self, row: usize) -> impl Iterator<Item = (&'a f32, f32)> {
        let half = self.width / 2;
        let samples = self.cos.len() / (self.length * half);
        let sample = row / (self.heads * self.length) % samples;
        let token = if self.within_tokens { row / self.heads } else { row } % self.length;
        let table = (sample * self.length + token) * half;
        let sign = if self.back { -1.0 } else { 1.0 };
        self.cos[table..][..half].iter().zip(self.sin[table..][..half].iter().map(move |sin| sign * sin))
    }
}

/// Turns the pairs of every row.
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
        let Self { x, y, first, angles, pairs } = self;
        let width = angles.width;
        for (i, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
            let angles = angles.of(first + i);
            match pairs {
                Pairs::Neighbours => {
                    for ((x, y), (cos, sin)) in x.chunks_exact(2).zip(y.chunks_exact_mut(2)).zip(angles) {
                        y[0].write(x[0] * cos - x[1] * sin);
                        y[1].write(x[0] * sin + x[1] * cos);
                    }
                }
                Pairs::Halves => {
                    let ((a, b), (to_a, to_b)) = (x.split_at(width / 2), y.split_at_mut(width / 2));
                    let (from, to) = (a.iter().zip(b), to_a.iter_mut().zip(to_b));
                    for (((a, b), (to_a, to_b)), (cos, sin)) in from.zip(to).zip(angles) {
                        to_a.write(a * cos - b * sin);
                        to_b.write(a * sin + b * cos);
                    }
                }
            }
        }
    }
}
