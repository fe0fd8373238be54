//! One sampler in a window of hops, another elsewhere.

use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step, falling};
use std::ops::Range;

/// Steps with `inner` in the hops of `hops`, with `otherwise` before and after: MixGRPO's and Flow-GRPO-Fast's
/// sampling is a [`FlowSde`](super::FlowSde) in a few hops of a deterministic run.
///
/// # Reference
/// Li et al., "MixGRPO", 2025, section 3, <https://arxiv.org/abs/2507.21802>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window<S, O> {
    /// Steps within the window.
    pub inner: S,
    /// Steps outside it.
    pub otherwise: O,
    /// Which hops are inside, counted from 0.
    pub hops: Range<usize>,
}

impl<const D: usize, S: Sampler<D>, O: Sampler<D>> Sampler<D> for Window<S, O> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        if self.hops.contains(&hop.index) { self.inner.step(x, hop) } else { self.otherwise.step(x, hop) }
    }

    fn memory(&self) -> usize {
        self.inner.memory().max(self.otherwise.memory())
    }

    /// Each sampler is asked about its own stretch of the levels.
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        falling(levels)?;
        let last = levels.len() - 1;
        let start = self.hops.start.min(last);
        let end = self.hops.end.clamp(start, last);
        let stretch = |from: usize, to: usize, sampler: &dyn Sampler<D>| {
            if from < to { sampler.check(&levels[from..=to]) } else { Ok(()) }
        };
        stretch(0, start, &self.otherwise)?;
        stretch(start, end, &self.inner)?;
        stretch(end, last, &self.otherwise)
    }
}
