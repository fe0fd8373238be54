//! What the parity tests share.

pub use canvas_testkit::{gradients, pattern};

use burn::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Holds every tensor of a fixture against the one found.
pub fn compare(fixture: &str, found: &BTreeMap<String, TensorData>, tolerance: f64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{fixture}.safetensors"));
    canvas_testkit::compare(&path, found, [tolerance; 2]);
}
