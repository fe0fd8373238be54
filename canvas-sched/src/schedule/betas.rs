//! Tables of betas, the noise variance each training step adds.

use std::f64::consts::FRAC_PI_2;

fn ramp(steps: usize, first: f64, last: f64) -> impl Iterator<Item = f64> {
    let count = steps.saturating_sub(1).max(1) as f64;
    (0..steps).map(move |i| first + (last - first) * i as f64 / count)
}

/// `beta_i = min(1 - f((i + 1) / T) / f(i / T), max_beta)`, from `f(u) = alpha_bar` at `u` in `[0, 1]`.
pub fn from_alpha_bar(steps: usize, max_beta: f64, alpha_bar: impl Fn(f64) -> f64) -> Vec<f64> {
    let bar = |i: usize| alpha_bar(i as f64 / steps as f64); // divided as floats: see the regression test
    (0..steps).map(|i| (1.0 - bar(i + 1) / bar(i)).min(max_beta)).collect()
}

/// Linear from `first` to `last`, both included.
///
/// # Reference
/// Ho et al., 2020, section 4, <https://arxiv.org/abs/2006.11239>.
pub fn linear(steps: usize, first: f64, last: f64) -> Vec<f64> {
    ramp(steps, first, last).collect()
}

/// Squares of a line from `sqrt(first)` to `sqrt(last)`.
///
/// # Reference
/// Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2021 (in the code),
/// <https://arxiv.org/abs/2112.10752>.
pub fn scaled_linear(steps: usize, first: f64, last: f64) -> Vec<f64> {
    ramp(steps, first.sqrt(), last.sqrt()).map(|root| root * root).collect()
}

/// `first + (last - first) / (1 + exp(-u))`, `u` linear from -6 to 6.
///
/// # Reference
/// Xu et al., "GeoDiff", 2022 (in the code), <https://arxiv.org/abs/2203.02923>; `sigmoid` in diffusers.
pub fn sigmoid(steps: usize, first: f64, last: f64) -> Vec<f64> {
    ramp(steps, -6.0, 6.0).map(|u| first + (last - first) / (1.0 + (-u).exp())).collect()
}

/// [`from_alpha_bar`] of `f(u) = cos^2(pi/2 (u + 0.008) / 1.008)`.
///
/// # Reference
/// Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 17,
/// <https://arxiv.org/abs/2102.09672>.
pub fn cosine(steps: usize, max_beta: f64) -> Vec<f64> {
    from_alpha_bar(steps, max_beta, |u| ((u + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2))
}

/// [`from_alpha_bar`] of `f(u) = sqrt(snr / (1 + snr))`, `ln snr = -1/2 sgn(1/2 - u) ln(1 - 2 |1/2 - u| + 1e-6)`.
///
/// # Differs from the paper
/// This is diffusers' `laplace`. The paper's `alpha_bar` is `snr / (1 + snr)`, with a location and a scale:
/// [`Laplace`](super::Laplace). The first training step has much noise already (`sigma` 0.15 of 1000 steps).
///
/// # Reference
/// Hang et al., "Improved Noise Schedule for Diffusion Training", 2024, <https://arxiv.org/abs/2407.03297>.
pub fn laplace(steps: usize, max_beta: f64) -> Vec<f64> {
    from_alpha_bar(steps, max_beta, |u| {
        let log_snr = -0.5 * (0.5 - u).signum() * (1.0 - 2.0 * (0.5 - u).abs() + 1e-6).ln();
        (1.0 / (1.0 + (-log_snr).exp())).sqrt()
    })
}

/// [`from_alpha_bar`] of `f(u) = exp(-12 u)`: all betas are the same. `exp` in diffusers.
pub fn exponential(steps: usize, max_beta: f64) -> Vec<f64> {
    from_alpha_bar(steps, max_beta, |u| (-12.0 * u).exp())
}

/// The betas whose last `alpha_bar` is exactly 0: `sqrt(alpha_bar)` shifted so that its last is 0, and scaled
/// so that its first stays. The last beta is 1.
///
/// The same on a table: [`Vp::zero_terminal_snr`](super::Vp::zero_terminal_snr).
///
/// # Panics
/// If there are fewer than two betas.
///
/// # Reference
/// Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023, Algorithm 1,
/// <https://arxiv.org/abs/2305.08891>.
pub fn rescale_zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    assert!(betas.len() > 1, "zero terminal SNR needs at least two betas, found {}", betas.len());
    let product = betas.iter().scan(1.0f64, |bar, beta| {
        *bar *= 1.0 - beta;
        Some(bar.sqrt())
    });
    let roots = stretched(&product.collect::<Vec<_>>());
    let ratio = |i: usize| if i == 0 { roots[0] } else { roots[i] / roots[i - 1] };
    (0..roots.len()).map(|i| 1.0 - ratio(i).powi(2)).collect()
}

/// Falling numbers, moved so that the last is 0 and the first stays.
pub(super) fn stretched(roots: &[f64]) -> Vec<f64> {
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    roots.iter().map(|root| (root - last) * (first / (first - last))).collect()
}
