//! The gradients of attention.

use super::kernel::*;
use super::room::Room;
use super::{BLOCK, Dims, Rows, Scores, View, apart};
use crate::ops::flex::simd::{dispatch, exp};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Keys in a tile, at most: with [`BLOCK`] queries the map and its gradient take 25 kB each.
const TILE: usize = 66;

/// Meetings of keys and queries at one time that heads are cut for: enough for so many threads, and a constant, for
/// the order of sums depends on it.
const TASKS: usize = 64;

/// Gradients of [`super::forward`] by `q`, `k` and `v`, from its results `out` and `lse` and the gradient by `out`.
///
/// Each number is computed in the same order however many threads there are.
///
/// # Shapes
/// - `q`: `[B, H, N, D]`, `k`: `[B, K, T, D]`, `v`: `[B, K, T, V]`
/// - `out` and `grad`: `[B, H, N, V]`, `lse`: `[B, H, N]`
/// - `dq`: `[B, N, H, D]`, `dk`: `[B, T, K, D]`, `dv`: `[B, T, K, V]`
///
/// # Panics
/// If sizes do not fit.
pub fn backward(
    [q, k, v, out, grad]: [View<'_>; 5],
    lse: &[f32],
    dims: Dims,
    scores: Scores<'_>,
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let Dims { batch, heads, kv_heads, rows, keys, width, depth } = dims;
    assert_eq!(lse.len(), batch * heads * rows, "size of lse");
    assert_eq!(dq.len(), batch * rows * heads * width, "size of dq");
    assert_eq!(dk.len(), batch * keys * kv_heads * width, "size of dk");
    assert_eq!(dv.len(), batch * keys * kv_heads * depth, "size of dv");
    if lse.is_empty() || dk.is_empty() {
        [dq, dk, dv].into_iter().for_each(|gradient| gradient.fill(0.0));
        return;
    }
    let (group, [samples, few]) = (dims.group(), dims.worth());
    let parts = TASKS.div_ceil(batch * kv_heads);
    // Where keys are few, smaller tiles let more threads work, though each less well.
    let tile = keys.div_ceil(parts).clamp(TILE / 2, TILE);
    let tile = keys.div_ceil(keys.div_ceil(tile)).next_multiple_of(TALL);
    let call = Call { q, k, v, out, grad, lse, dims, scores, parts, tile };
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
    lse: &'a [f32],
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

/// Up to [`BLOCK`] queries, packed, and the sum of their gradient.
struct Block {
    /// Sample, head, first query.
    at: [usize; 3],
    /// Queries.
    count: usize,
    /// Lanes of a vector.
    lanes: usize,
    /// Scaled queries `[count, D]`, as panels of their transpose.
    queries: Room,
    /// The same, as panels of columns.
    query_rows: Room,
    /// Gradients of outputs `[count, V]`, as panels of their transpose.
    grads: Room,
    /// The same, as panels of columns.
    grad_rows: Room,
    /// What to subtract from scores: the logarithms of denominators.
    shift: Room,
    /// The least that scores can be.
    floor: Room,
    /// Products of outputs and their gradients.
    delta: Room,
    /// The gradient of scaled queries, as panels of its transpose.
    dq: Room,
}

impl Block {
    /// The gradient of the queries themselves.
    fn write(&self, rows: &mut Rows<'_>, scale: f32) {
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
struct PackBlock<'a> {
    call: &'a Call<'a>,
    at: [usize; 3],
}

impl WithSimd for PackBlock<'_> {
    type Output = Block;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Block {
        let (call, [b, h, first]) = (self.call, self.at);
        let Dims { heads, rows, keys, width, depth, .. } = call.dims;
        let here = first..rows.min(first + BLOCK);
        let (count, scale) = (here.len(), call.scores.scale);
        let all = count.next_multiple_of(S::F32_LANES);
        let queries = call.q.rows([b, h], here.clone(), width);
        let grads = call.grad.rows([b, h], here.clone(), depth);
        let outs = call.out.rows([b, h], here, depth);
        let mut delta = Room::empty(all);
        for (grad, out) in grads.clone().zip(outs) {
            delta.append(&[inner(simd, grad, out)]);
        }
        delta.fill_up(all, 0.0);
        let (mut shift, mut floor) = (Room::zeros(all), Room::filled(all, f32::NEG_INFINITY));
        for (i, &lse) in call.lse[(b * heads + h) * rows + first..][..count].iter().enumerate() {
            // Where all keys are hidden the logarithm is too small to tell how many they are.
            let none = lse == f32::MIN;
            (shift[i], floor[i]) = if none { (0.0, -(keys as f32).ln()) } else { (lse, floor[i]) };
        }
        Block {
            at: self.at,
            count,
            lanes: S::F32_LANES,
            queries: pack_transposed::<S>(queries.clone(), width, scale),
            query_rows: pack_panels::<S>(queries, width, scale),
            grads: pack_transposed::<S>(grads.clone(), depth, 1.0),
            grad_rows: pack_panels::<S>(grads, depth, 1.0),
            shift,
            floor,
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
struct Tile {
    /// The first key.
    start: usize,
    /// Keys.
    count: usize,
    /// `[count, D]`, as rows.
    keys: Room,
    /// The same, as columns.
    key_columns: Room,
    /// `[count, V]`, as rows.
    values: Room,
    /// The gradient of keys, in rows of whole vectors.
    dk: Room,
    /// The gradient of values, in rows of whole vectors.
    dv: Room,
}

impl Tile {
    /// The gradients.
    fn write(&self, dk: Rows<'_>, dv: Rows<'_>) {
        for (rows, sums) in [(dk, &self.dk), (dv, &self.dv)] {
            let stride = sums.len() / self.count.next_multiple_of(TALL);
            let sums = sums.chunks_exact(stride);
            rows.into_iter().zip(sums).for_each(|(row, sums)| row.copy_from_slice(&sums[..row.len()]));
        }
    }
}

/// Makes a [`Tile`].
struct PackTile<'a> {
    call: &'a Call<'a>,
    /// Sample, head of keys, first key.
    at: [usize; 3],
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

/// Some queries meet some keys, and all gradients grow by what that gives.
struct Meeting<'a> {
    call: &'a Call<'a>,
    blocks: &'a mut [Block],
    tiles: &'a mut [Tile],
}

impl WithSimd for Meeting<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [map, dmap] = [0, 1].map(|_| Room::zeros((TILE + 1) * BLOCK));
        let slopes = self.call.scores.bend().then(|| Room::zeros(TILE * BLOCK));
        let mut pair = Pair { map, dmap, slopes };
        for tile in self.tiles {
            for block in &mut *self.blocks {
                let stride = block.count.div_ceil(S::F32_LANES);
                for (p, wide) in panels(stride) {
                    with_width!(wide, W => pair.panel::<S, W>(simd, self.call, [p, stride], tile, block));
                }
                add(simd, &pair.map, &block.grad_rows, &mut tile.dv, [block.count, tile.count]);
                add(simd, &pair.dmap, &block.query_rows, &mut tile.dk, [block.count, tile.count]);
            }
        }
    }
}

/// What a tile and a block have between them, each `[keys, queries]`, with queries in lanes.
struct Pair {
    /// The softmax.
    map: Room,
    /// The gradient by products of queries and keys.
    dmap: Room,
    /// Derivatives of scores by those products, where they are not all 1.
    slopes: Option<Room>,
}

impl Pair {
    /// The map of the panel at vector `p` of `stride`, and the gradient of its scores, which it adds to the queries'.
    #[inline(always)]
    fn panel<S: Simd, const W: usize>(
        &mut self,
        simd: S,
        call: &Call<'_>,
        [p, stride]: [usize; 2],
        tile: &Tile,
        block: &mut Block,
    ) {
        self.products::<S, W>(simd, call, [p, stride], tile, block);
        let Dims { width, depth, .. } = call.dims;
        let tall = tile.count.next_multiple_of(TALL) * stride;
        let grads = &vectors::<S>(&block.grads)[p * depth..][..W * depth];
        let (map, dmap) = (vectors_mut::<S>(&mut self.map), vectors_mut::<S>(&mut self.dmap));
        let (map, dmap) = (&mut map[p..tall + p], &mut dmap[p..tall + p]);
        let values = Across { data: &tile.values, stride: depth, length: depth };
        let to = (&mut *dmap, stride);
        simd.vectorize(Product::<S, _, W, false> { simd, a: values, b: (grads, W), to });
        let shift = part::<S, W>(vectors::<S>(&block.shift), p);
        let delta = part::<S, W>(vectors::<S>(&block.delta), p);
        for (map, dmap) in map.chunks_mut(stride).zip(dmap.chunks_mut(stride)) {
            for j in 0..W {
                map[j] = exp(simd, simd.sub_f32s(map[j], shift[j]));
                dmap[j] = simd.mul_f32s(map[j], simd.sub_f32s(dmap[j], delta[j]));
            }
        }
        if let Some(slopes) = &self.slopes {
            let slopes = vectors::<S>(slopes)[p..].chunks(stride);
            for (dmap, slopes) in dmap.chunks_mut(stride).zip(slopes) {
                for j in 0..W {
                    dmap[j] = simd.mul_f32s(dmap[j], slopes[j]);
                }
            }
        }
        let tall = width.next_multiple_of(TALL);
        let dq = &mut vectors_mut::<S>(&mut block.dq)[p * tall..][..W * tall];
        let keys = Along { data: &tile.key_columns, length: tile.count };
        simd.vectorize(Product::<S, _, W, true> { simd, a: keys, b: (dmap, stride), to: (dq, W) });
    }

    /// The scores of a panel.
    #[inline(always)]
    fn products<S: Simd, const W: usize>(
        &mut self,
        simd: S,
        call: &Call<'_>,
        [p, stride]: [usize; 2],
        tile: &Tile,
        block: &Block,
    ) {
        let width = call.dims.width;
        let queries = &vectors::<S>(&block.queries)[p * width..][..W * width];
        let map = vectors_mut::<S>(&mut self.map);
        let map = &mut map[..tile.count.next_multiple_of(TALL) * stride];
        let keys = Across { data: &tile.keys, stride: width, length: width };
        let to = (&mut map[p..], stride);
        simd.vectorize(Product::<S, _, W, false> { simd, a: keys, b: (queries, W), to });
        if !call.scores.change() {
            return;
        }
        let ([b, h, first], start) = (block.at, p * S::F32_LANES);
        let count = (W * S::F32_LANES).min(block.count - start);
        let slopes = self.slopes.as_mut().map(|slopes| &mut vectors_mut::<S>(slopes)[p..]);
        let scores = (&mut map[p..], stride, tile.count);
        call.scores.apply(simd, [b, h, first + start, tile.start], count, scores, slopes);
        let floor = part::<S, W>(vectors::<S>(&block.floor), p);
        for map in map.chunks_mut(stride).take(tile.count) {
            for (map, floor) in map[p..][..W].iter_mut().zip(floor) {
                *map = simd.select_f32s(simd.less_than_f32s(*map, floor), floor, *map);
            }
        }
    }
}

/// Adds the product of a map `[keys, queries]` and panels of queries' rows to rows of keys.
#[inline(always)]
fn add<S: Simd>(simd: S, map: &[f32], rows: &[f32], to: &mut [f32], [queries, keys]: [usize; 2]) {
    let (lanes, wide) = (S::F32_LANES, queries.next_multiple_of(S::F32_LANES));
    let stride = to.len() / keys.next_multiple_of(TALL) / lanes;
    let a = Across { data: map, stride: wide, length: queries };
    let to = vectors_mut::<S>(to);
    for (p, width) in panels(stride) {
        let rows = vectors::<S>(&rows[p * lanes * queries..][..width * lanes * queries]);
        with_width!(width, W => {
            let to = (&mut to[p..], stride);
            simd.vectorize(Product::<S, _, W, true> { simd, a, b: (rows, W), to });
        });
    }
}
