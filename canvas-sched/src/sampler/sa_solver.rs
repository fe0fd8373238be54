//! SA-Solver: stochastic Adams predictor and corrector, with noise where a function says so.

use crate::Form;
use crate::exponential::{adams, adams_moulton};
use burn::prelude::*;
use canvas_core::{GridError, Hop, Level, Sampler, Step, falling, falling_with_signal};

/// Stochastic multistep, one evaluation a step: with `tau` at the start of the hop, `eta = tau^2` and
/// `H = (1 + eta) h`, predicts `x' ~ N((s'/s) e^(-eta h) x + a' sum_i w_i x0_i, s'^2 (1 - e^(-2 eta h)))`, the
/// `w_i` from the polynomial through the last estimates under the kernel `e^-(H - v)`; the next step replaces
/// that sum by one that includes its own estimate, keeping the noise.
///
/// With noise estimates: `x' ~ N((a'/a) x - (1 + eta) s' sum_i w_i eps_i, eta s'^2 (e^(2h) - 1))` under `e^(h - u)`.
///
/// Orders fall at both ends of the run, as published: the predictor's is at most the hops behind plus one and
/// the hops left. First order after `alpha = 0` and to clean data; no correction there.
///
/// Noise close to the data is harmful at orders above 1, which extrapolate along it: with `tau = 1` throughout and
/// 300 steps of shifted flow, modes of width 0.20 come out 0.27 wide. So the default has none there.
///
/// # Differs from the paper
/// As in its code, with two clean estimates the first moment of the kernel is replaced by its leading term
/// `(1 + eta) h^2 / 2`.
///
/// # Reference
/// Xue et al., "SA-Solver", 2023, Algorithm 1, <https://arxiv.org/abs/2309.05019>.
#[derive(Clone, Copy, Debug)]
pub struct SaSolver<F = fn(Level) -> f64> {
    /// Estimates the predictor uses, `>= 1`.
    pub predictor: usize,
    /// Estimates the corrector uses with the newest; 0 does not correct.
    pub corrector: usize,
    /// `tau` at a level, `>= 0`: 0 is deterministic, 1 the reverse SDE.
    pub tau: F,
    /// Whether the orders fall at the end of the run, as published.
    pub lower: bool,
    /// Clean estimates (`data_prediction`) or noise estimates, which need signal at the start.
    pub form: Form,
}

impl Default for SaSolver {
    /// Orders 2 and 2, noise while the told time lies in `[0.2, 0.8]`: diffusers' defaults.
    fn default() -> Self {
        let tau = |level: Level| f64::from(u8::from((0.2..=0.8).contains(&level.time)));
        Self { predictor: 2, corrector: 2, tau, lower: true, form: Form::Data }
    }
}

impl<F: Fn(Level) -> f64 + Send + Sync, const D: usize> Sampler<D> for SaSolver<F> {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        // Far more than any order, so that nothing falls.
        let left = if self.lower { hop.count - hop.index } else { usize::MAX - 2 };
        let how = |level| (self.form, (self.tau)(level).powi(2));
        let mut here = hop.start(x);
        // The corrector moves the state, not the estimate that was made before.
        here.estimate.eps = (self.form == Form::Noise).then(|| here.eps());
        let orders = (self.predictor.min(left + 1), self.corrector.min(left + 2));
        here.x = adams_moulton(how, &here, hop.past, orders);
        if hop.to.sigma == 0.0 && self.form == Form::Noise {
            return Step::exact(here.carry(hop.to), here);
        }
        let older = hop.past.iter().rev();
        let (mean, std) = adams(how(hop.from), &here, hop.to, older, self.predictor.min(left));
        Step::random(mean, std, here)
    }

    fn memory(&self) -> usize {
        self.predictor.max(self.corrector)
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        if self.form == Form::Noise { falling_with_signal(levels) } else { falling(levels) }
    }
}
