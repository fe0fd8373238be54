//! DPM-Solver and DPM-Solver++, singlestep: blocks of hops that each start anew.

use crate::SolverType;
use crate::multistep::{Form, block, dpm_carry, nodes};
use burn::prelude::*;
use canvas_core::{Hop, Level, Sampler, Step};

/// Deterministic singlestep sampler, one evaluation a hop: every `order` hops are a block.
///
/// The grid's levels are the evaluations. The first hop of a block is first order; the second starts again
/// at the block's beginning with two estimates, the third with three. Only a block's last state has the full
/// order. A run needs no warm-up: there is no memory across blocks.
///
/// A block whose beginning has no signal (`alpha = 0`) is carried on from its second level.
///
/// # Measured order
/// On the schedules EDM, linear, cosine and flow, for Gaussian and for two-bump data, in `tests/sched/ode.rs`:
/// medians, for clean and noise estimates.
///
/// | order | midpoint | heun |
/// |---|---|---|
/// | 2 | 1.98, 2.00 | 1.97, 1.99 |
/// | 3 | 3.00, 3.02 | 3.00, 3.06 |
///
/// With whole blocks, and an end that is not clean: a last block cut short leaves its own lower order.
///
/// # Differs from diffusers
/// A run that ends within a block has its last hops' lower orders, whatever `finish` is; diffusers has no
/// order for them when `lower_order_final` is off.
///
/// # Reference
/// Lu et al., "DPM-Solver", 2022, Algorithms 1 and 2, <https://arxiv.org/abs/2206.00927>; the list of orders:
/// diffusers' `DPMSolverSinglestepScheduler`, which counts evaluations as steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpmSingle {
    /// Clean (`++`) or noise estimates.
    pub form: Form,
    /// Hops of a block, 1 to 3.
    pub order: usize,
    /// `Heun` integrates the polynomial exactly. `Midpoint` is the midpoint rule in second order, and in third
    /// order the line through the block's first and newest estimate.
    pub solver: SolverType,
    /// A last hop that would end a block starts one instead (`lower_order_final`).
    pub finish: bool,
}

impl DpmSingle {
    /// DPM++ 2S without noise: second order, midpoint.
    pub const fn two_s() -> Self {
        Self { form: Form::Data, order: 2, solver: SolverType::Midpoint, finish: false }
    }

    /// DPM++ 3S: third order, its weights exact.
    pub const fn three_s() -> Self {
        Self { order: 3, solver: SolverType::Heun, ..Self::two_s() }
    }
}

impl<const D: usize> Sampler<D> for DpmSingle {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let here = hop.start(x);
        let (base, inner) = block((self.order, self.finish), &here, hop);
        // Third order's midpoint form integrates the line through the first and the newest exactly.
        let (used, how) = match (self.solver, inner.len()) {
            (SolverType::Midpoint, 1) => (1, SolverType::Heun),
            (solver, between) => (between + 1, solver),
        };
        let newest_first = std::iter::once(&here).chain(inner.iter().rev());
        let nodes = nodes(Level::half_log_snr, base.level, newest_first, used);
        Step::exact(dpm_carry(self.form, (how, false), base, hop.to, &nodes), here)
    }

    fn memory(&self) -> usize {
        self.order - 1
    }
}
