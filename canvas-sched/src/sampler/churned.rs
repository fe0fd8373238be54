//! Churn: a pinch of fresh noise before each step of any other sampler.

use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step};
use std::f64::consts::SQRT_2;

/// Wraps a sampler with EDM's noise injection: diffuse a little forward along the schedule, then step
/// from there.
///
/// The wrapped step's density is that of its own draw, given the churned state. Where the schedule ends
/// (its noisiest level, or `alpha = 0`) there is no churn.
///
/// # Reference
/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, Algorithm 2,
/// <https://arxiv.org/abs/2206.00364>; there `alpha = 1`.
#[derive(Clone, Debug)]
pub struct Churned<S> {
    /// The sampler that steps.
    pub inner: S,
    /// Total churn over the run, `>= 0`; 0 changes nothing (`S_churn`).
    pub amount: f64,
    /// Churn only while `sigma / alpha` lies in this range (`S_tmin`, `S_tmax`).
    pub range: (f64, f64),
    /// Scale of the fresh noise, about 1 (`S_noise`).
    pub noise: f64,
}

impl<S> Churned<S> {
    /// The raised level and state, or `None` where there is no churn.
    pub(crate) fn raise<const D: usize>(
        &self,
        x: &Tensor<D>,
        hop: &mut Hop<'_, D>,
    ) -> Option<(Level, Tensor<D>)> {
        let ratio = hop.from.sigma / hop.from.alpha;
        let inside = ratio.is_finite() && self.range.0 <= ratio && ratio <= self.range.1;
        let gamma = if inside { (self.amount / hop.count as f64).min(SQRT_2 - 1.0) } else { 0.0 };
        if gamma == 0.0 {
            return None;
        }
        let raised = hop.schedule.level_at_ratio(ratio * (1.0 + gamma));
        let keep = raised.alpha / hop.from.alpha;
        let fresh = (raised.sigma.powi(2) - (keep * hop.from.sigma).powi(2)).max(0.0).sqrt();
        Some((raised, x.clone() * keep + hop.fresh_noise(x) * (fresh * self.noise)))
    }
}

impl<const D: usize, S: Sampler<D>> Sampler<D> for Churned<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let to = hop.to;
        let (from, x) = self.raise(&x, hop).unwrap_or((hop.from, x));
        self.inner.step(x, &mut hop.between(from, to))
    }

    fn memory(&self) -> usize {
        self.inner.memory()
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        self.inner.check(levels)
    }
}
