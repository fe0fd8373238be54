//! Adaptive layer norm: normalise, then shift and scale by a conditioning vector.

use super::linear;
use crate::memo::{Constant, keep};
use crate::ops::{self, silu};
use crate::trace::{self, route};
use burn::nn::Linear;
use burn::prelude::*;

/// Layer norm over the last axis without learned parameters, `eps` 1e-6 as in DiT.
pub fn norm(x: Tensor<3>) -> Tensor<3> {
    let none = Tensor::<3>::zeros([1, 1, x.dims()[2]], &x.device()).cast(x.dtype());
    normed(x, none.clone(), none)
}

/// `x * (1 + scale) + shift`, the modulation of DiT.
///
/// # Shapes
/// - `x`: `[B, N, W]`; `shift`, `scale`: `[B, 1, W]`
pub fn apply(x: Tensor<3>, shift: Tensor<3>, scale: Tensor<3>) -> Tensor<3> {
    x * (scale + 1.0) + shift
}

/// [`apply`] of [`norm`], in one [operation](ops::norm()).
///
/// # Shapes
/// - `x`: `[B, N, W]`; `shift`, `scale`: `[1 or B, 1 or N, W]`
pub fn normed(x: Tensor<3>, shift: Tensor<3>, scale: Tensor<3>) -> Tensor<3> {
    ops::norm(ops::Norm::layer(1e-6).modulated(), x, scale, shift)
}

/// Projects `silu(c)`, [taps](trace::tap) it under this name, and cuts it into `K` modulation vectors.
///
/// # Shapes
/// - `c`: `[B, W]`; `layer`: from `W` to `K * V`; output: `K` tensors `[B, 1, V]`
///
/// # Panics
/// If `K` does not divide the layer's output.
pub fn chunks<const K: usize>(name: &str, layer: &Linear, c: Tensor<2>) -> [Tensor<3>; K] {
    cut(trace::tap(|| name.into(), linear(layer, silu(c)).unsqueeze_dim(1)))
}

/// Modulation that follows from the time alone: [kept](keep) over a run, and [tapped](trace::tap), under this name.
///
/// # Shapes
/// As `make`: `[B, 1, K * V]`.
pub fn of_time(name: &str, make: impl FnOnce() -> Tensor<3>) -> Tensor<3> {
    trace::tap(|| name.into(), keep(|| name.into(), Constant::Time, make))
}

/// Cuts a vector a sample into `K` modulation vectors: for modulation that blocks share, or hold as a table.
///
/// # Shapes
/// `[B, 1, K * V]` to `K` tensors `[B, 1, V]`.
///
/// # Panics
/// If `K` does not divide the last axis, or there is a vector for each token and some go [around](trace::Route) this.
pub fn cut<const K: usize>(all: Tensor<3>) -> [Tensor<3>; K] {
    let [_, tokens, width] = all.dims();
    route::check_modulation(tokens);
    assert!(width.is_multiple_of(K), "{K} modulation vectors from a width of {width}");
    let parts = all.chunk(K, 2);
    parts.try_into().unwrap_or_else(|parts: Vec<_>| panic!("{} chunks, expected {K}", parts.len()))
}
