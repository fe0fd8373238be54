//! Text encoders: from prompts to [`Text`]. Tokenizing is fallible and on the host, encoding is neither.

use crate::{Condition, Text};
use burn::prelude::*;

/// A rectangular batch of token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Ids, row by row; padding included.
    pub ids: Vec<u32>,
    /// True where a token is real, of the same layout.
    pub mask: Vec<bool>,
    /// Tokens a row.
    pub length: usize,
}

impl Tokens {
    /// Prompts in the batch.
    pub fn batch(&self) -> usize {
        self.ids.len() / self.length.max(1)
    }

    /// These rows, repeats allowed.
    pub fn select(&self, rows: &[usize]) -> Self {
        let span = |row: &usize| row * self.length..(row + 1) * self.length;
        Self {
            ids: rows.iter().flat_map(|row| self.ids[span(row)].iter().copied()).collect(),
            mask: rows.iter().flat_map(|row| self.mask[span(row)].iter().copied()).collect(),
            length: self.length,
        }
    }

    /// Ids `[B, T]` and mask `[B, T]` on a device.
    pub fn tensors(&self, device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let shape = [self.batch(), self.length];
        let ids: Vec<i64> = self.ids.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_data(TensorData::new(ids, shape), device);
        (ids, Tensor::from_data(TensorData::new(self.mask.clone(), shape), device))
    }
}

/// Before they are encoded, prompts are a condition, too: so they are left out for the empty one.
impl Condition for Tokens {
    fn batch(&self) -> usize {
        self.batch()
    }

    /// Shorter rows are filled up with ids of 0 that are not real.
    fn cat(parts: &[Self]) -> Self {
        let length = parts.iter().map(|part| part.length).max().expect("at least one part");
        let mut all = Self { ids: Vec::new(), mask: Vec::new(), length };
        for part in parts {
            for row in 0..part.batch() {
                let own = row * part.length..(row + 1) * part.length;
                all.ids.extend(part.ids[own.clone()].iter().copied());
                all.mask.extend(part.mask[own].iter().copied());
                all.ids.resize(all.ids.len() + length - part.length, 0);
                all.mask.resize(all.mask.len() + length - part.length, false);
            }
        }
        all
    }

    fn select(&self, rows: &[usize]) -> Self {
        self.select(rows)
    }
}

/// A text encoder.
pub trait TextEncoder {
    /// # Shapes
    /// - `tokens`: `B` rows of `T` ids made by this encoder's own tokenizer
    /// - output: `tokens` `[B, T, W]`, `mask` `[B, T]`, `pooled` `[B, P]`
    fn encode(&self, tokens: &Tokens) -> Text;
}
