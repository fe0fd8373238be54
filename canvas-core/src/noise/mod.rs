//! Randomness that is a function of what it is for, not of how often a generator was called.
//!
//! The exception is PyTorch's: [`TorchCpu`] and [`TorchCuda`] go on from call to call, as its generators do.

mod cephes;
mod torch_cpu;
mod torch_cuda;

pub use torch_cpu::TorchCpu;
pub use torch_cuda::TorchCuda;

use burn::prelude::*;
use burn::tensor::Distribution;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

/// Where a sampler's standard normal noise comes from.
pub trait Noise<const D: usize> {
    /// Fresh noise of the shape and on the device of `x`.
    fn normal_like(&mut self, x: &Tensor<D>) -> Tensor<D>;
}

/// Noise from the device's own generator: fast, but different on each backend and for each batch.
#[derive(Clone, Copy, Debug)]
pub struct DeviceNoise;

impl<const D: usize> Noise<D> for DeviceNoise {
    fn normal_like(&mut self, x: &Tensor<D>) -> Tensor<D> {
        x.random_like(Distribution::Normal(0.0, 1.0))
    }
}

/// A generator for one purpose, one item and one draw: the same three always give the same numbers.
///
/// ChaCha8 is counter-based: `seed` is the key, `item` the stream, and draws lie 2^36 words apart.
pub fn generator(seed: u64, item: u64, draw: u32) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(item);
    generator.set_word_pos(u128::from(draw) << 36);
    generator
}

/// Mixes a seed with the name of a purpose, so that two uses of one seed do not share their noise (FNV-1a).
pub fn seed_for(seed: u64, purpose: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(purpose.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Counter-based noise, one stream an image: keyed by (seed, image, draw).
///
/// Image 17 gets the same noise alone, in any batch and on every backend.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Noise, Seeded};
/// let device = Device::flex();
/// let both: Tensor<2> = Seeded::new(7, [3, 4]).normal_like(&Tensor::zeros([2, 5], &device));
/// let alone: Tensor<2> = Seeded::new(7, [4]).normal_like(&Tensor::zeros([1, 5], &device));
/// assert_eq!(both.slice([1..2, 0..5]).into_data(), alone.into_data());
/// ```
#[derive(Clone, Debug)]
pub struct Seeded {
    seed: u64,
    images: Vec<u64>,
    draw: u32,
}

impl Seeded {
    /// Noise for these images, the rows of the batch in order.
    pub fn new(seed: u64, images: impl Into<Vec<u64>>) -> Self {
        Self { seed, images: images.into(), draw: 0 }
    }
}

impl<const D: usize> Noise<D> for Seeded {
    /// # Panics
    /// If `x` has not one row per image.
    fn normal_like(&mut self, x: &Tensor<D>) -> Tensor<D> {
        let (dims, rows) = (x.dims(), self.images.len());
        assert_eq!(dims[0], rows, "a batch of {} for noise of {rows} images", dims[0]);
        let count = dims.iter().skip(1).product::<usize>();
        let mut values: Vec<f32> = Vec::with_capacity(rows * count);
        for &image in &self.images {
            let mut generator = generator(self.seed, image, self.draw);
            values.extend((0..count).map(|_| -> f32 { StandardNormal.sample(&mut generator) }));
        }
        self.draw += 1;
        Tensor::from_data(TensorData::new(values, dims), (&x.device(), x.dtype()))
    }
}
