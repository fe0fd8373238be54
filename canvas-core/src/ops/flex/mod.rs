//! Kernels of Burn's CPU backend, f32.
//!
//! [`Kernels`] is what Burn's dispatch knows: [`Flex`] computes, `Autodiff<Flex>` also notes how to differentiate. The
//! arithmetic is in one file for each operation, on slices.

mod adamw;
mod attend;
mod attention;
mod autodiff;
mod conv;
mod few;
mod group;
mod linear;
mod math;
mod pointwise;
mod rotate;
mod rows;
mod simd;
mod tile;

use super::{AdamW, Conv2d, GroupNorm, Norm, kernels_are_on};
use crate::nn::{self, Activation, Pairs};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, DispatchDevice, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::{Bytes, DType, Shape};
use simd::zeros;

/// Whether the kernels are for this tensor.
pub fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    let computes = |device: &DispatchDevice| matches!(device, DispatchDevice::Flex(_));
    x.dtype() == DType::F32
        && kernels_are_on()
        && match x.device().as_dispatch() {
            DispatchDevice::Autodiff(device) => computes(device),
            device => computes(device),
        }
}

/// The operations, of primitive tensors.
#[backend_extension(Flex, Autodiff)]
pub trait Kernels: burn::backend::Backend {
    /// Pointwise.
    fn activate(x: FloatTensor<Self>, by: Activation) -> FloatTensor<Self>;
    /// Two of a shape.
    fn gate(gate: FloatTensor<Self>, up: FloatTensor<Self>, by: Activation) -> FloatTensor<Self>;
    /// Rows, and vectors that divide them.
    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self>;
    /// Rows, vectors that divide them, and as many rows.
    fn residual(x: FloatTensor<Self>, gate: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `[R, I]`, `[I, O]` and `[O]`.
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `[B, C, H, S]`, `[O, C, h, w]` and `[O]`.
    fn conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv2d,
    ) -> FloatTensor<Self>;
    /// `[B, C, H, S]`, and two of `[C]`.
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        norm: GroupNorm,
    ) -> FloatTensor<Self>;
    /// `[B, H, N, D]`, `[B, K, T, D]`, `[B, K, T, V]`; lies in memory as `[B, N, H, V]`.
    fn attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        scores: Scores,
    ) -> FloatTensor<Self>;
    /// `[B, H, N, D]`, in the order in memory in which it comes.
    fn rotate(x: FloatTensor<Self>, turn: Turn) -> FloatTensor<Self>;
}

/// What changes the scores of attention; constants to the gradient.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Of the queries.
    pub scale: f32,
    /// Bends scores.
    pub softcap: Option<f32>,
    /// `[B, H, N, T]`, or 1 where all have the same.
    pub bias: Option<FlexTensor>,
    /// `[B, H, N, T]`, or 1 where all have the same.
    pub hidden: Option<FlexTensor>,
}

/// Angles that features are turned by; constants to the gradient.
#[derive(Clone, Debug)]
pub struct Turn {
    /// `[B or 1, 1, N, D / 2]`.
    pub cos: FlexTensor,
    /// `[B or 1, 1, N, D / 2]`.
    pub sin: FlexTensor,
    /// Which features are turned together.
    pub pairs: Pairs,
}

/// See [`activate`](super::activate()).
pub fn activate<const D: usize>(x: Tensor<D>, by: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::activate(x.into_dispatch(), by))
}

/// See [`gate`](super::gate()).
pub fn gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>, by: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::gate(gate.into_dispatch(), up.into_dispatch(), by))
}

/// See [`norm`](super::norm()).
pub fn norm(x: Tensor<3>, weight: Tensor<3>, bias: Tensor<3>, norm: Norm) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        norm,
    ))
}

/// See [`residual`](super::residual()).
pub fn residual(x: Tensor<3>, gate: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::residual(x.into_dispatch(), gate.into_dispatch(), y.into_dispatch()))
}

/// See [`linear`](super::linear()).
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
}

/// See [`conv2d`](super::conv2d()).
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, conv: Conv2d) -> Tensor<4> {
    let [x, weight, bias] = [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()];
    Tensor::from_dispatch(Dispatch::conv2d(x, weight, bias, conv))
}

/// See [`group_norm`](super::group_norm()).
pub fn group_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, norm: GroupNorm) -> Tensor<4> {
    let [x, weight, bias] = [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()];
    Tensor::from_dispatch(Dispatch::group_norm(x, weight, bias, norm))
}

/// [`attend_with`](crate::nn::attend_with), whose scores are not to be differentiated by.
pub fn attention([query, key, value]: [Tensor<4>; 3], scores: &nn::Scores) -> Tensor<4> {
    let width = query.dims()[3];
    let scores = Scores {
        scale: scores.scale.unwrap_or_else(|| (width as f64).sqrt().recip()) as f32,
        softcap: scores.softcap.map(|cap| cap as f32),
        bias: scores.bias.clone().map(|bias| constant(bias.cast(DType::F32))),
        hidden: scores.seen.clone().map(|seen| {
            let hidden = seen.bool_not().inner().try_into_primitive::<Flex>();
            hidden.expect("on the device of the queries")
        }),
    };
    let [query, key, value] = [query, key, value].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::attention(query, key, value, scores))
}

/// See [`Rope`](crate::nn::Rope).
pub fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>, pairs: Pairs) -> Tensor<4> {
    let [cos, sin] = [cos, sin].map(|table| dense(constant(table)));
    Tensor::from_dispatch(Dispatch::rotate(x.into_dispatch(), Turn { cos, sin, pairs }))
}

/// A tensor's numbers, without its history.
fn constant<const D: usize>(x: Tensor<D>) -> FlexTensor {
    x.inner().try_into_primitive::<Flex>().expect("on the device of what it is used with")
}

/// A step of AdamW, in place where nobody else holds a tensor.
pub fn adamw<const D: usize>(
    with: AdamW,
    param: Tensor<D>,
    grad: Tensor<D>,
    moments: [Tensor<D>; 2],
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let primitive = |x: Tensor<D>| {
        let x = x.try_into_primitive::<Flex>().expect("`takes` has looked at the device");
        // In full: what is written goes by the whole of the memory.
        if x.bytes().len() == 4 * x.layout().num_elements() { dense(x) } else { x.to_contiguous() }
    };
    let (mut param, grad, [mut first, mut second]) =
        (primitive(param), primitive(grad), moments.map(primitive));
    let (first_moments, second_moments) = (first.storage_mut(), second.storage_mut());
    adamw::step(with, param.storage_mut(), numbers(&grad), [first_moments, second_moments]);
    let tensor = |x| Tensor::from_primitive::<Flex>(x);
    (tensor(param), [tensor(first), tensor(second)])
}

impl Kernels for Flex {
    fn activate(x: FlexTensor, by: Activation) -> FlexTensor {
        let x = dense(x);
        like(&x, pointwise::forward(by, numbers(&x)))
    }

    fn gate(gate: FlexTensor, up: FlexTensor, by: Activation) -> FlexTensor {
        let [gate, up] = [gate, up].map(dense);
        like(&gate, pointwise::gated(by, numbers(&gate), numbers(&up)))
    }

    fn norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, norm: Norm) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(dense);
        let (y, _) = rows::norm(norm, numbers(&x), numbers(&weight), numbers(&bias), width(&x));
        like(&x, y)
    }

    fn residual(x: FlexTensor, gate: FlexTensor, y: FlexTensor) -> FlexTensor {
        let [x, gate, y] = [x, gate, y].map(dense);
        like(&x, rows::residual(numbers(&x), numbers(&gate), numbers(&y), width(&x)))
    }

    fn linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let (x, weight, bias) = (dense(x), forwards(weight), dense(bias));
        let y = linear::forward(numbers(&x), matrix(&weight), numbers(&bias));
        shaped(Shape::new([x.layout().shape()[0], width(&weight)]), y)
    }

    fn conv2d(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, conv: Conv2d) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(dense);
        let sizes = sizes(&x, &weight, conv);
        let [rows, columns] = sizes.output();
        let mut y = zeros(sizes.batch * sizes.to * rows * columns);
        conv::forward(&sizes, numbers(&x), numbers(&weight), Some(numbers(&bias)), &mut y);
        shaped(Shape::new([sizes.batch, sizes.to, rows, columns]), y)
    }

    fn group_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, norm: GroupNorm) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(dense);
        let vectors = [numbers(&weight), numbers(&bias)];
        let (y, _) = group::norm(groups(&x, norm), norm.activation, numbers(&x), vectors);
        like(&x, y)
    }

    fn attention(query: FlexTensor, key: FlexTensor, value: FlexTensor, scores: Scores) -> FlexTensor {
        attend::forward(&[query, key, value].map(attend::seen), &scores, false).0
    }

    fn rotate(x: FlexTensor, turn: Turn) -> FlexTensor {
        turned(x, &turn, false)
    }
}

/// `[B, H, N, D]` turned, or turned back; in the order in memory that it has, if heads lie within tokens.
fn turned(x: FlexTensor, turn: &Turn, back: bool) -> FlexTensor {
    let shape = x.layout().shape().clone();
    let [batch, heads, length, width] = [0, 1, 2, 3].map(|axis| shape[axis]);
    let (within, strides) = attend::token_order([batch, heads, length, width]);
    let in_tokens = heads > 1 && x.layout().strides() == strides.as_slice() && x.layout().start_offset() == 0;
    let x = if in_tokens { x.with_layout(within.clone()) } else { dense(x) };
    let [cos, sin] = [&turn.cos, &turn.sin].map(numbers);
    let angles = rotate::Angles { cos, sin, heads, length, width, within_tokens: in_tokens, back };
    let y = rotate::rotate(numbers(&x), angles, turn.pairs);
    if in_tokens {
        let y = shaped(within.shape().clone(), y);
        y.with_layout(Layout::new(shape, strides, 0))
    } else {
        shaped(shape, y)
    }
}

/// With its numbers one after another.
fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// With no axis that goes backwards: all that a kernel that takes strides asks for.
fn forwards(x: FlexTensor) -> FlexTensor {
    if x.layout().strides().iter().all(|&stride| stride >= 0) { x } else { x.to_contiguous() }
}

/// A tensor of two axes, none of which goes backwards.
fn matrix(x: &FlexTensor) -> linear::Matrix<'_> {
    let (shape, strides) = (x.layout().shape(), x.layout().strides());
    linear::Matrix {
        numbers: &x.storage::<f32>()[x.layout().start_offset()..],
        rows: shape[0],
        columns: shape[1],
        strides: [strides[0] as usize, strides[1] as usize],
    }
}

/// The numbers of a dense tensor.
fn numbers(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("f32 numbers one after another: `takes` has looked at the type, `dense` at the order")
}

/// The length of the last axis.
fn width(x: &FlexTensor) -> usize {
    x.layout().shape()[x.layout().num_dims() - 1]
}

/// Numbers in the shape of a tensor.
fn like(x: &FlexTensor, numbers: Vec<f32>) -> FlexTensor {
    shaped(x.layout().shape().clone(), numbers)
}

fn shaped(shape: Shape, numbers: Vec<f32>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(shape), DType::F32)
}

fn sizes(x: &FlexTensor, weight: &FlexTensor, Conv2d { stride, padding }: Conv2d) -> conv::Conv {
    let [[batch, from, height, width], [to, _, rows, columns]] =
        [x, weight].map(|x| [0, 1, 2, 3].map(|axis| x.layout().shape()[axis]));
    conv::Conv { batch, from, to, height, width, kernel: [rows, columns], stride, padding }
}

fn groups(x: &FlexTensor, norm: GroupNorm) -> group::Groups {
    let shape = x.layout().shape();
    let (batch, channels, size) = (shape[0], shape[1], shape[2] * shape[3]);
    group::Groups { batch, channels, size, groups: norm.groups, epsilon: norm.epsilon as f32 }
}
