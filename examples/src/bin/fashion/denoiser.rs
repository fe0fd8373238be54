//! The networks that draw, and their training.

use anyhow::Result;
use burn::nn::Embedding;
use burn::prelude::*;
use canvas_core::{Backbone, Class, Denoiser, Level, Noise, Process, Run, Seeded, generator, seed_for};
use canvas_dit::{Dit, DitConfig};
use canvas_examples::denoiser::picked;
use canvas_examples::idx::{Labelled, NAMES, SIDE};
use canvas_examples::seeing::Seeing;
use canvas_examples::train_loop::Task;
use canvas_sched::{Cfg, DpmPp, Timesteps, predict, schedule};
use canvas_train::{Draws, LevelDistribution, Noised, Objective, Order};
use canvas_unet::{Adm, AdmConfig, DdpmConfig};
use clap::ValueEnum;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The label of no class.
const NONE: usize = NAMES.len();
/// Share of labels that are replaced by it.
const DROPPED: f64 = 0.1;

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// DiT on patches of 4 by 4 pixels.
    Dit,
    /// ADM's UNet on 28, 14 and 7 pixels.
    Unet,
}

/// A network of either kind.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value lives for the whole run")]
pub enum Network {
    /// A transformer.
    Dit(Dit<Embedding>),
    /// A UNet.
    Unet(Adm),
}

impl Network {
    /// A new one: about two million parameters, or a few thousand.
    pub fn new(which: Which, smoke: bool, device: &Device) -> Self {
        match which {
            Which::Dit => {
                let (width, depth) = if smoke { (16, 1) } else { (128, 6) };
                let config = DitConfig::new([SIDE; 2], width, depth, 4).with_patch(4).with_channels(1);
                Self::Dit(config.with_classes(NONE).with_learn_variance(false).init(device))
            }
            Which::Unet => {
                let channels = if smoke { vec![8, 8, 8] } else { vec![32, 64, 96] };
                let body = DdpmConfig::new(1, channels, vec![false, false, true])
                    .with_blocks(1)
                    .with_norm_groups(8)
                    .with_scale_shift(true);
                Self::Unet(AdmConfig::new(body, NONE + 1).init(device))
            }
        }
    }
}

impl Backbone<4> for Network {
    type Cond = Class;

    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Class) -> Tensor<4> {
        match self {
            Self::Dit(net) => net.forward(x, time, cond),
            Self::Unet(net) => net.forward(x, time, cond),
        }
    }
}

/// A flow, whose network predicts the velocity.
pub fn process() -> Process {
    Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) }
}

/// Training of a network.
pub struct DenoiserTask {
    seed: u64,
    pictures: Tensor<4>,
    labels: Vec<usize>,
    process: Process,
    objective: Objective,
    order: Order,
    device: Device,
}

impl DenoiserTask {
    /// On these pictures; `device` tracks gradients.
    pub fn new(seed: u64, train: &Labelled, device: &Device) -> Self {
        let levels = LevelDistribution::LogitNormal { mean: 0.0, std: 1.0 };
        Self {
            seed,
            pictures: train.tensor(&device.clone().inner()),
            labels: train.labels.clone(),
            process: process(),
            objective: Objective { levels, ..Objective::default() },
            order: Order::new(seed_for(seed, "denoiser"), train.count()),
            device: device.clone(),
        }
    }

    /// Level and label of an image of the run.
    fn drawn(&self, number: u64, row: usize) -> (Level, usize) {
        let draw = Draws::Stratified.at(seed_for(self.seed, "levels"), number);
        let dropped = generator(seed_for(self.seed, "labels"), number, 0).random::<f64>() < DROPPED;
        let label = if dropped { NONE } else { self.labels[row] };
        (self.objective.level(&*self.process.schedule, draw), label)
    }
}

impl Task<Network> for DenoiserTask {
    /// Noised pictures, and what they are.
    type Batch = (Noised<4>, Class);

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let (start, numbers) = (images.start, images.collect::<Vec<u64>>());
        let rows = self.order.batch(start, numbers.len());
        let drawn = numbers.iter().zip(&rows).map(|(&number, &row)| self.drawn(number, row));
        let (at, labels): (Vec<Level>, Vec<usize>) = drawn.unzip();
        let x0 = picked(&self.pictures, &rows);
        let eps = Seeded::new(seed_for(self.seed, "noise"), numbers).normal_like(&x0);
        let noised = Noised::new(x0.to_device(&self.device), eps.to_device(&self.device), at);
        Ok((noised, Class::new(&labels, &self.device)))
    }

    fn losses(&self, model: &Network, (noised, cond): &Self::Batch) -> Tensor<1> {
        self.objective.losses(self.process.denoiser(model), noised, cond)
    }

    fn levels<'b>(&self, (noised, _): &'b Self::Batch) -> &'b [Level] {
        &noised.at
    }

    fn evaluate(&mut self, _average: &Network, _images: u64, _seeing: &mut Seeing) -> Result<()> {
        Ok(())
    }

    fn name(&self, number: u64) -> String {
        format!("training picture {}", self.order.batch(number, 1)[0])
    }
}

/// How pictures are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawing {
    /// Steps of DPM-Solver++(2M), evenly in time.
    pub steps: usize,
    /// Classifier-free guidance; 1 is off.
    pub scale: f64,
    /// Key of the noise.
    pub seed: u64,
}

/// Draws one picture a label, `[N, 1, 28, 28]` within `[-1, 1]`; picture `i` depends on its label, the seed and `i` alone.
///
/// # Errors
/// If there are no steps.
pub fn draw(network: &Network, labels: &[usize], how: Drawing, device: &Device) -> Result<Tensor<4>> {
    const AT_ONCE: usize = 100;
    let process = process();
    let levels = Timesteps::uniform().levels(&*process.schedule, how.steps)?;
    let sampler = DpmPp::two_m();
    let mut drawn = Vec::new();
    for (number, part) in labels.chunks(AT_ONCE).enumerate() {
        let first = number * AT_ONCE;
        let numbers: Vec<u64> = (first..first + part.len()).map(|i| i as u64).collect();
        let mut noise = Seeded::new(seed_for(how.seed, "draw"), numbers);
        let start = noise.normal_like(&Tensor::<4>::zeros([part.len(), 1, SIDE, SIDE], device));
        let (cond, null) = (Class::new(part, device), Class::new(&vec![NONE; part.len()], device));
        let guided = Cfg::new(process.denoiser(network), null, how.scale);
        let run = Run::new(&sampler, &*process.schedule, &levels, &mut noise)?;
        drawn.push(run.sample(|x, level| guided.denoise(x, &[level], &cond), start).clamp(-1.0, 1.0));
    }
    Ok(Tensor::cat(drawn, 0))
}
