//! What training was estimated to take, beside what it takes. A program of its own: its allocator counts, so nothing else
//! may run meanwhile.

use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::trace;
use canvas_train::{AdamW, Ema, PeakAlloc, StepOptions, TrainState};
use std::convert::Infallible;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const WIDTH: usize = 384;
const TOKENS: usize = 64;

/// Six layers. Large enough that what the kernels pack is little beside them.
fn losses(device: &Device) -> impl Fn(&Vec<Linear>, usize) -> Tensor<1> {
    let device = device.clone();
    move |layers, images| {
        let mut x = Tensor::<2>::ones([images * TOKENS, WIDTH], &device);
        for (i, layer) in layers.iter().enumerate() {
            x = trace::block(|| format!("blocks.{i}"), x, |x| layer.forward(x).tanh());
        }
        x.square().reshape([images as i32, -1]).mean_dim(1).reshape([images])
    }
}

#[test]
fn training_takes_what_was_estimated() {
    let device = Device::flex().autodiff();
    let losses = losses(&device);
    let options = StepOptions { rate: 1e-3, clip: 1.0, ema: Ema::WarmUp { limit: 0.9 } };
    for blocks in [None, Some(1), Some(4)] {
        for images in [1, 7, 40] {
            let before = PeakAlloc.current_usage() as f64;
            let layers: Vec<Linear> = (0..6).map(|_| LinearConfig::new(WIDTH, WIDTH).init(&device)).collect();
            let mut state = TrainState::new(layers, AdamW::default());
            // Before the first step there are no moments, and the average is the model itself; later both are there.
            for _ in 0..2 {
                let of = |m: &_, &images: &usize| losses(m, images);
                let Ok(estimate) = state.estimate_memory(Ok::<_, Infallible>, of, images, blocks);
                let estimate = estimate.expect("it counts");
                PeakAlloc.reset_peak_usage();
                for _ in 0..2 {
                    let step = match blocks {
                        None => state.step(losses(&state.model, images), &options),
                        Some(blocks) => state.step_recomputed(|m| losses(m, images), blocks, &options),
                    };
                    step.unwrap();
                }
                let [expected, found] =
                    [estimate.total() as f64, PeakAlloc.peak_usage() as f64].map(|bytes| bytes - before);
                let off = expected / found - 1.0;
                assert!(off.abs() < 0.1, "{blocks:?}, {images} images: {expected} bytes, found {found}");
            }
        }
    }
}
