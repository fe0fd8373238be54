//! How much a network computes: multiply-accumulate operations of its matrix products and convolutions.
//!
//! Counted while it runs, by the layers of [`nn`](crate::nn): linear layers, attention (both of its products) and
//! convolutions. Norms, activations, sums and biases are not, as in the papers, which call these figures FLOPs or GMACs.
//!
//! # Example
//! ```
//! use burn::{nn::LinearConfig, prelude::*};
//! use canvas_core::{macs, nn};
//!
//! let device = Device::flex();
//! let layer = LinearConfig::new(3, 5).init(&device);
//! let (y, macs) = macs::count(|| nn::dense(&layer, Tensor::zeros([2, 7, 3], &device)));
//! assert_eq!((y.dims(), macs), ([2, 7, 5], 2 * 7 * 3 * 5));
//! ```

use std::cell::Cell;

thread_local! {
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

/// Runs `forward` on this thread, and says how many multiply-accumulate operations it was.
pub fn count<T>(forward: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNTED.get();
    let answer = forward();
    (answer, COUNTED.get() - before)
}

/// Counts operations of a layer that is not one of [`nn`](crate::nn).
pub fn add(operations: usize) {
    COUNTED.set(COUNTED.get() + operations as u64);
}
