//! Choosing a device by name, with errors that say what to build and what was found.

use anyhow::{Result, bail};
use burn::prelude::*;

/// Opens `flex` (the CPU), `wgpu`, `wgpu:1`, `cuda` or `cuda:1`, without gradient tracking. The CPU's memory is
/// [kept](canvas_core::memory::keep_pages).
///
/// # Errors
/// For an unknown name, a backend that is not compiled in (says which feature to build), and a device that is
/// not there (says what was found).
pub fn open(name: &str) -> Result<Device> {
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => bail!("--device {name}: {index:?} is not a device number"),
        },
    };
    match kind {
        "flex" => flex(index),
        "wgpu" => wgpu(index),
        "cuda" => cuda(index),
        _ => bail!("--device {name}: unknown device; there are flex (the CPU), wgpu[:N] and cuda[:N]"),
    }
}

/// Whether a device is the CPU, which does what it is told at once.
pub fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().inner() == Device::flex();
    #[cfg(not(feature = "flex"))]
    return [device].is_empty(); // there is none in this program
}

#[cfg(feature = "flex")]
fn flex(index: usize) -> Result<Device> {
    if index > 0 {
        bail!("--device flex:{index}: there is one CPU device, flex");
    }
    canvas_core::memory::keep_pages();
    Ok(Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex(_index: usize) -> Result<Device> {
    not_built("flex")
}

#[cfg(feature = "wgpu")]
fn wgpu(index: usize) -> Result<Device> {
    nth("wgpu", burn::tensor::DeviceType::Wgpu, index)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_index: usize) -> Result<Device> {
    not_built("wgpu")
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device> {
    nth("cuda", burn::tensor::DeviceType::Cuda, index)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Device> {
    not_built("cuda")
}

/// The device of this number among those found. Found, not assumed: Burn hands out a CUDA device on a machine
/// without one, and fails at the first operation.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn nth(kind: &str, filter: burn::tensor::DeviceType, index: usize) -> Result<Device> {
    let found: Vec<Device> = Device::enumerate(filter).into_iter().collect();
    match found.get(index) {
        Some(device) => Ok(device.clone()),
        None if found.is_empty() => {
            bail!("--device {kind}: no {kind} device was found; --device flex runs on the CPU")
        }
        None => bail!("--device {kind}:{index}: found {} {kind} devices: {found:?}", found.len()),
    }
}

#[cfg(not(all(feature = "flex", feature = "wgpu", feature = "cuda")))]
fn not_built(kind: &str) -> Result<Device> {
    let built = [
        ("flex", cfg!(feature = "flex")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("cuda", cfg!(feature = "cuda")),
    ];
    let built: Vec<&str> = built.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    bail!(
        "--device {kind}: this program was built without {kind} (it has: {}); build it with \
         `cargo run --release -p canvas-examples --features {kind} --bin emoji`",
        built.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::open;

    #[test]
    fn a_wrong_name_says_what_there_is() {
        let text = open("gpu").unwrap_err().to_string();
        assert!(text.contains("gpu") && text.contains("flex") && text.contains("cuda"), "{text}");
        assert!(open("cuda:x").unwrap_err().to_string().contains("\"x\""));
        assert!(open("flex:1").unwrap_err().to_string().contains("one CPU device"));
        open("flex").unwrap();
    }

    #[cfg(not(feature = "wgpu"))]
    #[test]
    fn a_missing_backend_says_what_to_build() {
        let text = open("wgpu").unwrap_err().to_string();
        assert!(text.contains("--features wgpu") && text.contains("it has: flex"), "{text}");
    }
}
