//! Data of two bumps in one dimension: a nonlinear denoiser whose flow is still known exactly.

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::Level;

/// (weight, mean, standard deviation) of each bump.
const BUMPS: [(f64, f64, f64); 2] = [(0.4, -1.0, 0.4), (0.6, 0.8, 0.3)];

fn noised((_, mean, std): (f64, f64, f64), level: Level) -> (f64, f64) {
    (level.alpha * mean, (level.alpha * std).hypot(level.sigma))
}

/// The exact `E[x_0 | x_t]`: each bump's own, weighted by how likely it made `x`.
fn estimate(x: f64, level: Level) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for bump in BUMPS {
        let (mean, std) = noised(bump, level);
        let likely = bump.0 / std * (-0.5 * ((x - mean) / std).powi(2)).exp();
        sum += likely * (bump.1 + level.alpha * bump.2 * bump.2 / (std * std) * (x - mean));
        total += likely;
    }
    sum / total
}

#[expect(clippy::needless_pass_by_value, reason = "a run hands over the state")]
pub fn denoise<const D: usize>(x: Tensor<D>, level: Level) -> Tensor<D> {
    let clean: Vec<f64> = x.to_data().iter::<f64>().map(|x| estimate(x, level)).collect();
    Tensor::from_data(TensorData::new(clean, x.dims()), (&x.device(), x.dtype()))
}

/// A row of states in 64 bits.
pub fn row(values: &[f64]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (&Device::flex(), DType::F64))
}

/// The standard normal's distribution function, by Simpson's rule from 0.
fn normal_cdf(z: f64) -> f64 {
    let (count, density) = (1000, |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt());
    let weight = |i: u32| [2.0, 4.0][i as usize % 2] - f64::from(i == 0 || i == count);
    let width = z / f64::from(count);
    0.5 + (0..=count).map(|i| weight(i) * density(f64::from(i) * width)).sum::<f64>() * width / 3.0
}

/// Where the exact probability flow carries the point below which lies this share of the data: in one
/// dimension it stays the share below.
pub fn exact(share: f64, level: Level) -> f64 {
    let below = |x: f64| -> f64 {
        let of = |bump: (f64, f64, f64)| {
            let (mean, std) = noised(bump, level);
            bump.0 * normal_cdf((x - mean) / std)
        };
        BUMPS.into_iter().map(of).sum()
    };
    let density = |x: f64| -> f64 {
        let of = |bump: (f64, f64, f64)| {
            let (mean, std) = noised(bump, level);
            bump.0 / std * (-0.5 * ((x - mean) / std).powi(2)).exp() / std::f64::consts::TAU.sqrt()
        };
        BUMPS.into_iter().map(of).sum()
    };
    let reach = 4.0 + 6.0 * level.sigma;
    let (mut low, mut high) = (-reach, reach);
    for _ in 0..16 {
        let middle = 0.5 * (low + high);
        if below(middle) < share { low = middle } else { high = middle }
    }
    let newton = |x: f64| x - (below(x) - share) / density(x);
    newton(newton(newton(newton(0.5 * (low + high)))))
}
