//! The random numbers of PyTorch's CPU generator.

use super::{Noise, cephes};
use burn::prelude::*;
use burn::tensor::{DType, Element};
use rand_mt::Mt;
use std::{array, f32, f64};

/// The noise of `torch.randn(..., generator=torch.Generator("cpu").manual_seed(seed))`, bit for bit.
///
/// A Mersenne Twister makes uniform numbers `u`, `v` in `[0, 1)`, Box-Muller makes normal ones of them:
/// `sqrt(-2 ln(1 - u)) * (cos, sin)(2 pi v)`. Tensors of 16 elements and more are filled in blocks of 16, smaller ones
/// one by one in `f64`, where an odd number out waits for the next small tensor. As PyTorch does, an `f64` tensor gets
/// other numbers than an `f32` one, and the dtype of `x` decides. Half types get rounded `f32` numbers; their last
/// block differs when the count is no multiple of 16.
///
/// `f32` noise and half noise is the same on every machine, and equals what torch 2.15 gives on x86-64 Linux with AVX2
/// or AVX-512 (0 of 50 million numbers differ). [`scalar`](Self::scalar) is for machines without. `f64` noise and
/// scalar noise goes through the system's `ln`, `sin` and `cos`, as PyTorch's does: equal bits need an equal libm.
///
/// The twister takes the low 32 bits of the seed: 5 and `2^32 + 5` are the same, and `-1` in Python is `u64::MAX`.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Noise, TorchCpu};
/// let x: Tensor<2> = TorchCpu::new(42).normal_like(&Tensor::zeros([2, 8], &Device::flex()));
/// // >>> torch.manual_seed(42); torch.randn(2, 8)[0, :4]
/// // tensor([ 1.9269,  1.4873,  0.9007, -2.1055])
/// assert_eq!(x.into_data().as_slice::<f32>().unwrap()[..4], [1.9269153, 1.4872841, 0.9007172, -2.105521]);
/// ```
///
/// # Reference
/// Matsumoto & Nishimura, "Mersenne Twister", 1998, <https://doi.org/10.1145/272991.272995>; Box & Muller, "A Note on
/// the Generation of Random Normal Deviates", 1958, <https://doi.org/10.1214/aoms/1177706645>; PyTorch's
/// `aten/src/ATen/native/cpu/DistributionTemplates.h`.
#[derive(Clone, Debug)]
pub struct TorchCpu {
    engine: Mt,
    /// The second number of a pair, of which a small tensor needed one.
    spare: Option<f64>,
    scalar: bool,
}

impl TorchCpu {
    /// The generator after `manual_seed(seed)`.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt::new(seed as u32), spare: None, scalar: false }
    }

    /// The `f32` and half noise of a PyTorch without AVX2, such as `ATEN_CPU_CAPABILITY=default` or an ARM machine.
    ///
    /// Of a million numbers 38 % have other bits than with AVX2, but none is off by more than 3e-6.
    pub fn scalar(mut self) -> Self {
        self.scalar = true;
        self
    }

    /// 24 random bits, in `[0, 1)`.
    fn uniform32(&mut self) -> f32 {
        (self.engine.next_u32() & 0xff_ffff) as f32 / (1u32 << 24) as f32
    }

    /// 53 random bits, in `[0, 1)`, of two words, the high one first.
    fn uniform64(&mut self) -> f64 {
        let (high, low) = (self.engine.next_u32(), self.engine.next_u32());
        ((u64::from(high) << 32 | u64::from(low)) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    /// `count >= 16` numbers: `first` uniform ones become normal block by block, then new ones replace the last 16 if
    /// a block was left incomplete.
    fn blocks<T: Copy>(
        &mut self,
        count: usize,
        first: usize,
        uniform: fn(&mut Self) -> T,
        normal: fn(T, T) -> [T; 2],
    ) -> Vec<T> {
        let fill = |block: &mut [T; 16]| {
            for i in 0..8 {
                [block[i], block[i + 8]] = normal(block[i], block[i + 8]);
            }
        };
        let mut values: Vec<T> = (0..first).map(|_| uniform(self)).collect();
        values.as_chunks_mut().0.iter_mut().for_each(fill);
        if !count.is_multiple_of(16) {
            let mut last = array::from_fn(|_| uniform(self));
            fill(&mut last);
            values.truncate(count - 16);
            values.extend(last);
        }
        values
    }

    /// The next number of a small tensor.
    fn single(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (turn, u) = (self.uniform64(), self.uniform64());
        let (radius, angle) = ((-2.0 * (-u).ln_1p()).sqrt(), f64::consts::TAU * turn);
        self.spare = Some(radius * angle.sin() + 0.0);
        radius * angle.cos() + 0.0
    }
}

// In all of them `+ 0.0` is the mean, which makes `-0.0` into `0.0`.

fn normal32(u: f32, v: f32) -> [f32; 2] {
    let radius = (-2.0 * cephes::ln(1.0 - u)).sqrt();
    let (sin, cos) = cephes::sin_cos(f32::consts::TAU * v);
    [radius * cos + 0.0, radius * sin + 0.0]
}

fn scalar32(u: f32, v: f32) -> [f32; 2] {
    let radius = (-2.0 * (1.0 - u).ln()).sqrt();
    let angle = (f64::consts::TAU * f64::from(v)) as f32;
    [radius * angle.cos() + 0.0, radius * angle.sin() + 0.0]
}

fn normal64(u: f64, v: f64) -> [f64; 2] {
    let radius = (-2.0 * (1.0 - u).ln()).sqrt();
    let angle = f64::consts::TAU * v;
    [radius * angle.cos() + 0.0, radius * angle.sin() + 0.0]
}

impl<const D: usize> Noise<D> for TorchCpu {
    fn normal_like(&mut self, x: &Tensor<D>) -> Tensor<D> {
        let (count, dtype) = (x.shape().num_elements(), x.dtype());
        if count < 16 {
            return like(x, (0..count).map(|_| self.single()).collect());
        }
        if dtype == DType::F64 {
            return like(x, self.blocks(count, count, Self::uniform64, normal64));
        }
        let half = matches!(dtype, DType::F16 | DType::BF16);
        let first = if half { count - count % 16 } else { count };
        like(x, self.blocks(count, first, Self::uniform32, if self.scalar { scalar32 } else { normal32 }))
    }
}

/// A tensor of these values with the shape, dtype and device of `x`.
pub(super) fn like<const D: usize, E: Element>(x: &Tensor<D>, values: Vec<E>) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, x.dims()), (&x.device(), x.dtype()))
}
