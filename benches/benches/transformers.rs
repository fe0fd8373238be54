//! Diffusion transformers at their real sizes: DiT-S/2 and DiT-B/2, forward and training step, a block of Stable
//! Diffusion 3's and a block of T5-XXL.
//!
//! `cargo bench --workspace --bench transformers`, about 4 minutes and 4 GiB on two cores; `-- DiT-S` runs those with
//! "DiT-S" in the name. Weights are random. `benches/pytorch.py transformers` times the same in PyTorch.

use burn::optim::{AdamWConfig, GradientsParams};
use burn::prelude::*;
use canvas_core::{Backbone, Class, Text, TextEncoder, Tokens, params};
use canvas_dit::{Dit, DitConfig, Sd3Config};
use canvas_text::T5Config;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

/// Few samples of one run each: a run takes a second.
fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group
}

/// Waits until a tensor is computed, by reading one number made of all of it.
fn wait<const D: usize>(x: Tensor<D>) {
    black_box(x.sum().into_scalar::<f32>());
}

fn random<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(dims, burn::tensor::Distribution::Normal(0.0, 1.0), device)
}

/// Latents of 256 px, times and classes of a batch.
fn inputs(batch: usize, device: &Device) -> (Tensor<4>, Tensor<1>, Class) {
    let labels: Vec<usize> = (0..batch).collect();
    (random([batch, 4, 32, 32], device), random([batch], device), Class::new(&labels, device))
}

fn dit(criterion: &mut Criterion) {
    let mut group = group(criterion, "dit");
    let models = [("DiT-S/2", DitConfig::small(32), [1, 8], 8), ("DiT-B/2", DitConfig::base(32), [1, 8], 2)];
    for (name, config, batches, trained) in models {
        let device = Device::flex();
        let net = params::realise(config.init(&device));
        for batch in batches {
            let (x, time, class) = inputs(batch, &device);
            group.bench_function(format!("{name} forward [{batch}, 4, 32, 32]"), |bencher| {
                bencher.iter(|| wait(net.forward_with_variance(x.clone(), time.clone(), &class)));
            });
        }
        let device = device.autodiff();
        let mut net: Option<Dit> = Some(params::realise(config.init(&device)));
        let mut optimizer = AdamWConfig::new().init();
        let (x, time, class) = inputs(trained, &device);
        group.bench_function(format!("{name} training step [{trained}, 4, 32, 32]"), |bencher| {
            bencher.iter(|| {
                let old = net.take().expect("put back after every step");
                let loss = old.forward_with_variance(x.clone(), time.clone(), &class).square().mean();
                let gradients = GradientsParams::from_grads(loss.backward(), &old);
                net = Some(optimizer.step(1e-4, old, gradients));
            });
        });
    }
}

/// Stable Diffusion 3 medium with two blocks, less the same with one: a block in the middle, both streams going on.
fn joint(criterion: &mut Criterion) {
    let (mut group, device) = (group(criterion, "mmdit"), Device::flex());
    let mask = Tensor::<2, Int>::ones([1, 154], &device).bool();
    let text = Text { tokens: random([1, 154, 4096], &device), mask, pooled: random([1, 2048], &device) };
    for depth in [1, 2] {
        let net = params::realise(Sd3Config { depth, ..Sd3Config::medium() }.init(&device));
        let x = random([1, 16, 64, 64], &device);
        group.bench_function(format!("SD3 medium, {depth} of 24 blocks [1, 16, 64, 64]"), |bencher| {
            bencher.iter(|| wait(net.forward(x.clone(), Tensor::full([1], 0.5, &device), &text)));
        });
    }
}

fn t5(criterion: &mut Criterion) {
    let (mut group, device) = (group(criterion, "t5"), Device::flex());
    let config = T5Config { depth: 1, vocabulary: 1000, ..T5Config::v1_1_xxl() };
    let net = params::realise(config.init(&device));
    let tokens = Tokens { ids: (0..256).collect(), mask: vec![true; 256], length: 256 };
    group.bench_function("T5-XXL, 1 of 24 blocks [1, 256]", |bencher| {
        bencher.iter(|| wait(net.encode(&tokens).tokens));
    });
}

criterion_group!(transformers, dit, joint, t5);
criterion_main!(transformers);
