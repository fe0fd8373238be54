//! Vector arithmetic that the kernels share: which instructions there are is found out at run time, by [`pulp`].

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
    if let Some(simd) = pulp::x86::V3::try_new() {
        return Simd::vectorize(simd, kernel);
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

/// What has been written element by element.
#[allow(unsafe_code)]
pub fn written(values: Box<[MaybeUninit<f32>]>) -> Vec<f32> {
    // SAFETY: kernels cut what is `fresh` into the parts of their tasks, which cover the whole, and every task writes all of
    // its part by `write` or `Mapped`.
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

/// Adds a function of rows to a row as long.
#[inline(always)]
pub fn add<S: Simd, const N: usize>(
    simd: S,
    rows: [&[f32]; N],
    out: &mut [f32],
    function: impl Fn([S::f32s; N]) -> S::f32s,
) {
    let split = rows.map(|row| S::as_simd_f32s(row));
    let (body, tail) = S::as_mut_simd_f32s(out);
    for (i, out) in body.iter_mut().enumerate() {
        *out = simd.add_f32s(*out, function(split.map(|(body, _)| body[i])));
    }
    if !tail.is_empty() {
        let last = function(split.map(|(_, tail)| simd.partial_load_f32s(tail)));
        for (out, last) in tail.iter_mut().zip(lanes(&last)) {
            *out += last;
        }
    }
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

/// `e^x` within one unit in the last place: 0 below -87.3, infinite above 88.72, NaN where `x` is.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5 * 2^23 rounds to whole numbers, and leaves them in the low bits.
    let magic = simd.splat_f32s(12_582_912.0);
    let shifted = simd.mul_add_e_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), magic);
    let whole = simd.sub_f32s(shifted, magic);
    // ln 2 in two parts, the first short enough for its product with a whole number to be exact.
    let r = simd.mul_add_e_f32s(whole, simd.splat_f32s(-0.693_115_23), x);
    let r = simd.mul_add_e_f32s(whole, simd.splat_f32s(-3.194_618_3e-5), r);
    // 1 + r + r^2 q(r), where q is minimax for the relative error on |r| < ln(2)/2, which is 3e-9.
    let q = simd.mul_add_e_f32s(simd.splat_f32s(0.001_381_46), r, simd.splat_f32s(0.008_368_717));
    let q = simd.mul_add_e_f32s(q, r, simd.splat_f32s(0.041_668_39));
    let q = simd.mul_add_e_f32s(q, r, simd.splat_f32s(0.166_665_21));
    let q = simd.mul_add_e_f32s(q, r, simd.splat_f32s(0.499_999_94));
    let p = simd.add_f32s(simd.mul_add_e_f32s(simd.mul_f32s(r, r), q, r), simd.splat_f32s(1.0));
    // Times 2^whole, in the exponent's bits: the number stays normal between the bounds.
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let y = simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p), exponent));
    let y = simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(-87.3)), simd.splat_f32s(0.0), y);
    // Not a comparison that NaN passes: infinity plus NaN is NaN.
    let below = simd.less_than_or_equal_f32s(x, simd.splat_f32s(88.72));
    simd.select_f32s(below, y, simd.add_f32s(x, simd.splat_f32s(f32::INFINITY)))
}

/// The hyperbolic tangent within three units in the last place, NaN where `x` is.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let sign = simd.and_f32s(x, simd.splat_f32s(-0.0));
    let size = simd.xor_f32s(x, sign);
    // Near 0, where the other form cancels: x + x^3 p(x^2), minimax up to 0.63 with an error of 5e-9.
    let z = simd.mul_f32s(x, x);
    let p = simd.mul_add_e_f32s(simd.splat_f32s(-0.005_648_317), z, simd.splat_f32s(0.020_589_827));
    let p = simd.mul_add_e_f32s(p, z, simd.splat_f32s(-0.053_725_127));
    let p = simd.mul_add_e_f32s(p, z, simd.splat_f32s(0.133_312_74));
    let p = simd.mul_add_e_f32s(p, z, simd.splat_f32s(-0.333_332_76));
    let near = simd.mul_add_e_f32s(simd.mul_f32s(z, x), p, x);
    // 1 - 2 / (e^(2|x|) + 1)
    let grown = simd.add_f32s(exp(simd, simd.add_f32s(size, size)), simd.splat_f32s(1.0));
    let far =
        simd.xor_f32s(simd.sub_f32s(simd.splat_f32s(1.0), simd.div_f32s(simd.splat_f32s(2.0), grown)), sign);
    simd.select_f32s(simd.less_than_f32s(size, simd.splat_f32s(0.625)), near, far)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))))
}

/// The probability that a standard normal number is below `x`: within 1e-7, and to three digits as far down as -5, where
/// `1 + erf` has none.
///
/// `erfc(t) = exp(-t p(t))` for `t >= 0` with a polynomial `p` fitted on `[0, 4.5]`; beyond, the exponent goes on straight.
#[inline(always)]
pub fn normal_cdf<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let of = |value: f32| simd.splat_f32s(value);
    let t = simd.mul_f32s(simd.abs_f32s(x), of(std::f32::consts::FRAC_1_SQRT_2));
    let near = simd.select_f32s(simd.less_than_f32s(t, of(4.5)), t, of(4.5));
    let coefficients = [
        -2.269_307_7e-5,
        1.731_133_4e-4,
        -7.532_433_4e-4,
        1.815_401_8e-3,
        -2.649_273_7e-4,
        -1.911_283_5e-2,
        0.102_770_3,
        0.636_619_9,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    let p = coefficients.iter().fold(of(1.323_436_3e-6), |p, &c| simd.mul_add_e_f32s(p, near, of(c)));
    let far = simd.sub_f32s(t, near); // NaN where x is
    let exponent = simd.mul_add_e_f32s(far, of(-9.0), simd.neg_f32s(simd.mul_f32s(near, p)));
    let half = simd.mul_f32s(of(0.5), exp(simd, exponent));
    simd.select_f32s(simd.less_than_f32s(x, of(0.0)), half, simd.sub_f32s(of(1.0), half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Exp;
    impl Lanes<1, 1> for Exp {
        #[inline(always)]
        fn apply<S: Simd>(self, simd: S, [x]: [S::f32s; 1]) -> [S::f32s; 1] {
            [exp(simd, x)]
        }
    }

    #[derive(Clone, Copy)]
    struct Cdf;
    impl Lanes<1, 1> for Cdf {
        #[inline(always)]
        fn apply<S: Simd>(self, simd: S, [x]: [S::f32s; 1]) -> [S::f32s; 1] {
            [normal_cdf(simd, x)]
        }
    }

    #[test]
    fn exp_is_exact_to_the_last_digits() {
        let x: Vec<f32> = (0..2_000_003).map(|i| -87.3 + i as f32 * (88.7 + 87.3) / 2e6).collect();
        let [found] = map(Exp, [&x]);
        let worst = x.iter().zip(&found).map(|(&x, &found)| {
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * 2f64.powi(exact.log2().floor() as i32);
            (f64::from(found) - exact).abs() / unit
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 1.0, "{worst} units in the last place");
        let [ends] = map(Exp, [&[-88.0, f32::NEG_INFINITY, 89.0, f32::INFINITY, 0.0, -0.0][..]]);
        assert_eq!(ends, [0.0, 0.0, f32::INFINITY, f32::INFINITY, 1.0, 1.0]);
        let nan = f32::from_bits(0x7fc0_0001); // its lowest bit must not be taken for an exponent
        assert!(map(Exp, [&[nan, f32::NAN][..]])[0].iter().all(|x| x.is_nan()));
    }

    #[test]
    fn normal_cdf_has_digits_in_its_tail() {
        let x: Vec<f32> = (0..40_001).map(|i| -8.0 + i as f32 / 2500.0).collect();
        let [found] = map(Cdf, [&x]);
        for (&x, &found) in x.iter().zip(&found) {
            let exact = 0.5 * libm::erfc(-f64::from(x) * std::f64::consts::FRAC_1_SQRT_2);
            let off = (f64::from(found) - exact).abs();
            assert!(off < 1e-7, "{x}: {found} for {exact}");
            assert!(x < -5.0 || off < 1e-3 * exact, "{x}: {found} for {exact}");
        }
        let [ends] = map(Cdf, [&[-1e30, f32::NEG_INFINITY, 1e30, f32::INFINITY, 0.0][..]]);
        assert_eq!(ends, [0.0, 0.0, 1.0, 1.0, 0.5]);
        assert!(map(Cdf, [&[f32::NAN][..]])[0][0].is_nan());
    }

    #[test]
    fn any_length_is_mapped_whole() {
        for len in [0, 1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
            let [found] = map(Exp, [&x]);
            assert_eq!(found.len(), len);
            assert!(x.iter().zip(&found).all(|(x, found)| (x.exp() - found).abs() < 1e-6));
        }
    }
}
