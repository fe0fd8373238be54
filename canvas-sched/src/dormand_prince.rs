//! The Dormand-Prince 5(4) method with step-size control.

use burn::prelude::*;

/// Where each stage lies, and how much of the earlier slopes it takes.
const STAGES: [(f64, &[f64]); 6] = [
    (0.2, &[0.2]),
    (0.3, &[3.0 / 40.0, 9.0 / 40.0]),
    (0.8, &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0]),
    (8.0 / 9.0, &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0]),
    (1.0, &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0]),
    (1.0, &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0]),
];

/// The fifth-order result minus the fourth-order one: Shampine's choice of the latter, as torchdiffeq.
const ERROR: [f64; 7] = [
    35.0 / 384.0 - 1951.0 / 21600.0,
    0.0,
    500.0 / 1113.0 - 22642.0 / 50085.0,
    125.0 / 192.0 - 451.0 / 720.0,
    -2187.0 / 6784.0 + 12231.0 / 42400.0,
    11.0 / 84.0 - 649.0 / 6300.0,
    -1.0 / 60.0,
];

/// Relative and absolute error allowed in each step.
#[derive(Clone, Copy)]
pub(crate) struct Tolerance {
    pub relative: f64,
    pub absolute: f64,
}

impl Tolerance {
    /// Root mean square of `error` in units of what is allowed at the size of `y` and `other`.
    fn ratio<const D: usize>(self, error: Tensor<D>, y: &Tensor<D>, other: &Tensor<D>) -> f64 {
        let size = y.clone().abs().max_pair(other.clone().abs());
        let squares = (error / (size * self.relative + self.absolute)).square();
        squares.mean().into_scalar::<f64>().sqrt()
    }
}

fn weighted<const D: usize>(slopes: &[Tensor<D>], weights: &[f64], by: f64) -> Tensor<D> {
    let zero = slopes[0].zeros_like();
    let used = slopes.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
    used.fold(zero, |sum, (slope, weight)| sum + slope.clone() * (weight * by))
}

/// Length of the first step: Hairer, Norsett & Wanner, "Solving Ordinary Differential Equations I", II.4.
fn first_step<const D: usize>(
    f: &dyn Fn(f64, Tensor<D>) -> Tensor<D>,
    (y, slope): (&Tensor<D>, &Tensor<D>),
    (start, end): (f64, f64),
    tolerance: Tolerance,
) -> f64 {
    let norm = |z: Tensor<D>| tolerance.ratio(z, y, y);
    let (size, speed) = (norm(y.clone()), norm(slope.clone()));
    let (length, sign) = ((end - start).abs(), (end - start).signum());
    // Never beyond the end: there may be no level there.
    let guess = if size < 1e-5 || speed < 1e-5 { 1e-6 } else { 0.01 * size / speed }.min(length);
    let ahead = f(start + sign * guess, y.clone() + slope.clone() * (sign * guess));
    let bend = norm(ahead - slope.clone()) / guess;
    let most = speed.max(bend);
    let step = if most <= 1e-15 { (guess * 1e-3).max(1e-6) } else { (0.01 / most).powf(0.2) };
    step.min(100.0 * guess)
}

/// Integrates `dy/ds = f(s, y)` from `start` to `end`, `start != end`; `slope` is `f(start, y)`.
///
/// A step is accepted when its error is within the tolerance, and anyway when it is as short as 1e-5 of the
/// whole, so that the end is always reached. Numbers that are not finite are handed back at once.
pub(crate) fn integrate<const D: usize>(
    f: &dyn Fn(f64, Tensor<D>) -> Tensor<D>,
    mut y: Tensor<D>,
    mut slope: Tensor<D>,
    (start, end): (f64, f64),
    tolerance: Tolerance,
) -> Tensor<D> {
    let (length, sign) = ((end - start).abs(), (end - start).signum());
    let (mut done, mut step) = (0.0, first_step(f, (&y, &slope), (start, end), tolerance));
    while done < length {
        step = step.max(1e-5 * length);
        let last = done + step >= length * (1.0 - 1e-12);
        let taken = if last { length - done } else { step };
        let (from, by) = (start + sign * done, sign * taken);
        let (mut slopes, mut next) = (vec![slope.clone()], y.clone());
        for (place, weights) in STAGES {
            next = y.clone() + weighted(&slopes, weights, by);
            let s = if last && place == 1.0 { end } else { from + place * by };
            slopes.push(f(s, next.clone()));
        }
        let error = tolerance.ratio(weighted(&slopes, &ERROR, by), &y, &next);
        if !error.is_finite() {
            return next;
        }
        let accepted = error <= 1.0 || taken <= 1e-5 * length;
        let factor = if error == 0.0 { 10.0 } else { (0.9 / error.powf(0.2)).min(10.0) };
        step = taken * factor.max(if accepted { 1.0 } else { 0.2 });
        if accepted {
            done = if last { length } else { done + taken };
            (y, slope) = (next, slopes.swap_remove(6));
        }
    }
    y
}
