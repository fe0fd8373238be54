//! Pictures to look at, as tokens beside those that are drawn (Flux Kontext, Flux.2, Qwen-Image-Edit): networks that have them for
//! drawing learn to use them by the same training steps as ever, since they are a part of the condition.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Backbone, Condition, Noise, NoiseSchedule, Process, Seeded, Text, seed_for};
use canvas_dit::{Flux2Config, FluxConfig, Prompt, QwenImageConfig};
use canvas_sched::{predict, schedule};
use canvas_testkit::pattern;
use canvas_train::{AdamW, Ema, Noised, Objective, StepOptions, TrainState};

const OPTIONS: StepOptions = StepOptions { rate: 4e-3, clip: 1.0, ema: Ema::WarmUp { limit: 0.9 } };

fn process() -> Process {
    Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) }
}

/// Images to be copied: each channel is one number throughout.
fn images(numbers: &[u64], channels: usize, device: &Device) -> Tensor<4> {
    let batch = numbers.len();
    let one: Tensor<4> = Seeded::new(seed_for(0, "images"), numbers)
        .normal_like(&Tensor::zeros([batch, channels, 1, 1], device));
    one.expand([batch, channels, 4, 4])
}

fn prompt(batch: usize, references: Tensor<4>, device: &Device) -> Prompt {
    let text = Text {
        tokens: pattern([1, 2, 12], 3.0, device).repeat_dim(0, batch),
        mask: Tensor::<2, Int>::ones([batch, 2], device).bool(),
        pooled: pattern([1, 10], 4.0, device).repeat_dim(0, batch),
    };
    Prompt::from(text).with_reference(references)
}

/// Trains to draw what there is to be seen, out of noise that says nothing of it.
fn learns<M: Module + Backbone<4, Cond = Prompt>>(model: M, channels: usize, device: &Device) -> [f64; 3] {
    let process = process();
    let losses = |model: &M, numbers: &[u64], shift: usize| {
        let batch = numbers.len();
        let x0 = images(numbers, channels, device);
        let eps = Seeded::new(seed_for(0, "noise"), numbers).normal_like(&x0);
        let noised = Noised::new(x0.clone(), eps, vec![process.schedule.level(1.0); batch]);
        let prompt = prompt(batch, x0, device);
        let rows: Vec<usize> = (0..batch).map(|row| (row + shift) % batch).collect();
        Objective::default().losses(process.denoiser(model), &noised, &prompt.select(&rows))
    };
    let held_out: Vec<u64> = (1_000_000..1_000_008).collect();
    let mut state = TrainState::new(model, AdamW::default());
    let first = losses(&state.model, &held_out, 0).mean().into_scalar::<f64>();
    for step in 0..120 {
        let numbers: Vec<u64> = (8 * step..8 * step + 8).collect();
        let losses = losses(&state.model, &numbers, 0);
        state.step(losses, &OPTIONS).unwrap();
    }
    let [own, others] =
        [0, 3].map(|shift| losses(&state.model, &held_out, shift).mean().into_scalar::<f64>());
    [first, own, others]
}

/// Of held-out images: less than they began with, and less than with another's picture. Without it the least loss is the
/// variance of the images, which is 1.
#[track_caller]
fn reads_it([first, own, others]: [f64; 3]) {
    println!("at first {first:.3}, with the picture {own:.3}, with another's {others:.3}");
    assert!(own < 0.5 && own < 0.5 * first && others > 2.0 * own, "{first} {own} {others}");
}

#[test]
fn flux_learns_to_look() {
    let device = Device::flex().autodiff();
    let config = FluxConfig::new(1, 1, 2, 12, 10).with_axes([4, 4, 8]).with_channels(3).with_guidance(false);
    reads_it(learns(config.init(&device), 3, &device));
}

#[test]
fn flux2_learns_to_look() {
    let device = Device::flex().autodiff();
    let config = Flux2Config::new(1, 1, 2, 12).with_axes([4; 4]).with_channels(6).with_time_features(32);
    reads_it(learns(config.with_guidance(false).init(&device), 6, &device));
}

#[test]
fn qwen_image_learns_to_look() {
    let device = Device::flex().autodiff();
    let config = QwenImageConfig::new(2, 2, 12).with_axes([4, 4, 8]).with_channels(3);
    reads_it(learns(config.init(&device), 3, &device));
}
