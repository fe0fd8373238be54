//! Activations, alone and as gates.

use super::math::{exp, normal_cdf, sigmoid};
use super::simd::{Lanes, map};
use crate::nn::Activation;
use pulp::Simd;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// `activation(x)`.
pub fn forward(activation: Activation, x: &[f32]) -> Vec<f32> {
    let [y] = with(activation, Forward(x));
    y
}

/// The gradient of `x`, from that of [`forward`]'s answer.
pub fn backward(activation: Activation, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let [dx] = with(activation, Backward(x, grad));
    dx
}

/// `activation(gate) * up`.
pub fn gated(activation: Activation, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let [y] = with(activation, Gated(gate, up));
    y
}

/// The gradients of `gate` and `up`, from that of [`gated`]'s answer.
pub fn gated_backward(activation: Activation, gate: &[f32], up: &[f32], grad: &[f32]) -> [Vec<f32>; 2] {
    with(activation, GatedBackward(gate, up, grad))
}

/// A pointwise function and its slope; what is not used of them is not computed.
pub trait Curve: Copy + Send + Sync {
    /// Both at `x`.
    fn at<S: Simd>(self, simd: S, x: S::f32s) -> (S::f32s, S::f32s);
}

/// `x sigmoid(k x)`: SiLU with 1, OpenAI's GELU with 1.702.
#[derive(Clone, Copy)]
struct Swish(f32);

impl Curve for Swish {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
        let scaled = simd.mul_f32s(simd.splat_f32s(self.0), x);
        let s = sigmoid(simd, scaled);
        // s + k x s (1 - s)
        let rest = simd.sub_f32s(simd.splat_f32s(1.0), s);
        let slope = simd.mul_f32s(s, simd.mul_add_e_f32s(scaled, rest, simd.splat_f32s(1.0)));
        (simd.mul_f32s(x, s), slope)
    }
}

/// `x` times the probability that a normal number is below it.
#[derive(Clone, Copy)]
struct Gelu;

impl Curve for Gelu {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
        let below = normal_cdf(simd, x);
        let half = simd.mul_f32s(simd.splat_f32s(-0.5), simd.mul_f32s(x, x));
        let density = simd.mul_f32s(simd.splat_f32s(0.398_942_3), exp(simd, half));
        (simd.mul_f32s(x, below), simd.mul_add_e_f32s(x, density, below))
    }
}

/// `x (1 + tanh(u)) / 2 = x sigmoid(2 u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
#[derive(Clone, Copy)]
struct GeluTanh;

impl Curve for GeluTanh {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
        const TWICE: f32 = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2; // 2 sqrt(2 / pi)
        const CUBIC: f32 = TWICE * 0.044_715;
        let square = simd.mul_f32s(x, x);
        let u = |factor: f32| simd.mul_add_e_f32s(square, simd.splat_f32s(factor), simd.splat_f32s(TWICE));
        let s = sigmoid(simd, simd.mul_f32s(x, u(CUBIC)));
        let rest = simd.mul_f32s(simd.sub_f32s(simd.splat_f32s(1.0), s), simd.mul_f32s(x, u(3.0 * CUBIC)));
        (simd.mul_f32s(x, s), simd.mul_add_e_f32s(s, rest, s))
    }
}

/// `max(x, 0)`.
#[derive(Clone, Copy)]
struct Relu;

impl Curve for Relu {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
        let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
        let below = simd.less_than_or_equal_f32s(x, zero); // false for NaN, which stays
        (simd.select_f32s(below, zero, x), simd.select_f32s(below, zero, one))
    }
}

/// `max(x, 0)^2`.
#[derive(Clone, Copy)]
struct ReluSquared;

impl Curve for ReluSquared {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
        let (above, _) = Relu.at(simd, x);
        (simd.mul_f32s(above, above), simd.add_f32s(above, above))
    }
}

/// What is done with a curve.
pub trait Use {
    /// What comes of it.
    type Output;
    /// Does it.
    fn with(self, curve: impl Curve) -> Self::Output;
}

/// Does something with the curve of an activation.
pub fn with<U: Use>(activation: Activation, job: U) -> U::Output {
    match activation {
        Activation::Gelu => job.with(Gelu),
        Activation::GeluTanh => job.with(GeluTanh),
        Activation::QuickGelu => job.with(Swish(1.702)),
        Activation::Silu => job.with(Swish(1.0)),
        Activation::Relu => job.with(Relu),
        Activation::ReluSquared => job.with(ReluSquared),
    }
}

struct Forward<'a>(&'a [f32]);
struct Backward<'a>(&'a [f32], &'a [f32]);
struct Gated<'a>(&'a [f32], &'a [f32]);
struct GatedBackward<'a>(&'a [f32], &'a [f32], &'a [f32]);

/// Writes a use of a curve: its inputs, and what comes out for a register of each.
macro_rules! uses {
    ($job:ident, $inputs:literal => $outputs:literal, [$($input:ident: $field:tt),+], |$simd:ident, $curve:ident| $body:expr) => {
        impl Use for $job<'_> {
            type Output = [Vec<f32>; $outputs];
            fn with(self, curve: impl Curve) -> [Vec<f32>; $outputs] {
                #[derive(Clone, Copy)]
                struct Function<C>(C);
                impl<C: Curve> Lanes<$inputs, $outputs> for Function<C> {
                    #[inline(always)]
                    fn apply<S: Simd>(self, $simd: S, [$($input),+]: [S::f32s; $inputs]) -> [S::f32s; $outputs] {
                        let $curve = self.0;
                        $body
                    }
                }
                map(Function(curve), [$(self.$field),+])
            }
        }
    };
}

uses!(Forward, 1 => 1, [x: 0], |simd, curve| [curve.at(simd, x).0]);
uses!(Backward, 2 => 1, [x: 0, grad: 1], |simd, curve| [simd.mul_f32s(grad, curve.at(simd, x).1)]);
uses!(Gated, 2 => 1, [gate: 0, up: 1], |simd, curve| [simd.mul_f32s(curve.at(simd, gate).0, up)]);
uses!(GatedBackward, 3 => 2, [gate: 0, up: 1, grad: 2], |simd, curve| {
    let (value, slope) = curve.at(simd, gate);
    [simd.mul_f32s(simd.mul_f32s(grad, up), slope), simd.mul_f32s(grad, value)]
});
