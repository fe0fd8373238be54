//! What is added inside a UNet, as a value: ControlNets and T2I-Adapters make it, sums and multiples are taken of it.

use crate::{Conditions, Unet};
use burn::prelude::*;
use canvas_core::{Backbone, Condition};

/// What is added inside a [`Unet`]. A list that is empty adds nothing.
///
/// Made by [`ControlNet::forward`](crate::ControlNet::forward) and [`T2iAdapter::forward`](crate::T2iAdapter::forward);
/// several become one by [`plus`](Self::plus).
#[derive(Clone, Debug)]
pub struct Residuals {
    /// Within each level on the way down, behind its last transformer, so that all that follows sees it; at the end of
    /// a level without transformers. One more is for the middle. A T2I-Adapter's.
    pub levels: Vec<Tensor<4>>,
    /// To each value that the way up reads, the input convolution's first: `[B, Ci, H / 2^i, S / 2^i]`. A ControlNet's.
    pub skips: Vec<Tensor<4>>,
    /// After the middle: `[B, Cn, H / 2^n, S / 2^n]`.
    pub middle: Option<Tensor<4>>,
}

impl Residuals {
    /// The sum of two.
    ///
    /// # Panics
    /// If they are for UNets of different depth.
    pub fn plus(self, other: Self) -> Self {
        let middle = match (self.middle, other.middle) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self { levels: sum(self.levels, other.levels), skips: sum(self.skips, other.skips), middle }
    }

    /// All of them times a number.
    pub fn scaled(self, by: f64) -> Self {
        self.map(|x| x * by)
    }

    /// The same of each of them: other numbers, another device.
    pub fn map(self, each: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        Self {
            levels: self.levels.into_iter().map(&each).collect(),
            skips: self.skips.into_iter().map(&each).collect(),
            middle: self.middle.map(each),
        }
    }

    /// Adds what is for the middle and for the values of the way down, after `levels` levels.
    pub(crate) fn join(&self, middle: Tensor<4>, skips: &mut [Tensor<4>], levels: usize) -> Tensor<4> {
        let (found, expected) = (self.skips.len(), skips.len());
        assert!(found == 0 || found == expected, "{found} residuals for {expected} values of the way down");
        for (skip, added) in skips.iter_mut().zip(&self.skips) {
            *skip = skip.clone() + added.clone();
        }
        let found = self.levels.len();
        assert!(found == 0 || found == levels || found == levels + 1, "{found} features for {levels} levels");
        let added = self.middle.iter().chain(self.levels.get(levels));
        added.fold(middle, |middle, added| middle + added.clone())
    }
}

fn sum(one: Vec<Tensor<4>>, two: Vec<Tensor<4>>) -> Vec<Tensor<4>> {
    if one.is_empty() || two.is_empty() {
        return if one.is_empty() { two } else { one };
    }
    let (a, b) = (one.len(), two.len());
    assert_eq!(a, b, "residuals for {a} and for {b} places of a UNet");
    one.into_iter().zip(two).map(|(a, b)| a + b).collect()
}

impl Condition for Residuals {
    /// # Panics
    /// If there are none.
    fn batch(&self) -> usize {
        let mut all = self.levels.iter().chain(&self.skips).chain(&self.middle);
        all.next().expect("at least one residual").dims()[0]
    }
    fn cat(parts: &[Self]) -> Self {
        let join = |list: &dyn Fn(&Self) -> Vec<Tensor<4>>| {
            let lists: Vec<_> = parts.iter().map(list).collect();
            let at = |i: usize| Tensor::cat(lists.iter().map(|list| list[i].clone()).collect(), 0);
            (0..lists[0].len()).map(at).collect::<Vec<_>>()
        };
        Self {
            levels: join(&|part| part.levels.clone()),
            skips: join(&|part| part.skips.clone()),
            middle: join(&|part| part.middle.iter().cloned().collect()).pop(),
        }
    }
    fn select(&self, rows: &[usize]) -> Self {
        let pick =
            |x: Tensor<4>| Tensor::cat(rows.iter().map(|&row| x.clone().narrow(0, row, 1)).collect(), 0);
        self.clone().map(pick)
    }
}

/// A UNet with residuals as a condition: those of T2I-Adapters, which are the same at all times.
#[derive(Clone, Copy, Debug)]
pub struct Adapted<'a> {
    /// The network.
    pub unet: &'a Unet,
}

impl Backbone<4> for Adapted<'_> {
    type Cond = (Conditions, Residuals);

    /// # Shapes
    /// As [`Unet::run`].
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, (cond, added): &Self::Cond) -> Tensor<4> {
        self.unet.run(x, time, cond, Some(added))
    }
}
