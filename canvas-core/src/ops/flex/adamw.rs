//! AdamW's update in one pass, in place.

use super::simd::{CHUNK, dispatch, each};
use crate::ops::AdamW;
use pulp::{Simd, WithSimd};

/// Updates parameters and both moments.
///
/// Every operation is rounded where Burn's own AdamW rounds it, so the two agree bit for bit.
pub fn step(with: AdamW, param: &mut [f32], grad: &[f32], moments: [&mut [f32]; 2]) {
    let [first, second] = moments;
    let tasks: Vec<_> = param
        .chunks_mut(CHUNK)
        .zip(grad.chunks(CHUNK))
        .zip(first.chunks_mut(CHUNK).zip(second.chunks_mut(CHUNK)))
        .map(|((param, grad), (first, second))| Task { with, param, grad, first, second })
        .collect();
    each(tasks, dispatch);
}

struct Task<'a> {
    with: AdamW,
    param: &'a mut [f32],
    grad: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { with, param, grad, first, second } = self;
        let (params, param_tail) = S::as_mut_simd_f32s(param);
        let (grads, grad_tail) = S::as_simd_f32s(grad);
        let (firsts, first_tail) = S::as_mut_simd_f32s(first);
        let (seconds, second_tail) = S::as_mut_simd_f32s(second);
        for ((param, grad), (first, second)) in
            params.iter_mut().zip(grads).zip(firsts.iter_mut().zip(seconds))
        {
            [*param, *first, *second] = update(simd, with, [*param, *grad, *first, *second]);
        }
        let tail = [&*param_tail, grad_tail, &*first_tail, &*second_tail].map(|x| simd.partial_load_f32s(x));
        let updated = update(simd, with, tail);
        for (to, from) in [param_tail, first_tail, second_tail].into_iter().zip(updated) {
            simd.partial_store_f32s(to, from);
        }
    }
}

#[inline(always)]
fn update<S: Simd>(simd: S, with: AdamW, [param, grad, first, second]: [S::f32s; 4]) -> [S::f32s; 3] {
    let mul = |x, factor: f32| simd.mul_f32s(x, simd.splat_f32s(factor));
    let div = |x, divisor: f32| simd.div_f32s(x, simd.splat_f32s(divisor));
    let first = simd.add_f32s(mul(first, with.beta_1), mul(grad, 1.0 - with.beta_1));
    let square = simd.mul_f32s(grad, grad);
    let second = simd.add_f32s(mul(second, with.beta_2), mul(square, 1.0 - with.beta_2));
    let [one, two] = with.corrections;
    let root = simd.add_f32s(simd.sqrt_f32s(div(second, two)), simd.splat_f32s(with.epsilon));
    let delta = simd.div_f32s(div(first, one), root);
    let param = simd.sub_f32s(mul(param, with.keep), mul(delta, with.rate));
    [param, first, second]
}
