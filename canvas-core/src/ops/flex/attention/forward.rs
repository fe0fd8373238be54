//! The values of attention.

use super::kernel::*;
use super::room::Room;
use super::{BLOCK, Dims, Rows, Scores, View, apart};
use crate::ops::flex::math::exp;
use crate::ops::flex::simd::dispatch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Keys in a tile, at most: the scores of a panel, 8 kB for vectors of 8 lanes, stay in the first cache.
const TILE: usize = 132;

/// `softmax(scores(q k^T)) v`, and of each query the largest score and what exponentials relative to it are multiplied by,
/// which [`super::backward`] needs. (Their one logarithm would lose digits of large scores.)
///
/// A row without keys is 0. Each number is computed in the same order however many threads there are.
///
/// # Shapes
/// - `q`: `[B, H, N, D]`, `k`: `[B, K, T, D]`, `v`: `[B, K, T, V]`
/// - `out`: `[B, N, H, V]`, `stats`: `[B, H, N]`
///
/// # Panics
/// If sizes do not fit.
pub fn forward(
    [q, k, v]: [View<'_>; 3],
    dims: Dims,
    scores: Scores<'_>,
    out: &mut [f32],
    stats: Option<&mut [[f32; 2]]>,
) {
    let Dims { batch, heads, rows, keys, depth, .. } = dims;
    assert_eq!(out.len(), batch * rows * heads * depth, "size of out");
    let mut unused = Vec::new();
    let stats = stats.unwrap_or_else(|| {
        unused.resize(batch * heads * rows, [0.0; 2]);
        &mut unused
    });
    assert_eq!(stats.len(), batch * heads * rows, "size of stats");
    if out.is_empty() {
        return;
    }
    if keys == 0 {
        out.fill(0.0);
        stats.fill([0.0; 2]);
        return;
    }
    let (group, [samples, few]) = (dims.group(), dims.worth());
    let call = Call { q, k, v, dims, scores };
    out.par_chunks_mut(rows * heads * depth)
        .zip(stats.par_chunks_mut(heads * rows))
        .with_min_len(samples)
        .enumerate()
        .for_each(|(b, (out, stats))| {
            apart(out, heads, depth, BLOCK)
                .par_chunks_mut(group)
                .zip(stats.par_chunks_mut(group * rows))
                .with_min_len(few)
                .enumerate()
                .for_each(|(head, (out, stats))| call.of_head(b, head, out, stats));
        });
}

/// What is given.
struct Call<'a> {
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    dims: Dims,
    scores: Scores<'a>,
}

impl Call<'_> {
    /// The query heads of one head of keys.
    fn of_head(&self, b: usize, head: usize, out: &mut [Vec<Rows<'_>>], stats: &mut [[f32; 2]]) {
        let Dims { rows, keys, .. } = self.dims;
        let starts = (0..keys.div_ceil(TILE)).into_par_iter();
        let tiles: Vec<_> = starts.map(|i| self.tile(b, head, i * TILE)).collect();
        let group = out.len();
        out.par_iter_mut().zip(stats.par_chunks_mut(rows)).enumerate().for_each(|(i, (out, stats))| {
            out.par_iter_mut().zip(stats.par_chunks_mut(BLOCK)).enumerate().for_each(|(j, (rows, stats))| {
                let at = [b, head * group + i, j * BLOCK];
                dispatch(Block { call: self, tiles: &tiles, at, rows, stats });
            });
        });
    }

    /// Up to [`TILE`] keys and their values.
    fn tile(&self, b: usize, head: usize, start: usize) -> Tile {
        let Dims { keys, width, depth, .. } = self.dims;
        let end = keys.min(start + TILE);
        dispatch(|| Tile {
            start,
            count: end - start,
            keys: pack_rows(self.k.rows([b, head], start..end, width), width),
            values: pack_columns(self.v.rows([b, head], start..end, depth), depth),
        })
    }
}

/// Keys and values, packed.
struct Tile {
    /// The first key.
    start: usize,
    /// Keys.
    count: usize,
    /// `[count, D]`, as rows.
    keys: Room,
    /// `[count, V]`, as columns.
    values: Room,
}

/// Up to [`BLOCK`] queries, which meet all keys.
struct Block<'a, 'b> {
    call: &'a Call<'a>,
    tiles: &'a [Tile],
    /// Sample, head, first query.
    at: [usize; 3],
    /// Where outputs go.
    rows: &'a mut Rows<'b>,
    /// Where largest scores and factors go.
    stats: &'a mut [[f32; 2]],
}

impl WithSimd for Block<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dims { width, depth, .. } = self.call.dims;
        let ([b, h, first], lanes, count) = (self.at, S::F32_LANES, self.rows.len());
        let queries = self.call.q.rows([b, h], first..first + count, width);
        let queries = pack_transposed::<S>(queries, width, self.call.scores.scale);
        let tall = depth.next_multiple_of(TALL);
        let size = count.div_ceil(lanes);
        let mut sums = Room::zeros(tall * size * lanes);
        // Not below any score that is hidden: where a tile has nothing but minus infinity, exp gives 0 and not NaN.
        let (mut max, mut total) = (Room::filled(size * lanes, f32::MIN), Room::zeros(size * lanes));
        let mut scores = Room::zeros(TILE * WIDE * lanes);
        for tile in self.tiles {
            for (p, wide) in panels(size) {
                let here = p * lanes..(p + wide) * lanes;
                let count = count.min(here.end) - here.start;
                let at = [b, h, first + here.start, tile.start];
                let panel = Panel {
                    simd,
                    queries: vectors::<S>(&queries[here.start * width..here.end * width]),
                    sums: vectors_mut::<S>(&mut sums[here.start * tall..here.end * tall]),
                    max: vectors_mut::<S>(&mut max[here.clone()]),
                    total: vectors_mut::<S>(&mut total[here]),
                    scores: vectors_mut::<S>(&mut scores),
                };
                with_width!(wide, W => panel.meet::<W>(tile, self.call, at, count));
            }
        }
        for (p, wide) in panels(size) {
            let (start, wide) = (p * lanes, wide * lanes);
            let rows = start..count.min(start + wide);
            let factors: Vec<f32> = total[start..][..wide].iter().map(|total| total.recip()).collect();
            unpack_transposed(&sums[start * tall..], wide, &factors, &mut self.rows[rows]);
        }
        self.stats
            .iter_mut()
            .zip(max.iter().zip(total.iter()))
            .for_each(|(stats, (max, total))| *stats = [*max, total.recip()]);
    }
}

/// A panel of queries, in lanes.
struct Panel<'a, S: Simd> {
    simd: S,
    /// `[D, W]` vectors.
    queries: &'a [S::f32s],
    /// Sums of values so far, relative to `max`: `[V, W]` vectors.
    sums: &'a mut [S::f32s],
    /// Largest score so far.
    max: &'a mut [S::f32s],
    /// Denominators so far, relative to `max`.
    total: &'a mut [S::f32s],
    /// Room for `[TILE, W]` vectors.
    scores: &'a mut [S::f32s],
}

impl<S: Simd> Panel<'_, S> {
    /// Adds a tile of keys to the sums.
    #[inline(always)]
    fn meet<const W: usize>(self, tile: &Tile, call: &Call<'_>, at: [usize; 4], count: usize) {
        let (simd, width) = (self.simd, call.dims.width);
        let tall = tile.count.next_multiple_of(TALL);
        let keys = Across { data: &tile.keys, stride: width, length: width };
        let to = (&mut self.scores[..tall * W], W);
        simd.vectorize(Product::<S, _, W, false> { simd, a: keys, b: (self.queries, W), to });
        if call.scores.change() {
            call.scores.apply(simd, at, count, (self.scores, W, tile.count), None);
        }
        let scores = &mut self.scores.as_chunks_mut::<W>().0[..tile.count];
        let before: [S::f32s; W] = part::<S, W>(self.max, 0);
        let mut max = before;
        for scores in scores.iter() {
            for j in 0..W {
                max[j] = simd.max_f32s(max[j], scores[j]);
            }
        }
        // What earlier sums are worth relative to the new maximum.
        let mut kept = before;
        for j in 0..W {
            kept[j] = exp(simd, simd.sub_f32s(before[j], max[j]));
        }
        let mut total = times(simd, part::<S, W>(self.total, 0), kept);
        for scores in scores.iter_mut() {
            for j in 0..W {
                scores[j] = exp(simd, simd.sub_f32s(scores[j], max[j]));
                total[j] = simd.add_f32s(total[j], scores[j]);
            }
        }
        self.max.copy_from_slice(&max);
        self.total.copy_from_slice(&total);
        if tile.start > 0 {
            for sums in self.sums.as_chunks_mut::<W>().0 {
                *sums = times(simd, *sums, kept);
            }
        }
        let (map, values) = (scores.as_flattened(), Along { data: &tile.values, length: tile.count });
        simd.vectorize(Product::<S, _, W, true> { simd, a: values, b: (map, W), to: (self.sums, W) });
    }
}
