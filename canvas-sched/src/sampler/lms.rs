//! LMS: linear multistep in the noise-to-signal ratio.

use crate::multistep::{Form, nodes};
use crate::numeric::even_moments;
use burn::prelude::*;
use canvas_core::{Hop, Level, Sampler, Step};

/// Deterministic Adams-Bashforth sampler for uneven hops, one evaluation a step.
///
/// With `rho = sigma / alpha`: `x'/a' = x/a + integral eps d(rho)`, where `eps` is the polynomial in `rho`
/// through the last `order` noise estimates, integrated exactly. Order `order`, the first hops lower. A hop to
/// clean data keeps the full order; a start at `alpha = 0` is first order.
///
/// # Measured order
/// On the schedules EDM, linear, cosine and flow, for Gaussian and for two-bump data, in `tests/sched/ode.rs`:
/// 1.00, 1.97, 2.95 and 3.91 for orders 1 to 4, medians from exact history. A whole run has second order at
/// least, and the full order where it starts at much noise (EDM).
///
/// # Differs from diffusers
/// The integrals are exact; diffusers' are quadratures to a relative error of 1e-4.
///
/// # Reference
/// Crowson, k-diffusion, `sample_lms`, <https://github.com/crowsonkb/k-diffusion>; the ODE in `rho`: Karras
/// et al., 2022, <https://arxiv.org/abs/2206.00364>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lms {
    /// Estimates a hop uses, at least 1 (Euler).
    pub order: usize,
}

impl Default for Lms {
    /// Fourth order.
    fn default() -> Self {
        Self { order: 4 }
    }
}

impl<const D: usize> Sampler<D> for Lms {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        let ratio = |level: Level| level.sigma / level.alpha;
        let h = ratio(hop.to) - ratio(hop.from);
        let usable = if h.is_finite() { self.order - 1 } else { 0 };
        let nodes = nodes(ratio, hop.from, hop.past.iter().rev(), usable);
        let moments = even_moments(h, nodes.len() + 1);
        Step::exact(Form::Noise.carry(&here, hop.to, &nodes, &moments), here)
    }

    fn memory(&self) -> usize {
        self.order - 1
    }
}
