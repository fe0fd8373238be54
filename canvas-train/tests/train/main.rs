//! Optimisation steps, states, checkpoints, logs, order and objectives through their public interface.

mod adapters;
mod checkpoint;
mod clip;
mod distance;
mod distill;
mod distill_chord;
mod distill_consistency;
mod distill_matching;
mod distill_mean_flow;
mod distill_parity;
mod dreambooth;
mod dropout;
mod ema;
mod inpainting;
mod levels;
mod log;
mod masking;
mod masks;
mod noised;
mod objective;
mod optimizer;
mod order;
mod parity;
mod post_hoc;
mod precision;
mod rate;
mod references;
mod replicas;
mod representation;
mod saved;
mod seeing;
mod self_conditioning;
mod state;
mod weighting;
mod word_vectors;

use burn::module::{Module, Param, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::activation::silu;
use canvas_core::{Backbone, Unconditional, params};
use canvas_testkit::panic_text;

/// Asserts that two numbers differ by at most a tolerance, and says by how much they do.
#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    let off = (found - expected).abs();
    assert!(off <= tolerance, "found {found}, expected {expected} +- {tolerance} (off by {off:e})");
}

/// `scale sin(0.7 i + seed)`.
fn wave(count: usize, seed: f64, scale: f64) -> Vec<f32> {
    (0..count).map(|i| (scale * (0.7 * i as f64 + seed).sin()) as f32).collect()
}

fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, dims), device)
}

/// A small network of points in the plane, with Burn's lazily drawn parameters.
#[derive(Module, Debug)]
struct Net {
    up: Linear,
    time: Linear,
    down: Linear,
}

impl Net {
    fn new(hidden: usize, device: &Device) -> Self {
        Self {
            up: LinearConfig::new(2, hidden).init(device),
            time: LinearConfig::new(1, hidden).with_bias(false).init(device),
            down: LinearConfig::new(hidden, 2).init(device),
        }
    }
}

impl Backbone<2> for Net {
    type Cond = Unconditional;

    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        let h = self.up.forward(x) + self.time.forward(time.unsqueeze_dim(1)); // [B, W]
        self.down.forward(silu(h)) // [B, 2]
    }
}

/// One parameter of each rank.
#[derive(Module, Debug)]
struct Ranks {
    one: Param<Tensor<1>>,
    two: Param<Tensor<2>>,
    three: Param<Tensor<3>>,
    four: Param<Tensor<4>>,
}

const ONE: [usize; 1] = [5];
const TWO: [usize; 2] = [3, 2];
const THREE: [usize; 3] = [2, 1, 3];
const FOUR: [usize; 4] = [2, 3, 1, 2];

impl Ranks {
    fn new(device: &Device) -> Self {
        fn param<const D: usize>(dims: [usize; D], device: &Device) -> Param<Tensor<D>> {
            Param::from_tensor(tensor(wave(dims.iter().product(), D as f64, 1.0), dims, device))
        }
        params::realise(Self {
            one: param(ONE, device),
            two: param(TWO, device),
            three: param(THREE, device),
            four: param(FOUR, device),
        })
    }

    /// Gradients of some step, different in every element.
    fn grads(&self, step: usize, scale: f64) -> GradientsParams {
        fn add<const D: usize>(
            grads: &mut GradientsParams,
            id: ParamId,
            dims: [usize; D],
            seed: f64,
            s: f64,
        ) {
            grads.register(id, tensor(wave(dims.iter().product(), seed, s), dims, &Device::flex()));
        }
        let (mut grads, seed) = (GradientsParams::new(), 0.3 * step as f64);
        add(&mut grads, self.one.id, ONE, seed, scale);
        add(&mut grads, self.two.id, TWO, seed + 1.0, scale);
        add(&mut grads, self.three.id, THREE, seed + 2.0, scale);
        add(&mut grads, self.four.id, FOUR, seed + 3.0, scale);
        grads
    }
}

/// All parameters' names and bits.
fn bits<M: Module>(module: &M) -> Vec<(String, Vec<u32>)> {
    let bits = |data: &TensorData| data.iter::<f32>().map(f32::to_bits).collect();
    params::named(module).into_iter().map(|param| (param.name, bits(&param.data))).collect()
}
