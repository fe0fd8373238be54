//! Softmax attention and its gradients, in tiles: the scores of a query to all keys are never held.
//!
//! Inside a tile the scores lie transposed, keys in rows and queries in the lanes of vectors. The softmax, a reduction
//! over keys, then needs nothing across lanes, and the same layout serves as an operand of the next product.
//!
//! # Reference
//! Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023,
//! <https://arxiv.org/abs/2307.08691>.

mod backward;
mod forward;
mod kernel;
mod room;
mod scores;
#[cfg(test)]
mod tests;

pub use backward::backward;
pub use forward::forward;
pub use scores::Scores;

use std::ops::Range;

/// Queries in a block, at most: whole panels for vectors of up to 16 lanes.
const BLOCK: usize = 96;

/// A tensor `[batch, heads, rows, width]` whose last axis has stride 1.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What holds the numbers.
    pub data: &'a [f32],
    /// Strides of the first three axes.
    pub strides: [usize; 3],
}

impl<'a> View<'a> {
    /// These rows of a head, each `[width]`.
    #[inline(always)]
    fn rows(
        self,
        [batch, head]: [usize; 2],
        rows: Range<usize>,
        width: usize,
    ) -> impl ExactSizeIterator<Item = &'a [f32]> + Clone {
        let [by_batch, by_head, by_row] = self.strides;
        let start = batch * by_batch + head * by_head;
        rows.map(move |n| &self.data[start + n * by_row..][..width])
    }
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Samples, `B`.
    pub batch: usize,
    /// Heads of queries, `H`.
    pub heads: usize,
    /// Heads of keys and values, `K`, which divide `H`: each serves as many query heads in a row.
    pub kv_heads: usize,
    /// Queries, `N`.
    pub rows: usize,
    /// Keys, `T`.
    pub keys: usize,
    /// Width of queries and keys, `D`.
    pub width: usize,
    /// Width of values, `V`.
    pub depth: usize,
}

impl Dims {
    /// Query heads that read one head of keys.
    ///
    /// # Panics
    /// If heads of keys and values do not divide those of queries, or a width is 0.
    fn group(&self) -> usize {
        let Self { heads, kv_heads, width, depth, .. } = *self;
        assert!(width > 0 && depth > 0, "width ({width}) and depth ({depth}) must be positive");
        let divides = kv_heads > 0 && heads.is_multiple_of(kv_heads);
        assert!(divides, "key heads ({kv_heads}) must divide query heads ({heads})");
        heads / kv_heads
    }

    /// Samples, and heads of keys, that make a task large enough to be worth its hand-over.
    fn worth(&self) -> [usize; 2] {
        let products = self.rows * self.keys * (self.width + self.depth) * self.heads;
        [products, products / self.kv_heads].map(|products| (1_usize << 18).div_ceil(products.max(1)))
    }
}

/// Rows of `[N, heads, width]`, apart by head and by `block` rows of it: they interleave in memory, and yet each task
/// is to write its own.
fn apart(data: &mut [f32], heads: usize, width: usize, block: usize) -> Vec<Vec<Rows<'_>>> {
    let rows = data.len() / (heads * width);
    let empty = |_| (0..rows.div_ceil(block)).map(|_| Vec::with_capacity(block)).collect();
    let mut found: Vec<Vec<Rows<'_>>> = (0..heads).map(empty).collect();
    for (n, token) in data.chunks_exact_mut(heads * width).enumerate() {
        for (head, row) in token.chunks_exact_mut(width).enumerate() {
            found[head][n / block].push(row);
        }
    }
    found
}

/// Rows that a task writes.
type Rows<'a> = Vec<&'a mut [f32]>;
