//! Norms with learned weights. Named as Burn's, and used in their place: these are one [operation](crate::ops).

use super::Activation;
use crate::ops;
use burn::module::Param;
use burn::nn::Initializer;
use burn::prelude::*;

/// Sizes of a [`LayerNorm`].
#[derive(Config, Debug)]
pub struct LayerNormConfig {
    /// Width of the last axis.
    pub width: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

impl LayerNormConfig {
    /// A weight of one and a bias of zero.
    pub fn init(&self, device: &Device) -> LayerNorm {
        LayerNorm {
            gamma: Initializer::Ones.init([self.width], device),
            beta: Initializer::Zeros.init([self.width], device),
            epsilon: self.epsilon,
        }
    }
}

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the last axis.
///
/// # Reference
/// Ba et al., "Layer Normalization", 2016, <https://arxiv.org/abs/1607.06450>.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Weight, `[W]`.
    pub gamma: Param<Tensor<1>>,
    /// Bias, `[W]`.
    pub beta: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    /// # Shapes
    /// Any that ends in `W`, to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [gamma, beta] = [&self.gamma, &self.beta].map(|vector| vector.val().reshape([1, 1, -1]));
        of_rows(x, |rows| ops::norm(ops::Norm::layer(self.epsilon), rows, gamma, beta))
    }
}

/// Sizes of an [`RmsNorm`].
#[derive(Config, Debug)]
pub struct RmsNormConfig {
    /// Width of the last axis.
    pub width: usize,
    /// Added to the mean square.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

impl RmsNormConfig {
    /// A weight of one.
    pub fn init(&self, device: &Device) -> RmsNorm {
        RmsNorm { gamma: Initializer::Ones.init([self.width], device), epsilon: self.epsilon }
    }
}

/// `x / sqrt(mean square + epsilon) * gamma` over the last axis.
///
/// # Reference
/// Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, <https://arxiv.org/abs/1910.07467>.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Weight, `[W]`.
    pub gamma: Param<Tensor<1>>,
    /// Added to the mean square.
    #[module(skip)]
    pub epsilon: f64,
}

impl RmsNorm {
    /// # Shapes
    /// Any that ends in `W`, to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gamma = self.gamma.val().reshape([1, 1, -1]);
        let beta = gamma.zeros_like();
        of_rows(x, |rows| ops::norm(ops::Norm::rms(self.epsilon), rows, gamma, beta))
    }
}

/// Applies a function of `[1, R, W]` to all rows of a tensor.
fn of_rows<const D: usize>(x: Tensor<D>, norm: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<D> {
    let dims = x.dims();
    let width = dims[D - 1];
    norm(x.reshape([1, dims[..D - 1].iter().product(), width])).reshape(dims)
}

/// Sizes of a [`GroupNorm`].
#[derive(Config, Debug)]
pub struct GroupNormConfig {
    /// Groups of channels.
    pub groups: usize,
    /// Channels, which the groups divide.
    pub channels: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

impl GroupNormConfig {
    /// A weight of one and a bias of zero.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    pub fn init(&self, device: &Device) -> GroupNorm {
        let Self { groups, channels, epsilon } = *self;
        assert!(
            groups > 0 && channels.is_multiple_of(groups),
            "groups ({groups}) must divide channels ({channels})"
        );
        GroupNorm {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            groups,
            epsilon,
        }
    }
}

/// Every group of channels of a sample, less its mean and by its deviation; then a weight and a bias for each channel.
///
/// # Reference
/// Wu and He, "Group Normalization", 2018, <https://arxiv.org/abs/1803.08494>.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Weight, `[C]`.
    pub gamma: Param<Tensor<1>>,
    /// Bias, `[C]`.
    pub beta: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    epsilon: f64,
}

impl GroupNorm {
    /// # Shapes
    /// `[B, C, H, S]` to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.then(None, x)
    }

    /// The norm and the activation after it, in one.
    ///
    /// # Shapes
    /// `[B, C, H, S]` to the same.
    pub fn forward_then(&self, activation: Activation, x: Tensor<4>) -> Tensor<4> {
        self.then(Some(activation), x)
    }

    fn then(&self, activation: Option<Activation>, x: Tensor<4>) -> Tensor<4> {
        let norm = ops::GroupNorm { groups: self.groups, epsilon: self.epsilon, activation };
        ops::group_norm(norm, x, self.gamma.val(), self.beta.val())
    }
}
