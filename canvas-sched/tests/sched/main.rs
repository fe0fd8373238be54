//! Schedules, predictions, samplers and guidance against closed forms and published numbers.

mod bumps;
mod compat;
mod diffusers;
mod diffusers_files;
mod golden;
mod golden_ode;
mod grids;
mod guidance;
mod guiders;
mod inpaint;
mod inversions;
mod k_diffusion;
mod names;
mod ode;
mod oracle;
mod orders;
mod papers;
mod predictions;
mod properties;
mod published;
mod reach;
mod references;
mod replay;
mod runs;
mod schedules;
mod sde;
mod sde_runs;
mod sit;
mod stochastic;

use burn::prelude::*;
use burn::tensor::DType;

/// A tensor's values, flat.
fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Numbers in double precision.
fn f64s(values: &[f64]) -> Tensor<1> {
    Tensor::from_data(values, (&Device::flex(), DType::F64))
}

/// Asserts that two numbers differ by at most a tolerance, and says by how much they do.
#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    let off = (found - expected).abs();
    assert!(off <= tolerance, "found {found}, expected {expected} +- {tolerance} (off by {off:e})");
}
