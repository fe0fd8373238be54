//! Multi-head attention.

use super::{dense, init::xavier_linear};
use crate::trace::route;
use crate::{macs, ops, recompute, trace};
use burn::nn::Linear;
use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

/// Sizes of an [`Attention`].
#[derive(Config, Debug)]
pub struct AttentionConfig {
    /// Width of the queries and of the output; the heads must divide it.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Width of the keys' and values' source, when it is not the queries' own.
    pub context: Option<usize>,
}

impl AttentionConfig {
    /// # Panics
    /// If the heads do not divide the width.
    pub fn init(&self, device: &Device) -> Attention {
        let (width, heads) = (self.width, self.heads);
        assert!(heads > 0 && width.is_multiple_of(heads), "heads ({heads}) must divide width ({width})");
        let context = self.context.unwrap_or(width);
        Attention {
            query: xavier_linear(width, width, device),
            key: xavier_linear(context, width, device),
            value: xavier_linear(context, width, device),
            output: xavier_linear(width, width, device),
            heads,
        }
    }
}

/// Multi-head attention of a sequence to itself or to a context, all projections with bias.
#[derive(Module, Debug)]
pub struct Attention {
    /// Query projection.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Output projection.
    pub output: Linear,
    heads: usize,
}

impl Attention {
    /// Attention of `x` to `context`.
    ///
    /// Tapped are the queries as `query` and the map as `map`, and as `heads` what the heads have read, before the output
    /// projection: all that a hook needs to let them read something else as well. The map is made whole, and tapped, only
    /// for a hook that [wants](trace::Hook::wants) it.
    ///
    /// # Shapes
    /// - `x`: `[B, N, W]`, `context`: `[B, T, C]`
    /// - `mask`: `[B, T]`, true where a context token may be seen; a row must not be all false
    /// - output: `[B, N, W]`
    pub fn forward(&self, x: Tensor<3>, context: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Tensor<3> {
        self.read(x, self.keys_and_values(context), mask)
    }

    /// What there is to be read of a context, which may be [kept](crate::memo::keep): `[B, T, C]` to twice
    /// `[B, H, T, W/H]`.
    pub fn keys_and_values(&self, context: Tensor<3>) -> [Tensor<4>; 2] {
        let key = split(dense(&self.key, context.clone()), self.heads);
        [key, split(dense(&self.value, context), self.heads)]
    }

    /// [`forward`](Self::forward) with the context's keys and values.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward) and [`keys_and_values`](Self::keys_and_values).
    pub fn read(
        &self,
        x: Tensor<3>,
        [key, value]: [Tensor<4>; 2],
        mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        let query = split(dense(&self.query, x), self.heads); // [B, H, N, W/H]
        let query = trace::tap(|| "query".into(), query);
        let heads = trace::tap(|| "heads".into(), attend(query, key, value, mask)); // [B, H, N, W/H]
        dense(&self.output, joined(heads)) // [B, N, W]
    }
}

/// Bytes of scores that are computed at once where nobody looks at the map: in f32, a block of 512 of the 4096 queries
/// that Stable Diffusion's largest attention has for each of 8 heads.
const BLOCK: usize = 64 << 20;

/// What changes the scores of attention before their softmax; by default nothing but `1/sqrt(D)`.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Which keys each query may see: `[B or 1, H or 1, N or 1, T]`; a row must not be all false.
    pub seen: Option<Tensor<4, Bool>>,
    /// Added to the scaled scores: `[B or 1, H or 1, N or 1, T]`.
    pub bias: Option<Tensor<4>>,
    /// In place of `1/sqrt(D)`.
    pub scale: Option<f64>,
    /// Scores become `cap tanh(scores / cap)` before bias and mask, as in Gemma 2.
    pub softcap: Option<f64>,
}

impl Scores {
    /// Keys that are seen by all queries of a sample: `[B, T]`, true where one may be seen.
    pub fn seen(mask: Option<Tensor<2, Bool>>) -> Self {
        let seen = mask.map(|mask| {
            let [batch, length] = mask.dims();
            mask.reshape([batch, 1, 1, length])
        });
        Self { seen, ..Self::default() }
    }
}

/// `softmax(q k^T / sqrt(D)) v`, each head for itself; the map is tapped as `map` for a hook that wants it.
///
/// # Shapes
/// - `query`: `[B, H, N, D]`, `key` and `value`: `[B, K, T, D]`, where `K` divides `H`
/// - `mask`: `[B, T]`, true where a key may be seen; a row must not be all false
/// - output: `[B, H, N, D]`
///
/// # Reference
/// Vaswani et al., "Attention Is All You Need", 2017, equation 1, <https://arxiv.org/abs/1706.03762>.
pub fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<2, Bool>>,
) -> Tensor<4> {
    attend_with([query, key, value], &Scores::seen(mask))
}

/// [`attend`] with other [`Scores`].
///
/// The map holds `B H N T` numbers: half a gigabyte for one picture of Stable Diffusion. Where neither a gradient nor a
/// hook needs it, queries go in blocks, and by Burn's own attention, which on the CPU never holds a map. Where keys and
/// values have fewer heads than queries, each serves as many query heads in a row (grouped-query attention; Ainslie et
/// al., "GQA", 2023, <https://arxiv.org/abs/2305.13245>).
///
/// # Shapes
/// As [`attend`].
///
/// # Panics
/// If the heads of keys and values do not divide those of queries.
pub fn attend_with([query, key, value]: [Tensor<4>; 3], scores: &Scores) -> Tensor<4> {
    let [batch, heads, count, width] = query.dims();
    let [_, _, length, depth] = value.dims();
    let scores = &*route::follow_scores(scores, [count, length]);
    macs::add(batch * heads * count * length * (width + depth));
    assert!(
        heads.is_multiple_of(key.dims()[1].max(1)),
        "key heads ({}) must divide query heads ({heads})",
        key.dims()[1]
    );
    let wanted = trace::is_wanted(|| "map".into());
    let inputs = [query, key, value];
    let in_tiles = if wanted { None } else { ops::attend_in_tiles(&inputs, scores) };
    if let Some(read) = in_tiles {
        return read;
    }
    let [query, key, value] = inputs;
    let [key, value] = [key, value].map(|x| repeat_heads(x, heads));
    let hidden = scores.seen.clone().map(Tensor::bool_not);
    let tracked = query.is_tracked() || key.is_tracked() || value.is_tracked();
    // What will be run again with gradients must come out the same without them.
    let tracked = tracked || (query.is_autodiff() && recompute::is_on());
    if tracked || wanted {
        whole([query, key, value], hidden, scores)
    } else {
        by_blocks([query, key, value], hidden.as_ref(), scores, BLOCK)
    }
}

/// `[B, K, T, D]` to `[B, H, T, D]`: each head `H/K` times in a row.
fn repeat_heads(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, own, length, width] = x.dims();
    if own == heads {
        return x;
    }
    let groups = heads / own;
    let x = x.reshape([batch, own, 1, length, width]).repeat_dim(2, groups);
    x.reshape([batch, heads, length, width])
}

/// With the map in one piece.
fn whole([query, key, value]: [Tensor<4>; 3], hidden: Option<Tensor<4, Bool>>, with: &Scores) -> Tensor<4> {
    let scale = with.scale.unwrap_or_else(|| (query.dims()[3] as f64).sqrt().recip());
    let mut scores = (query * scale).matmul(key.swap_dims(2, 3)); // [B, H, N, T]
    if let Some(cap) = with.softcap {
        scores = (scores / cap).tanh() * cap;
    }
    if let Some(bias) = &with.bias {
        scores = scores + bias.clone();
    }
    if let Some(hidden) = hidden {
        let hidden = hidden.expand(scores.dims());
        scores = scores.mask_fill(hidden, f32::MIN);
    }
    let map = trace::tap(|| "map".into(), softmax(scores, 3)); // [B, H, N, T]
    map.matmul(value)
}

/// Queries in blocks whose scores take at most so many bytes, or one by one.
fn by_blocks(
    [query, key, value]: [Tensor<4>; 3],
    hidden: Option<&Tensor<4, Bool>>,
    with: &Scores,
    bytes: usize,
) -> Tensor<4> {
    let ([batch, heads, count, _], length) = (query.dims(), key.dims()[2]);
    let options = AttentionModuleOptions { scale: with.scale, softcap: with.softcap, is_causal: false };
    let each = batch * heads * length * query.dtype().size(); // of one query
    let block = (bytes / each).max(1);
    let read = |start: usize| {
        let rows = block.min(count - start);
        let dims = [batch, heads, rows, length];
        let hidden = hidden.map(|hidden| of_rows(hidden.clone(), start, rows).expand(dims));
        let bias = with.bias.clone().map(|bias| of_rows(bias, start, rows).expand(dims));
        let query = query.clone().narrow(2, start, rows);
        attention(query, key.clone(), value.clone(), hidden, bias, options)
    };
    if block >= count {
        return read(0);
    }
    Tensor::cat((0..count).step_by(block).map(read).collect(), 2) // [B, H, N, D]
}

/// The rows of these queries, or the one of all.
fn of_rows<K: burn::tensor::kind::Basic>(x: Tensor<4, K>, start: usize, rows: usize) -> Tensor<4, K> {
    if x.dims()[2] == 1 { x } else { x.narrow(2, start, rows) }
}

/// Cuts tokens into heads: `[B, N, W]` to `[B, H, N, W/H]`.
pub fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, width] = x.dims();
    x.reshape([batch, length, heads, width / heads]).swap_dims(1, 2)
}

/// The inverse of [`split`]: `[B, H, N, W/H]` to `[B, N, W]`.
pub fn joined(heads: Tensor<4>) -> Tensor<3> {
    heads.swap_dims(1, 2).flatten(2, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Hook, Tapped};
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A chirp: no row is a multiple of another.
    fn chirp(dims: [usize; 4], phase: f32) -> Tensor<4> {
        let i = Tensor::<1, Int>::arange(0..dims.iter().product::<usize>() as i64, &Device::flex()).float();
        (i.clone() * 0.7 + i.square() * 0.013 + phase).sin().reshape(dims)
    }

    /// Scores stay below 3: their rounding grows with them, and is another in another order.
    fn inputs([batch, heads, count, length, width]: [usize; 5]) -> [Tensor<4>; 3] {
        let [long, short] = [[batch, heads, count, width], [batch, heads, length, width]];
        [chirp(long, 0.0), chirp(short, 0.5), chirp(short, 1.0)]
    }

    /// Every third key of the second sample is hidden.
    fn hidden(length: usize) -> Tensor<4, Bool> {
        let hide = (0..2 * length).map(|i| i >= length && i % 3 == 0).collect::<Vec<bool>>();
        Tensor::from_data(TensorData::new(hide, [2, 1, 1, length]), &Device::flex())
    }

    fn off<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a - b).abs().max().into_scalar::<f32>()
    }

    #[test]
    fn blocks_are_the_whole() {
        // The last is large enough for the way in which Burn's CPU backend holds no map.
        for (dims, block) in [([2, 3, 7, 5, 4], 3), ([2, 3, 7, 5, 4], 0), ([2, 2, 700, 600, 8], 500)] {
            let [batch, heads, _, length, _] = dims;
            for hidden in [None, Some(hidden(length))] {
                let [query, key, value] = inputs(dims);
                let bytes = block * batch * heads * length * 4;
                let inputs = [query, key, value];
                let found = by_blocks(inputs.clone(), hidden.as_ref(), &Scores::default(), bytes);
                let off = off(found, whole(inputs, hidden, &Scores::default()));
                assert!(off < 3e-6, "{dims:?} in blocks of {block}: off by {off:e}");
            }
        }
    }

    /// What a hook sees, wanting maps or not.
    struct Sees {
        maps: bool,
        seen: RefCell<Vec<Vec<usize>>>,
    }

    impl Hook for Sees {
        fn wants(&self, name: &str) -> bool {
            self.maps || name != "map"
        }
        fn tap(&self, tapped: &mut Tapped<'_>) {
            self.seen.borrow_mut().push(tapped.dims().to_vec());
        }
    }

    #[test]
    fn a_hook_sees_the_whole_map_if_it_wants_it() {
        let [query, key, value] = inputs([2, 3, 7, 5, 4]);
        let run = || attend(query.clone(), key.clone(), value.clone(), None);
        for (maps, expected) in [(true, vec![vec![2, 3, 7, 5]]), (false, vec![])] {
            let hook = Rc::new(Sees { maps, seen: RefCell::default() });
            let found = trace::with_hook(hook.clone(), run);
            assert_eq!(hook.seen.take(), expected);
            assert!(off(found, run()) < 3e-6);
        }
        // Others may still want it, and a search does.
        let hook = Rc::new(Sees { maps: false, seen: RefCell::default() });
        assert_eq!(trace::with_hook(hook, || trace::names(|| drop(run()))), ["map"]);
        let nan = || drop(attend(query.clone() * f32::NAN, key.clone(), value.clone(), None));
        assert_eq!(trace::first_non_finite(nan).as_deref(), Some("map"));
    }

    #[test]
    fn gradients_are_slopes_of_what_blocks_compute() {
        let inputs = inputs([2, 1, 3, 4, 2]);
        let weight = chirp([2, 1, 3, 2], 2.0);
        let along = [3, 4, 4].map(|count| chirp([2, 1, count, 2], 3.0));
        let tracked = inputs.clone().map(|x| x.autodiff().require_grad());
        let [query, key, value] = tracked.clone();
        let gradients = (attend(query, key, value, None) * weight.clone().autodiff()).sum().backward();
        let found: f32 = tracked
            .iter()
            .zip(&along)
            .map(|(x, along)| (x.grad(&gradients).unwrap() * along.clone()).sum().into_scalar::<f32>())
            .sum();
        let at = |step: f32| {
            let [query, key, value] = [0, 1, 2].map(|i| inputs[i].clone() + along[i].clone() * step);
            (by_blocks([query, key, value], None, &Scores::default(), 0) * weight.clone())
                .sum()
                .into_scalar::<f32>()
        };
        let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
        assert!((found - slope).abs() < 1e-3 * slope.abs().max(1.0), "gradient {found}, slope {slope}");
    }
}
