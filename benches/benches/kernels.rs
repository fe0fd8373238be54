//! The costs that decide how long a run takes: blocks forward and backward, decoding, and what a sampler adds.
//!
//! `cargo bench -p canvas-benches`, about 5 minutes on two cores; `-- dit` runs those with "dit" in the name.
//! Shapes stand in the names; the table for results is `benches/RESULTS.md`. `cargo test` runs each once.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::{Autoencoder, Backbone, Class, DeviceNoise, Level, Run, Sampler, Text, params};
use canvas_dit::{DitConfig, TextDitConfig};
use canvas_sched::{Churned, Ddim, Ddpm, DpmPp2m, Euler, Heun, Timesteps, schedule};
use canvas_unet::blocks::{ResBlockConfig, SpatialTransformerConfig};
use canvas_vae::AutoencoderTinyConfig;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Few samples: each is many steps of real size, and they differ by percents only.
fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group
}

/// Waits until a tensor is computed, by reading one number made of all of it.
fn wait<const D: usize>(x: Tensor<D>) {
    black_box(x.sum().into_scalar::<f32>());
}

fn random<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(dims, burn::tensor::Distribution::Normal(0.0, 1.0), device)
}

/// Text of 16 real tokens.
fn text(batch: usize, width: usize, device: &Device) -> Text {
    let mask = Tensor::<2, Int>::ones([batch, 16], device).bool();
    Text { tokens: random([batch, 16, width], device), mask, pooled: random([batch, width], device) }
}

/// Times `forward` without and with gradients, to the parameters and to the input, which is computed last.
fn both_ways<M: Module, C>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    dims: [usize; 4],
    make: impl Fn(&Device) -> (M, C),
    forward: impl Fn(&M, Tensor<4>, &C) -> Tensor<4>,
) {
    let device = Device::flex();
    let (module, cond) = make(&device);
    let (module, x) = (params::realise(module), random(dims, &device));
    group.bench_function(format!("{name} {dims:?} forward"), |bencher| {
        bencher.iter(|| wait(forward(&module, x.clone(), &cond)));
    });

    let device = device.autodiff();
    let (module, cond) = make(&device);
    let (module, x) = (params::realise(module), random(dims, &device).require_grad());
    group.bench_function(format!("{name} {dims:?} forward+backward"), |bencher| {
        bencher.iter(|| {
            let gradients = forward(&module, x.clone(), &cond).square().mean().backward();
            wait(x.grad(&gradients).expect("the input asks for its gradient"));
        });
    });
}

/// One transformer block, with the embedding before it and the projection after it.
fn dit(criterion: &mut Criterion) {
    let mut group = group(criterion, "dit");
    for batch in [1, 8] {
        let make = |device: &Device| {
            let mut config = DitConfig::small(32);
            config.depth = 1;
            (config.init(device), Class::new(&vec![0; batch], device))
        };
        both_ways(&mut group, "DiT-S/2, 1 block", [batch, 4, 32, 32], make, |net, x, cond| {
            let time = Tensor::full([x.dims()[0]], 0.5, &x.device());
            net.forward(x, time, cond)
        });
    }
    let make = |device: &Device| {
        let config = TextDitConfig::new([8, 8], 8, 256, 1, 4, 192, 192);
        (config.with_activation(Activation::ReluSquared).init(device), text(32, 192, device))
    };
    both_ways(&mut group, "TextDit of emoji, 1 block", [32, 8, 8, 8], make, |net, x, cond| {
        let time = Tensor::full([x.dims()[0]], 0.5, &x.device());
        net.forward(x, time, cond)
    });
}

/// The two blocks of Stable Diffusion's UNet, as in its first level for images of 256 pixels.
fn unet(criterion: &mut Criterion) {
    let mut group = group(criterion, "unet");
    let make =
        |device: &Device| (ResBlockConfig::new(320, 320, 1280).init(device), random([1, 1280], device));
    both_ways(&mut group, "ResBlock 320", [1, 320, 32, 32], make, |block, x, embedding| {
        block.forward(x, embedding.clone())
    });
    let make =
        |device: &Device| (SpatialTransformerConfig::new(320, 8, 768).init(device), text(1, 768, device));
    both_ways(&mut group, "SpatialTransformer 320", [1, 320, 32, 32], make, |block, x, text| {
        block.forward(x, text)
    });
}

/// Latents to pictures. Stable Diffusion's own decoder costs about a hundred times TAESD's and is left out.
fn vae(criterion: &mut Criterion) {
    let mut group = group(criterion, "vae");
    let emoji = AutoencoderTinyConfig::new()
        .with_patch(4)
        .with_channels(vec![64, 96])
        .with_blocks(vec![1, 1])
        .with_latent(8)
        .with_clamp_latents(false);
    let configs = [
        ("TAESD decode", AutoencoderTinyConfig::taesd(), [1, 4, 32, 32]),
        ("emoji decode", emoji, [32, 8, 8, 8]),
    ];
    for (name, config, dims) in configs {
        let device = Device::flex();
        let (autoencoder, latents) = (params::realise(config.init(&device)), random(dims, &device));
        group.bench_function(format!("{name} {dims:?}"), |bencher| {
            bencher.iter(|| wait(autoencoder.decode(latents.clone())));
        });
    }
}

/// What a step costs beside the network: the denoiser returns what it is given. Times are of one step of 20.
fn sampler(criterion: &mut Criterion) {
    const STEPS: u64 = 20;
    let (schedule, range) = (schedule::Vp::cosine(1000), (0.0, f64::INFINITY));
    let levels: Vec<Level> = Timesteps::uniform().levels(&schedule, STEPS as usize).unwrap();
    let samplers: [(&str, Box<dyn Sampler<4>>); 6] = [
        ("euler", Box::new(Euler)),
        ("heun", Box::new(Heun)),
        ("dpmpp-2m", Box::new(DpmPp2m)),
        ("ddim", Box::new(Ddim::default())),
        ("ddpm, its noise included", Box::new(Ddpm::default())),
        (
            "churned euler, its noise included",
            Box::new(Churned { inner: Euler, amount: 4.0, range, noise: 1.0 }),
        ),
    ];
    let mut group = group(criterion, "sampler step");
    for dims in [[1, 4, 64, 64], [16, 4, 64, 64]] {
        let x = random(dims, &Device::flex());
        for (name, sampler) in &samplers {
            group.bench_function(format!("{name} {dims:?}"), |bencher| {
                bencher.iter_custom(|steps| {
                    let (begun, runs) = (Instant::now(), steps.div_ceil(STEPS));
                    for _ in 0..runs {
                        let mut noise = DeviceNoise;
                        let run = Run::new(&**sampler, &schedule, &levels, &mut noise).expect("it falls");
                        wait(run.sample(|x, _| x, x.clone()));
                    }
                    begun.elapsed().mul_f64(steps as f64 / (runs * STEPS) as f64)
                });
            });
        }
    }
}

criterion_group!(kernels, dit, unet, vae, sampler);
criterion_main!(kernels);
