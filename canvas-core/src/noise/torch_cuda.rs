//! The random numbers of PyTorch's CUDA generator.

use super::{Noise, torch_cpu::like};
use burn::prelude::*;
use burn::tensor::DType;
use std::{f32, f64};

/// Threads a block of PyTorch's random kernels has.
const BLOCK: usize = 256;

/// The noise of `torch.randn(..., device="cuda")` after `torch.manual_seed(seed)`, up to rounding.
///
/// Philox4x32-10 turns the counter (call, thread) into four 32-bit words, keyed by the seed. Box-Muller turns words
/// `x`, `y` into `sqrt(-2 ln u) * (sin, cos)(2 pi v)`, `u = (x + 1/2) / 2^32`, `v = (y + 1/2) / 2^32`. Element `i` of a
/// tensor is the first number of thread `i`, so that the start of a larger tensor is the smaller one. An `f64` tensor
/// has other numbers, of two words each; other dtypes get rounded `f32` ones.
///
/// A GPU runs at most [`threads`](Self::threads) of them: in a larger tensor, the second number of each thread follows
/// after the first of the last, then the third. **What PyTorch draws therefore depends on the GPU** beyond 40,960
/// (T4) to 270,336 (H100) elements, and what an H100 draws is the default here.
///
/// Not checked on a GPU: published numbers agree to the four to eight digits they have. Last bits will differ, since a
/// GPU's `__sincosf` is an approximation: its absolute error, about 4e-7 and more, is multiplied by a radius of up to
/// 6.8. Nor are tensors beyond 2^31 elements drawn in parts, as PyTorch would.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Noise, TorchCuda};
/// let x: Tensor<1> = TorchCuda::new(42).normal_like(&Tensor::zeros([4], &Device::flex()));
/// // >>> torch.manual_seed(42); torch.randn(4, device="cuda")
/// // tensor([ 0.1940,  2.1614, -0.1721,  0.8491], device='cuda:0')
/// for (ours, theirs) in x.into_data().iter::<f32>().zip([0.1940, 2.1614, -0.1721, 0.8491]) {
///     assert!((ours - theirs).abs() < 1e-4);
/// }
/// ```
///
/// # Reference
/// Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011, <https://doi.org/10.1145/2063384.2063405>;
/// PyTorch's `aten/src/ATen/native/cuda/DistributionTemplates.h`.
#[derive(Clone, Debug)]
pub struct TorchCuda {
    seed: u64,
    /// Blocks of four words that each thread has used.
    used: u64,
    threads: usize,
}

impl TorchCuda {
    /// The generator after `manual_seed(seed)`, on an H100.
    pub fn new(seed: u64) -> Self {
        Self { seed, used: 0, threads: 132 * 2048 }
    }

    /// The most threads the GPU runs at once: multiprocessors times threads of each, a multiple of 256.
    ///
    /// | GPU | threads | |
    /// |---|---|---|
    /// | T4 | 40,960 | 40 x 1024 |
    /// | RTX 3090 | 125,952 | 82 x 1536 |
    /// | V100 | 163,840 | 80 x 2048 |
    /// | RTX 4090 | 196,608 | 128 x 1536 |
    /// | A100 | 221,184 | 108 x 2048 |
    /// | H100 (SXM), H200 | 270,336 | 132 x 2048 |
    ///
    /// # Panics
    /// If it is 0 or no multiple of 256.
    pub fn threads(mut self, threads: usize) -> Self {
        assert!(threads > 0 && threads.is_multiple_of(BLOCK), "{threads} threads are no blocks of {BLOCK}");
        self.threads = threads;
        self
    }

    /// `count` numbers, of which `normal` makes `N` of a block of four words.
    fn draw<T: Copy, const N: usize>(&mut self, count: usize, normal: fn([u32; 4]) -> [T; N]) -> Vec<T> {
        let threads = self.threads.min(count.next_multiple_of(BLOCK));
        let value = |i: usize| {
            let (round, place) = (i / (threads * N), i / threads % N);
            normal(philox(self.seed, self.used + round as u64, (i % threads) as u64))[place]
        };
        let values = (0..count).map(value).collect();
        self.used += count.div_ceil(threads.max(1) * N) as u64;
        values
    }
}

/// Four random words: Philox4x32-10 of the 128-bit counter `(block, thread)` with `seed` as the key.
fn philox(seed: u64, block: u64, thread: u64) -> [u32; 4] {
    let halves = |word: u64| [word as u32, (word >> 32) as u32];
    let ([mut k0, mut k1], [mut a, mut b], [mut c, mut d]) = (halves(seed), halves(block), halves(thread));
    for _ in 0..10 {
        let [low_a, high_a] = halves(u64::from(a) * 0xd251_1f53);
        let [low_c, high_c] = halves(u64::from(c) * 0xcd9e_8d57);
        [a, b, c, d] = [high_c ^ b ^ k0, low_c, high_a ^ d ^ k1, low_a];
        (k0, k1) = (k0.wrapping_add(0x9e37_79b9), k1.wrapping_add(0xbb67_ae85));
    }
    [a, b, c, d]
}

/// Four numbers of four words.
fn normal32([a, b, c, d]: [u32; 4]) -> [f32; 4] {
    let pair = |x: u32, y: u32| {
        let unit = 1.0 / (1u64 << 32) as f32;
        let u = (x as f32).mul_add(unit, unit / 2.0);
        let angle = (y as f32).mul_add(unit * f32::consts::TAU, unit * f32::consts::PI);
        let radius = (-2.0 * u.ln()).sqrt();
        [radius * angle.sin() + 0.0, radius * angle.cos() + 0.0]
    };
    let ([first, second], [third, fourth]) = (pair(a, b), pair(c, d));
    [first, second, third, fourth]
}

/// Two numbers of four words, 53 bits each.
fn normal64([a, b, c, d]: [u32; 4]) -> [f64; 2] {
    let middle = |low: u32, high: u32| (u64::from(low) ^ u64::from(high) << 21) as f64 + 0.5;
    let unit = 1.0 / (1u64 << 53) as f64;
    let radius = (-2.0 * (middle(a, b) * unit).ln()).sqrt();
    let angle = f64::consts::TAU * (middle(c, d) * unit);
    [radius * angle.sin() + 0.0, radius * angle.cos() + 0.0]
}

impl<const D: usize> Noise<D> for TorchCuda {
    fn normal_like(&mut self, x: &Tensor<D>) -> Tensor<D> {
        let count = x.shape().num_elements();
        match x.dtype() {
            DType::F64 => like(x, self.draw(count, normal64)),
            _ => like(x, self.draw(count, normal32)),
        }
    }
}
