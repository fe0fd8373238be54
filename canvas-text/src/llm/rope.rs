//! Rotary positions, each head cut into two halves.

use burn::prelude::*;
use canvas_core::nn::{Pairs, Rope as Rotation};
use serde::{Deserialize, Serialize};

/// Rotary position embedding: pair `i` of a head of width `D`, its elements `i` and `i + D/2`, is turned by
/// `t theta^(-2i/D)` at position `t`.
///
/// # Reference
/// Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.2.2,
/// <https://arxiv.org/abs/2104.09864>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Longer waves for a longer context.
    pub scaling: Option<Llama3Rope>,
}

/// How Llama 3.1 stretches its waves: those longer than `original / low` by `factor`, those shorter than
/// `original / high` not at all, in between by a mean of both.
///
/// # Reference
/// Grattafiori et al., "The Llama 3 Herd of Models", 2024, section 3.4.2, <https://arxiv.org/abs/2407.21783>;
/// the interpolation is of the published code.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Llama3Rope {
    /// By how much the longest waves are stretched.
    pub factor: f64,
    /// Waves of the original context from which on they are.
    pub low: f64,
    /// Waves of the original context up to which none are.
    pub high: f64,
    /// Tokens of the context before it was extended.
    pub original: f64,
}

impl Rope {
    /// With waves as they are.
    pub fn new(theta: f64) -> Self {
        Self { theta, scaling: None }
    }

    /// Radians a position, of each pair of a head; rounded to f32, as the models were trained.
    fn frequencies(&self, width: usize) -> Vec<f32> {
        let plain = (0..width / 2).map(|i| {
            let exponent = (2 * i) as f32 / width as f32;
            1.0 / (self.theta.powf(f64::from(exponent)) as f32)
        });
        plain.map(|plain| self.scaling.map_or(plain, |scaling| scaling.stretch(plain))).collect()
    }

    /// Rotations for positions `0..length` of heads of this width.
    pub(super) fn rotation(&self, length: usize, width: usize, device: &Device) -> Rotation {
        let frequencies = self.frequencies(width);
        let angle = |t: usize, frequency: &f32| f64::from(t as f32 * frequency);
        let angles = (0..length).flat_map(|t| frequencies.iter().map(move |frequency| angle(t, frequency)));
        Rotation::from_angles(&angles.collect::<Vec<f64>>(), length, Pairs::Halves, device)
    }
}

impl Llama3Rope {
    fn stretch(&self, frequency: f32) -> f32 {
        let plain = f64::from(frequency);
        let waves = self.original * plain / std::f64::consts::TAU; // in the original context
        let keep = ((waves - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        ((1.0 - keep) * plain / self.factor + keep * plain) as f32
    }
}
