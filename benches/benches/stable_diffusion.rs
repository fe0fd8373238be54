//! What a picture of Stable Diffusion 1.5 is made of, at its real size: the UNet, a guided step, the decoder and CLIP.
//!
//! `cargo bench -p canvas-benches --bench stable_diffusion`, about 5 minutes and 5 GiB on two cores; `-- unet` runs
//! those with "unet" in the name. Weights are random. `benches/pytorch.py` times the same in PyTorch.

use burn::prelude::*;
use canvas_core::{
    Autoencoder, Backbone, Denoiser, Level, Preconditioned, Text, TextEncoder, Tokens, params,
};
use canvas_sched::{Cfg, predict};
use canvas_text::ClipTextConfig;
use canvas_unet::UnetConfig;
use canvas_vae::AutoencoderKlConfig;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

/// Few samples of one run each: a run takes seconds.
fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(10));
    group
}

/// Waits until a tensor is computed, by reading one number made of all of it.
fn wait<const D: usize>(x: Tensor<D>) {
    black_box(x.sum().into_scalar::<f32>());
}

fn random<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(dims, burn::tensor::Distribution::Normal(0.0, 1.0), device)
}

/// As CLIP-L leaves it: 77 tokens, none hidden.
fn text(batch: usize, device: &Device) -> Text {
    let mask = Tensor::<2, Int>::ones([batch, 77], device).bool();
    Text { tokens: random([batch, 77, 768], device), mask, pooled: random([batch, 768], device) }
}

fn unet(criterion: &mut Criterion) {
    let (mut group, device) = (group(criterion, "unet"), Device::flex());
    let unet = params::realise(UnetConfig::sd1().init(&device));
    let (x, cond) = (random([1, 4, 64, 64], &device), text(1, &device));
    group.bench_function("SD1.5 forward [1, 4, 64, 64]", |bencher| {
        bencher.iter(|| wait(unet.forward(x.clone(), Tensor::full([1], 0.5, &device), &cond)));
    });
    let at = [Level { time: 0.5, alpha: 0.6, sigma: 0.8 }];
    let denoiser = Preconditioned { backbone: &unet, prediction: &predict::Epsilon };
    let guided = Cfg::new(denoiser, text(1, &device), 7.5);
    for (name, guided) in [("together", guided.clone()), ("one by one", guided.one_by_one())] {
        group.bench_function(format!("SD1.5 guided step, {name} [1, 4, 64, 64]"), |bencher| {
            bencher.iter(|| wait(guided.denoise(x.clone(), &at, &cond).x0));
        });
    }
}

fn decoder(criterion: &mut Criterion) {
    let (mut group, device) = (group(criterion, "decoder"), Device::flex());
    let autoencoder = params::realise(AutoencoderKlConfig::sd().init(&device));
    let latents = random([1, 4, 64, 64], &device);
    group.bench_function("SD1.5 decode [1, 4, 64, 64]", |bencher| {
        bencher.iter(|| wait(autoencoder.decode(latents.clone())));
    });
}

fn clip(criterion: &mut Criterion) {
    let (mut group, device) = (group(criterion, "clip"), Device::flex());
    let clip = params::realise(ClipTextConfig::clip_l().init(&device));
    let ids = (0..77).map(|i| if i < 76 { 1000 + i } else { 49407 }).collect();
    let tokens = Tokens { ids, mask: vec![true; 77], length: 77 };
    group.bench_function("CLIP-L [1, 77]", |bencher| {
        bencher.iter(|| wait(clip.encode(&tokens).tokens));
    });
}

criterion_group!(stable_diffusion, clip, decoder, unet);
criterion_main!(stable_diffusion);
