//! The contract of samplers: what a step is given, and what it proposes.

use crate::{Estimate, GridError, Level, Noise, NoiseSchedule, falling};
use burn::prelude::*;

/// One evaluation of the network: where, of what, and what it said.
#[derive(Clone, Debug)]
pub struct Evaluation<const D: usize> {
    /// The level the network was asked about.
    pub level: Level,
    /// The state there, `[B, ..]`.
    pub x: Tensor<D>,
    /// What it estimates.
    pub estimate: Estimate<D>,
}

impl<const D: usize> Evaluation<D> {
    /// The clean estimate.
    pub fn x0(&self) -> Tensor<D> {
        self.estimate.x0.clone()
    }

    /// The noise estimate: the denoiser's own if it gave one, or `(x - alpha x0) / sigma`.
    ///
    /// `level.sigma` must not be 0 then.
    pub fn eps(&self) -> Tensor<D> {
        match &self.estimate.eps {
            Some(eps) => eps.clone(),
            None => self.level.eps(self.x.clone(), self.x0()),
        }
    }

    /// Carries the state to another level along this evaluation: see [`carry_along`](Self::carry_along).
    pub fn carry(&self, to: Level) -> Tensor<D> {
        self.carry_along(self.x0(), to)
    }

    /// Carries the state to another level along a clean estimate of the caller's: `(s'/s) x + (a' - a s'/s) x0`.
    ///
    /// This one line is DDIM (eta = 0), Euler on the probability-flow ODE in EDM's and in flow matching's
    /// variables, and first-order DPM-Solver++. It starts at exactly `alpha = 0`. Where the denoiser gave a
    /// noise estimate of its own, it is `a' x0 + s' eps`.
    pub fn carry_along(&self, x0: Tensor<D>, to: Level) -> Tensor<D> {
        if let Some(eps) = &self.estimate.eps {
            return x0 * to.alpha + eps.clone() * to.sigma;
        }
        // From clean to clean nothing is left to estimate, and the ratio is 0/0.
        let ratio = if to.sigma == 0.0 { 0.0 } else { to.sigma / self.level.sigma };
        self.x.clone() * ratio + x0 * (to.alpha - self.level.alpha * ratio)
    }

    /// Carries the state to another level along a noise estimate: `(a'/a) x + (s' - s a'/a) eps`.
    ///
    /// `level.alpha` must not be 0.
    pub fn carry_eps(&self, eps: Tensor<D>, to: Level) -> Tensor<D> {
        let ratio = to.alpha / self.level.alpha;
        self.x.clone() * ratio + eps * (to.sigma - self.level.sigma * ratio)
    }
}

/// One hop of a run, from a level to the next, with all a sampler may use.
pub struct Hop<'a, const D: usize> {
    /// Where the step starts.
    pub from: Level,
    /// Where it ends.
    pub to: Level,
    /// Which hop of the run this is, from 0.
    pub index: usize,
    /// Hops in the run.
    pub count: usize,
    /// What the last finished steps kept, oldest first: as many as [`Sampler::memory`] asks for, if there were.
    pub past: &'a [Evaluation<D>],
    /// What makes levels between those of the run.
    pub schedule: &'a dyn NoiseSchedule,
    /// The denoiser bound to its condition; [`evaluate`](Self::evaluate) is the way to it.
    pub denoise: &'a dyn Fn(Tensor<D>, Level) -> Estimate<D>,
    noise: &'a mut dyn Noise<D>,
}

impl<'a, const D: usize> Hop<'a, D> {
    /// The first hop of a run of one, without a past: for tests, and to evaluate a stored step again.
    pub fn single(
        (from, to): (Level, Level),
        schedule: &'a dyn NoiseSchedule,
        denoise: &'a dyn Fn(Tensor<D>, Level) -> Estimate<D>,
        noise: &'a mut dyn Noise<D>,
    ) -> Self {
        Self { from, to, index: 0, count: 1, past: &[], schedule, denoise, noise }
    }

    /// The same hop as number `index` of `count`, with a past.
    pub fn after(self, past: &'a [Evaluation<D>], index: usize, count: usize) -> Self {
        Self { past, index, count, ..self }
    }

    /// Evaluates the network once.
    pub fn evaluate(&self, x: Tensor<D>, level: Level) -> Evaluation<D> {
        let estimate = (self.denoise)(x.clone(), level);
        Evaluation { level, x, estimate }
    }

    /// Evaluates the network where the hop starts.
    pub fn start(&self, x: Tensor<D>) -> Evaluation<D> {
        self.evaluate(x, self.from)
    }

    /// Standard normal noise shaped like `x`, fresh at each call.
    pub fn fresh_noise(&mut self, x: &Tensor<D>) -> Tensor<D> {
        self.noise.normal_like(x)
    }

    /// The same hop with another denoiser: for samplers around samplers that change what the network says.
    pub fn denoised_by<'b>(&'b mut self, denoise: &'b dyn Fn(Tensor<D>, Level) -> Estimate<D>) -> Hop<'b, D> {
        Hop { denoise, noise: &mut *self.noise, ..*self }
    }

    /// The same hop between other levels: for samplers around samplers, such as churn.
    pub fn between(&mut self, from: Level, to: Level) -> Hop<'_, D> {
        Hop { from, to, noise: &mut *self.noise, ..*self }
    }
}

/// Standard deviation of a step's draw.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one of these a step: a box would save nothing")]
pub enum Std<const D: usize> {
    /// The same for every number of the batch, `>= 0`.
    Same(f64),
    /// One for each number, `[B, ..]`, all `> 0`: learned variances.
    Each(Tensor<D>),
}

impl<const D: usize> Std<D> {
    /// Whether nothing is drawn.
    pub fn is_zero(&self) -> bool {
        matches!(self, Self::Same(std) if *std == 0.0)
    }

    /// The one number of [`Std::Same`].
    ///
    /// # Panics
    /// If each number of the batch has its own.
    pub fn same(&self) -> f64 {
        match self {
            Self::Same(std) => *std,
            Self::Each(_) => panic!("this step has a standard deviation for each number, not one for all"),
        }
    }
}

/// What a step proposes: the next state is drawn from `N(mean, std^2 I)`.
///
/// A deterministic sampler has `std = 0`. Because the draw is the loop's, every stochastic sampler has a
/// log-probability and can be evaluated again at a stored state, which post-training stands on.
#[derive(Clone, Debug)]
pub struct Step<const D: usize> {
    /// Mean of the next state.
    pub mean: Tensor<D>,
    /// Standard deviation of the next state.
    pub std: Std<D>,
    /// The evaluation this step was made with: remembered for multistep samplers, and a free preview. A
    /// sampler that moved the state first (churn, a corrector) says so here.
    pub eval: Evaluation<D>,
}

impl<const D: usize> Step<D> {
    /// A step without noise.
    pub fn exact(mean: Tensor<D>, eval: Evaluation<D>) -> Self {
        Self::random(mean, 0.0, eval)
    }

    /// A step whose draw has one standard deviation.
    pub fn random(mean: Tensor<D>, std: f64, eval: Evaluation<D>) -> Self {
        Self { mean, std: Std::Same(std), eval }
    }

    /// Draws the next state. Asks for noise only if there is a spread.
    pub fn draw(&self, noise: &mut dyn Noise<D>) -> Tensor<D> {
        let mean = self.mean.clone();
        match &self.std {
            Std::Same(0.0) => mean,
            Std::Same(std) => noise.normal_like(&mean) * *std + mean,
            Std::Each(std) => noise.normal_like(&mean) * std.clone() + mean,
        }
    }

    /// Log-density of a next state, summed over all but the sample axis: `[B]`.
    ///
    /// Divide by the number of summed elements for the mean that DDPO and Flow-GRPO use.
    ///
    /// # Panics
    /// If the step is deterministic: it has no density.
    pub fn log_prob(&self, next: Tensor<D>) -> Tensor<1> {
        assert!(!self.std.is_zero(), "a deterministic step (std = 0) has no log-probability");
        let batch = next.dims()[0];
        let count = next.shape().num_elements() / batch;
        let sum = |x: Tensor<D>| -> Tensor<1> { x.reshape([batch, count]).sum_dim(1).reshape([batch]) };
        let distance = next - self.mean.clone();
        let (z, log_std) = match &self.std {
            Std::Same(std) => (distance / *std, None),
            Std::Each(std) => (distance / std.clone(), Some(sum(std.clone().log()))),
        };
        let density = sum(z.square()) * -0.5 - count as f64 * 0.5 * (2.0 * std::f64::consts::PI).ln();
        match log_std {
            Some(log_std) => density - log_std,
            None => density - count as f64 * self.std.same().ln(),
        }
    }
}

/// A sampler: one stateless step from level to level. A new one is a file under 40 lines beside its imports.
pub trait Sampler<const D: usize>: Send + Sync {
    /// Proposes the state at `hop.to`, given `x` at `hop.from`.
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D>;

    /// How many earlier steps it looks back at: what [`Hop::past`] holds, and what a run keeps in memory.
    fn memory(&self) -> usize {
        0
    }

    /// Whether this sampler can run along these levels. By default noise must not rise.
    ///
    /// # Errors
    /// The first level that is in the way, and why.
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        falling(levels)
    }
}

impl<const D: usize, S: Sampler<D> + ?Sized> Sampler<D> for Box<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        (**self).step(x, hop)
    }
    fn memory(&self) -> usize {
        (**self).memory()
    }
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        (**self).check(levels)
    }
}

impl<const D: usize, S: Sampler<D> + ?Sized> Sampler<D> for &S {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        (**self).step(x, hop)
    }
    fn memory(&self) -> usize {
        (**self).memory()
    }
    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        (**self).check(levels)
    }
}
