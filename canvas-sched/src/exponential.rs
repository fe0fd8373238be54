//! Exponential integrators of the reverse SDE: what multistep SDE samplers share.

use crate::Form;
use crate::ancestral::shrink;
use crate::multistep::{Node, nodes};
use crate::numeric::exponential_moments;
use burn::prelude::*;
use canvas_core::{Evaluation, Level};

/// One hop of the reverse SDE `dx = .. dt + sqrt(eta) g dw` in `lambda = ln(alpha/sigma)`, solved exactly for an
/// estimate (clean or noise) that is a polynomial in `lambda`: `x' ~ N(of_x x + of m, std^2)`, `m` the polynomial's
/// mean over the hop.
pub(crate) struct Reverse {
    form: Form,
    eta: f64,
    /// `(s'/s) e^(-eta h)`; of noise estimates `a'/a`.
    pub of_x: f64,
    /// `a' (1 - e^(-(1 + eta) h))`; of noise estimates `-(1 + eta) s' (e^h - 1)`.
    pub of: f64,
    /// `s' sqrt(1 - e^(-2 eta h))`; of noise estimates `sqrt(eta) s' sqrt(e^(2 h) - 1)`.
    pub std: f64,
    /// `lambda' - lambda`; infinite at `alpha = 0` and at clean data, where only clean estimates have a limit.
    pub h: f64,
}

impl Reverse {
    pub(crate) fn new(form: Form, from: Level, to: Level, eta: f64) -> Self {
        // In `e^-h`, which is finite wherever `h` is not.
        let q = shrink(from, to);
        let h = -q.ln();
        // By `expm1`, because hops may be short; by a power where `eta h` would be 0 times infinity.
        let decayed = |rate: f64| if rate == 0.0 { 0.0 } else { -(-rate * h).exp_m1() };
        let (of_x, of, std) = match form {
            Form::Data => (
                to.sigma / from.sigma * q.powf(eta),
                to.alpha * decayed(1.0 + eta),
                to.sigma * decayed(2.0 * eta).sqrt(),
            ),
            Form::Noise => (
                to.alpha / from.alpha,
                -(1.0 + eta) * to.sigma * h.exp_m1(),
                to.sigma * (eta * (2.0 * h).exp_m1()).sqrt(),
            ),
        };
        Self { form, eta, of_x, of, std, h }
    }

    /// Evaluations that an interpolation from `base` may use: the first `count` of these, if the hop has a length.
    pub(crate) fn nodes<'a, const D: usize>(
        &self,
        base: Level,
        evaluations: impl IntoIterator<Item = &'a Evaluation<D>>,
        count: usize,
    ) -> Vec<Node<'a, D>> {
        let count = if self.h.is_finite() && self.h > 0.0 { count } else { 0 };
        nodes(Level::half_log_snr, base, evaluations, count)
    }

    /// Means of `(lambda - lambda_base)^k`, `k < count`, over the hop under this form's exponential weight. One
    /// alone is 1, also over an infinite hop.
    pub(crate) fn moments(&self, count: usize) -> Vec<f64> {
        match (self.form, count) {
            (_, 1) => vec![1.0],
            (Form::Data, _) => exponential_moments(self.h, 1.0 + self.eta, count),
            (Form::Noise, _) => exponential_moments(self.h, -1.0, count),
        }
    }

    /// `of_x x + of m` from `base` along the polynomial through it and `nodes`.
    pub(crate) fn carry<const D: usize>(
        &self,
        base: &Evaluation<D>,
        nodes: &[Node<'_, D>],
        moments: &[f64],
    ) -> Tensor<D> {
        base.x.clone() * self.of_x + self.form.mean(base, nodes, moments) * self.of
    }
}

/// SA-Solver's predictor: from `base` to a level along the estimates there and at the first `count - 1` of
/// `others`; mean and standard deviation. `how` is the form of the estimates and `eta` over the hop.
///
/// With two clean estimates the first moment is its leading term, as published.
pub(crate) fn adams<'a, const D: usize>(
    (form, eta): (Form, f64),
    base: &Evaluation<D>,
    to: Level,
    others: impl IntoIterator<Item = &'a Evaluation<D>>,
    count: usize,
) -> (Tensor<D>, f64) {
    let reverse = Reverse::new(form, base.level, to, eta);
    let nodes = reverse.nodes(base.level, others, count - 1);
    let mut moments = reverse.moments(nodes.len() + 1);
    if form == Form::Data && moments.len() == 2 {
        let rate = (1.0 + eta) * reverse.h;
        moments[1] = 0.5 * reverse.h * rate / -(-rate).exp_m1();
    }
    (reverse.carry(base, &nodes, &moments), reverse.std)
}

/// SA-Solver's corrector: the state of `here`, had the hop that led here known the estimate made here. The
/// orders are those of that hop's predictor and of the corrector, 0 for none; the hop's noise stays.
pub(crate) fn adams_moulton<const D: usize>(
    how: impl Fn(Level) -> (Form, f64),
    here: &Evaluation<D>,
    past: &[Evaluation<D>],
    (predictor, corrector): (usize, usize),
) -> Tensor<D> {
    let Some((last, older)) = past.split_last() else { return here.x.clone() };
    if corrector == 0 || last.level.alpha == 0.0 || last.level == here.level {
        return here.x.clone();
    }
    let (how, to) = (how(last.level), here.level);
    let (predicted, _) = adams(how, last, to, older.iter().rev(), predictor);
    let (corrected, _) = match corrector {
        // The estimate made here, and no other.
        1 => adams(how, &Evaluation { estimate: here.estimate.clone(), ..last.clone() }, to, [], 1),
        _ => adams(how, last, to, std::iter::once(here).chain(older.iter().rev()), corrector),
    };
    here.x.clone() + corrected - predicted
}
