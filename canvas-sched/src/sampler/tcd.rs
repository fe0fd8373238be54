//! TCD: jump part of the way to clean data along the trajectory, then noise back.

use crate::locate::level_told;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic, one evaluation a step: deterministically to the level `(b, r)` at `1 - gamma` times the target's
/// time, then noise to the target: `x' ~ N((a'/b) (b x0 + r eps), s'^2 - (a' r / b)^2)`.
///
/// `gamma = 0` is [`Euler`](super::Euler). `gamma = 1` goes to time 0 first, [`Lcm`](super::Lcm) where that is
/// clean. "Time" is the time the network is told. Finite at `alpha = 0`, certain at clean data.
///
/// # Differs from diffusers
/// `TCDScheduler` calls `gamma` eta, and rounds the lower time down to a training step.
///
/// # Reference
/// Zheng et al., "Trajectory Consistency Distillation", 2024, Algorithm 4, <https://arxiv.org/abs/2402.19159>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tcd {
    /// How much of the target's time is given to noise, in `[0, 1]`.
    pub gamma: f64,
}

impl Default for Tcd {
    /// 0.3, as published.
    fn default() -> Self {
        Self { gamma: 0.3 }
    }
}

impl<const D: usize> Sampler<D> for Tcd {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let to = hop.to;
        let here = hop.start(x);
        if self.gamma == 0.0 || to.sigma == 0.0 || to.alpha == 0.0 {
            return Step::random(here.carry(to), 0.0, here);
        }
        let below = level_told(hop.schedule, (1.0 - self.gamma) * to.time);
        let keep = to.alpha / below.alpha;
        let variance = to.sigma.powi(2) - (keep * below.sigma).powi(2);
        // Not below the target: no noise to add, as where the schedule's first level is the target.
        if variance <= 0.0 {
            return Step::random(here.carry(to), 0.0, here);
        }
        Step::random(here.carry(below) * keep, variance.sqrt(), here)
    }
}
