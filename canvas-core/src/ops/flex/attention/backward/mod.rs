//! The gradients of attention.

mod meeting;
mod packed;

use super::kernel::TALL;
use super::{BLOCK, Dims, Rows, Scores, View, apart};
use crate::ops::flex::simd::dispatch;
use meeting::Meeting;
use packed::{Block, PackBlock, PackTile, Tile};
use rayon::prelude::*;

/// Keys in a tile, at most: with [`BLOCK`] queries the map and its gradient take 25 kB each.
const TILE: usize = 66;

/// Meetings of keys and queries at one time that heads are cut for: enough for so many threads, and a constant, for
/// the order of sums depends on it.
const TASKS: usize = 64;

/// Gradients of [`super::forward`] by `q`, `k` and `v`, from its results `out` and `stats` and the gradient by `out`.
///
/// Each number is computed in the same order however many threads there are.
///
/// # Shapes
/// - `q`: `[B, H, N, D]`, `k`: `[B, K, T, D]`, `v`: `[B, K, T, V]`
/// - `out` and `grad`: `[B, H, N, V]`, `stats`: `[B, H, N]`
/// - `dq`: `[B, N, H, D]`, `dk`: `[B, T, K, D]`, `dv`: `[B, T, K, V]`
///
/// # Panics
/// If sizes do not fit.
pub fn backward(
    [q, k, v, out, grad]: [View<'_>; 5],
    stats: &[[f32; 2]],
    dims: Dims,
    scores: Scores<'_>,
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let Dims { batch, heads, kv_heads, rows, keys, width, depth } = dims;
    assert_eq!(stats.len(), batch * heads * rows, "size of stats");
    assert_eq!(dq.len(), batch * rows * heads * width, "size of dq");
    assert_eq!(dk.len(), batch * keys * kv_heads * width, "size of dk");
    assert_eq!(dv.len(), batch * keys * kv_heads * depth, "size of dv");
    if stats.is_empty() || dk.is_empty() || depth == 0 {
        [dq, dk, dv].into_iter().for_each(|gradient| gradient.fill(0.0));
        return;
    }
    let (group, [samples, few]) = (dims.group(), dims.worth());
    let parts = TASKS.div_ceil(batch * kv_heads);
    // Where keys are few, smaller tiles let more threads work, though each less well.
    let tile = keys.div_ceil(parts).clamp(TILE / 2, TILE);
    let tile = keys.div_ceil(keys.div_ceil(tile)).next_multiple_of(TALL);
    let call = Call { q, k, v, out, grad, stats, dims, scores, parts, tile };
    dq.par_chunks_mut(rows * heads * width)
        .zip(dk.par_chunks_mut(keys * kv_heads * width))
        .zip(dv.par_chunks_mut(keys * kv_heads * depth))
        .with_min_len(samples)
        .enumerate()
        .for_each(|(b, ((dq, dk), dv))| {
            apart(dq, heads, width, BLOCK)
                .par_chunks_mut(group)
                .zip(apart(dk, kv_heads, width, tile))
                .zip(apart(dv, kv_heads, depth, tile))
                .with_min_len(few)
                .enumerate()
                .for_each(|(head, ((dq, dk), dv))| call.of_head(b, head, dq, [dk, dv]));
        });
}

/// What is given, and how it is cut.
struct Call<'a> {
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    out: View<'a>,
    grad: View<'a>,
    stats: &'a [[f32; 2]],
    dims: Dims,
    scores: Scores<'a>,
    /// Parts that blocks and tiles of a head are cut into, at most.
    parts: usize,
    /// Keys in a tile.
    tile: usize,
}

impl Call<'_> {
    /// One head of keys, and the query heads that read it.
    ///
    /// In each round every part of the keys meets another part of the queries, so that no two tasks write the same
    /// sums. Sums then need no copies, and their order does not depend on who comes first.
    fn of_head(&self, b: usize, head: usize, dq: &mut [Vec<Rows<'_>>], [dk, dv]: [Vec<Rows<'_>>; 2]) {
        let (group, count) = (dq.len(), dq[0].len());
        let blocks: Vec<[usize; 2]> = (0..count).flat_map(|j| (0..group).map(move |i| [i, j])).collect();
        let block = |&[i, j]: &[usize; 2]| {
            let at = [b, head * group + i, j * BLOCK];
            dispatch(PackBlock { call: self, at })
        };
        let tile = |i| dispatch(PackTile { call: self, at: [b, head, i * self.tile] });
        let mut blocks: Vec<Block> = blocks.par_iter().map(block).collect();
        let mut tiles: Vec<Tile> = (0..dk.len()).into_par_iter().map(tile).collect();
        let (mut queries, mut keys) = (cut(&mut blocks, self.parts, group), cut(&mut tiles, self.parts, 1));
        for _ in 0..queries.len().max(keys.len()) {
            queries.par_iter_mut().zip(keys.par_iter_mut()).for_each(|(blocks, tiles)| {
                dispatch(Meeting { call: self, blocks, tiles });
            });
            if queries.len() > keys.len() { queries.rotate_left(1) } else { keys.rotate_left(1) }
        }
        for (i, dq) in dq.iter_mut().enumerate() {
            let blocks = blocks.par_iter().skip(i).step_by(group);
            dq.par_iter_mut().zip(blocks).for_each(|(rows, block)| block.write(rows, self.scores.scale));
        }
        tiles.par_iter().zip(dk).zip(dv).for_each(|((tile, dk), dv)| tile.write(dk, dv));
    }
}

/// Up to so many parts of equal size, but for one `unit`.
fn cut<T>(mut all: &mut [T], parts: usize, unit: usize) -> Vec<&mut [T]> {
    let count = all.len() / unit;
    let parts = parts.min(count);
    (0..parts)
        .map(|i| {
            let size = (i + 1) * count / parts - i * count / parts;
            all.split_off_mut(..size * unit).expect("sizes add up")
        })
        .collect()
}
