//! Data of two bumps in one dimension: every sampler's work is nonlinear there, and all answers are known.

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::Level;

/// (weight, mean, standard deviation) of each bump.
const BUMPS: [(f64, f64, f64); 2] = [(0.4, -1.0, 0.4), (0.6, 0.8, 0.3)];

/// Mean and deviation of a bump once noised.
fn noised((_, mean, std): (f64, f64, f64), level: Level) -> (f64, f64) {
    (level.alpha * mean, (level.alpha * std).hypot(level.sigma))
}

/// The exact `E[x_0 | x_t]`: each bump's own, weighted by how likely it made `x`.
fn estimate(x: f64, level: Level) -> f64 {
    let log_likely = |bump: (f64, f64, f64)| {
        let (mean, std) = noised(bump, level);
        (bump.0 / std).ln() - 0.5 * ((x - mean) / std).powi(2)
    };
    // Relative to the likelier bump: far from both, both likelihoods are 0 in 64 bits.
    let most = BUMPS.map(log_likely).into_iter().fold(f64::NEG_INFINITY, f64::max);
    let (mut sum, mut total) = (0.0, 0.0);
    for bump in BUMPS {
        let (mean, std) = noised(bump, level);
        let likely = (log_likely(bump) - most).exp();
        sum += likely * (bump.1 + level.alpha * bump.2 * bump.2 / (std * std) * (x - mean));
        total += likely;
    }
    sum / total
}

/// The exact denoiser, computed in 64 bits whatever the type of the tensor.
pub fn denoise<const D: usize>(x: &Tensor<D>, level: Level) -> Tensor<D> {
    let clean: Vec<f64> = x.to_data().iter::<f64>().map(|x| estimate(x, level)).collect();
    Tensor::from_data(TensorData::new(clean, x.dims()), (&x.device(), x.dtype()))
}

/// A row of states in 64 bits, on the CPU.
pub fn row(values: &[f64]) -> Tensor<1> {
    Tensor::from_data(values, (&Device::flex(), DType::F64))
}

/// The share of noised data below `x`, by the distribution function of each bump.
pub fn share_below(x: f64, level: Level) -> f64 {
    let below = |bump: (f64, f64, f64)| {
        let (mean, std) = noised(bump, level);
        bump.0 * 0.5 * libm::erfc(-(x - mean) / std / std::f64::consts::SQRT_2)
    };
    BUMPS.into_iter().map(below).sum()
}

/// The point below which this share of noised data lies.
///
/// In one dimension the exact probability flow keeps the share below, so it carries `quantile(share, from)` to
/// `quantile(share, to)`.
pub fn quantile(share: f64, level: Level) -> f64 {
    let reach = 4.0 + 8.0 * level.sigma;
    let (mut low, mut high) = (-reach, reach);
    while high - low > 1e-14 * reach {
        let middle = 0.5 * (low + high);
        if share_below(middle, level) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_is_the_derivative_of_its_own_density() {
        // Tweedie: E[x_0 | x] = (x + sigma^2 d/dx ln p(x)) / alpha, p by differences of the distribution function.
        let level = Level { time: 0.5, alpha: 0.6, sigma: 0.8 };
        let h = 1e-3;
        for x in [-2.0, -0.6, 0.0, 0.3, 1.5] {
            let density = |x: f64| (share_below(x + h, level) - share_below(x - h, level)) / (2.0 * h);
            let slope = (density(x + h).ln() - density(x - h).ln()) / (2.0 * h);
            let wanted = (x + 0.64 * slope) / 0.6;
            assert!((estimate(x, level) - wanted).abs() < 1e-5, "{x}");
            assert!(estimate(1e9 * x, level).is_finite());
            assert!((quantile(share_below(x, level), level) - x).abs() < 1e-12);
        }
    }
}
