//! What every sampler of `canvas_sched::by_name` adds to a step, beside the network that the step calls.
//!
//! `cargo bench --workspace --bench samplers`, about 4 minutes on two cores. The network is DiT-S/2 on latents of
//! 32x32x4; the samplers run with a denoiser that returns what it is given. `benches/RESULTS.md` has the results.

use burn::prelude::*;
use canvas_core::{Backbone, Class, DeviceNoise, Level, Run, params};
use canvas_dit::DitConfig;
use canvas_sched::{Timesteps, by_name, schedule};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};

const BATCHES: [usize; 2] = [1, 4];

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group
}

/// Waits until a tensor is computed, by reading one number made of all of it.
fn wait<const D: usize>(x: Tensor<D>) {
    black_box(x.sum().into_scalar::<f32>());
}

fn latents(batch: usize, device: &Device) -> Tensor<4> {
    Tensor::random([batch, 4, 32, 32], burn::tensor::Distribution::Normal(0.0, 1.0), device)
}

fn network(criterion: &mut Criterion) {
    let (mut group, device) = (group(criterion, "network"), Device::flex());
    let dit = params::realise(DitConfig::small(32).init(&device)); // depth 12, width 384, heads 6, patch 2
    for batch in BATCHES {
        let (x, cond) = (latents(batch, &device), Class::new(&vec![0; batch], &device));
        group.bench_function(format!("DiT-S/2 {:?}", x.dims()), |bencher| {
            bencher.iter(|| wait(dit.forward(x.clone(), Tensor::full([batch], 0.5, &device), &cond)));
        });
    }
}

/// Times are of one step of 20, noise included.
fn steps(criterion: &mut Criterion) {
    const STEPS: u64 = 20;
    let (mut group, device) = (group(criterion, "step"), Device::flex());
    let schedule = schedule::VpSde::default();
    let levels: Vec<Level> = Timesteps::uniform().levels(&schedule, STEPS as usize).expect("20 steps");
    for batch in BATCHES {
        let x = latents(batch, &device);
        for name in by_name::SAMPLERS {
            let sampler = by_name::sampler::<4>(name).expect("a listed name");
            group.bench_function(format!("{name} {:?}", x.dims()), |bencher| {
                bencher.iter_custom(|steps| {
                    let (begun, runs) = (Instant::now(), steps.div_ceil(STEPS));
                    for _ in 0..runs {
                        let mut noise = DeviceNoise;
                        let run = Run::new(&sampler, &schedule, &levels, &mut noise).expect("it falls");
                        wait(run.sample(|x, _| x, x.clone()));
                    }
                    begun.elapsed().mul_f64(steps as f64 / (runs * STEPS) as f64)
                });
            });
        }
    }
}

criterion_group!(samplers, network, steps);
criterion_main!(samplers);
