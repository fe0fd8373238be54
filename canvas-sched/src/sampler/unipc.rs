//! UniPC: a multistep predictor whose next evaluation corrects it for free.

use crate::multistep::{Bh, Finish, Form, nodes};
use burn::prelude::*;
use canvas_core::{Hop, Level, Sampler, Step};

/// Deterministic multistep predictor-corrector, one evaluation a step.
///
/// Predictor: the polynomial in `lambda` through the last `order` estimates, carried exactly
/// ([`DpmPp`](super::DpmPp) or [`DpmSolver`](super::DpmSolver)). Corrector: the hop that led here once more,
/// with the estimate made here as one more node; that state is what the next predictor starts from. The
/// order is `order + 1` with the corrector. Where a single node is left (predictor of order 2, corrector of
/// order 1) its weight is the paper's 1/2 times `B(h)`, the only place where `bh` matters: elsewhere the
/// conditions of order fix the weights.
///
/// A hop from `alpha = 0` is first order and is not corrected. With [`Form::Data`] a noise estimate of the
/// denoiser's own is not used.
///
/// # Measured order
/// On the schedules EDM, linear, cosine and flow, for Gaussian and for two-bump data, in `tests/sched/ode.rs`:
/// medians from exact history and with [`Finish::FULL`], clean and noise estimates.
///
/// | `order` | corrected | not corrected |
/// |---|---|---|
/// | 1 | 1.99, 1.98 | 1.00, 1.00 |
/// | 2 | 3.01, 3.03 | 2.02, 1.99 |
/// | 3 | 3.95, 3.96 | 3.01, 3.06 |
///
/// The default [`Finish::LOWER`] ends with a hop of first order: a run that does not end clean then has second.
///
/// # Reference
/// Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", 2023,
/// Algorithms 5 to 8 and section 3, <https://arxiv.org/abs/2302.04867>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniPc {
    /// Estimates of the predictor, at least 1.
    pub order: usize,
    /// The factor `B(h)`.
    pub bh: Bh,
    /// Clean (`predict_x0`) or noise estimates.
    pub form: Form,
    /// Hops at the run's start that are not corrected (`disable_corrector`); `usize::MAX` for none at all.
    pub uncorrected: usize,
    /// When the order falls.
    pub finish: Finish,
}

impl Default for UniPc {
    /// diffusers' settings: order 2, `B2`, clean estimates, every hop corrected, the order falls at the end.
    fn default() -> Self {
        Self { order: 2, bh: Bh::Two, form: Form::Data, uncorrected: 0, finish: Finish::LOWER }
    }
}

impl<const D: usize> Sampler<D> for UniPc {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (mut here, lambda) = (hop.start(x), Level::half_log_snr);
        // The corrector moves the state, not the estimate that was made before.
        here.estimate.eps = (self.form == Form::Noise).then(|| here.eps());
        let order = |index, to| self.finish.order(self.order, to, index, hop.count);
        if let Some((before, older)) = hop.past.split_last()
            && lambda(before.level).is_finite()
            && hop.index > self.uncorrected
        {
            let known = std::iter::once(&here).chain(older.iter().rev());
            let nodes = nodes(lambda, before.level, known, order(hop.index - 1, hop.from));
            let moments =
                self.form.unipc_moments(self.bh, lambda(hop.from) - lambda(before.level), nodes.len() + 1);
            here.x = self.form.carry(before, hop.from, &nodes, &moments);
        }
        let nodes = nodes(lambda, hop.from, hop.past.iter().rev(), order(hop.index, hop.to) - 1);
        let h = if nodes.is_empty() { 0.0 } else { lambda(hop.to) - lambda(hop.from) };
        let moments = self.form.unipc_moments(self.bh, h, nodes.len() + 1);
        Step::exact(self.form.carry(&here, hop.to, &nodes, &moments), here)
    }

    fn memory(&self) -> usize {
        self.order
    }
}
