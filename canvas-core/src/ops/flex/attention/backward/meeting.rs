//! What some queries and some keys give to each other's gradients.

use super::super::kernel::*;
use super::super::room::Room;
use super::super::{BLOCK, Dims};
use super::packed::{Block, Tile};
use super::{Call, TILE};
use crate::ops::flex::math::exp;
use pulp::{Simd, WithSimd};

/// Some queries meet some keys, and all gradients grow by what that gives.
pub struct Meeting<'a> {
    /// What is given.
    pub call: &'a Call<'a>,
    /// The queries.
    pub blocks: &'a mut [Block],
    /// The keys.
    pub tiles: &'a mut [Tile],
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
    /// The softmax, without its factors.
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
