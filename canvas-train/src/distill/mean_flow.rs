//! Mean flows: average velocities between any two times, without a teacher.

use super::reflow::{straight_each, time};
use super::{Adaptive, Metric};
use crate::{LevelDistribution, Noised};
use burn::prelude::*;
use burn::tensor::IndexingUpdateOp;
use canvas_core::{Condition, Denoiser, Level, NoiseSchedule, TwoTimes};

/// Where a network of two times is trained: a state, the velocity there, and from which time to which. In rectified flow's
/// variables, whatever the schedule of the batch it is made of: `t = s / (a + s)`, `z = x / (a + s)`.
#[derive(Clone, Debug)]
pub struct Span<const D: usize> {
    /// The state, `[B, C, ..]`.
    pub z: Tensor<D>,
    /// The velocity there, without gradients.
    pub v: Tensor<D>,
    /// Where it is, one a sample.
    pub t: Vec<f64>,
    /// Where it leads, `r <= t`.
    pub r: Vec<f64>,
}

impl<const D: usize> Span<D> {
    /// The velocity of data and noise, `eps - x0`: training without a teacher.
    ///
    /// # Panics
    /// If there are not as many levels as samples.
    pub fn of_data(noised: &Noised<D>, to: &[Level]) -> Self {
        assert_eq!(to.len(), noised.at.len(), "levels of a batch");
        let v = noised.eps.clone().inner() - noised.x0.clone().inner();
        let [t, r] = [&noised.at, to].map(|at| at.iter().map(|&level| time(level)).collect());
        Self { z: straight_each(noised.x.clone(), &noised.at), v, t, r }
    }

    /// A teacher's velocity, `(z - x0) / t`: a flow, guided or not, is distilled to a mean flow. It spares the network the
    /// spread of velocities of which the teacher's is the mean.
    ///
    /// # Panics
    /// If there are not as many levels as samples.
    pub fn of_teacher<N: Denoiser<D>>(teacher: &N, noised: &Noised<D>, to: &[Level], cond: &N::Cond) -> Self {
        let x = noised.x.clone().inner();
        let x0 = teacher.denoise(x, &noised.at, cond).x0.inner();
        Self::of_data(&Noised::of_state(noised.x.clone(), x0, noised.at.clone()), to)
    }

    /// The same with velocities that are guided by what the network itself says at one time: `omega v +
    /// kappa u(z, t, t, c) + (1 - omega - kappa) u(z, t, t, null)`. One evaluation draws as guidance of scale `omega / (1 - kappa)` would.
    ///
    /// # Reference
    /// Geng et al., "Mean Flows", 2025, equations 20 and 21 and appendix A, <https://arxiv.org/abs/2505.13447>.
    #[must_use]
    pub fn guided<T: TwoTimes<D>>(
        mut self,
        frozen: &T,
        (omega, kappa): (f64, f64),
        (cond, null): (&T::Cond, &T::Cond),
    ) -> Self {
        let batch = self.t.len();
        let said = |cond: &T::Cond| {
            let t = told(&self.z, &self.t);
            frozen.forward(self.z.clone().inner(), t.clone(), t, cond).inner()
        };
        let mut v = self.v * omega + said(&null.spread(batch)) * (1.0 - omega - kappa);
        if kappa != 0.0 {
            v = v + said(cond) * kappa;
        }
        self.v = v;
        self
    }
}

/// Two levels for three draws from `[0, 1)`, the noisier one first: both of a distribution, and in a part `instant` of all draws the
/// same, where a mean flow is a flow. 0.75 in the paper, logit-normal of -0.4 and 1.
pub fn two_levels(
    distribution: &LevelDistribution,
    schedule: &dyn NoiseSchedule,
    [one, other, third]: [f64; 3],
    instant: f64,
) -> [Level; 2] {
    let most = distribution.level(schedule, one.max(other));
    let least = if third < instant { most } else { distribution.level(schedule, one.min(other)) };
    [most, least]
}

/// What a mean flow is trained by: `d(u(z, r, t), sg(v - (t - r) du/dt))`, `du/dt` the change along the trajectory,
/// `v du/dz + du/dt`.
///
/// # Differs from the paper
/// The change along the trajectory is the central difference `(u(z + h v, r, t + h) - u(z - h v, r, t - h)) / 2h` and
/// not an automatic derivative: Burn has none of forward mode, and no gradient is asked of it. Its error is `h^2 / 6` of the third
/// derivative, and about `2^-24 |u| / h` of rounding: together least at `h = (3 2^-24)^(1/3)`, 0.0056, where `u` and its third
/// derivative are of about unit size, and some 1e-5 there. [`step`](Self::step) is by default the power of two below, `2^-8`,
/// so that `t + h` is rounded least; on Gaussian data with third derivatives of up to 20 it is off by 9e-5. Where a network has
/// features of `w t`, the best step is `1 / w` of that and the relative error as it was, until `t + h` itself is rounded: with
/// sinusoids of `1000 t` that is 1 percent, and a network is better told a smaller multiple.
///
/// # Reference
/// Geng et al., "Mean Flows for One-step Generative Modeling", 2025, equations 10 and 11, <https://arxiv.org/abs/2505.13447>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanFlow<M> {
    /// What an error costs.
    pub metric: M,
    /// `h`, in time, above 0.
    pub step: f64,
}

impl Default for MeanFlow<Adaptive> {
    /// The paper's metric.
    fn default() -> Self {
        Self { metric: Adaptive::default(), step: 0.5f64.powi(8) }
    }
}

impl<M> MeanFlow<M> {
    /// Losses `[B]`; `frozen` is the same network without gradients.
    pub fn losses<const D: usize, N: TwoTimes<D>, T: TwoTimes<D, Cond = N::Cond>>(
        &self,
        (network, frozen): (&N, &T),
        span: &Span<D>,
        cond: &N::Cond,
    ) -> Tensor<1>
    where
        M: Metric<D>,
    {
        let answer = network.forward(span.z.clone(), told(&span.z, &span.r), told(&span.z, &span.t), cond);
        self.metric.between(answer, self.target(frozen, span, cond))
    }

    /// `v - (t - r) du/dt`, `[B, C, ..]`, without gradients. Samples of `r = t` are not asked about.
    ///
    /// # Panics
    /// If a span leads to more noise.
    pub fn target<const D: usize, T: TwoTimes<D>>(
        &self,
        frozen: &T,
        span: &Span<D>,
        cond: &T::Cond,
    ) -> Tensor<D> {
        let long = |i: usize| span.t[i] - span.r[i];
        let all = 0..span.t.len();
        if let Some(i) = all.clone().find(|&i| long(i) < 0.0) {
            panic!("a span from time {} to {}, from less noise to more", span.t[i], span.r[i]);
        }
        let rows: Vec<usize> = all.filter(|&i| long(i) > 0.0).collect();
        if rows.is_empty() {
            return span.v.clone().inner();
        }
        let change = self.change(frozen, &span.rows(&rows), &cond.select(&rows));
        let lengths: Vec<f64> = rows.iter().map(|&i| -long(i)).collect();
        let mut shape = [1; D];
        shape[0] = rows.len();
        let lengths = Tensor::from_data(TensorData::new(lengths, shape), (&change.device(), change.dtype()));
        let places = indices(&rows, &change.device());
        span.v.clone().inner().select_assign(0, places, change * lengths, IndexingUpdateOp::Add)
    }

    /// How `u` changes with `t` along the trajectory, `[B, C, ..]`, without gradients.
    pub fn change<const D: usize, T: TwoTimes<D>>(
        &self,
        frozen: &T,
        span: &Span<D>,
        cond: &T::Cond,
    ) -> Tensor<D> {
        let (z, v, h, batch) =
            (span.z.clone().inner(), span.v.clone().inner() * self.step, self.step, span.t.len());
        let t: Vec<f64> = span.t.iter().map(|t| t + h).chain(span.t.iter().map(|t| t - h)).collect();
        let states = Tensor::cat(vec![z.clone() + v.clone(), z - v], 0); // [2 B, ..]
        let (r, t) = (told(&states, &span.r.repeat(2)), told(&states, &t));
        let u = frozen.forward(states, r, t, &T::Cond::cat(&[cond.clone(), cond.clone()])).inner();
        (u.clone().narrow(0, 0, batch) - u.narrow(0, batch, batch)) / (2.0 * h)
    }
}

impl<const D: usize> Span<D> {
    /// Some of the samples.
    fn rows(&self, rows: &[usize]) -> Self {
        let pick = |x: &Tensor<D>| x.clone().inner().select(0, indices(rows, &x.clone().inner().device()));
        let each = |times: &[f64]| rows.iter().map(|&row| times[row]).collect();
        Self { z: pick(&self.z), v: pick(&self.v), t: each(&self.t), r: each(&self.r) }
    }
}

fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}

/// Times as a network is told them, in 32 bits at least.
fn told<const D: usize>(like: &Tensor<D>, times: &[f64]) -> Tensor<1> {
    use burn::tensor::DType;
    let precise = if like.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Tensor::from_data(TensorData::new(times.to_vec(), [times.len()]), (&like.device(), precise))
}
