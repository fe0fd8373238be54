//! A run of a sampler over its steps.

use crate::cost::{Cost, Series, section as table};
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Class, Denoiser, Noise, Process, Run, Seeded};
use canvas_dit::DitConfig;
use canvas_sched::{Timesteps, by_name, predict, schedule};
use std::path::Path;

const STEPS: [usize; 4] = [5, 10, 20, 40];
/// One without memory, one that keeps two estimates, one that evaluates twice a step.
const SAMPLERS: [&str; 3] = ["euler", "dpmpp-3m", "heun"];

/// A picture by several samplers.
pub fn section(device: &Device, folder: &Path) -> Result<String> {
    let network = DitConfig::small(32).init(device);
    let process =
        Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
    let denoiser = process.denoiser(&network);
    let class = Class::new(&[1], device);
    let mut all = Vec::new();
    for name in SAMPLERS {
        let sampler = by_name::sampler::<4>(name)?;
        all.push(Series::measure(name, &STEPS, |steps| {
            let levels = Timesteps::uniform().levels(&*process.schedule, steps).expect("times of a flow");
            Cost::of(|| {
                let mut noise = Seeded::new(0, [0]);
                let start = noise.normal_like(&Tensor::<4>::zeros([1, 4, 32, 32], device));
                let run =
                    Run::new(&sampler, &process.schedule, &levels, &mut noise).expect("levels of its own");
                run.sample(|x, level| denoiser.denoise(x, &[level], &class), start)
            })
        }));
    }
    Ok(INTRODUCTION.to_owned() + &table(folder, "sampling.png", "steps", &all)?)
}

const INTRODUCTION: &str = "
## A picture over steps

DiT-S/2 on latents of 32x32x4, one image, no guidance. Memory does not grow with steps.
";
