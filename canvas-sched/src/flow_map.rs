//! Flow maps: networks of two times, which jump from one level to any other.

pub use canvas_core::TwoTimes;

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Condition, Denoiser, Level, Noise, NoiseSchedule, per_sample};

use crate::locate::level_told;

/// A map from a state at one level to the state at another, cleaner one: the solution of the probability-flow
/// ODE, learned.
///
/// # Reference
/// Boffi et al., "Flow Map Matching", 2024, definition 3.1, <https://arxiv.org/abs/2406.07507>.
pub trait FlowMap<const D: usize> {
    /// What it is conditioned on.
    type Cond: Condition;

    /// Carries `x`, `[B, C, ..]`, from one level to another.
    fn map(&self, x: Tensor<D>, from: Level, to: Level, cond: &Self::Cond) -> Tensor<D>;
}

impl<const D: usize, F: FlowMap<D>> FlowMap<D> for &F {
    type Cond = F::Cond;
    fn map(&self, x: Tensor<D>, from: Level, to: Level, cond: &F::Cond) -> Tensor<D> {
        (**self).map(x, from, to, cond)
    }
}

/// Any denoiser as a flow map: one hop of Euler, `(s'/s) x + (a' - a s'/s) x0`.
#[derive(Clone, Copy, Debug)]
pub struct OneHop<N>(
    /// The denoiser.
    pub N,
);

impl<const D: usize, N: Denoiser<D>> FlowMap<D> for OneHop<N> {
    type Cond = N::Cond;
    fn map(&self, x: Tensor<D>, from: Level, to: Level, cond: &N::Cond) -> Tensor<D> {
        if (from.alpha, from.sigma) == (to.alpha, to.sigma) {
            return x;
        }
        let estimate = self.0.denoise(x.clone(), &[from], cond);
        canvas_core::Evaluation { level: from, x, estimate }.carry(to)
    }
}

/// A network of average velocities as a flow map: `x_r = x_t - (t - r) u(x_t, r, t)`.
///
/// On any schedule, in rectified flow's variables `t = s / (a + s)`, `y = x / (a + s)`.
///
/// # Reference
/// Geng et al., "Mean Flows for One-step Generative Modeling", 2025, equation 12,
/// <https://arxiv.org/abs/2505.13447>. diffusers' `FlowMapEulerDiscreteScheduler` is this formula.
#[derive(Clone, Copy, Debug)]
pub struct MeanFlow<N>(
    /// The network.
    pub N,
);

impl<const D: usize, N: TwoTimes<D>> FlowMap<D> for MeanFlow<N> {
    type Cond = N::Cond;
    fn map(&self, x: Tensor<D>, from: Level, to: Level, cond: &N::Cond) -> Tensor<D> {
        let (scale, next) = (from.alpha + from.sigma, to.alpha + to.sigma);
        let (t, r) = (from.sigma / scale, to.sigma / next);
        // A time of 0.7453 does not survive 16 bits.
        let precise = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let (device, batch) = (x.device(), x.dims()[0]);
        let told = |time: f64| per_sample::<1>(&[from], (&device, precise), |_| time).expand([batch]);
        let y = x / scale;
        let velocity = self.0.forward(y.clone(), told(r), told(t), cond);
        (y - velocity * (t - r)) * next
    }
}

/// How a flow map walks along a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Walk {
    /// 0 goes from level to level. Above, each hop but the last to clean data goes to `1 - renoise` times the
    /// target's told time and adds noise up to the target; 1 is a consistency model's multistep sampling.
    pub renoise: f64,
}

impl Walk {
    /// Carries `x` from the first level to the last; two levels are one-step generation.
    ///
    /// # Reference
    /// Kim et al., "Consistency Trajectory Models", 2023, Algorithm 3 (gamma-sampling),
    /// <https://arxiv.org/abs/2310.02279>.
    pub fn sample<const D: usize, F: FlowMap<D>>(
        &self,
        map: &F,
        (schedule, levels): (&dyn NoiseSchedule, &[Level]),
        noise: &mut dyn Noise<D>,
        mut x: Tensor<D>,
        cond: &F::Cond,
    ) -> Tensor<D> {
        for pair in levels.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let below = if self.renoise == 0.0 || to.alpha == 0.0 {
                to
            } else {
                level_told(schedule, (1.0 - self.renoise) * to.time)
            };
            let keep = to.alpha / below.alpha;
            let fresh = to.sigma.powi(2) - (keep * below.sigma).powi(2);
            if self.renoise == 0.0 || fresh <= 0.0 {
                x = map.map(x, from, to, cond);
                continue;
            }
            x = map.map(x, from, below, cond) * keep;
            x = noise.normal_like(&x) * fresh.sqrt() + x;
        }
        x
    }
}
