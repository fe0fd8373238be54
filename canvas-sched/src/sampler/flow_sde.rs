//! The SDEs of reinforcement learning on flow models.

use crate::FlowNoise;
use burn::prelude::*;
use canvas_core::{Hop, Level, Sampler, Step};
use std::f64::consts::FRAC_PI_2;

/// Stochastic, one evaluation a step, in rectified flow's variables `f = s / (a + s)`, `y = x / (a + s)`,
/// `v = eps - x0`, `d = f - f'`: `y' ~ N(y (1 - c^2 d / 2f) - v d (1 + c^2 (1 - f) / 2f), c^2 d)`, or for CPS
/// `y' ~ N((1 - f') x0 + sqrt(f'^2 - std^2) eps, std^2)` with `std = f' sin(a pi / 2)`.
///
/// Finite at `alpha = 0`. Flow-GRPO's and DanceGRPO's are of first order in distribution. CPS is
/// [`Ddim`](super::Ddim) with another noise, whose share does not shrink with the hops: its bias does not vanish
/// with the number of steps (at `a = 0.7` a standard deviation of 0.40 comes out 0.08 narrower in 100 steps and still
/// 0.07 in 300). Flow-GRPO's noise has no bound where the first level is nearly, but not exactly, pure noise.
///
/// # Differs from the references
/// A step to clean data has no noise (theirs adds some, and leaves that step out of training). Log-densities
/// are sums; divide by the number of elements for theirs. CPS's published log-probability is the squared
/// distance without `1 / 2 std^2`; here it is the density.
///
/// # Reference
/// Liu et al., "Flow-GRPO", 2025, equation 9, <https://arxiv.org/abs/2505.05470>; Xue et al., "DanceGRPO", 2025,
/// <https://arxiv.org/abs/2505.07818>; Wang & Yu, "Coefficients-Preserving Sampling", 2025,
/// <https://arxiv.org/abs/2509.05952>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlowSde(
    /// How much noise.
    pub FlowNoise,
);

impl<const D: usize> Sampler<D> for FlowSde {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let time = |level: Level| level.sigma / (level.alpha + level.sigma);
        let (f, next, scale) = (time(hop.from), time(hop.to), hop.to.alpha + hop.to.sigma);
        let here = hop.start(x);
        if next == 0.0 || f == next {
            return Step::exact(here.carry(hop.to), here);
        }
        let (d, y) = (f - next, here.x.clone() / (hop.from.alpha + hop.from.sigma));
        let c2 = match self.0 {
            FlowNoise::FlowGrpo(a) => a * a * f / (1.0 - if f == 1.0 { next } else { f }),
            FlowNoise::DanceGrpo(eta) => eta * eta,
            FlowNoise::Cps(a) => {
                let ((fresh, kept), Level { alpha, sigma, .. }) = ((a * FRAC_PI_2).sin_cos(), hop.to);
                return Step::random(here.x0() * alpha + here.eps() * (sigma * kept), sigma * fresh, here);
            }
        };
        let flow = here.eps() - here.x0();
        let (of_y, of_v) = (1.0 - c2 * d / (2.0 * f), d * (1.0 + c2 * (1.0 - f) / (2.0 * f)));
        Step::random((y * of_y - flow * of_v) * scale, (c2 * d).sqrt() * scale, here)
    }
}
