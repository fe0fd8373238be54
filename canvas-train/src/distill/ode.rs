//! One step of the probability-flow ODE, each sample between levels of its own.

use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Levels where a step starts and where it ends, one a sample each.
pub type Between<'a> = (&'a [Level], &'a [Level]);

/// How a teacher's trajectory is followed.
///
/// A run has one level for its batch and its samplers are [`Sampler`](canvas_core::Sampler)s; here samples of a batch are at
/// different levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Solver {
    /// One evaluation, of first order: DDIM, and Euler's step.
    #[default]
    Euler,
    /// Two evaluations, of second order; Euler's where a step ends in clean data.
    Heun,
}

impl Solver {
    /// From level to level, without gradients.
    ///
    /// # Shapes
    /// `[B, C, ..]` to `[B, C, ..]`; `B` levels each
    ///
    /// # Panics
    /// If there are not as many levels as samples.
    pub fn step<const D: usize, N: Denoiser<D>>(
        self,
        teacher: &N,
        x: Tensor<D>,
        (from, to): Between<'_>,
        cond: &N::Cond,
    ) -> Tensor<D> {
        let x = x.inner();
        let here = teacher.denoise(x.clone(), from, cond);
        let euler = carry(&here, &x, (from, to)).inner();
        let ends = to.iter().all(|level| level.sigma == 0.0);
        if self == Self::Euler || ends {
            return euler;
        }
        let there = teacher.denoise(euler.clone(), to, cond);
        // dx = x0 d(alpha) + eps d(sigma), the mean of both ends.
        let (x0, eps) = parts(&here, &x, from);
        let (next_x0, next_eps) = parts(&there, &euler, to);
        let half = |f: &dyn Fn(Level) -> f64| column(&x, (from, to), |from, to| 0.5 * (f(to) - f(from)));
        let heun = x.clone()
            + (x0 + next_x0) * half(&|level| level.alpha)
            + (eps + next_eps) * half(&|level| level.sigma);
        let clean = column(&x, (from, to), |_, to| f64::from(u8::from(to.sigma == 0.0)));
        heun.mask_where(clean.equal_elem(1.0).expand(x.dims()), euler).inner()
    }
}

/// One hop of DDIM: `(s'/s) x + (a' - a s'/s) x0`, or `a' x0 + s' eps` where the estimate has a noise of its own. As
/// [`Evaluation::carry`](canvas_core::Evaluation::carry), each sample between levels of its own.
///
/// # Panics
/// If there are not as many levels as samples.
pub fn carry<const D: usize>(estimate: &Estimate<D>, x: &Tensor<D>, (from, to): Between<'_>) -> Tensor<D> {
    let x0 = estimate.x0.clone();
    if let Some(eps) = &estimate.eps {
        let alpha = column(x, (from, to), |_, to| to.alpha);
        return x0 * alpha + eps.clone() * column(x, (from, to), |_, to| to.sigma);
    }
    // From clean to clean nothing is left to estimate, and the ratio is 0/0.
    let ratio = |from: Level, to: Level| if to.sigma == 0.0 { 0.0 } else { to.sigma / from.sigma };
    let of_x0 = column(x, (from, to), |from, to| to.alpha - from.alpha * ratio(from, to));
    x.clone() * column(x, (from, to), ratio) + x0 * of_x0
}

/// Clean data and noise; where there is none, noise of 0.
fn parts<const D: usize>(estimate: &Estimate<D>, x: &Tensor<D>, at: &[Level]) -> (Tensor<D>, Tensor<D>) {
    let x0 = estimate.x0.clone();
    let eps = estimate.eps.clone().unwrap_or_else(|| {
        let per_sigma = |level: Level| if level.sigma == 0.0 { 0.0 } else { 1.0 / level.sigma };
        let signal = x0.clone() * column(x, (at, at), |level, _| level.alpha);
        (x.clone() - signal) * column(x, (at, at), |level, _| per_sigma(level))
    });
    (x0, eps)
}

/// A function of both levels, `[B, 1, ..]`.
///
/// # Panics
/// If there are not as many levels as samples.
pub(super) fn column<const D: usize>(
    x: &Tensor<D>,
    (from, to): Between<'_>,
    f: impl Fn(Level, Level) -> f64,
) -> Tensor<D> {
    let batch = x.dims()[0];
    assert_eq!([from.len(), to.len()], [batch; 2], "levels of a batch");
    let values: Vec<f64> = from.iter().zip(to).map(|(&from, &to)| f(from, to)).collect();
    let mut shape = [1; D];
    shape[0] = batch;
    Tensor::from_data(TensorData::new(values, shape), (&x.device(), x.dtype()))
}
