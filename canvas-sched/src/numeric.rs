//! Numbers that samplers share: weights of polynomials, their moments, and times of levels.

use crate::locate::time_of;
use canvas_core::{Level, NoiseSchedule};

/// Weights of the polynomial through `(0, f_0)` and `(nodes[i], f_i)` against a measure of these moments.
///
/// `moments[k]` is the mean of `u^k`, so `moments[0] = 1`. The mean of the polynomial is
/// `f_0 + sum_i weights[i] (f_i - f_0)`. The nodes must differ from 0 and from each other.
pub(crate) fn quadrature(nodes: &[f64], moments: &[f64]) -> Vec<f64> {
    let weight = |i: usize| {
        let own = nodes[i];
        // The i-th Lagrange polynomial, u/own * prod_j (u - n_j)/(own - n_j), lowest power first.
        let mut basis = vec![0.0, 1.0 / own];
        for other in nodes.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, node)| node) {
            let (mut next, gap) = (vec![0.0; basis.len() + 1], own - other);
            for (power, coefficient) in basis.iter().enumerate() {
                next[power + 1] += coefficient / gap;
                next[power] -= coefficient * other / gap;
            }
            basis = next;
        }
        basis.iter().zip(moments).map(|(coefficient, moment)| coefficient * moment).sum()
    };
    (0..nodes.len()).map(weight).collect()
}

/// Means of `u^k`, `k < count`, over `u` evenly from 0 to `h`: `h^k / (k + 1)`.
pub(crate) fn even_moments(h: f64, count: usize) -> Vec<f64> {
    (0..count).map(|k| h.powi(k as i32) / (k + 1) as f64).collect()
}

/// Means of `u^k`, `k < count`, over `u` from 0 to `h` with density proportional to `exp(rate u)`.
///
/// At `h = 0` all but the first are 0. `h` and `rate` must be finite.
pub(crate) fn exponential_moments(h: f64, rate: f64, count: usize) -> Vec<f64> {
    let z = rate * h;
    let total = unit_integrals(z, count);
    (0..count).map(|k| h.powi(k as i32) * total[k] / total[0]).collect()
}

/// `exp(-max(z, 0)) * integral_0^1 exp(z r) r^k dr` for `k < count`.
fn unit_integrals(z: f64, count: usize) -> Vec<f64> {
    if z.abs() < 4.0 {
        // Integration by parts would lose digits to cancellation here; the series does not.
        let integral = |k: usize| {
            let terms = (1..60).scan(1.0, |power, n| {
                *power *= z / f64::from(n);
                Some(*power / f64::from(n + k as u32 + 1))
            });
            (1.0 / (k + 1) as f64 + terms.sum::<f64>()) * (-z.max(0.0)).exp()
        };
        return (0..count).map(integral).collect();
    }
    let (end, start) = ((z - z.max(0.0)).exp(), (-z.max(0.0)).exp());
    let mut integrals = vec![(end - start) / z];
    for k in 1..count {
        integrals.push((end - k as f64 * integrals[k - 1]) / z);
    }
    integrals
}

/// The level halfway in the schedule's time.
pub(crate) fn halfway(schedule: &dyn NoiseSchedule, from: Level, to: Level) -> Level {
    schedule.level(0.5 * (time_of(schedule, from) + time_of(schedule, to)))
}

/// The level whose noise is the share `s` of `alpha + sigma`, scaled like the schedule's nearest.
///
/// Between the ends of the schedule that is its own level; beyond them (a run's clean end, EDM's
/// `sigma < sigma_min`) it is the end's time and scale with the ratio asked for.
pub(crate) fn at_share(schedule: &dyn NoiseSchedule, s: f64) -> Level {
    let near = schedule.level_at_ratio(s / (1.0 - s));
    let scale = near.alpha + near.sigma;
    Level { time: near.time, alpha: scale * (1.0 - s), sigma: scale * s }
}

/// `steps + 1` levels from the ratio `high` down to `to`, linear in `ratio^(1/7)`: Karras et al., 2022,
/// equation 5.
pub(crate) fn karras_down(schedule: &dyn NoiseSchedule, high: f64, to: Level, steps: usize) -> Vec<Level> {
    let (first, last) = (high.powf(1.0 / 7.0), (to.sigma / to.alpha).powf(1.0 / 7.0));
    let ratio = |i: usize| (first + i as f64 / steps as f64 * (last - first)).powi(7);
    (0..steps).map(|i| schedule.level_at_ratio(ratio(i))).chain([to]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the midpoint rule with a million intervals would be slow: Simpson's rule does it.
    fn simpson(f: impl Fn(f64) -> f64, h: f64) -> f64 {
        let count = 20_000;
        let weight = |i: i32| if i == 0 || i == count { 1.0 } else { [2.0, 4.0][(i % 2) as usize] };
        let width = h / f64::from(count);
        (0..=count).map(|i| weight(i) * f(f64::from(i) * width)).sum::<f64>() * width / 3.0
    }

    #[test]
    fn moments_are_the_integrals() {
        for h in [-9.0, -3.99, -0.3, 1e-9, 1e-3, 0.7, 3.9, 4.1, 12.0] {
            for rate in [-1.0, 1.0] {
                let total = simpson(|u| (rate * u).exp(), h);
                for (k, found) in exponential_moments(h, rate, 5).into_iter().enumerate() {
                    let wanted = simpson(|u| (rate * u).exp() * u.powi(k as i32), h) / total;
                    assert!(
                        (found - wanted).abs() <= 1e-11 * wanted.abs(),
                        "{h} {rate} {k}: {found} {wanted}"
                    );
                }
            }
        }
        assert_eq!(exponential_moments(0.0, 1.0, 3), [1.0, 0.0, 0.0]);
        assert!(exponential_moments(800.0, 1.0, 4).iter().all(|moment| moment.is_finite()));
    }

    #[test]
    fn a_polynomial_is_integrated_exactly() {
        let (nodes, moments) = ([-0.5, 1.5, -2.0], even_moments(0.8, 4));
        let f = |u: f64| 1.0 + 2.0 * u - 3.0 * u * u + 0.5 * u.powi(3);
        let pairs = quadrature(&nodes, &moments).into_iter().zip(nodes);
        let found = f(0.0) + pairs.map(|(weight, node)| weight * (f(node) - f(0.0))).sum::<f64>();
        assert!((found - simpson(f, 0.8) / 0.8).abs() < 1e-12);
    }
}
