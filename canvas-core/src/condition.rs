//! What a network is conditioned on: values that concatenate, select and drop per sample by themselves.

use burn::prelude::*;

/// A batch of conditions.
///
/// Classifier-free guidance needs two things of a condition, and they follow from two methods: joining
/// batches ([`cat`](Self::cat)) and picking rows ([`select`](Self::select)).
pub trait Condition: Clone {
    /// Samples in this batch.
    fn batch(&self) -> usize;

    /// Joins batches along the sample axis.
    ///
    /// # Panics
    /// If `parts` is empty.
    fn cat(parts: &[Self]) -> Self;

    /// The rows at these indices, repeats allowed.
    fn select(&self, rows: &[usize]) -> Self;

    /// Row `i` of `null` (or its only row) where `drop[i]`, else row `i` of this batch.
    ///
    /// # Panics
    /// If `drop` has not one entry per sample.
    fn drop_rows(&self, drop: &[bool], null: &Self) -> Self {
        let batch = self.batch();
        assert_eq!(drop.len(), batch, "{} flags for a batch of {batch}", drop.len());
        if !drop.contains(&true) {
            return self.clone();
        }
        let single = null.batch() == 1;
        let row = |(i, &gone): (usize, &bool)| match (gone, single) {
            (false, _) => i,
            (true, true) => batch,
            (true, false) => batch + i,
        };
        let rows: Vec<usize> = drop.iter().enumerate().map(row).collect();
        Self::cat(&[self.clone(), null.clone()]).select(&rows)
    }

    /// This batch, or its only row repeated to `batch` samples.
    ///
    /// # Panics
    /// If it holds neither one row nor `batch` of them.
    fn spread(&self, batch: usize) -> Self {
        if self.batch() == batch {
            return self.clone();
        }
        assert_eq!(self.batch(), 1, "{} conditions for a batch of {batch}", self.batch());
        self.select(&vec![0; batch])
    }
}

fn index(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let length = rows.len();
    Tensor::from_data(TensorData::new(rows, [length]), device)
}

/// No condition at all, for a batch of this many samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unconditional(pub usize);

impl Condition for Unconditional {
    fn batch(&self) -> usize {
        self.0
    }
    fn cat(parts: &[Self]) -> Self {
        Self(parts.iter().map(|part| part.0).sum())
    }
    fn select(&self, rows: &[usize]) -> Self {
        Self(rows.len())
    }
}

/// Class labels. "No class" is a label too: by convention the number of classes.
#[derive(Clone, Debug)]
pub struct Class {
    /// Labels `[B]`.
    pub labels: Tensor<1, Int>,
}

impl Class {
    /// From labels on the host.
    pub fn new(labels: &[usize], device: &Device) -> Self {
        Self { labels: index(labels, device) }
    }
}

impl Condition for Class {
    fn batch(&self) -> usize {
        self.labels.dims()[0]
    }
    fn cat(parts: &[Self]) -> Self {
        Self { labels: Tensor::cat(parts.iter().map(|part| part.labels.clone()).collect(), 0) }
    }
    fn select(&self, rows: &[usize]) -> Self {
        Self { labels: self.labels.clone().select(0, index(rows, &self.labels.device())) }
    }
}

/// Encoded text: one vector a token, which of them are real, and one vector for the whole prompt.
#[derive(Clone, Debug)]
pub struct Text {
    /// Token states `[B, T, W]`.
    pub tokens: Tensor<3>,
    /// `[B, T]`, true where a token is real and false where it is padding.
    pub mask: Tensor<2, Bool>,
    /// Prompt vectors `[B, P]`.
    pub pooled: Tensor<2>,
}

impl Text {
    /// The same text with padding up to `length` tokens.
    fn padded(&self, length: usize) -> Self {
        let [batch, tokens, width] = self.tokens.dims();
        if tokens == length {
            return self.clone();
        }
        let device = self.tokens.device();
        let blank = Tensor::zeros([batch, length - tokens, width], &device);
        let gone = Tensor::<2, Int>::zeros([batch, length - tokens], &device).bool();
        Self {
            tokens: Tensor::cat(vec![self.tokens.clone(), blank], 1),
            mask: Tensor::cat(vec![self.mask.clone(), gone], 1),
            pooled: self.pooled.clone(),
        }
    }
}

impl Condition for Text {
    fn batch(&self) -> usize {
        self.tokens.dims()[0]
    }
    fn cat(parts: &[Self]) -> Self {
        let length = parts.iter().map(|part| part.tokens.dims()[1]).max().expect("at least one part");
        let parts: Vec<Self> = parts.iter().map(|part| part.padded(length)).collect();
        Self {
            tokens: Tensor::cat(parts.iter().map(|part| part.tokens.clone()).collect(), 0),
            mask: Tensor::cat(parts.iter().map(|part| part.mask.clone()).collect(), 0),
            pooled: Tensor::cat(parts.iter().map(|part| part.pooled.clone()).collect(), 0),
        }
    }
    fn select(&self, rows: &[usize]) -> Self {
        let rows = index(rows, &self.tokens.device());
        Self {
            tokens: self.tokens.clone().select(0, rows.clone()),
            mask: self.mask.clone().int().select(0, rows.clone()).bool(),
            pooled: self.pooled.clone().select(0, rows),
        }
    }
}

impl<A: Condition, B: Condition> Condition for (A, B) {
    fn batch(&self) -> usize {
        self.0.batch()
    }
    fn cat(parts: &[Self]) -> Self {
        let first: Vec<A> = parts.iter().map(|part| part.0.clone()).collect();
        let second: Vec<B> = parts.iter().map(|part| part.1.clone()).collect();
        (A::cat(&first), B::cat(&second))
    }
    fn select(&self, rows: &[usize]) -> Self {
        (self.0.select(rows), self.1.select(rows))
    }
}
