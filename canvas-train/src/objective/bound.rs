//! The variational bound of a chain of training steps, by which variances are learned.

use super::Noised;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use canvas_core::{Level, NoiseSchedule, Prediction, per_sample};
use std::f64::consts::{FRAC_2_PI, LN_2};

/// A step of the chain, between two levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainStep {
    /// Where the step starts: what the network sees.
    pub from: Level,
    /// Where it ends, with less noise; of the first step clean data.
    pub to: Level,
    /// The least variance that a network can say: that of `q(x_to | x_from, x_0)`, and of the first step, where that is 0,
    /// the second's.
    pub low: f64,
    /// The greatest: that of `q(x_from | x_to)`.
    pub high: f64,
}

impl ChainStep {
    /// Step number `index`, from 0, of a chain of so many.
    ///
    /// # Panics
    /// If there is no such step, or only one.
    pub fn new(schedule: &dyn NoiseSchedule, index: usize, steps: usize) -> Self {
        assert!(index < steps && steps > 1, "step {index} of a chain of {steps}");
        let level = |index: usize| schedule.level(index as f64 / steps as f64);
        let [to, from] = [index, index + 1].map(level);
        let [high, mut low] = variances(from, to);
        if index == 0 {
            [_, low] = variances(level(2), from);
        }
        Self { from, to, low, high }
    }
}

/// Of `q(x_from | x_to)`, and of `q(x_to | x_from, x_0)`.
fn variances(from: Level, to: Level) -> [f64; 2] {
    let added = from.sigma.powi(2) - (from.alpha / to.alpha * to.sigma).powi(2);
    [added, added * (to.sigma / from.sigma).powi(2)]
}

/// What a chain with learned variances costs, in bits for each number of an image: `KL(q(x_to | x_from, x_0) || p)`, and in the
/// first step `-log p(x_0 | x_1)` of data in 256 steps from -1 to 1.
///
/// Its gradient reaches the network's variances alone: the answer is taken as it is. Added to an objective, times
/// `steps / 1000`, it is the hybrid loss of Improved DDPM, ADM and DiT.
///
/// # Shapes
/// - `raw`: `[B, 2 C, ..]`, the answer and then `v`, between the two variances' logarithms for -1 to 1; output: `[B]`
///
/// # Panics
/// If there are not twice the channels, or not as many steps as images.
///
/// # Differs from the paper
/// The normal distribution function is that of the published code, its approximation by `tanh`: it is off by up to 3e-4.
///
/// # Reference
/// Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equations 4 to 6, 15 and 16,
/// <https://arxiv.org/abs/2102.09672>; the last step: Ho et al., 2020, equation 13, <https://arxiv.org/abs/2006.11239>.
pub fn variational_bound<const D: usize>(
    raw: Tensor<D>,
    noised: &Noised<D>,
    steps: &[ChainStep],
    prediction: &dyn Prediction,
) -> Tensor<1> {
    let Noised { x0, x, .. } = noised;
    let ([batch, channels], found) = ([x.dims()[0], x.dims()[1]], raw.dims()[1]);
    assert_eq!(found, 2 * channels, "channels of {channels}, each with a variance");
    assert_eq!(steps.len(), batch, "steps of a batch of {batch}");
    let on = (&x.device(), x.dtype());
    let from: Vec<Level> = steps.iter().map(|step| step.from).collect();
    let each = |f: &dyn Fn(&ChainStep) -> f64| -> Tensor<D> {
        let mut shape = [1; D];
        shape[0] = batch;
        Tensor::from_data(TensorData::new(steps.iter().map(f).collect::<Vec<f64>>(), shape), on)
    };

    let answer = raw.clone().narrow(1, 0, channels).detach();
    let estimate = x.clone() * per_sample::<D>(&from, on, |level| prediction.coefficients(level).skip)
        + answer * per_sample::<D>(&from, on, |level| prediction.coefficients(level).out);
    let part = (raw.narrow(1, channels, channels) + 1.0) * 0.5;
    let (low, high) = (each(&|step| step.low.ln()), each(&|step| step.high.ln()));
    let log_variance = part * (high - low.clone()) + low.clone();

    // Both means have the same part of x.
    let of_x0 = each(&|step| step.to.alpha * variances(step.from, step.to)[0] / step.from.sigma.powi(2));
    let apart = (x0.clone() - estimate.clone()) * of_x0;
    let narrower = low - log_variance.clone();
    let divergence = (narrower.clone().exp() - narrower - 1.0
        + apart.square() * log_variance.clone().neg().exp())
        * (0.5 / LN_2);

    // The last step's mean is the estimate: its part of x is 0.
    let decoded = log_probability(x0.clone(), estimate, (log_variance * 0.5).exp()) / -LN_2;
    let is_first = each(&|step| f64::from(u8::from(step.to.sigma == 0.0)));
    let terms = decoded * is_first.clone() + divergence * (-is_first + 1.0);
    super::mean_of_each(terms)
}

/// `log p` of numbers that are one of 256 from -1 to 1, of a normal variable that is rounded.
///
/// The published code subtracts two numbers near 1 where the estimate is far below, which f32 does not survive (6.5e-4 of how far
/// a parameter can go in five steps). A normal variable is symmetric: here both are always the small ones, of the other tail.
fn log_probability<const D: usize>(x: Tensor<D>, mean: Tensor<D>, std: Tensor<D>) -> Tensor<D> {
    // (1 + tanh(y)) / 2, in a form that keeps small results.
    let below = |z: Tensor<D>| {
        let cubic = z.clone().powi_scalar(3) * 0.044_715 + z;
        sigmoid(cubic * (2.0 * FRAC_2_PI.sqrt()))
    };
    let held = |p: Tensor<D>| p.clamp_min(1e-12).log();
    let apart = x.clone() - mean;
    let far = -apart.clone().abs();
    let upper = below((far.clone() + 1.0 / 255.0) / std.clone());
    let lower = below((far - 1.0 / 255.0) / std.clone());
    // The first and the last of the 256 reach to infinity.
    let (first, last) = (x.clone().lower_elem(-0.999), x.greater_elem(0.999));
    let outwards = apart.clone().mask_where(last.clone(), -apart);
    let beyond = held(below((outwards + 1.0 / 255.0) / std));
    held(upper - lower).mask_where(first.bool_or(last), beyond)
}
