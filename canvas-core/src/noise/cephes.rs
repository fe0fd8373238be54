//! Logarithm, sine and cosine in `f32` with exactly the roundings of PyTorch's AVX2 code.
//!
//! The polynomials of Moshier's Cephes library (<https://www.netlib.org/cephes/>) in the order of operations of
//! PyTorch's `avx_mathfun.h`, with fused multiply-adds where the compiler of its wheels fused: one fusion more or less
//! changes up to one number in 1,000.

use std::f32::consts::FRAC_1_SQRT_2;

/// `ln(x)` for normal `x > 0`: `x = m * 2^e` with `m` in `[sqrt(1/2), sqrt(2))`, and a polynomial in `m - 1`.
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let half = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000); // the mantissa, in [1/2, 1)
    let exponent = (bits >> 23) as f32 - 126.0;
    let (e, r) =
        if half < FRAC_1_SQRT_2 { (exponent - 1.0, half - 1.0 + half) } else { (exponent, half - 1.0) };
    let square = r * r;
    let high = [-1.151_461e-1, 1.167_699_84e-1, -1.242_014_1e-1, 1.424_932_3e-1];
    let low = [-1.666_805_8e-1, 2.000_071_4e-1, -2.499_999_4e-1, 3.333_333e-1];
    let cubic = high.iter().chain(&low).fold(7.037_683_6e-2_f32, |sum, c| sum.mul_add(r, *c)) * r;
    let tail = cubic.mul_add(square, e * -2.121_944_4e-4); // ln 2 in two parts
    let tail = square.mul_add(-0.5, tail);
    e.mul_add(0.693_359_4, r + tail)
}

/// `sin(x)` and `cos(x)` for `0 <= x < 8192`: the nearest even multiple of `pi / 4` off, then a polynomial each.
pub(super) fn sin_cos(x: f32) -> (f32, f32) {
    let octant = ((x * 1.273_239_5) as u32 + 1) & !1;
    let y = octant as f32;
    let r = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8].iter().fold(x, |x, part| y.mul_add(*part, x)); // pi / 4
    let z = r * r;
    let even = 2.443_315_7e-5_f32.mul_add(z, -1.388_731_6e-3).mul_add(z, 4.166_664_6e-2) * z;
    let even = even.mul_add(z, -(z * 0.5)) + 1.0;
    let odd = (-1.951_529_6e-4_f32).mul_add(z, 8.332_161e-3).mul_add(z, -1.666_665_5e-1) * z;
    let odd = odd.mul_add(r, r);
    let (sin, cos) = if octant & 2 == 0 { (odd, even) } else { (even, odd) };
    let turned = |negative: bool, value: f32| if negative { -value } else { value };
    (turned(octant & 4 != 0, sin), turned((octant + 2) & 4 != 0, cos))
}
