//! How far two states are apart, one number a sample.

use crate::Distance;
use crate::objective::mean_of_each;
use burn::prelude::*;

/// How far what a student says is from what it is to say, `[B, C, ..]` to `[B]`. A perceptual distance is one of yours.
pub trait Metric<const D: usize> {
    /// # Shapes
    /// - `answer`, `target`: `[B, C, ..]`; output: `[B]`
    fn between(&self, answer: Tensor<D>, target: Tensor<D>) -> Tensor<1>;
}

/// The mean over a sample.
impl<const D: usize> Metric<D> for Distance {
    fn between(&self, answer: Tensor<D>, target: Tensor<D>) -> Tensor<1> {
        mean_of_each(self.each(answer, target))
    }
}

/// Pseudo-Huber of a whole sample: `sqrt(|e|^2 + c^2) - c`. Samples with great errors count less, and no number of them alone.
///
/// # Reference
/// Song and Dhariwal, "Improved Techniques for Training Consistency Models", 2023, section 3.3,
/// <https://arxiv.org/abs/2310.14189>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PseudoHuber {
    /// About where squares become lines, above 0.
    pub c: f64,
}

impl PseudoHuber {
    /// The paper's for samples of so many numbers: `0.00054 sqrt(numbers)`.
    pub fn of_numbers(numbers: usize) -> Self {
        Self { c: 0.00054 * (numbers as f64).sqrt() }
    }
}

impl<const D: usize> Metric<D> for PseudoHuber {
    fn between(&self, answer: Tensor<D>, target: Tensor<D>) -> Tensor<1> {
        let square = norms(answer, target);
        // Without the difference, which small errors would not survive.
        square.clone() / ((square + self.c * self.c).sqrt() + self.c)
    }
}

/// The squared norm of a sample's error, over a power of itself that has no gradient: `|e|^2 / sg(|e|^2 + c)^p`.
///
/// A power of 0 is the square; of 1/2 its gradient is [`PseudoHuber`]'s, whose `c` is the root of this one.
///
/// # Reference
/// Geng et al., "Mean Flows for One-step Generative Modeling", 2025, equation 22, <https://arxiv.org/abs/2505.13447>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// `p`, from 0 to 1.
    pub power: f64,
    /// `c`, above 0.
    pub c: f64,
}

impl Default for Adaptive {
    /// The paper's, for images: `p = 1`, `c = 1e-3`.
    fn default() -> Self {
        Self { power: 1.0, c: 1e-3 }
    }
}

impl<const D: usize> Metric<D> for Adaptive {
    fn between(&self, answer: Tensor<D>, target: Tensor<D>) -> Tensor<1> {
        let square = norms(answer, target);
        square.clone() * (square.inner() + self.c).powf_scalar(-self.power)
    }
}

/// Squared norms of errors, `[B]`.
fn norms<const D: usize>(answer: Tensor<D>, target: Tensor<D>) -> Tensor<1> {
    assert_eq!(answer.dims(), target.dims(), "shapes of answer and target");
    let numbers = answer.shape().num_elements() / answer.dims()[0];
    mean_of_each((answer - target).square()) * numbers as f64
}
