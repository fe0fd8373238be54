//! A training step over images and over blocks.

use crate::cost::{Cost, Series, mib, section as table};
use anyhow::Result;
use burn::prelude::*;
use burn::tensor::Distribution;
use canvas_core::{Backbone, Class};
use canvas_dit::{Dit, DitConfig};
use canvas_train::{AdamW, Ema, PeakAlloc, StepOptions, TrainState};
use std::convert::Infallible;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
const DEPTHS: [usize; 4] = [3, 6, 12, 24];
/// Blocks of DiT-S/2, and images while blocks grow.
const USUAL: (usize, usize) = (12, 4);
/// Whole, and with blocks run again, so many at a time.
const MODES: [(&str, Option<usize>); 2] = [("whole", None), ("recomputed", Some(1))];

/// A setting in words, what it was expected to take and what it took, MiB.
type Estimate = (String, [f64; 2]);

/// Both, with and without recomputing, and how good the estimates were.
pub fn section(device: &Device, folder: &Path) -> Result<String> {
    let device = device.clone().autodiff();
    let mut estimates: Vec<Estimate> = Vec::new();
    let mut measured = |depth: usize, batch: usize, (mode, blocks): (&str, Option<usize>)| {
        let (cost, expected) = step(&device, depth, batch, blocks);
        estimates.push((format!("{depth} | {batch} | {mode}"), [expected, cost.mib]));
        cost
    };
    let over_batch =
        MODES.map(|mode| Series::measure(mode.0, &BATCHES, |batch| measured(USUAL.0, batch, mode)));
    let over_depth =
        MODES.map(|mode| Series::measure(mode.0, &DEPTHS, |depth| measured(depth, USUAL.1, mode)));
    let mut page = INTRODUCTION.to_owned();
    page += &table(folder, "batch.png", "images", &over_batch)?;
    write!(page, "\n## A training step over blocks\n\nThe same with {} images.\n", USUAL.1)?;
    page += &table(folder, "depth.png", "blocks", &over_depth)?;
    page += ESTIMATES;
    for (what, [expected, found]) in estimates {
        writeln!(
            page,
            "| {what} | {found:.0} | {expected:.0} | {:+.1}% |",
            100.0 * (expected / found - 1.0)
        )?;
    }
    Ok(page)
}

/// The cost of a step with all that training holds, and the estimate of its memory, MiB.
fn step(device: &Device, depth: usize, batch: usize, blocks: Option<usize>) -> (Cost, f64) {
    let before = PeakAlloc.current_usage();
    let x = Tensor::<4>::random([batch.max(2), 4, 32, 32], Distribution::Normal(0.0, 1.0), device);
    let losses = |dit: &Dit, images: usize| {
        let (x, time) = (x.clone().narrow(0, 0, images), Tensor::full([images], 0.5, device));
        let out = dit.forward(x, time, &Class::new(&vec![1; images], device));
        (out - 1.0).square().reshape([images as i32, -1]).mean_dim(1).reshape([images])
    };
    let config = DitConfig { depth, ..DitConfig::small(32) };
    let mut state = TrainState::new(config.init(device), AdamW::default());
    let options = StepOptions { rate: 1e-4, clip: 1.0, ema: Ema::WarmUp { limit: 0.999 } };
    let Ok(expected) = state.estimate_memory(Ok::<_, Infallible>, |dit, &n| losses(dit, n), batch, blocks);
    let expected = expected.expect("this program counts");
    PeakAlloc.reset_peak_usage();
    let mut seconds = [0.0; 4];
    for seconds in &mut seconds {
        let begun = Instant::now();
        let step = match blocks {
            Some(blocks) => state.step_recomputed(|dit| losses(dit, batch), blocks, &options),
            None => state.step(losses(&state.model, batch), &options),
        };
        step.expect("finite losses");
        *seconds = begun.elapsed().as_secs_f64();
    }
    seconds[1..].sort_by(f64::total_cmp);
    let beside = |bytes: usize| mib(bytes.saturating_sub(before));
    let cost = Cost { seconds: seconds[2], mib: beside(PeakAlloc.peak_usage()) };
    (cost, beside(expected.total() as usize))
}

const INTRODUCTION: &str = "
## A training step over images

DiT-S/2 (12 blocks of 384), latents of 32x32x4: forward, backward, clipping, AdamW, moving average. Memory is all of it: the
parameters five times (with average, moments and gradients) and the activations. *Recomputed*: gradient checkpointing, a
block at a time ([recompute.rs](../../canvas-core/src/recompute.rs)).
";

const ESTIMATES: &str = "
## Its memory, estimated beforehand

`TrainState::estimate_memory` computes gradients of a few images before training starts; programs print what it says.

| blocks | images | way | MiB | estimate | error |
|---|---|---|---|---|---|
";
