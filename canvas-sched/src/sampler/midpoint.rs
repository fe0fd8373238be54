//! The midpoint rule in the schedule's time.

use crate::numeric::halfway;
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Deterministic, second order, two evaluations a step.
///
/// For `dx = x0 d(alpha) + eps d(sigma)`: Euler's step to the level halfway in the schedule's time, then
/// `x' = x + (a' - a) x0_m + (s' - s) eps_m` with the estimates made there. On the flow schedule this is the
/// midpoint rule on the velocity. It never evaluates the ends of a run: `alpha = 0` and clean data are levels
/// like others, except that the first half step starts there.
///
/// # Measured order
/// On the schedules EDM, linear, cosine and flow, for Gaussian and for two-bump data, in `tests/sched/ode.rs`:
/// median 2.01.
///
/// # Reference
/// Runge, "Über die numerische Auflösung von Differentialgleichungen", 1895; as `midpoint` in torchdiffeq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Midpoint;

impl<const D: usize> Sampler<D> for Midpoint {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let here = hop.start(x);
        let middle = halfway(hop.schedule, from, to);
        let there = hop.evaluate(here.carry(middle), middle);
        let signal = there.x0() * (to.alpha - from.alpha);
        let noise = there.eps() * (to.sigma - from.sigma);
        Step::exact(here.x.clone() + signal + noise, here)
    }
}
