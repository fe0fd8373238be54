//! What a training step costs in memory and time with blocks run again, and with Burn's own gradient checkpointing.
//!
//! ```text
//! cargo run --profile bench -p canvas-benches --example recompute -- MODEL BATCH MODE
//! ```
//!
//! `MODEL` is `dit-s` (DiT-S/2, latents of 32x32), `dit-b`, or `unet` (Stable Diffusion 1.5's UNet at 0.3 of its
//! width, latents of 32x32). `MODE` is `whole`, `balanced` (Burn's `Device::gradient_checkpointing`), a number of blocks
//! that are run again at a time, or `balanced-` and that number. The step is a whole one: forward, backward, clipping, AdamW,
//! moving average. Each run takes three and prints the time of the later two and the high-water mark of the process (`VmHWM`
//! of `/proc/self/status`, so Linux only), which includes model, average, moments and gradients: the line before it says
//! how much it was when they were all there but nothing had run.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Backbone, Class, Text};
use canvas_dit::DitConfig;
use canvas_train::{AdamW, Ema, StepOptions, TrainState};
use canvas_unet::UnetConfig;
use std::error::Error;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "recompute (dit-s | dit-b | unet) BATCH (whole | balanced | [balanced-]BLOCKS)";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch, mode] = &args[..] else { return Err(USAGE.into()) };
    let (batch, (device, blocks)) = (batch.parse()?, mode_of(mode)?);
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
        (_, Some(blocks)) => (device.gradient_checkpointing(), Some(blocks.parse()?)),
        (blocks, None) => (device, Some(blocks.parse()?)),
    })
}

fn dit(config: &DitConfig, batch: usize, device: &Device, blocks: Option<usize>) -> Result<()> {
    let (x, class) = (random([batch, 4, 32, 32], device), Class::new(&vec![1; batch], device));
    measured(config.init(device), blocks, |dit| error(dit.forward(x.clone(), half(batch, device), &class)))
}

fn unet(batch: usize, device: &Device, blocks: Option<usize>) -> Result<()> {
    let config = UnetConfig::new(4, 768, vec![96, 192, 384, 384], vec![1, 1, 1, 0], vec![8; 4]);
    let (x, mask) = (random([batch, 4, 32, 32], device), Tensor::<2, Int>::ones([batch, 77], device).bool());
    let text = Text { tokens: random([batch, 77, 768], device), mask, pooled: random([batch, 768], device) };
    measured(config.init(device), blocks, |unet| error(unet.forward(x.clone(), half(batch, device), &text)))
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

/// Takes three steps.
fn measured<M: Module>(model: M, blocks: Option<usize>, losses: impl Fn(&M) -> Tensor<1>) -> Result<()> {
    let mut state = TrainState::new(model, AdamW::default());
    let options = StepOptions { rate: 1e-4, clip: 1.0, ema: Ema { limit: 0.999 } };
    let held = 4 * state.model.num_params() as u64;
    println!("{}; model, average, moments and gradients {}", high_water()?, mib(5 * held));
    for step in 0..3 {
        let begun = Instant::now();
        let report = match blocks {
            Some(blocks) => state.step_recomputed(&losses, blocks, &options)?,
            None => state.step(losses(&state.model), &options)?,
        };
        let seconds = begun.elapsed().as_secs_f64();
        println!("step {step}: {seconds:.2} s, loss {:.6}, {}", report.loss, high_water()?);
    }
    Ok(())
}

/// The most memory this process has had.
fn high_water() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib =
        line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("/proc/self/status has no VmHWM in kB")?;
    Ok(format!("high water {}", mib(1024 * kib.trim().parse::<u64>()?)))
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / 1048576.0)
}
