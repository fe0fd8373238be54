//! Vector arithmetic that the kernels share: which instructions there are is found out at run time, by [`pulp`].
//!
//! Functions of arithmetic, and closures of more than a few operations, are `#[inline(always)]`: one that the compiler
//! leaves by itself does not know which instructions there are, and calls a function for each of them.

#[cfg(target_arch = "x86_64")]
use crate::ops::switch::avx512_is_on;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Numbers that one task works on: 64 KiB, so that a chunk stays in a core's cache. Fixed, so that how work is cut does
/// not depend on the machine.
pub const CHUNK: usize = 1 << 14;

/// A function of `N` numbers with `M` results, for a register of each at a time.
pub trait Lanes<const N: usize, const M: usize>: Copy + Send + Sync {
    /// The function.
    fn apply<S: Simd>(self, simd: S, x: [S::f32s; N]) -> [S::f32s; M];
}

/// Applies a function to every element of equally long slices, on all cores.
///
/// # Panics
/// If the slices are not equally long.
pub fn map<const N: usize, const M: usize, F: Lanes<N, M>>(
    function: F,
    inputs: [&[f32]; N],
) -> [Vec<f32>; M] {
    let len = inputs[0].len();
    assert!(inputs.iter().all(|x| x.len() == len), "{:?} numbers", inputs.map(<[f32]>::len));
    let mut outputs: [_; M] = std::array::from_fn(|_| fresh(len));
    let mut chunks: [_; M] = outputs.each_mut().map(|output| output.chunks_mut(CHUNK));
    let tasks: Vec<_> = (0..len.div_ceil(CHUNK))
        .map(|i| {
            let range = i * CHUNK..len.min((i + 1) * CHUNK);
            (
                inputs.map(|x| &x[range.clone()]),
                chunks.each_mut().map(|chunk| chunk.next().expect("as many chunks")),
            )
        })
        .collect();
    each(tasks, |(inputs, outputs)| dispatch(Mapped { function, inputs, outputs }));
    outputs.map(written)
}

/// Runs a kernel with the instructions that there are.
pub fn dispatch<K: WithSimd>(kernel: K) -> K::Output {
    // By itself `Arch` looks for these only where a feature of pulp asks for it.
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        if let Some(simd) = avx512_is_on().then(V4::try_new).flatten() {
            return Simd::vectorize(simd, kernel);
        }
        if let Some(simd) = V3::try_new() {
            return Simd::vectorize(simd, kernel);
        }
    }
    Arch::new().dispatch(kernel)
}

/// Runs tasks on all cores, or here if there is one.
pub fn each<T: Send>(mut tasks: Vec<T>, run: impl Fn(T) + Send + Sync) {
    match tasks.len() {
        0 => {}
        1 => run(tasks.remove(0)),
        _ => tasks.into_par_iter().for_each(run),
    }
}

struct Mapped<'a, const N: usize, const M: usize, F> {
    function: F,
    inputs: [&'a [f32]; N],
    outputs: [&'a mut [MaybeUninit<f32>]; M],
}

impl<const N: usize, const M: usize, F: Lanes<N, M>> WithSimd for Mapped<'_, N, M, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { function, inputs, outputs } = self;
        let split = inputs.map(|x| S::as_simd_f32s(x));
        let whole = split[0].0.len();
        let mut halves = outputs.map(|x| S::as_uninit_mut_simd_f32s(x));
        for i in 0..whole {
            let found = function.apply(simd, split.map(|(body, _)| body[i]));
            for ((body, _), found) in halves.iter_mut().zip(found) {
                body[i].write(found);
            }
        }
        let tail = split[0].1.len();
        if tail > 0 {
            let found = function.apply(simd, split.map(|(_, tail)| simd.partial_load_f32s(tail)));
            for ((_, rest), found) in halves.iter_mut().zip(found) {
                for (to, from) in rest.iter_mut().zip(lanes(&found)) {
                    to.write(*from);
                }
            }
        }
    }
}

/// Room for so many numbers. Not filled with zeros first: that would be as much writing as most kernels do.
pub fn fresh(len: usize) -> Box<[MaybeUninit<f32>]> {
    Box::new_uninit_slice(len)
}

/// Writes a row, or what there is room for of it, again and again.
pub fn filled(to: &mut [MaybeUninit<f32>], row: &[f32]) {
    let size = (CHUNK / row.len().max(1)).max(1) * row.len().max(1);
    each(to.chunks_mut(size).collect(), |chunk: &mut [MaybeUninit<f32>]| {
        for to in chunk.chunks_mut(row.len()) {
            to.write_copy_of_slice(&row[..to.len()]);
        }
    });
}

/// So many zeros, written by all cores.
pub fn zeros(len: usize) -> Vec<f32> {
    let mut zeros = fresh(len);
    filled(&mut zeros, &[0.0; CHUNK]);
    written(zeros)
}

/// What has been written element by element.
#[allow(unsafe_code)]
pub fn written(values: Box<[MaybeUninit<f32>]>) -> Vec<f32> {
    // SAFETY: kernels cut what is `fresh` into the parts of their tasks, which cover the whole, and every task writes all of
    // its part by `write`, `filled` or `Mapped`; a product writes all of it.
    unsafe { values.assume_init() }.into_vec()
}

/// Writes a function of rows into a row as long.
#[inline(always)]
pub fn write<S: Simd, const N: usize>(
    simd: S,
    rows: [&[f32]; N],
    out: &mut [MaybeUninit<f32>],
    function: impl Fn([S::f32s; N]) -> S::f32s,
) {
    let split = rows.map(|row| S::as_simd_f32s(row));
    let (body, tail) = S::as_uninit_mut_simd_f32s(out);
    for (i, out) in body.iter_mut().enumerate() {
        out.write(function(split.map(|(body, _)| body[i])));
    }
    if !tail.is_empty() {
        let last = function(split.map(|(_, tail)| simd.partial_load_f32s(tail)));
        for (out, last) in tail.iter_mut().zip(lanes(&last)) {
            out.write(*last);
        }
    }
}

/// Writes a function of rows, and of what is there, into a row as long.
#[inline(always)]
pub fn rewrite<S: Simd, const N: usize>(
    simd: S,
    rows: [&[f32]; N],
    out: &mut [f32],
    function: impl Fn([S::f32s; N], S::f32s) -> S::f32s,
) {
    let split = rows.map(|row| S::as_simd_f32s(row));
    let (body, tail) = S::as_mut_simd_f32s(out);
    for (i, out) in body.iter_mut().enumerate() {
        *out = function(split.map(|(body, _)| body[i]), *out);
    }
    if !tail.is_empty() {
        let last = split.map(|(_, tail)| simd.partial_load_f32s(tail));
        simd.partial_store_f32s(tail, function(last, simd.partial_load_f32s(tail)));
    }
}

/// Adds a function of rows to a row as long.
#[inline(always)]
pub fn add<S: Simd, const N: usize>(
    simd: S,
    rows: [&[f32]; N],
    out: &mut [f32],
    function: impl Fn([S::f32s; N]) -> S::f32s,
) {
    rewrite(
        simd,
        rows,
        out,
        #[inline(always)]
        |rows, before| simd.add_f32s(before, function(rows)),
    );
}

/// Sums a function of rows over their length.
#[inline(always)]
pub fn sum<S: Simd, const N: usize>(
    simd: S,
    rows: [&[f32]; N],
    function: impl Fn([S::f32s; N]) -> S::f32s,
) -> f32 {
    let split = rows.map(|row| S::as_simd_f32s(row));
    // Four sums at a time, so that one addition need not wait for the last.
    let mut sums = [simd.splat_f32s(0.0); 4];
    let whole = split[0].0.len();
    let mut i = 0;
    while i + 4 <= whole {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = simd.add_f32s(*sum, function(split.map(|(body, _)| body[i + j])));
        }
        i += 4;
    }
    for i in i..whole {
        sums[0] = simd.add_f32s(sums[0], function(split.map(|(body, _)| body[i])));
    }
    let [a, b, c, d] = sums;
    let mut sum = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
    let tail = split[0].1.len();
    if tail > 0 {
        // Lanes beyond the end hold a function of zeros, and do not count.
        let last = function(split.map(|(_, tail)| simd.partial_load_f32s(tail)));
        sum += lanes(&last)[..tail].iter().sum::<f32>();
    }
    sum
}

/// Sums rows of `width` into the rows of their groups, in the order in which they come.
pub fn total<'a>(len: usize, width: usize, parts: impl Iterator<Item = (usize, &'a [f32])>) -> Vec<f32> {
    let mut total = vec![0.0; len];
    for (group, part) in parts {
        for (total, part) in total[group * width..].iter_mut().zip(part) {
            *total += part;
        }
    }
    total
}

/// The numbers of a register.
#[inline(always)]
fn lanes<T: bytemuck::Pod>(register: &T) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(register))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Square;
    impl Lanes<1, 1> for Square {
        #[inline(always)]
        fn apply<S: Simd>(self, simd: S, [x]: [S::f32s; 1]) -> [S::f32s; 1] {
            [simd.mul_f32s(x, x)]
        }
    }

    #[test]
    fn any_length_is_mapped_whole() {
        for len in [0, 1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
            let [found] = map(Square, [&x]);
            assert_eq!(found.len(), len);
            assert!(x.iter().zip(&found).all(|(x, found)| x * x == *found));
        }
    }
}
