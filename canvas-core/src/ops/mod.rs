//! Operations in one pass: what Burn composes of many, and its CPU backend computes number by number.
//!
//! Each is defined by plain tensor operations ([`definition`]), which run on any backend in any precision and are
//! differentiated by Burn. On the CPU in f32 a kernel takes their place: vectorised for whatever instructions the
//! processor has, on all cores, with a backward pass written by hand. Answers differ by rounding only, and do not depend on
//! the number of cores.
//!
//! The kernels need the feature `flex`; [`use_kernels`] or `CANVAS_KERNELS=off` in the environment turns them off, and
//! `CANVAS_KERNELS=avx2` keeps them from AVX-512.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::nn::Activation;
//! use canvas_core::ops;
//!
//! let x = Tensor::<1>::from_floats([-1.0, 0.0, 2.0], &Device::flex());
//! let fast = ops::activate(Activation::Silu, x.clone());
//! let plain = ops::definition::activate(x, Activation::Silu);
//! assert!((fast - plain).abs().max().into_scalar::<f32>() < 1e-6);
//! ```

pub mod definition;
#[cfg(feature = "flex")]
mod flex;
mod switch;

pub use switch::{kernels_are_on, use_kernels};

use crate::nn::{Activation, Pairs, Scores};
use burn::prelude::*;

/// A norm's kind and constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Whether the mean is subtracted: layer norm, else RMS norm.
    pub centred: bool,
    /// Added to the variance, or to the mean square.
    pub epsilon: f64,
    /// Added to the weight: 1 where a network gives scales, as DiT's does.
    pub plus: f64,
}

impl Norm {
    /// Layer norm, with a weight to multiply by.
    pub fn layer(epsilon: f64) -> Self {
        Self { centred: true, epsilon, plus: 0.0 }
    }

    /// RMS norm, with a weight to multiply by.
    pub fn rms(epsilon: f64) -> Self {
        Self { centred: false, epsilon, plus: 0.0 }
    }

    /// The same, with a scale in place of the weight: multiplied by `1 + scale`.
    pub fn modulated(self) -> Self {
        Self { plus: 1.0, ..self }
    }
}

/// Whether operations on this tensor are kernels', with or without gradients.
pub fn has_kernels<const D: usize>(x: &Tensor<D>) -> bool {
    #[cfg(feature = "flex")]
    let found = flex::takes(x);
    #[cfg(not(feature = "flex"))]
    let (found, _) = (false, x);
    found
}

/// Calls a kernel where there is one for these tensors, else the definition.
macro_rules! fastest {
    ($name:ident($first:ident $(, $rest:expr)*)) => {{
        #[cfg(feature = "flex")]
        if flex::takes(&$first) {
            return flex::$name($first $(, $rest)*);
        }
        definition::$name($first $(, $rest)*)
    }};
}

/// Applies a pointwise nonlinearity.
pub fn activate<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    fastest!(activate(x, activation))
}

/// `x * sigmoid(x)`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(Activation::Silu, x)
}

/// `activation(gate) * up`: SwiGLU, GEGLU.
///
/// # Panics
/// If the two have not the same shape.
pub fn gate<const D: usize>(activation: Activation, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "a gate, and what it is a gate of");
    fastest!(gate(gate, up, activation))
}

/// Normalises the last axis, then scales and shifts it: `(x - mean) / deviation * weight + bias`.
///
/// # Shapes
/// - `x`: `[B, N, W]`
/// - `weight`, `bias`: `[1, 1, W]` for all tokens, `[B, 1, W]` for each sample, or `[B, N, W]`
///
/// # Panics
/// If the shapes are others.
pub fn norm(norm: Norm, x: Tensor<3>, weight: Tensor<3>, bias: Tensor<3>) -> Tensor<3> {
    assert_eq!(weight.dims(), bias.dims(), "a norm's weight, and its bias");
    check_vectors(x.dims(), weight.dims());
    fastest!(norm(x, weight, bias, norm))
}

/// `x + gate * y`.
///
/// # Shapes
/// - `x`, `y`: `[B, N, W]`; `gate`: `[1, 1, W]`, `[B, 1, W]` or `[B, N, W]`
///
/// # Panics
/// If the shapes are others.
pub fn residual(x: Tensor<3>, gate: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
    assert_eq!(x.dims(), y.dims(), "a residual's two parts");
    check_vectors(x.dims(), gate.dims());
    fastest!(residual(x, gate, y))
}

fn check_vectors([batch, length, width]: [usize; 3], found: [usize; 3]) {
    let known = [[1, 1, width], [batch, 1, width], [batch, length, width]];
    assert!(known.contains(&found), "vectors of {found:?} for {batch} samples of {length} tokens of {width}");
}

/// `x w + b`.
///
/// # Shapes
/// - `x`: `[R, I]`; `weight`: `[I, O]`; `bias`: `[O]`
///
/// # Panics
/// If the shapes are others.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let ([_, width], [from, to]) = (x.dims(), weight.dims());
    assert_eq!([width, bias.dims()[0]], [from, to], "widths of a layer's input and bias, and of its weight");
    fastest!(linear(x, weight, bias))
}

/// A convolution with a bias, without groups and dilation.
///
/// # Shapes
/// - `x`: `[B, C, H, S]`; `weight`: `[O, C, h, w]`; `bias`: `[O]`
///
/// # Panics
/// If the shapes are others.
pub fn conv2d(conv: Conv2d, x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let ([_, channels, ..], [to, from, ..]) = (x.dims(), weight.dims());
    assert_eq!(
        [channels, bias.dims()[0]],
        [from, to],
        "channels of what is convolved and of a bias, and of a weight"
    );
    fastest!(conv2d(x, weight, bias, conv))
}

/// How a [`conv2d`] moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2d {
    /// Rows and columns from one output to the next.
    pub stride: [usize; 2],
    /// Rows and columns of zeros on either side.
    pub padding: [usize; 2],
}

/// Group norm, and the activation after it.
///
/// # Shapes
/// - `x`: `[B, C, H, S]`; `weight`, `bias`: `[C]`
///
/// # Panics
/// If the groups do not divide the channels.
///
/// # Reference
/// Wu and He, "Group Normalization", 2018, <https://arxiv.org/abs/1803.08494>.
pub fn group_norm(norm: GroupNorm, x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<4> {
    let channels = x.dims()[1];
    assert!(
        norm.groups > 0 && channels.is_multiple_of(norm.groups),
        "groups ({}) must divide channels ({channels})",
        norm.groups
    );
    assert_eq!([weight.dims(), bias.dims()], [[channels]; 2], "weight and bias of {channels} channels");
    fastest!(group_norm(x, weight, bias, norm))
}

/// What a [`group_norm`] does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// After it.
    pub activation: Option<Activation>,
}

/// Attention in tiles, forward and backward, which never holds the map; none where no kernel is for these tensors, or
/// where the bias has a gradient. What it computes is [`attend_with`](crate::nn::attend_with).
pub(crate) fn attend_in_tiles(inputs: &[Tensor<4>; 3], scores: &Scores) -> Option<Tensor<4>> {
    #[cfg(feature = "flex")]
    if inputs.iter().all(flex::takes) && scores.bias.as_ref().is_none_or(|bias| !bias.is_tracked()) {
        return Some(flex::attention(inputs.clone(), scores));
    }
    let _ = (inputs, scores);
    None
}

/// Turns pairs of features by angles whose cosines and sines are given; these have no gradient.
///
/// # Shapes
/// - `x`: `[B, H, N, D]`; `cos`, `sin`: `[B or 1, 1, N, D / 2]`
pub(crate) fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>, pairs: Pairs) -> Tensor<4> {
    fastest!(rotate(x, cos, sin, pairs))
}

/// Factors of a step of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// `1 - beta^t` of both moments at step `t`, from 1.
    pub corrections: [f32; 2],
    /// Of the step.
    pub rate: f32,
    /// What parameters are multiplied by: 1 less the rate times the weight decay.
    pub keep: f32,
}

/// One step of AdamW: the parameters, and the two moments. Not differentiated.
///
/// # Reference
/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2, <https://arxiv.org/abs/1711.05101>.
///
/// # Panics
/// If the shapes differ.
pub fn adamw<const D: usize>(
    with: AdamW,
    param: Tensor<D>,
    grad: Tensor<D>,
    moments: [Tensor<D>; 2],
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let dims = param.dims();
    let found = [grad.dims(), moments[0].dims(), moments[1].dims()];
    assert_eq!(found, [dims; 3], "gradient and moments of a parameter of {dims:?}");
    #[cfg(feature = "flex")]
    if flex::takes(&param) && !param.is_autodiff() {
        return flex::adamw(with, param, grad, moments);
    }
    definition::adamw(with, param, grad, moments)
}
