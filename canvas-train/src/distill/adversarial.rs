//! Losses of a generator and of a critic that tells its drawings from data.

use burn::prelude::*;
use burn::tensor::activation::softplus;
use canvas_core::Level;

/// A network that tells data from drawings, both noised: heads on features of a denoiser (the fake one in DMD2, the teacher in
/// LADD), or of any other network where levels are clean (ADD).
pub trait Critic<const D: usize> {
    /// What it is conditioned on.
    type Cond;

    /// # Shapes
    /// - `x`: `[B, C, ..]`, noised to the levels `at`; output: `[B, H]`, high for data, one of each head
    fn logits(&self, x: Tensor<D>, at: &[Level], cond: &Self::Cond) -> Tensor<2>;
}

/// What each side is to bring down; the mean over heads, `[B]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adversarial {
    /// `softplus(-D(x))`, and `softplus(D(x)) + softplus(-D(data))`: DMD2's.
    ///
    /// Goodfellow et al., "Generative Adversarial Networks", 2014, section 3, <https://arxiv.org/abs/1406.2661>.
    #[default]
    Softplus,
    /// `-D(x)`, and `max(0, 1 + D(x)) + max(0, 1 - D(data))`: ADD's and LADD's.
    ///
    /// Sauer et al., "Adversarial Diffusion Distillation", 2023, equations 2 and 3, <https://arxiv.org/abs/2311.17042>.
    Hinge,
}

impl Adversarial {
    /// The generator's, of a critic's logits of its drawings.
    pub fn generator(self, drawn: Tensor<2>) -> Tensor<1> {
        over_heads(match self {
            Self::Softplus => softplus(-drawn, 1.0),
            Self::Hinge => -drawn,
        })
    }

    /// The critic's, of its logits of drawings (made without the generator's gradients) and of as many data.
    pub fn critic(self, drawn: Tensor<2>, data: Tensor<2>) -> Tensor<1> {
        over_heads(match self {
            Self::Softplus => softplus(drawn, 1.0) + softplus(-data, 1.0),
            Self::Hinge => (drawn + 1.0).clamp_min(0.0) + (-data + 1.0).clamp_min(0.0),
        })
    }
}

/// `|D(x) - D(x + std n)|^2 / std^2`, `[B]`: in expectation the squared norm of the critic's gradient by `x`, the R1 penalty of
/// data, where it is linear within `std`; no gradient of a gradient is needed, which Burn has not.
///
/// # Reference
/// Lin et al., "Diffusion Adversarial Post-Training for One-Step Video Generation", 2025, equation 5,
/// <https://arxiv.org/abs/2501.08316> (`std` 0.01, and its weight there counts the division); R1: Mescheder et al., 2018,
/// <https://arxiv.org/abs/1801.04406>.
pub fn r1(logits: Tensor<2>, moved: Tensor<2>, std: f64) -> Tensor<1> {
    over_heads((logits - moved).square()) / (std * std)
}

fn over_heads(x: Tensor<2>) -> Tensor<1> {
    let batch = x.dims()[0];
    x.mean_dim(1).reshape([batch])
}
