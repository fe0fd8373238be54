//! The contract between samplers and the loop that runs them.

use crate::{Level, Noise};
use burn::prelude::*;

/// One finished step, remembered for multistep samplers.
#[derive(Clone, Debug)]
pub struct Past<const D: usize> {
    /// Where the step started.
    pub level: Level,
    /// The state there.
    pub x: Tensor<D>,
    /// The clean estimate there.
    pub x0: Tensor<D>,
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
    /// Finished steps, oldest first.
    pub past: &'a [Past<D>],
    denoise: &'a dyn Fn(Tensor<D>, Level) -> Tensor<D>,
    noise: &'a mut dyn Noise<D>,
}

impl<'a, const D: usize> Hop<'a, D> {
    /// The first hop of a run of one, without a past: for tests, and to evaluate a stored step again.
    pub fn single(
        from: Level,
        to: Level,
        denoise: &'a dyn Fn(Tensor<D>, Level) -> Tensor<D>,
        noise: &'a mut dyn Noise<D>,
    ) -> Self {
        Self { from, to, index: 0, count: 1, past: &[], denoise, noise }
    }

    /// The clean estimate of `x` at a level: one evaluation of the network.
    pub fn estimate(&self, x: &Tensor<D>, at: Level) -> Tensor<D> {
        (self.denoise)(x.clone(), at)
    }

    /// Carries `x` from [`from`](Self::from) to [`to`](Self::to) along a clean estimate:
    /// `(s'/s) x + (a' - a s'/s) x0`.
    ///
    /// This one line is DDIM (eta = 0), Euler on the probability-flow ODE in EDM's and in flow matching's
    /// variables, and first-order DPM-Solver++. It starts at exactly `alpha = 0`.
    pub fn carry(&self, x: Tensor<D>, x0: Tensor<D>) -> Tensor<D> {
        let ratio = self.to.sigma / self.from.sigma;
        x * ratio + x0 * (self.to.alpha - self.from.alpha * ratio)
    }

    /// Carries `x` along a noise estimate: `(a'/a) x + (s' - s a'/a) eps`. `from.alpha` must not be 0.
    pub fn carry_eps(&self, x: Tensor<D>, eps: Tensor<D>) -> Tensor<D> {
        let ratio = self.to.alpha / self.from.alpha;
        x * ratio + eps * (self.to.sigma - self.from.sigma * ratio)
    }

    /// Standard normal noise shaped like `x`, fresh at each call.
    pub fn fresh_noise(&mut self, x: &Tensor<D>) -> Tensor<D> {
        self.noise.normal_like(x)
    }

    /// The same hop from another level: for samplers around samplers, such as churn.
    pub fn starting_at(&mut self, from: Level) -> Hop<'_, D> {
        Hop { from, noise: &mut *self.noise, ..*self }
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
    /// Standard deviation of the next state, `>= 0`.
    pub std: f64,
    /// The clean estimate this step was made with: remembered, and a free preview.
    pub x0: Tensor<D>,
}

impl<const D: usize> Step<D> {
    /// A step without noise.
    pub fn exact(mean: Tensor<D>, x0: Tensor<D>) -> Self {
        Self { mean, std: 0.0, x0 }
    }

    /// Log-density of a next state, summed over all but the sample axis: `[B]`.
    ///
    /// # Panics
    /// If the step is deterministic: it has no density.
    pub fn log_prob(&self, next: Tensor<D>) -> Tensor<1> {
        assert!(self.std > 0.0, "a deterministic step (std = 0) has no log-probability");
        let batch = next.dims()[0];
        let count = next.shape().num_elements() / batch;
        let z: Tensor<2> = ((next - self.mean.clone()) / self.std).reshape([batch, count]);
        let square: Tensor<1> = z.square().sum_dim(1).reshape([batch]);
        square * -0.5 - count as f64 * (self.std.ln() + 0.5 * (2.0 * std::f64::consts::PI).ln())
    }
}

/// A sampler: one stateless step from level to level. A new one is a file under 40 lines.
pub trait Sampler<const D: usize>: Send + Sync {
    /// Proposes the state at `hop.to`, given `x` at `hop.from`.
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D>;
}

impl<const D: usize, S: Sampler<D> + ?Sized> Sampler<D> for Box<S> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        (**self).step(x, hop)
    }
}

/// What a run shows after each step.
pub struct Progress<'a, const D: usize> {
    /// Finished hops.
    pub done: usize,
    /// Hops in the run.
    pub count: usize,
    /// The state after this hop.
    pub x: &'a Tensor<D>,
    /// The step that led there.
    pub step: &'a Step<D>,
}

/// A sampling run: a sampler along a grid of levels.
pub struct Run<'a, const D: usize> {
    /// Steps from level to level.
    pub sampler: &'a dyn Sampler<D>,
    /// At least two levels, noisiest first.
    pub levels: &'a [Level],
    /// Where fresh noise comes from.
    pub noise: &'a mut dyn Noise<D>,
}

impl<const D: usize> Run<'_, D> {
    /// Carries `x` from the first level to the last. `denoise` is a denoiser bound to its condition.
    pub fn sample(self, denoise: &dyn Fn(Tensor<D>, Level) -> Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        self.watch(denoise, x, &mut |_| {})
    }

    /// As [`sample`](Self::sample), showing each step: previews, trajectories, log-probabilities.
    ///
    /// # Panics
    /// If there are fewer than two levels.
    pub fn watch(
        self,
        denoise: &dyn Fn(Tensor<D>, Level) -> Tensor<D>,
        mut x: Tensor<D>,
        watch: &mut dyn FnMut(Progress<'_, D>),
    ) -> Tensor<D> {
        assert!(self.levels.len() >= 2, "a run needs two levels, found {}", self.levels.len());
        let (mut past, count) = (Vec::new(), self.levels.len() - 1);
        for (index, pair) in self.levels.windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            let mut hop = Hop { from, to, index, count, past: &past, denoise, noise: &mut *self.noise };
            let step = self.sampler.step(x.clone(), &mut hop);
            let mut next = step.mean.clone();
            if step.std > 0.0 {
                next = next.clone() + self.noise.normal_like(&next) * step.std;
            }
            watch(Progress { done: index + 1, count, x: &next, step: &step });
            past.push(Past { level: from, x, x0: step.x0 });
            x = next;
        }
        x
    }
}
