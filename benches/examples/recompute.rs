//! What a training step costs in memory and time with blocks run again, and with Burn's own gradient checkpointing.
//!
//! ```text
//! cargo run --profile bench -p canvas-benches --example recompute -- MODEL BATCH MODE
//! ```
//!
//! `MODEL` is `dit-s` (DiT-S/2, latents of 32x32), `dit-b`, or `unet` (Stable Diffusion 1.5's UNet at 0.3 of its
//! width, latents of 32x32). `MODE` is `whole`, `balanced` (Burn's `Device::gradient_checkpointing`), a number of blocks
//! that are run again at a time, or `balanced-` and that number. The step is a whole one: forward, backward, clipping, AdamW,
//! moving average. Each run says what [`TrainState::estimate_memory`] expects, takes three steps, and prints their times and
//! the high-water mark of the process (`VmHWM` of `/proc/self/status`, so Linux only).

use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Backbone, Class, Text};
use canvas_dit::DitConfig;
use canvas_train::{AdamW, Ema, PeakAlloc, StepOptions, TrainState};
use canvas_unet::UnetConfig;
use std::convert::Infallible;
use std::error::Error;
use std::time::Instant;

/// Counts, for the estimate.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "recompute (dit-s | dit-b | unet) BATCH (whole | balanced | [balanced-]BLOCKS)";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch, mode] = &args[..] else { return Err(USAGE.into()) };
    let number = batch.parse().ok().filter(|&batch| batch > 0);
    let batch = number.ok_or_else(|| format!("{batch:?} is no number of images: {USAGE}"))?;
    let (device, blocks) = mode_of(mode)?;
    match model.as_str() {
        "dit-s" => dit(&DitConfig::small(32), batch, &device, blocks),
        "dit-b" => dit(&DitConfig::base(32), batch, &device, blocks),
        "unet" => unet(batch, &device, blocks),
        _ => Err(USAGE.into()),
    }
}

/// The device, and how many blocks are run again at a time.
fn mode_of(mode: &str) -> Result<(Device, Option<usize>)> {
    Device::flex().seed(0); // the same losses in every mode
    let device = Device::flex().autodiff();
    Ok(match (mode, mode.strip_prefix("balanced-")) {
        ("whole", _) => (device, None),
        ("balanced", _) => (device.gradient_checkpointing(), None),
        (_, Some(blocks)) => (device.gradient_checkpointing(), Some(blocks_of(blocks)?)),
        (blocks, None) => (device, Some(blocks_of(blocks)?)),
    })
}

fn blocks_of(word: &str) -> Result<usize> {
    let blocks = word.parse().ok().filter(|&blocks| blocks > 0);
    blocks.ok_or_else(|| format!("{word:?} is no mode, and no number of blocks: {USAGE}").into())
}

fn dit(config: &DitConfig, batch: usize, device: &Device, blocks: Option<usize>) -> Result<()> {
    let x = random([batch, 4, 32, 32], device);
    measured(config.init(device), batch, blocks, |dit, images| {
        let class = Class::new(&vec![1; images], device);
        error(dit.forward(x.clone().narrow(0, 0, images), half(images, device), &class))
    })
}

fn unet(batch: usize, device: &Device, blocks: Option<usize>) -> Result<()> {
    let config = UnetConfig::new(4, 768, vec![96, 192, 384, 384], vec![1, 1, 1, 0], vec![8; 4]);
    let (x, tokens) = (random([batch, 4, 32, 32], device), random([batch, 77, 768], device));
    measured(config.init(device), batch, blocks, |unet, images| {
        let mask = Tensor::<2, Int>::ones([images, 77], device).bool();
        let pooled = Tensor::zeros([images, 768], device);
        let text = Text { tokens: tokens.clone().narrow(0, 0, images), mask, pooled };
        error(unet.forward(x.clone().narrow(0, 0, images), half(images, device), &text))
    })
}

fn random<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(dims, burn::tensor::Distribution::Normal(0.0, 1.0), device)
}

fn half(batch: usize, device: &Device) -> Tensor<1> {
    Tensor::full([batch], 0.5, device)
}

/// One loss a picture, as if the aim were 1.
fn error(output: Tensor<4>) -> Tensor<1> {
    let batch = output.dims()[0];
    (output - 1.0).square().reshape([batch as i32, -1]).mean_dim(1).reshape([batch])
}

/// Says what steps will take, and takes three.
fn measured<M: Module>(
    model: M,
    batch: usize,
    blocks: Option<usize>,
    losses: impl Fn(&M, usize) -> Tensor<1>,
) -> Result<()> {
    let mut state = TrainState::new(model, AdamW::default());
    let options = StepOptions { rate: 1e-4, clip: 1.0, ema: Ema::WarmUp { limit: 0.999 } };
    let Ok(estimate) = state.estimate_memory(Ok::<_, Infallible>, |m, &n| losses(m, n), batch, blocks);
    let estimate = estimate.ok_or("the allocator counts")?;
    println!("estimate {} MiB: {estimate}", estimate.total() >> 20);
    PeakAlloc.reset_peak_usage();
    for step in 0..3 {
        let begun = Instant::now();
        let report = match blocks {
            Some(blocks) => state.step_recomputed(|model| losses(model, batch), blocks, &options)?,
            None => state.step(losses(&state.model, batch), &options)?,
        };
        let seconds = begun.elapsed().as_secs_f64();
        println!("step {step}: {seconds:.2} s, loss {:.6}, high water {} MiB", report.loss, high_water()?);
    }
    println!("counted {} MiB", PeakAlloc.peak_usage() >> 20);
    Ok(())
}

/// The most memory this process has had, in MiB.
fn high_water() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib =
        line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("/proc/self/status has no VmHWM in kB")?;
    Ok(kib.trim().parse::<u64>()? >> 10)
}
