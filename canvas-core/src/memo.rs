//! What does not change over a sampling run, computed once.
//!
//! In a run the text stays the same, and so do keys and values that cross-attention makes of it; guidance evaluates the
//! network twice at each time, and several runs visit the same times. A network names such results with [`keep`], which
//! just computes them, unless it is called through a [`Remembering`] that has them. The answers are the same bits.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::memo::{Constant, Remembering, Tagged, keep};
//! use canvas_core::{Backbone, Text};
//! # use std::cell::Cell;
//!
//! /// Adds up the text, slowly.
//! struct Slow(Cell<usize>);
//! impl Backbone<4> for Slow {
//!     type Cond = Text;
//!     fn forward(&self, x: Tensor<4>, _time: Tensor<1>, text: &Text) -> Tensor<4> {
//!         let [batch, ..] = x.dims();
//!         let sum = keep(|| "sum".into(), Constant::Condition, || {
//!             self.0.set(self.0.get() + 1);
//!             text.tokens.clone().sum_dim(1).sum_dim(2)
//!         });
//!         x + sum.reshape([batch, 1, 1, 1])
//!     }
//! }
//!
//! let device = Device::flex();
//! let mask = Tensor::<2, Int>::ones([1, 3], &device).bool();
//! let text = Text { tokens: Tensor::ones([1, 3, 4], &device), mask, pooled: Tensor::ones([1, 2], &device) };
//! let net = Remembering::new(Slow(Cell::new(0)));
//! let cond = Tagged::new(text, 0);
//! for time in [1.0, 0.5] {
//!     let x = net.forward(Tensor::zeros([1, 4, 2, 2], &device), Tensor::from_floats([time], &device), &cond);
//!     assert_eq!(x.max().into_scalar::<f32>(), 12.0);
//! }
//! assert_eq!(net.backbone.0.get(), 1);
//! ```

use crate::{Backbone, Condition, trace};
use burn::prelude::*;
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What a result is the same for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// It follows from the time alone: modulation by it.
    Time,
    /// It follows from the condition alone: keys and values of the text.
    Condition,
}

type Key = (String, Constant, Vec<u64>);

/// Results that are kept, of one network.
#[derive(Default)]
struct Memo {
    kept: RefCell<HashMap<Key, Box<dyn Any>>>,
}

/// What is being computed: the network's memo, its times and conditions.
#[derive(Clone)]
struct Now {
    memo: Rc<Memo>,
    time: Vec<u64>,
    condition: Vec<u64>,
}

thread_local! {
    static NOW: RefCell<Option<Now>> = const { RefCell::new(None) };
}

/// A result that is the same for all evaluations of this time or condition; computed, or taken from what is kept.
///
/// Its name is put behind those of the parts of the network that are running ([`trace::scope`]).
pub fn keep<T: Clone + 'static>(
    name: impl FnOnce() -> String,
    constant: Constant,
    make: impl FnOnce() -> T,
) -> T {
    let Some(now) = NOW.with_borrow(Clone::clone) else { return make() };
    let of = match constant {
        Constant::Time => now.time,
        Constant::Condition => now.condition,
    };
    let key = (trace::path(name()), constant, of);
    let kept = |memo: &Memo| memo.kept.borrow().get(&key).map(|kept| kept.downcast_ref::<T>().cloned());
    match kept(&now.memo) {
        Some(found) => {
            found.unwrap_or_else(|| panic!("two results of different types are kept as {}", key.0))
        }
        None => {
            let made = make();
            now.memo.kept.borrow_mut().insert(key, Box::new(made.clone()));
            made
        }
    }
}

/// A condition with a number for each sample by which it is told from others.
#[derive(Clone, Debug)]
pub struct Tagged<C> {
    /// The condition.
    pub cond: C,
    tags: Vec<u64>,
}

impl<C: Condition> Tagged<C> {
    /// Samples are numbered from `first`: no other condition of the same [`Remembering`] network may use these numbers.
    pub fn new(cond: C, first: u64) -> Self {
        let tags = (first..).take(cond.batch()).collect();
        Self { cond, tags }
    }
}

impl<C: Condition> Condition for Tagged<C> {
    fn batch(&self) -> usize {
        self.cond.batch()
    }
    fn cat(parts: &[Self]) -> Self {
        let conds: Vec<C> = parts.iter().map(|part| part.cond.clone()).collect();
        Self { cond: C::cat(&conds), tags: parts.iter().flat_map(|part| part.tags.iter().copied()).collect() }
    }
    fn select(&self, rows: &[usize]) -> Self {
        Self { cond: self.cond.select(rows), tags: rows.iter().map(|&row| self.tags[row]).collect() }
    }
}

/// A network that [keeps](keep) what does not change. For sampling: gradients would go astray.
pub struct Remembering<B> {
    /// The network.
    pub backbone: B,
    memo: Rc<Memo>,
}

impl<B> Remembering<B> {
    /// Nothing is kept yet.
    pub fn new(backbone: B) -> Self {
        Self { backbone, memo: Rc::default() }
    }

    /// How many results are kept.
    pub fn kept(&self) -> usize {
        self.memo.kept.borrow().len()
    }
}

impl<const D: usize, B: Backbone<D>> Backbone<D> for Remembering<B> {
    type Cond = Tagged<B::Cond>;

    fn forward(&self, x: Tensor<D>, time: Tensor<1>, cond: &Self::Cond) -> Tensor<D> {
        let time_bits = time.clone().into_data().iter::<f64>().map(f64::to_bits).collect();
        let now = Now { memo: self.memo.clone(), time: time_bits, condition: cond.tags.clone() };
        let outer = NOW.replace(Some(now));
        let mut outer = Some(outer);
        // Also when a panic passes by.
        let _close = trace::Undo(|| drop(NOW.replace(outer.take().flatten())));
        trace::named(|| self.backbone.forward(x, time, &cond.cond))
    }
}
