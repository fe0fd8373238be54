//! Whether a run fits into memory, said before it starts.

use super::args::Args;
use super::model::Model;
use anyhow::{Result, bail};
use burn::prelude::*;
use canvas_unet::UnetConfig;

const GIB: f64 = (1u64 << 30) as f64;

/// Memory that is free, where the system says it: on Linux.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// An error if so much is not free.
///
/// # Errors
/// Says how much `what` takes and how much is free.
pub fn check(what: &str, advice: &str, bytes: u64, args: &Args) -> Result<()> {
    // The memory of other devices is not known.
    let Some(free) = available().filter(|_| args.device.starts_with("flex") && !args.ignore_memory) else {
        return Ok(());
    };
    if bytes <= free {
        return Ok(());
    }
    let (needed, free) = (bytes as f64 / GIB, free as f64 / GIB);
    bail!(
        "{what} takes about {needed:.1} GiB, of which {free:.1} GiB are free: {advice}, or --ignore-memory to try it"
    )
}

/// Before a component's weights are read.
///
/// # Errors
/// If they do not fit.
pub fn component(name: &str, bytes: u64, args: &Args) -> Result<()> {
    check(name, "take a smaller model", bytes, args)
}

/// Before the UNet's weights are read.
///
/// # Errors
/// If they do not fit.
pub fn weights(config: &UnetConfig, args: &Args, device: &Device) -> Result<()> {
    let bytes = config.estimate_memory([1, 1, 1], 4, device).weights;
    check("the UNet", "take a smaller model", bytes, args)
}

/// Before a run: what the largest step and the largest decoding of one picture take beside the weights.
///
/// # Errors
/// If the estimate is more than there is.
pub fn run(model: &Model, args: &Args, [height, width]: [usize; 2], device: &Device) -> Result<()> {
    let [h, w] = [height, width].map(|side| side / model.vae.factor);
    let batch = args.prompt.len();
    let step = model.config.estimate_memory([batch, h, w], 4, device).activations;
    let decode = model
        .vae
        .config
        .as_ref()
        .filter(|_| args.picture().is_some())
        .map_or(0, |config| config.estimate_decode_memory([1, h, w], 4, device).activations);
    let what = format!("drawing {batch} of {height}x{width} pixels");
    check(&what, "take a smaller --height and --width, or fewer prompts", step.max(decode), args)
}
