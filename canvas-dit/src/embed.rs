//! How a network reads its condition: as one vector beside the time's, or as tokens beside the image's.
//!
//! A network of this crate that is conditioned on a class is generic over the layer that reads the condition, so that the
//! same architecture reads text, or whatever a researcher has a layer for. Burn's own layers do for the two cases that
//! papers have: an [`Embedding`] reads a [`Class`], a [`Linear`] layer reads [`Text`].

use burn::module::ModuleDisplay;
use burn::nn::{Embedding, Linear};
use burn::prelude::*;
use canvas_core::nn::{dense, linear};
use canvas_core::{Class, Condition, Text, Unconditional};

/// A layer that makes one vector of a condition, which is added to the time's.
///
/// # Example
/// A network that is told a number for each sample instead of a class:
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Condition};
/// use canvas_dit::{DitConfig, Embed};
///
/// /// One number a sample, `[B, 1]`.
/// #[derive(Clone)]
/// struct Age(Tensor<2>);
/// impl Condition for Age {
///     fn batch(&self) -> usize {
///         self.0.dims()[0]
///     }
///     fn cat(parts: &[Self]) -> Self {
///         Self(Tensor::cat(parts.iter().map(|part| part.0.clone()).collect(), 0))
///     }
///     fn select(&self, rows: &[usize]) -> Self {
///         let rows = rows.iter().map(|&row| self.0.clone().narrow(0, row, 1)).collect();
///         Self(Tensor::cat(rows, 0))
///     }
/// }
///
/// #[derive(Module, Debug)]
/// struct OfAge {
///     layer: Linear,
/// }
/// impl Embed for OfAge {
///     type Cond = Age;
///     fn vector(&self, age: &Age) -> Tensor<2> {
///         self.layer.forward(age.0.clone())
///     }
/// }
///
/// let device = Device::flex();
/// let reads = OfAge { layer: LinearConfig::new(1, 16).init(&device) };
/// let net = DitConfig::new([4, 6], 16, 2, 2).init_with(reads, &device);
/// let ages = Age(Tensor::from_floats([[7.0], [70.0]], &device));
/// let time = Tensor::from_floats([0.3, 0.9], &device);
/// assert_eq!(net.forward(Tensor::zeros([2, 4, 4, 6], &device), time, &ages).dims(), [2, 4, 4, 6]);
/// ```
pub trait Embed: Module + ModuleDisplay {
    /// What it reads.
    type Cond: Condition;

    /// # Shapes
    /// Output: `[B, W]`.
    fn vector(&self, cond: &Self::Cond) -> Tensor<2>;
}

/// A row for each class: `classes + 1` of them, the last for "no class".
impl Embed for Embedding {
    type Cond = Class;

    fn vector(&self, cond: &Class) -> Tensor<2> {
        self.forward(cond.labels.clone().unsqueeze_dim::<2>(1)).squeeze_dim::<2>(1)
    }
}

/// A linear layer from the pooled prompt; tokens are not read.
impl Embed for Linear {
    type Cond = Text;

    /// # Panics
    /// If the pooled prompt has not the layer's width.
    fn vector(&self, cond: &Text) -> Tensor<2> {
        let ([_, found], [expected, _]) = (cond.pooled.dims(), self.weight.dims());
        assert_eq!(found, expected, "the pooled prompt has width {found}, the network reads {expected}");
        linear(self, cond.pooled.clone())
    }
}

/// A layer that makes tokens of a condition, which stand beside the image's.
pub trait EmbedTokens: Module + ModuleDisplay {
    /// What it reads.
    type Cond: Condition;

    /// Whether they stand before the time's token, as U-ViT's label does, or behind it, as its text.
    const BEFORE_TIME: bool;

    /// Tokens `[B, T, W]`; `T` may be 0.
    fn tokens(&self, cond: &Self::Cond, device: &Device) -> Tensor<3>;

    /// `[B, T]`, false where a token is padding; `None` where none is.
    fn mask(&self, cond: &Self::Cond) -> Option<Tensor<2, Bool>>;
}

/// A token for each class.
impl EmbedTokens for Embedding {
    type Cond = Class;

    const BEFORE_TIME: bool = true;

    fn tokens(&self, cond: &Class, _device: &Device) -> Tensor<3> {
        self.forward(cond.labels.clone().unsqueeze_dim::<2>(1))
    }

    fn mask(&self, _cond: &Class) -> Option<Tensor<2, Bool>> {
        None
    }
}

/// A linear layer from each token of the text; the pooled prompt is not read.
impl EmbedTokens for Linear {
    type Cond = Text;

    const BEFORE_TIME: bool = false;

    /// # Panics
    /// If the tokens have not the layer's width.
    fn tokens(&self, cond: &Text, _device: &Device) -> Tensor<3> {
        let ([_, _, found], [expected, _]) = (cond.tokens.dims(), self.weight.dims());
        assert_eq!(found, expected, "tokens have width {found}, the network reads {expected}");
        dense(self, cond.tokens.clone())
    }

    fn mask(&self, cond: &Text) -> Option<Tensor<2, Bool>> {
        Some(cond.mask.clone())
    }
}

/// No token: for a network without conditions.
#[derive(Module, Debug)]
pub struct NoTokens {
    width: usize,
}

impl NoTokens {
    /// For a network of this width.
    pub fn new(width: usize) -> Self {
        Self { width }
    }
}

impl EmbedTokens for NoTokens {
    type Cond = Unconditional;

    const BEFORE_TIME: bool = true;

    fn tokens(&self, cond: &Unconditional, device: &Device) -> Tensor<3> {
        Tensor::zeros([cond.0, 0, self.width], device)
    }

    fn mask(&self, _cond: &Unconditional) -> Option<Tensor<2, Bool>> {
        None
    }
}
