//! What changes scores before their softmax.

use crate::ops::flex::math::tanh;
use pulp::Simd;

/// What changes the scores of attention before their softmax.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a> {
    /// Of the queries, before their product with keys.
    pub scale: f32,
    /// Scores become `cap tanh(scores / cap)` before bias and mask.
    pub softcap: Option<f32>,
    /// Added to scores, with strides over `[B, H, N, T]` that are 0 where it is the same along an axis.
    pub bias: Option<(&'a [f32], [usize; 4])>,
    /// Not 0 where a key may not be seen, with strides as for the bias; those scores become [`f32::MIN`].
    pub hidden: Option<(&'a [u8], [usize; 4])>,
}

/// Where a tile of scores lies: its sample, its head, its first query, its first key.
pub type Place = [usize; 4];

impl Scores<'_> {
    /// Whether scores are more than products.
    pub(super) fn change(&self) -> bool {
        self.softcap.is_some() || self.bias.is_some() || self.hidden.is_some()
    }

    /// Whether the slopes that [`Scores::apply`] finds can be other than 1.
    pub(super) fn bend(&self) -> bool {
        self.softcap.is_some() || self.hidden.is_some()
    }

    /// Changes scores `[keys, wide]` of `count` queries, in place, `stride` vectors from row to row; their derivatives
    /// by the unchanged go to `slopes` of the same layout, if asked for.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(
        &self,
        simd: S,
        place: Place,
        count: usize,
        tile: (&mut [S::f32s], usize, usize),
        mut slopes: Option<&mut [S::f32s]>,
    ) {
        let (scores, stride, keys) = tile;
        let [batch, head, first, key] = place;
        for j in 0..count.div_ceil(S::F32_LANES) {
            let queries = first + j * S::F32_LANES..first + count.min((j + 1) * S::F32_LANES);
            for t in 0..keys {
                let at = |n| [batch, head, n, key + t];
                let (mut x, mut slope) = (scores[t * stride + j], simd.splat_f32s(1.0));
                if let Some(cap) = self.softcap {
                    let bent = tanh(simd, simd.mul_f32s(x, simd.splat_f32s(cap.recip())));
                    x = simd.mul_f32s(bent, simd.splat_f32s(cap));
                    slope = simd.sub_f32s(slope, simd.mul_f32s(bent, bent));
                }
                if let Some((bias, strides)) = self.bias {
                    let bias = lanes(simd, queries.clone(), strides[2], |n| bias[dot(at(n), strides)]);
                    x = simd.add_f32s(x, bias);
                }
                if let Some((hidden, strides)) = self.hidden {
                    let hide = |n| f32::from(hidden[dot(at(n), strides)]);
                    let seen = lanes(simd, queries.clone(), strides[2], hide);
                    let seen = simd.equal_f32s(seen, simd.splat_f32s(0.0));
                    x = simd.select_f32s(seen, x, simd.splat_f32s(f32::MIN));
                    slope = simd.select_f32s(seen, slope, simd.splat_f32s(0.0));
                }
                scores[t * stride + j] = x;
                if let Some(slopes) = &mut slopes {
                    slopes[t * stride + j] = slope;
                }
            }
        }
    }
}

/// Offset of an element.
#[inline(always)]
fn dot(at: [usize; 4], strides: [usize; 4]) -> usize {
    at.iter().zip(strides).map(|(at, stride)| at * stride).sum()
}

/// A vector of what `f` gives for queries, 0 in the lanes that are left; one call where it is the same for all.
#[inline(always)]
fn lanes<S: Simd>(
    simd: S,
    queries: std::ops::Range<usize>,
    stride: usize,
    f: impl Fn(usize) -> f32,
) -> S::f32s {
    if stride == 0 {
        return simd.splat_f32s(f(queries.start));
    }
    let mut found = [0.0; 16];
    found.iter_mut().zip(queries).for_each(|(found, n)| *found = f(n));
    S::as_simd_f32s(&found).0[0]
}
