//! Attention of tensors: how they lie in memory for the kernel, and how what it gives does.

use super::attention::{self, Dims, View};
use super::simd::zeros;
use super::{Scores, dense, forwards, shaped};
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::Shape;
use std::sync::Arc;

/// A tensor as the kernel can look at it: the last axis one after another, nothing backwards.
pub fn seen(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    if strides[3] == 1 && strides.iter().all(|&stride| stride >= 0) { x } else { dense(x) }
}

fn view(x: &FlexTensor) -> View<'_> {
    let strides = x.layout().strides();
    View {
        data: &x.storage::<f32>()[x.layout().start_offset()..],
        strides: [0, 1, 2].map(|axis| strides[axis] as usize),
    }
}

fn dims([query, key, value]: [&FlexTensor; 3]) -> Dims {
    let of = |x: &FlexTensor, axis: usize| x.layout().shape()[axis];
    Dims {
        batch: of(query, 0),
        heads: of(query, 1),
        kv_heads: of(key, 1),
        rows: of(query, 2),
        keys: of(key, 2),
        width: of(query, 3),
        depth: of(value, 3),
    }
}

/// The layout `[B, N, H, D]`, and the strides of `[B, H, N, D]` in it: an output projection reads all heads of a token.
pub fn token_order([batch, heads, length, width]: [usize; 4]) -> (Layout, Vec<isize>) {
    let strides = [length * heads * width, width, heads * width, 1];
    (
        Layout::contiguous(Shape::new([batch, length, heads, width])),
        strides.map(|stride| stride as isize).to_vec(),
    )
}

/// Numbers that lie as `[B, N, H, D]`, as `[B, H, N, D]`.
fn by_heads(dims: [usize; 4], numbers: Vec<f32>) -> FlexTensor {
    let (layout, strides) = token_order(dims);
    let shape = Shape::new(dims);
    shaped(layout.shape().clone(), numbers).with_layout(Layout::new(shape, strides, 0))
}

/// The strides of what all or some share, 0 where an axis has one.
fn broadcast(x: &FlexTensor) -> [usize; 4] {
    let (shape, strides) = (x.layout().shape(), x.layout().strides());
    [0, 1, 2, 3].map(|axis| if shape[axis] == 1 { 0 } else { strides[axis] as usize })
}

/// Calls a function with scores as the kernel reads them.
fn with_scores<T>(scores: &Scores, call: impl FnOnce(attention::Scores<'_>) -> T) -> T {
    let [bias, hidden] = [&scores.bias, &scores.hidden].map(|x| x.clone().map(forwards));
    call(attention::Scores {
        scale: scores.scale,
        softcap: scores.softcap,
        bias: bias.as_ref().map(|x| (&x.storage::<f32>()[x.layout().start_offset()..], broadcast(x))),
        hidden: hidden.as_ref().map(|x| (&x.storage::<u8>()[x.layout().start_offset()..], broadcast(x))),
    })
}

/// What is read, `[B, H, N, V]`, and largest scores and factors, if they are to be kept.
pub fn forward(
    [query, key, value]: &[FlexTensor; 3],
    scores: &Scores,
    keep: bool,
) -> (FlexTensor, Option<Arc<Vec<[f32; 2]>>>) {
    let dims = dims([query, key, value]);
    let Dims { batch, heads, rows, depth, .. } = dims;
    let mut out = zeros(batch * rows * heads * depth);
    let mut kept = keep.then(|| vec![[0.0; 2]; batch * heads * rows]);
    with_scores(scores, |scores| {
        attention::forward([query, key, value].map(view), dims, scores, &mut out, kept.as_deref_mut());
    });
    (by_heads([batch, heads, rows, depth], out), kept.map(Arc::new))
}

/// Gradients of queries, keys and values.
pub fn backward(
    [query, key, value]: &[FlexTensor; 3],
    scores: &Scores,
    [out, grad]: [&FlexTensor; 2],
    kept: &[[f32; 2]],
) -> [FlexTensor; 3] {
    let dims = dims([query, key, value]);
    let Dims { batch, heads, kv_heads, rows, keys, width, depth } = dims;
    let sizes = [[heads, rows, width], [kv_heads, keys, width], [kv_heads, keys, depth]];
    let [mut dq, mut dk, mut dv] = sizes.map(|[heads, length, width]| zeros(batch * heads * length * width));
    with_scores(scores, |scores| {
        let inputs = [query, key, value, out, grad].map(view);
        attention::backward(inputs, kept, dims, scores, [&mut dq, &mut dk, &mut dv]);
    });
    let [q, k, v] = sizes.map(|[heads, length, width]| [batch, heads, length, width]);
    [by_heads(q, dq), by_heads(k, dk), by_heads(v, dv)]
}
