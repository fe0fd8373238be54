//! Linear and embedding layers with the initializations that papers name.

use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear};
use burn::prelude::*;

fn linear_with(weight: &Initializer, from: usize, to: usize, device: &Device) -> Linear {
    Linear {
        weight: weight.init_with([from, to], Some(from), Some(to), device),
        bias: Some(Initializer::Zeros.init([to], device)),
    }
}

/// Xavier-uniform weight, zero bias: DiT's default.
pub fn xavier_linear(from: usize, to: usize, device: &Device) -> Linear {
    linear_with(&Initializer::XavierUniform { gain: 1.0 }, from, to, device)
}

/// Xavier-uniform weight, and a zero bias where there is one.
pub fn linear(from: usize, to: usize, bias: bool, device: &Device) -> Linear {
    let layer = xavier_linear(from, to, device);
    if bias { layer } else { Linear { bias: None, ..layer } }
}

/// Normal weight of this standard deviation, zero bias.
pub fn normal_linear(std: f64, from: usize, to: usize, device: &Device) -> Linear {
    linear_with(&Initializer::Normal { mean: 0.0, std }, from, to, device)
}

/// Zero weight and bias: a layer that starts by doing nothing.
pub fn zero_linear(from: usize, to: usize, device: &Device) -> Linear {
    linear_with(&Initializer::Zeros, from, to, device)
}

/// Embedding rows drawn from `N(0, std^2)`.
pub fn normal_embedding(std: f64, rows: usize, width: usize, device: &Device) -> Embedding {
    EmbeddingConfig::new(rows, width).with_initializer(Initializer::Normal { mean: 0.0, std }).init(device)
}
