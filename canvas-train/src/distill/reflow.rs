//! Rectified flow: noise and data paired by a teacher, on which another flow is trained, and is straighter.

use super::ode::column;
use crate::Noised;
use crate::objective::mean_of_each;
use burn::prelude::*;
use canvas_core::{Estimate, Level, Run};

/// Noise, and the data to which a teacher carries it.
///
/// A flow that is trained on these pairs with the objective of any other flow has the same ends, and crosses itself less.
/// Once more with the new flow as teacher is 2-reflow of it, and so on.
///
/// # Reference
/// Liu et al., "Flow Straight and Fast", 2022, algorithm 1, <https://arxiv.org/abs/2209.03003>.
#[derive(Clone, Debug)]
pub struct Coupling<const D: usize> {
    /// Where the teacher ended, `[B, C, ..]`.
    pub x0: Tensor<D>,
    /// Where it began, in units of the noise.
    pub eps: Tensor<D>,
    /// How bent the way was of each sample, `[B]`: the mean over time, and over a sample's numbers, of the square of how far its
    /// velocity was from that of the straight line between its ends, in rectified flow's variables. The paper's straightness `S`, 0
    /// where lines are straight.
    pub bend: Tensor<1>,
}

impl<const D: usize> Coupling<D> {
    /// Carries noise along a run, of any sampler of the ODE. Without gradients.
    ///
    /// # Shapes
    /// - `eps`: `[B, C, ..]`, of unit scale
    pub fn new<E: Into<Estimate<D>>>(
        run: Run<'_, D>,
        denoise: impl Fn(Tensor<D>, Level) -> E,
        eps: Tensor<D>,
    ) -> Self {
        let levels = run.levels();
        let eps = eps.inner();
        let start = eps.clone() * levels[0].sigma;
        let (mut before, mut sum) = (straight(start.clone(), levels[0]), Vec::new());
        let first = before.clone();
        let x0 = run.watch(denoise, start, &mut |progress| {
            let [from, to] = [levels[progress.done - 1], levels[progress.done]];
            let y = straight(progress.x.clone().inner(), to);
            let moved = y.clone() - std::mem::replace(&mut before, y);
            sum.push((moved, time(from) - time(to)));
        });
        let whole: f64 = sum.iter().map(|(_, span)| span).sum();
        let velocity = (before - first) / whole;
        let bends = sum
            .into_iter()
            .filter(|(_, span)| *span > 0.0)
            .map(|(moved, span)| mean_of_each((moved / span - velocity.clone()).square()) * (span / whole));
        let bend = bends.reduce(|a, b| a + b).expect("a run has a hop");
        Self { x0: x0.inner(), eps, bend }
    }

    /// The pairs at levels, one a sample: what an objective takes.
    ///
    /// # Panics
    /// If there are not as many levels as samples.
    pub fn noised(&self, at: Vec<Level>) -> Noised<D> {
        Noised::new(self.x0.clone(), self.eps.clone(), at)
    }
}

/// Rectified flow's time of a level.
pub(super) fn time(level: Level) -> f64 {
    level.sigma / (level.alpha + level.sigma)
}

/// A state in rectified flow's variables.
fn straight<const D: usize>(x: Tensor<D>, at: Level) -> Tensor<D> {
    x / (at.alpha + at.sigma)
}

/// The same, each sample at a level of its own.
pub(super) fn straight_each<const D: usize>(x: Tensor<D>, at: &[Level]) -> Tensor<D> {
    let scale = column(&x, (at, at), |level, _| level.alpha + level.sigma);
    x / scale
}
