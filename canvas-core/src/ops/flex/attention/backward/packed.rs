//! Queries and keys as the products read them, with room for their gradients.

use super::super::kernel::*;
use super::super::room::Room;
use super::super::{BLOCK, Dims, Rows};
use super::Call;
use crate::ops::flex::simd::dispatch;
use pulp::{Simd, WithSimd};

/// Up to [`BLOCK`] queries, packed, and the sum of their gradient.
pub struct Block {
    /// Sample, head, first query.
    pub at: [usize; 3],
    /// Queries.
    pub count: usize,
    /// Lanes of a vector.
    pub lanes: usize,
    /// Scaled queries `[count, D]`, as panels of their transpose.
    pub queries: Room,
    /// The same, as panels of columns.
    pub query_rows: Room,
    /// Gradients of outputs `[count, V]`, times what exponentials are multiplied by, as panels of their transpose.
    pub grads: Room,
    /// The same, as panels of columns.
    pub grad_rows: Room,
    /// What to subtract from scores: the largest.
    pub shift: Room,
    /// Products of outputs and `grads`.
    pub delta: Room,
    /// The gradient of scaled queries, as panels of its transpose.
    pub dq: Room,
}

impl Block {
    /// The gradient of the queries themselves.
    pub fn write(&self, rows: &mut Rows<'_>, scale: f32) {
        let tall = rows[0].len().next_multiple_of(TALL);
        let factors = [scale; BLOCK];
        dispatch(|| {
            for (p, wide) in panels(self.count.div_ceil(self.lanes)) {
                let (start, wide) = (p * self.lanes, wide * self.lanes);
                let rows = &mut rows[start..self.count.min(start + wide)];
                unpack_transposed(&self.dq[start * tall..], wide, &factors, rows);
            }
        });
    }
}

/// Makes a [`Block`].
pub struct PackBlock<'a> {
    pub call: &'a Call<'a>,
    pub at: [usize; 3],
}

impl WithSimd for PackBlock<'_> {
    type Output = Block;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Block {
        let (call, [b, h, first]) = (self.call, self.at);
        let Dims { heads, rows, width, depth, .. } = call.dims;
        let here = first..rows.min(first + BLOCK);
        let (count, scale) = (here.len(), call.scores.scale);
        let all = count.next_multiple_of(S::F32_LANES);
        let queries = call.q.rows([b, h], here.clone(), width);
        let stats = &call.stats[(b * heads + h) * rows + first..][..count];
        let (mut shift, mut delta, mut grads) =
            (Room::empty(all), Room::empty(all), Room::zeros(count * depth));
        let found = call.grad.rows([b, h], here.clone(), depth).zip(call.out.rows([b, h], here, depth));
        for (((grad, out), [largest, factor]), to) in found.zip(stats).zip(grads.chunks_exact_mut(depth)) {
            // The map is exponentials times a factor: multiplied into the gradients, it need not be into the map.
            shift.append(&[*largest]);
            delta.append(&[inner(simd, grad, out) * factor]);
            to.iter_mut().zip(grad).for_each(|(to, grad)| *to = grad * factor);
        }
        [&mut shift, &mut delta].into_iter().for_each(|room| room.fill_up(all, 0.0));
        let grads = || grads.chunks_exact(depth);
        Block {
            at: self.at,
            count,
            lanes: S::F32_LANES,
            queries: pack_transposed::<S>(queries.clone(), width, scale),
            query_rows: pack_panels::<S>(queries, width, scale),
            grads: pack_transposed::<S>(grads(), depth, 1.0),
            grad_rows: pack_panels::<S>(grads(), depth, 1.0),
            shift,
            delta,
            dq: Room::zeros(width.next_multiple_of(TALL) * all),
        }
    }
}

/// The inner product.
#[inline(always)]
fn inner<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, rest), (b, last)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let mut sum = simd.splat_f32s(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = simd.mul_add_e_f32s(*a, *b, sum);
    }
    simd.reduce_sum_f32s(sum) + rest.iter().zip(last).map(|(a, b)| a * b).sum::<f32>()
}

/// Keys and values, packed, and the sums of their gradients.
pub struct Tile {
    /// The first key.
    pub start: usize,
    /// Keys.
    pub count: usize,
    /// `[count, D]`, as rows.
    pub keys: Room,
    /// The same, as columns.
    pub key_columns: Room,
    /// `[count, V]`, as rows.
    pub values: Room,
    /// The gradient of keys, in rows of whole vectors.
    pub dk: Room,
    /// The gradient of values, in rows of whole vectors.
    pub dv: Room,
}

impl Tile {
    /// The gradients.
    pub fn write(&self, dk: Rows<'_>, dv: Rows<'_>) {
        for (rows, sums) in [(dk, &self.dk), (dv, &self.dv)] {
            let stride = sums.len() / self.count.next_multiple_of(TALL);
            let sums = sums.chunks_exact(stride);
            rows.into_iter().zip(sums).for_each(|(row, sums)| row.copy_from_slice(&sums[..row.len()]));
        }
    }
}

/// Makes a [`Tile`].
pub struct PackTile<'a> {
    pub call: &'a Call<'a>,
    /// Sample, head of keys, first key.
    pub at: [usize; 3],
}

impl WithSimd for PackTile<'_> {
    type Output = Tile;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Tile {
        let (call, [b, head, start]) = (self.call, self.at);
        let Dims { keys, width, depth, .. } = call.dims;
        let here = start..keys.min(start + call.tile);
        let count = here.len();
        let keys = call.k.rows([b, head], here.clone(), width);
        let zeros =
            |width: usize| Room::zeros(count.next_multiple_of(TALL) * width.next_multiple_of(S::F32_LANES));
        Tile {
            start,
            count,
            keys: pack_rows(keys.clone(), width),
            key_columns: pack_columns(keys, width),
            values: pack_rows(call.v.rows([b, head], here, depth), depth),
            dk: zeros(width),
            dv: zeros(depth),
        }
    }
}
