//! DPM-Solver++(2M) SDE: the multistep solver with fresh noise each step.

use crate::SolverType;
use crate::exponential::{Reverse, moment, usable};
use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Stochastic multistep, one evaluation a step, with `h = ln(a'/s') - ln(a/s)` and `H = (1 + eta) h`:
/// `x' ~ N((s'/s) e^(-eta h) x + a' (1 - e^-H) x0 + a' w (h / h_prev) (x0 - x0_prev), s'^2 (1 - e^(-2 eta h)))`.
///
/// `eta = 0` is [`DpmPp::two_m`](super::DpmPp::two_m), `eta = 1` diffusers' `sde-dpmsolver++` of order 2; without a past
/// `eta = 1` is [`Ddpm`](super::Ddpm). First order in the first hop, after `alpha = 0` and to clean data.
///
/// # Reference
/// Lu et al., "DPM-Solver++", 2022, appendix B.4, <https://arxiv.org/abs/2211.01095>; `eta` and the weights as in
/// k-diffusion's `sample_dpmpp_2m_sde`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpmPp2mSde {
    /// Part of the reverse SDE's noise, `>= 0`.
    pub eta: f64,
    /// Scale of the fresh noise, about 1 (`s_noise`).
    pub noise: f64,
    /// `Midpoint`: weight `(1 - e^-H) / 2`; `Heun`: `1 - (1 - e^-H) / H`.
    pub solver: SolverType,
}

impl Default for DpmPp2mSde {
    /// All of the noise, midpoint.
    fn default() -> Self {
        Self { eta: 1.0, noise: 1.0, solver: SolverType::Midpoint }
    }
}

impl<const D: usize> Sampler<D> for DpmPp2mSde {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let Reverse { of_x, of_x0, std, h } = Reverse::new(hop.from, hop.to, self.eta);
        let here = hop.start(x);
        let mut mean = here.x.clone() * of_x + here.x0() * of_x0;
        let (nodes, past) = usable(hop.past.iter().rev(), hop.from.half_log_snr(), 1);
        if h.is_finite() && h > 0.0 && nodes.first().is_some_and(|&node| node < 0.0) {
            let rate = (1.0 + self.eta) * h;
            let weight = match self.solver {
                SolverType::Midpoint => 0.5 * moment(0, rate),
                SolverType::Heun => moment(1, rate) / rate,
            };
            mean = mean + (here.x0() - past[0].clone()) * (hop.to.alpha * weight * h / -nodes[0]);
        }
        Step::random(mean, std * self.noise, here)
    }

    fn memory(&self) -> usize {
        1
    }
}
