//! Samplers around samplers that only diffusers' conventions need.

use super::table::Table;
use crate::multistep::Finish;
use crate::{Clip, DynamicThreshold};
use burn::prelude::*;
use canvas_core::{
    Denoiser, Estimate, Evaluation, GridError, Hop, Level, Prediction, Sampler, Step, Unconditional, rising,
};

/// A hop's denoiser as a [`Denoiser`], for the wrappers of `guidance`.
struct Bound<'a, const D: usize>(&'a dyn Fn(Tensor<D>, Level) -> Estimate<D>);

impl<const D: usize> Denoiser<D> for Bound<'_, D> {
    type Cond = Unconditional;
    fn denoise(&self, x: Tensor<D>, at: &[Level], _cond: &Unconditional) -> Estimate<D> {
        (self.0)(x, at[0])
    }
}

/// What is done to an estimate before a sampler sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// Clipped to `[-limit, limit]`: `clip_sample`.
    Clip(f64),
    /// Dynamic thresholding: a quantile, and the largest threshold.
    Threshold(f64, f64),
    /// `x0 = c_skip x + c_out x0` with latent consistency models' factors, after clipping: `timestep_scaling`
    /// times the training steps.
    Boundary(f64),
    /// The learned variance is a variance, not its logarithm.
    Variance,
    /// No estimate without signal: what IPNDM's division by `max(alpha, 1e-8)` comes to.
    Blind,
}

/// Changes every estimate of a sampler.
pub(super) struct Changed<S> {
    pub(super) inner: S,
    pub(super) change: Change,
    /// Keeps the noise estimate of before.
    pub(super) keep_noise: bool,
}

impl<S> Changed<S> {
    fn estimate<const D: usize>(&self, of: Bound<'_, D>, x: Tensor<D>, level: Level) -> Estimate<D> {
        let (at, cond, keep_noise) = ([level], Unconditional(x.dims()[0]), self.keep_noise);
        match self.change {
            Change::Clip(limit) => Clip { denoiser: of, limit, keep_noise }.denoise(x, &at, &cond),
            Change::Threshold(quantile, max) => {
                DynamicThreshold { denoiser: of, quantile, max, keep_noise }.denoise(x, &at, &cond)
            }
            Change::Boundary(scale) => {
                let (u, d, said) = (scale * level.time, 0.5f64, of.denoise(x.clone(), &at, &cond));
                (x * (d * d / (u * u + d * d)) + said.x0 * (u / u.hypot(d))).into()
            }
            Change::Variance => {
                let said = of.denoise(x, &at, &cond);
                Estimate { variance: said.variance.map(Tensor::log), ..said }
            }
            Change::Blind if level.alpha == 0.0 => x.zeros_like().into(),
            Change::Blind => of.denoise(x, &at, &cond),
        }
    }
}

impl<const D: usize, S: Sampler<D>> Sampler<D> for Changed<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let denoise = hop.denoise;
        let changed = |x, level| self.estimate(Bound(denoise), x, level);
        self.inner.step(x, &mut hop.denoised_by(&changed))
    }
    fn memory(&self) -> usize {
        self.inner.memory()
    }
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        self.inner.check(levels)
    }
}

/// Ends each hop `T / N` training steps below its start, whatever the grid's next level is.
pub(super) struct Strided<S> {
    pub(super) inner: S,
    pub(super) table: Table,
    pub(super) end: Level,
}

impl<const D: usize, S: Sampler<D>> Sampler<D> for Strided<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, train) = (hop.from, self.table.train());
        let timestep = (from.time * train as f64).round() as usize;
        let to = timestep.checked_sub(train / hop.count).map_or(self.end, |step| self.table.step(step));
        self.inner.step(x, &mut hop.between(from, to))
    }
    fn memory(&self) -> usize {
        self.inner.memory()
    }
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        self.inner.check(levels)
    }
}

/// Asks for noise in every step, also where none is added.
pub(super) struct Drawing<S>(pub(super) S);

impl<const D: usize, S: Sampler<D>> Sampler<D> for Drawing<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let step = self.0.step(x, hop);
        if step.std.is_zero() {
            hop.fresh_noise(&step.mean);
        }
        step
    }
    fn memory(&self) -> usize {
        self.0.memory()
    }
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        self.0.check(levels)
    }
}

/// DDIM upwards as diffusers has it: the network is told the end of the hop, and read at its start.
pub(super) struct InverseDdim {
    pub(super) prediction: Box<dyn Prediction>,
    pub(super) clip: Option<f64>,
}

impl<const D: usize> Sampler<D> for InverseDdim {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let there = hop.evaluate(x, to);
        let told = self.prediction.coefficients(to);
        let raw = (there.x0() - there.x.clone() * told.skip) / told.out;
        let read = self.prediction.coefficients(from);
        let x0 = there.x.clone() * read.skip + raw.clone() * read.out;
        let (of_x0, of_eps) = self.prediction.target(from);
        let eps = (raw - x0.clone() * of_x0) / of_eps;
        let x0 = match self.clip {
            Some(limit) => x0.clamp(-limit, limit),
            None => x0,
        };
        let estimate = Estimate { eps: Some(eps), ..x0.into() };
        let here = Evaluation { level: from, x: there.x, estimate };
        Step::exact(here.carry(to), here)
    }
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        rising(levels)
    }
}

/// Takes another sampler for the hops that [`Finish`] makes first order.
pub(super) struct Finished<S, F> {
    pub(super) inner: S,
    pub(super) first: F,
    pub(super) finish: Finish,
}

impl<const D: usize, S: Sampler<D>, F: Sampler<D>> Sampler<D> for Finished<S, F> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let first = self.finish.order(2, hop.to, hop.index, hop.count) == 1;
        if first { self.first.step(x, hop) } else { self.inner.step(x, hop) }
    }
    fn memory(&self) -> usize {
        self.inner.memory().max(self.first.memory())
    }
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        self.inner.check(levels)
    }
}

/// Euler with churn as diffusers has it: the network is asked before the noise, and its raw output is used
/// after it.
pub(super) struct EarlyChurn {
    pub(super) churn: crate::Churned<crate::Euler>,
    pub(super) prediction: Box<dyn Prediction>,
    /// Whether the output is also read as one of the level before (velocity prediction).
    pub(super) read_before: bool,
}

impl<const D: usize> Sampler<D> for EarlyChurn {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let before = hop.start(x);
        let Some((raised, x)) = self.churn.raise(&before.x, hop) else {
            return Step::exact(before.carry(to), before);
        };
        let own = self.prediction.coefficients(from);
        let raw = (before.x0() - before.x.clone() * own.skip) / own.out;
        let (read, at) =
            if self.read_before { (own, from) } else { (self.prediction.coefficients(raised), raised) };
        // The state as the level of the reading scales it.
        let x0 = x.clone() * (at.alpha / raised.alpha * read.skip) + raw * read.out;
        let here = Evaluation { level: raised, x, estimate: x0.into() };
        Step::exact(here.carry(to), here)
    }
}
