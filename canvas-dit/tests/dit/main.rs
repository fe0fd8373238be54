//! The DiT family: parity with PyTorch (fixtures by `tools/fixtures_dit.py`), sizes, invariances, errors.

mod inputs;
mod parity;
mod routed;
mod sizes;
mod traced;

use burn::prelude::*;
use canvas_core::params;
use canvas_dit::{Dit, DitConfig, TextDit, TextDitConfig};
use canvas_testkit::two_prompts as text;

/// The configurations of the fixtures.
fn dit_config(size: [usize; 2]) -> DitConfig {
    DitConfig::new(size, 16, 2, 2).with_channels(3).with_classes(7)
}

fn text_config() -> TextDitConfig {
    TextDitConfig::new([4, 10], 3, 16, 2, 2, 12, 7)
}

fn dit(size: [usize; 2], device: &Device) -> Dit {
    params::fill_by_formula(dit_config(size).init(device))
}

fn text_dit(device: &Device) -> TextDit {
    params::fill_by_formula(text_config().init(device))
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.75], device)
}
