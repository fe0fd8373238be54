//! What multistep samplers share: a polynomial through several estimates, carried exactly to the next level.

use crate::numeric::{exponential_moments, quadrature};
use burn::prelude::*;
use canvas_core::{Evaluation, Hop, Level};

/// Which estimate a solver takes for a polynomial in `lambda = ln(alpha / sigma)`.
///
/// With `h = lambda' - lambda`, the solution of the probability-flow ODE is exactly one of the two below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The clean estimate (`++`, `predict_x0`): `x' = (s'/s) x + a' integral_0^h exp(u - h) x0 du`.
    #[default]
    Data,
    /// The noise estimate: `x' = (a'/a) x - s' integral_0^h exp(h - u) eps du`.
    Noise,
}

/// The factor `B(h)` of UniPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bh {
    /// `h`.
    One,
    /// `exp(h) - 1`.
    #[default]
    Two,
}

impl Bh {
    /// Half of `B(h)` in units of the hop's whole weight, which is `1 - exp(-h)` or `exp(h) - 1`.
    fn half(self, form: Form, h: f64) -> f64 {
        let z = if form == Form::Data { -h } else { h };
        if self == Self::One && h != 0.0 { 0.5 * z / z.exp_m1() } else { 0.5 }
    }
}

/// How second order uses the slope of its estimate (`solver_type` in diffusers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SolverType {
    /// The estimate half a hop ahead stands for the whole hop.
    #[default]
    Midpoint,
    /// The line through the estimates is integrated exactly.
    Heun,
}

/// From which hop the order of a multistep sampler falls. A hop to clean data is always first order, because
/// `lambda` is infinite there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// In runs of fewer hops than this, no order exceeds the hops that are left (`lower_order_final` is 15 in
    /// diffusers' DPM-Solver and DEIS, and no bound, `usize::MAX`, in its UniPC). 0 is never.
    pub lower_below: usize,
    /// The last hop is first order (`euler_at_final`).
    pub euler: bool,
}

impl Finish {
    /// Full order to the end.
    pub const FULL: Self = Self { lower_below: 0, euler: false };
    /// diffusers' rule for runs of fewer than 15 hops.
    pub const SHORT_RUNS: Self = Self { lower_below: 15, euler: false };
    /// The order falls at the end of every run.
    pub const LOWER: Self = Self { lower_below: usize::MAX, euler: false };

    /// The order of hop `index` of `count`, to the level `to`.
    pub(crate) fn order(self, wanted: usize, to: Level, index: usize, count: usize) -> usize {
        let (reached, left) = (wanted.min(index + 1), count - index);
        match to {
            _ if to.sigma == 0.0 || to.alpha == 0.0 || (self.euler && left == 1) => 1,
            _ if count < self.lower_below => reached.min(left),
            _ => reached,
        }
    }
}

/// What a singlestep hop uses, with blocks of `order` hops: the evaluation at the block's beginning, and those
/// between it and `here`. With `finish` a last hop that would end a block starts one.
pub(crate) fn block<'a, const D: usize>(
    (order, finish): (usize, bool),
    here: &'a Evaluation<D>,
    hop: &'a Hop<'_, D>,
) -> (&'a Evaluation<D>, &'a [Evaluation<D>]) {
    let (reached, last) = (hop.index % order + 1, hop.index + 1 == hop.count);
    let alone = hop.to.sigma == 0.0 || hop.to.alpha == 0.0 || finish && last && reached == order;
    let reached = if alone { 1 } else { reached };
    let block = &hop.past[hop.past.len().saturating_sub(reached - 1)..];
    // A beginning without signal is left out: its lambda is infinite.
    let first = block.iter().position(|past| past.level.half_log_snr().is_finite());
    block[first.unwrap_or(block.len())..].split_first().unwrap_or((here, &[]))
}

/// Another evaluation, and how far it lies from a base on some axis.
pub(crate) type Node<'a, const D: usize> = (f64, &'a Evaluation<D>);

/// The first `count` of these evaluations that lie at a finite distance from `base` and from each other.
///
/// A level without signal or without noise is infinitely far in `lambda`, where it has no weight; one that
/// stands twice says nothing new.
pub(crate) fn nodes<'a, const D: usize>(
    axis: impl Fn(Level) -> f64,
    base: Level,
    evaluations: impl IntoIterator<Item = &'a Evaluation<D>>,
    count: usize,
) -> Vec<Node<'a, D>> {
    let mut nodes: Vec<Node<'a, D>> = Vec::new();
    for evaluation in evaluations {
        let at = axis(evaluation.level) - axis(base);
        let new = at.abs() > 1e-9 && nodes.iter().all(|node| (node.0 - at).abs() > 1e-9);
        if nodes.len() < count && at.is_finite() && new {
            nodes.push((at, evaluation));
        }
    }
    nodes
}

impl Form {
    /// UniPC's moments: with a single node its simplified weight, else the exact ones.
    pub(crate) fn unipc_moments(self, bh: Bh, h: f64, count: usize) -> Vec<f64> {
        if count == 2 { vec![1.0, h * bh.half(self, h)] } else { self.moments(h, count) }
    }

    /// Means of `(lambda - lambda_base)^k` over a hop of length `h`, under this form's exponential weight.
    pub(crate) fn moments(self, h: f64, count: usize) -> Vec<f64> {
        exponential_moments(h, if self == Self::Data { 1.0 } else { -1.0 }, count)
    }

    fn of<const D: usize>(self, evaluation: &Evaluation<D>) -> Tensor<D> {
        if self == Self::Data { evaluation.x0() } else { evaluation.eps() }
    }

    /// Carries `base` to a level along the polynomial through it and `nodes`, whose mean over the hop follows
    /// from `moments`. Without nodes both forms are DDIM's step.
    pub(crate) fn carry<const D: usize>(
        self,
        base: &Evaluation<D>,
        to: Level,
        nodes: &[Node<'_, D>],
        moments: &[f64],
    ) -> Tensor<D> {
        // Without signal the transfer of a noise estimate is 0/0; the clean estimate still says where to go.
        if base.level.alpha == 0.0 || (self == Self::Data && nodes.is_empty()) {
            return base.carry(to);
        }
        let at: Vec<f64> = nodes.iter().map(|node| node.0).collect();
        let here = self.of(base);
        let weighted = nodes.iter().zip(quadrature(&at, moments));
        let mean = weighted.fold(here.clone(), |mean, ((_, evaluation), weight)| {
            mean + (self.of(evaluation) - here.clone()) * weight
        });
        match self {
            Self::Data => base.carry_along(mean, to),
            Self::Noise => base.carry_eps(mean, to),
        }
    }
}

/// DPM-Solver's hop: second order (one node) in the form of `slope`, third with half of the second difference
/// if `published`.
pub(crate) fn dpm_carry<const D: usize>(
    form: Form,
    (solver, published): (SolverType, bool),
    base: &Evaluation<D>,
    to: Level,
    nodes: &[Node<'_, D>],
) -> Tensor<D> {
    if nodes.is_empty() {
        return form.carry(base, to, &[], &[]); // h may be infinite
    }
    let h = to.half_log_snr() - base.level.half_log_snr();
    let mut moments = form.moments(h, nodes.len() + 1);
    match (nodes.len(), solver) {
        (1, SolverType::Midpoint) => moments[1] = 0.5 * h,
        (2, _) if published => moments[2] *= 0.5,
        _ => {}
    }
    form.carry(base, to, nodes, &moments)
}

/// One hop of DPM-Solver's multistep method from `here`, `published` as the field `DpmPp::published`.
pub(crate) fn dpm_step<const D: usize>(
    form: Form,
    how: (SolverType, bool),
    order: usize,
    here: &Evaluation<D>,
    hop: &Hop<'_, D>,
) -> Tensor<D> {
    let nodes = nodes(Level::half_log_snr, hop.from, hop.past.iter().rev(), order - 1);
    dpm_carry(form, how, here, hop.to, &nodes)
}
