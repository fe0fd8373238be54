//! Functions of SIMD vectors that [`pulp`] does not have.

use pulp::Simd;

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
    use crate::ops::flex::simd::{Lanes, map};

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
}
