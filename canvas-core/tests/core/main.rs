//! Tests of the shared vocabulary through its public interface, one module for each of its own.

mod autoencoder;
mod check;
mod condition;
mod damaged;
mod denoiser;
mod layers;
mod level;
mod lora;
mod nn;
mod noise;
mod ops;
mod params;
mod picture;
mod published;
mod recompute;
mod sampler;
mod single_file;
mod text;
mod tiny;
mod torch_file;
mod torch_noise;
mod trace;
mod weights;

use burn::prelude::*;
use std::fs;
use std::path::Path;

/// A tensor from its flat values.
fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

/// Unremarkable values between -1 and 1, no two alike.
fn waves<const D: usize>(shape: [usize; D], phase: f64) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| (1.3 * i as f64 + phase).sin() as f32).collect();
    tensor(&values, shape)
}

/// A tensor's values, flat.
fn host<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

/// Both in `f64`, for sums by hand.
fn host64<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    host(tensor).into_iter().map(f64::from).collect()
}

#[track_caller]
fn assert_near<const D: usize>(found: &Tensor<D>, expected: &[f64], tolerance: f64) {
    let found = host64(found);
    assert_eq!(found.len(), expected.len(), "number of values");
    for (place, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "value {place}: {a}, expected {b}");
    }
}

/// Damages each byte of a safetensors file's header in several ways, one at a time, and calls `check` with each such file.
fn with_damaged_headers(path: &Path, check: impl Fn()) {
    let whole = fs::read(path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for place in 0..header {
        for byte in [0, b'"', b'9', b'}', 0xff] {
            let mut damaged = whole.clone();
            damaged[place] = byte;
            fs::write(path, &damaged).unwrap();
            check();
        }
    }
}
