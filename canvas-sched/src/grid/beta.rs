//! Quantiles of the beta distribution.

/// `x` with `I_x(a, b) = share`, the inverse of the regularised incomplete beta function, by bisection.
///
/// Good to about 1e-14 of the nearer end; exact at shares of 0 and 1.
pub(crate) fn quantile(share: f64, a: f64, b: f64) -> f64 {
    if share <= 0.0 || share >= 1.0 {
        return share.clamp(0.0, 1.0);
    }
    if share == 0.5 && a == b {
        return 0.5;
    }
    // From the nearer end, where floating numbers are dense.
    if share > regularised(0.5, a, b) {
        return 1.0 - lower(|x| 1.0 - regularised(1.0 - x, a, b), 1.0 - share);
    }
    lower(|x| regularised(x, a, b), share)
}

/// The `x` in `[0, 1/2]` where a rising function reaches a share, bisecting first its exponent.
fn lower(rising: impl Fn(f64) -> f64, share: f64) -> f64 {
    let (mut low, mut high) = (0.0, 0.5f64);
    for _ in 0..1100 {
        // Halve until the answer is within a factor of two, then bisect the rest.
        let middle = if low == 0.0 { 0.5 * high } else { 0.5 * (low + high) };
        if middle <= low || middle >= high || middle == 0.0 {
            break;
        }
        if rising(middle) < share { low = middle } else { high = middle }
    }
    high
}

/// `I_x(a, b)` by its continued fraction.
fn regularised(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let log_front = a * x.ln() + b * (-x).ln_1p() + libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b);
    // The fraction converges quickly below the mean.
    match x < (a + 1.0) / (a + b + 2.0) {
        true => log_front.exp() * fraction(x, a, b) / a,
        false => 1.0 - log_front.exp() * fraction(1.0 - x, b, a) / b,
    }
}

/// The continued fraction of the incomplete beta function (Abramowitz & Stegun 26.5.8), by Lentz' method.
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let safe = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / safe(1.0 - (a + b) * x / (a + 1.0)));
    let mut total = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / safe(1.0 + term * d);
            c = safe(1.0 + term / c);
            factor = c * d;
            total *= factor;
        }
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::quantile;

    /// scipy.stats.beta.ppf, scipy 1.17.1.
    #[test]
    fn quantiles_are_those_of_scipy() {
        for (share, a, b, expected) in [
            (0.05, 0.6, 0.6, 0.012554456873611399),
            (0.5, 0.6, 0.6, 0.5000000000000001),
            (0.9, 0.6, 0.6, 0.9604155944112192),
            (0.999, 0.6, 0.6, 0.9999814412614826),
            (0.25, 0.5, 0.7, 0.09617666129459618),
            (0.7, 2.0, 5.0, 0.36035769038002013),
            (0.3, 1.0, 1.0, 0.3),
            (0.01, 0.1, 0.1, 8.869280655550208e-18),
            (0.4, 8.0, 0.3, 0.9817180206976042),
            (0.6, 120.0, 90.0, 0.5803017367725782),
        ] {
            let found = quantile(share, a, b);
            let off = (found - expected).abs() / expected.min(1.0 - expected).max(1e-300);
            assert!(off < 1e-9, "quantile({share}, {a}, {b}) = {found}, expected {expected}");
        }
    }

    #[test]
    fn quantiles_rise_and_keep_their_ends() {
        for (a, b) in [(0.6, 0.6), (0.05, 20.0), (20.0, 0.05), (1.0, 1.0), (300.0, 300.0)] {
            let all: Vec<f64> = (0..=300).map(|i| quantile(f64::from(i) / 300.0, a, b)).collect();
            assert_eq!((all[0], all[300]), (0.0, 1.0));
            assert!(all.windows(2).all(|pair| pair[0] <= pair[1]), "{a} {b}: {all:?}");
        }
    }
}
