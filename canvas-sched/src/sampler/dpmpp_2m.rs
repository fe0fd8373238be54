//! DPM-Solver++(2M): second order for the price of first, by remembering one estimate.

use burn::prelude::*;
use canvas_core::{Hop, Sampler, Step};

/// Deterministic second-order multistep sampler, one evaluation a step.
///
/// Follows the estimate extrapolated to the middle of the hop in `lambda = ln(alpha/sigma)`:
/// `x0 + (x0 - x0_prev) h / (2 h_prev)`. The first hop, and a last hop to clean data, are first order.
///
/// # Reference
/// Lu et al., "DPM-Solver++", 2022, Algorithm 2, <https://arxiv.org/abs/2211.01095>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DpmPp2m;

impl<const D: usize> Sampler<D> for DpmPp2m {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        let middle = match hop.past.last() {
            Some(past) if hop.to.sigma > 0.0 => {
                let h = hop.to.half_log_snr() - hop.from.half_log_snr();
                // Infinite after a start at alpha = 0, which makes that correction exactly 0.
                let h_prev = hop.from.half_log_snr() - past.level.half_log_snr();
                here.x0() + (here.x0() - past.x0()) * (h / (2.0 * h_prev))
            }
            _ => here.x0(),
        };
        Step::exact(here.carry_along(middle, hop.to), here)
    }
}
