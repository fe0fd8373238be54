//! How far to shift flow matching's times, by the number of tokens of a picture and by the number of steps.
//!
//! Most pipelines give `mu` to [`Flow::exponential`](super::Flow::exponential), CogView4 to
//! [`Flow::linear`](super::Flow::linear).

/// On the line through `(tokens.0, shifts.0)` and `(tokens.1, shifts.1)`: dynamic shifting in diffusers.
///
/// # Reference
/// Esser et al., "Scaling Rectified Flow Transformers", 2024, section 5.3.2, has the idea,
/// <https://arxiv.org/abs/2403.03206>; the line is Flux's, in its code.
pub fn line(tokens: f64, (low, high): (f64, f64), (least, most): (f64, f64)) -> f64 {
    least + (tokens - low) * (most - least) / (high - low)
}

/// Flux: 0.5 at 256 tokens to 1.15 at 4096 (1024 pixels a side).
pub fn flux(tokens: usize) -> f64 {
    line(tokens as f64, (256.0, 4096.0), (0.5, 1.15))
}

/// Qwen-Image: 0.5 at 256 tokens to 0.9 at 8192. Its grid is also stretched to end at 0.02:
/// [`Timesteps::terminal`](crate::Timesteps::terminal).
pub fn qwen_image(tokens: usize) -> f64 {
    line(tokens as f64, (256.0, 8192.0), (0.5, 0.9))
}

/// Flux.2: two lines in the number of tokens, one for 10 steps and one for 200, and a line in the number of
/// steps between them; above 4300 tokens the line for 200 steps alone.
///
/// # Reference
/// Fitted by its authors; `compute_empirical_mu` in the code of Flux.2.
pub fn flux2(tokens: usize, steps: usize) -> f64 {
    let tokens = tokens as f64;
    let (of_10, of_200) = (8.738_095_24e-5 * tokens + 1.898_333_33, 0.000_169_27 * tokens + 0.456_666_66);
    if tokens > 4300.0 { of_200 } else { line(steps as f64, (10.0, 200.0), (of_10, of_200)) }
}

/// `0.75 sqrt(tokens / 256) + 0.25`: CogView4, for [`Flow::linear`](super::Flow::linear).
pub fn cogview4(tokens: usize) -> f64 {
    0.75 * (tokens as f64 / 256.0).sqrt() + 0.25
}
