//! DPM-Solver++(2M) SDE: the multistep solver with fresh noise each step.

use crate::exponential::Reverse;
use crate::multistep::dpm_moments;
use crate::{Form, SolverType};
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
        let reverse = Reverse::new(Form::Data, hop.from, hop.to, self.eta);
        let here = hop.start(x);
        let nodes = reverse.nodes(hop.from, hop.past.iter().rev(), 1);
        let moments = dpm_moments((self.solver, false), reverse.h, reverse.moments(nodes.len() + 1));
        Step::random(reverse.carry(&here, &nodes, &moments), reverse.std * self.noise, here)
    }

    fn memory(&self) -> usize {
        1
    }
}
