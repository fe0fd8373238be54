//! Exponential integrators of the reverse SDE: what multistep SDE samplers share.

use crate::ancestral::shrink;
use burn::prelude::*;
use canvas_core::{Evaluation, Level};

/// One hop of the reverse SDE `dx = .. dt + sqrt(eta) g dw` in `lambda = ln(alpha/sigma)`, solved exactly for a
/// constant estimate: `x' ~ N(of_x x + of_x0 x0, std^2)`.
///
/// Written in `e^-h`, which is finite wherever `h` is not.
pub(crate) struct Reverse {
    /// `(s'/s) e^(-eta h)`.
    pub of_x: f64,
    /// `a' (1 - e^(-(1 + eta) h))`.
    pub of_x0: f64,
    /// `s' sqrt(1 - e^(-2 eta h))`.
    pub std: f64,
    /// `lambda' - lambda`; infinite at `alpha = 0` and at clean data.
    pub h: f64,
}

impl Reverse {
    pub(crate) fn new(from: Level, to: Level, eta: f64) -> Self {
        let q = shrink(from, to);
        let h = -q.ln();
        // By `expm1`, because hops may be short; by a power where `eta h` would be 0 times infinity.
        let decayed = |rate: f64| if rate == 0.0 { 0.0 } else { -(-rate * h).exp_m1() };
        Self {
            of_x: to.sigma / from.sigma * q.powf(eta),
            of_x0: to.alpha * decayed(1.0 + eta),
            std: to.sigma * decayed(2.0 * eta).sqrt(),
            h,
        }
    }
}

/// `integral_0^H e^-(H - v) v^k dv`.
///
/// By its series where the closed form cancels, by the closed form where the series is long.
pub(crate) fn moment(k: usize, h: f64) -> f64 {
    if h > 2.0 {
        return (1..=k).fold(-(-h).exp_m1(), |below, j| h.powi(j as i32) - j as f64 * below);
    }
    let mut term = (1..=k + 1).fold(1.0, |product, j| product * h / j as f64) * factorial(k);
    let mut sum = 0.0;
    for j in 0..30 {
        sum += term;
        term *= -h / (k + 2 + j) as f64;
    }
    sum
}

fn factorial(k: usize) -> f64 {
    (1..=k).map(|j| j as f64).product()
}

/// Coefficients of the polynomial through `(nodes[i], 1)` and 0 at the other nodes, lowest power first.
fn basis(nodes: &[f64], i: usize) -> Vec<f64> {
    let mut coefficients = vec![1.0];
    for (_, &other) in nodes.iter().enumerate().filter(|(j, _)| *j != i) {
        let scale = 1.0 / (nodes[i] - other);
        let mut next = vec![0.0; coefficients.len() + 1];
        for (power, &c) in coefficients.iter().enumerate() {
            next[power] -= c * other * scale;
            next[power + 1] += c * scale;
        }
        coefficients = next;
    }
    coefficients
}

/// Weights of estimates at `nodes` (in `lambda` from the start of a hop of length `h`) under the kernel
/// `rate e^(-rate (h - u))`: exact for polynomials of a degree below the number of nodes.
///
/// With two nodes the first moment is `rate h^2 / 2`, its leading term, as in SA-Solver's published code.
fn weights(nodes: &[f64], h: f64, rate: f64) -> Vec<f64> {
    let moments: Vec<f64> = (0..nodes.len())
        .map(|k| {
            if nodes.len() == 2 && k == 1 {
                rate * h * h / 2.0
            } else {
                moment(k, rate * h) / rate.powi(k as i32)
            }
        })
        .collect();
    let weight = |i| basis(nodes, i).iter().zip(&moments).map(|(c, m)| c * m).sum();
    (0..nodes.len()).map(weight).collect()
}

/// The newest estimates that an interpolation in `lambda` may use, newest first, with their distances from
/// `origin`: at most `count`, none without signal and no level twice.
pub(crate) fn usable<'a, const D: usize>(
    newest_first: impl Iterator<Item = &'a Evaluation<D>>,
    origin: f64,
    count: usize,
) -> (Vec<f64>, Vec<Tensor<D>>) {
    let (mut nodes, mut estimates) = (Vec::new(), Vec::new());
    for evaluation in newest_first.take(count) {
        let node = evaluation.level.half_log_snr() - origin;
        // An estimate at lambda = -inf has weight 0 in the limit; one at the same lambda says nothing new.
        if !node.is_finite() || nodes.contains(&node) {
            break;
        }
        nodes.push(node);
        estimates.push(evaluation.x0());
    }
    (nodes, estimates)
}

/// `a' sum_i w_i x0_i` of a hop between two levels: estimates at most `count`, newest first, `here` before the
/// past, under the kernel of the SDE with `eta`. A hop of infinite length takes the newest alone.
pub(crate) fn along<const D: usize>(
    here: Option<&Evaluation<D>>,
    past: &[Evaluation<D>],
    (from, to): (Level, Level),
    count: usize,
    eta: f64,
) -> Tensor<D> {
    let newest_first = || here.into_iter().chain(past.iter().rev());
    let newest = newest_first().next().expect("a hop starts at an evaluation");
    let h = Reverse::new(from, to, eta).h;
    if count < 2 || !h.is_finite() {
        return newest.x0() * Reverse::new(from, to, eta).of_x0;
    }
    let (nodes, x0) = usable(newest_first(), from.half_log_snr(), count);
    let terms =
        weights(&nodes, h, 1.0 + eta).into_iter().zip(x0).map(|(weight, x0)| x0 * (to.alpha * weight));
    terms.reduce(|sum, term| sum + term).unwrap_or_else(|| newest.x.zeros_like())
}
