//! Restart: back up in noise and down again, to forget the errors of the way.

use crate::numeric::karras_down;
use crate::within::{drawn, run};
use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step};

/// A stretch of noise-to-signal ratios that a [`Restart`] passes several times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Ratio `sigma / alpha` it restarts at (`t_min`): at the first level of the run that is no noisier.
    pub low: f64,
    /// Ratio it goes back up to (`t_max`), `> low`, at most the schedule's largest.
    pub high: f64,
    /// Steps of each way down, at least 1.
    pub steps: usize,
    /// How often (`K`).
    pub times: usize,
}

/// Wraps a sampler with Restart: each time a hop reaches the low end of an interval, noise takes the state
/// back to its high end, and the sampler runs down again.
///
/// The way down has levels spaced as Karras et al., equation 5, with `rho = 7`. Up: `x_high = (a_high/a) x + sqrt(s_high^2 - (a_high/a s)^2) z`. The way down starts without a past. The
/// density of a step is that of its last draw, given all before; with a deterministic sampler it has none.
/// Costs `times * steps` of the sampler's steps more an interval.
///
/// # Differs from the paper
/// The paper moves `t_min` to the nearest level of the grid; here it is the next one below.
///
/// # Reference
/// Xu et al., "Restart Sampling for Improving Generative Processes", 2023, Algorithm 1,
/// <https://arxiv.org/abs/2306.14878>.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart<S> {
    /// The sampler that steps.
    pub inner: S,
    /// What is passed several times, noisiest first.
    pub intervals: Vec<Interval>,
}

impl<const D: usize, S: Sampler<D>> Sampler<D> for Restart<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (before, after) = (hop.from.sigma / hop.from.alpha, hop.to.sigma / hop.to.alpha);
        let mut step = self.inner.step(x, hop);
        for interval in self.intervals.iter().filter(|i| before > i.low && after <= i.low && after < i.high) {
            let levels = karras_down(hop.schedule, interval.high, hop.to, interval.steps);
            let keep = levels[0].alpha / hop.to.alpha;
            let fresh = (levels[0].sigma.powi(2) - (keep * hop.to.sigma).powi(2)).max(0.0).sqrt();
            for _ in 0..interval.times {
                let x = drawn(step, hop);
                let raised = x.clone() * keep + hop.fresh_noise(&x) * fresh;
                step = run(&self.inner, &levels, raised, hop);
            }
        }
        step
    }

    fn memory(&self) -> usize {
        self.inner.memory()
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        self.inner.check(levels)
    }
}
