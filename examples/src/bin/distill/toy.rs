//! What all methods of the toy share: points, the loop of training, drawing, measuring.

use crate::network::Network;
use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{
    Denoiser, DeviceNoise, Level, Noise, Process, Run, Sampler, Seeded, Unconditional, seed_for,
};
use canvas_examples::assignment::shortest;
use canvas_examples::points::{Point, eight_gaussians, moons, tensor};
use canvas_sched::flow_map::{MeanFlow, Walk};
use canvas_sched::{Euler, Lcm, Timesteps, predict, schedule};
use canvas_train::{AdamW, Draws, Ema, Noised, StepOptions, TrainState};

/// Points of a step.
pub const BATCH: usize = 256;

/// Settings, and the one process of every network here.
pub struct Toy {
    pub process: Process,
    /// With gradients.
    pub device: Device,
    pub steps: u64,
    pub points: usize,
    pub seed: u64,
}

/// How a student draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Along its velocity: Euler's steps.
    Euler,
    /// To clean data, and back to the next level with other noise.
    Renoise,
    /// By average velocities, from level to level.
    Jump,
}

impl Toy {
    pub fn new(device: &Device, steps: u64, points: usize, seed: u64) -> Self {
        let process =
            Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
        Self { process, device: device.clone().autodiff(), steps, points, seed }
    }

    /// Trains a network on what `losses` makes of it, its number of steps being given; returns its average.
    pub fn train(
        &self,
        (name, steps): (&str, u64),
        start: Network,
        losses: impl Fn(&TrainState<Network, AdamW>, u64) -> Tensor<1>,
    ) -> Result<Network> {
        let mut state = self.state(start);
        let mut loss = 0.0;
        for step in 0..steps {
            let losses = losses(&state, step);
            loss = self.step(&mut state, losses, (step, steps))?;
        }
        eprintln!("{name}: {steps} steps, loss {loss:.3}");
        Ok(state.average)
    }

    pub fn state(&self, start: Network) -> TrainState<Network, AdamW> {
        TrainState::new(start.train(), AdamW { weight_decay: 0.0, ..AdamW::default() })
    }

    /// A step of training; the rate falls to 0 along a cosine.
    pub fn step(
        &self,
        state: &mut TrainState<Network, AdamW>,
        losses: Tensor<1>,
        (step, steps): (u64, u64),
    ) -> Result<f64> {
        let part = step as f64 / steps as f64;
        let rate = 1e-3 * 0.5 * (1.0 + (std::f64::consts::PI * part).cos()) + 1e-6;
        let options = StepOptions { rate, clip: 10.0, ema: Ema::WarmUp { limit: 0.99 } };
        Ok(state.step(losses, &options)?.loss)
    }

    /// Points of the moons, and of the eight Gaussians, of a step.
    pub fn pairs(&self, step: u64) -> [Tensor<2>; 2] {
        let points = [moons(self.seed, step, BATCH), eight_gaussians(self.seed, step, BATCH)];
        points.map(|points| tensor(&points, &self.device))
    }

    /// Normal noise of a step.
    pub fn normal(&self, step: u64) -> Tensor<2> {
        let images: Vec<u64> = (0..BATCH as u64).map(|row| step * BATCH as u64 + row).collect();
        let like = Tensor::<2>::zeros([BATCH, 2], &self.device);
        Seeded::new(seed_for(self.seed, "normal"), images).normal_like(&like)
    }

    /// A draw from `[0, 1)` for each point of a step.
    pub fn draws(&self, purpose: &str, step: u64) -> Vec<f64> {
        let seed = seed_for(self.seed, purpose);
        (0..BATCH as u64).map(|row| Draws::Independent.at(seed, step * BATCH as u64 + row)).collect()
    }

    /// Uniform levels of a step.
    pub fn levels(&self, purpose: &str, step: u64) -> Vec<Level> {
        self.draws(purpose, step).into_iter().map(|draw| self.process.schedule.level(draw)).collect()
    }

    /// Levels of a run, noisiest first.
    pub fn grid(&self, steps: usize) -> Result<Vec<Level>> {
        Ok(Timesteps::uniform().levels(&*self.process.schedule, steps)?)
    }

    /// Points that a network draws in so many steps, and how far they are from as many of the moons.
    pub fn measure(&self, network: &Network, how: Draw, steps: usize) -> Result<Drawn> {
        let held_out = seed_for(self.seed, "measured");
        let noise = eight_gaussians(held_out, 0, self.points);
        let (start, levels) = (tensor(&noise, &self.device).inner(), self.grid(steps)?);
        let noise = Source::new(self.seed, "drawing", 0);
        let x = match how {
            Draw::Euler => self.run(network, &Euler, (&levels, steps), (start, noise))?,
            Draw::Renoise => self.run(network, &Lcm, (&levels, steps), (start, noise))?,
            Draw::Jump => {
                let (walk, cond) = (Walk { renoise: 0.0 }, Unconditional(self.points));
                let along = (&*self.process.schedule, &levels[..]);
                walk.sample(&MeanFlow(network.clone()), along, &mut DeviceNoise, start, &cond)
            }
        };
        let values: Vec<f64> = x.into_data().iter::<f64>().collect();
        let points = values.as_chunks::<2>().0.to_vec();
        let distance = shortest(&points, &moons(held_out, 0, self.points))?.1;
        Ok(Drawn { steps, distance, points })
    }

    /// The first hops of a run, without gradients, from where it starts and with the noise of its hops.
    pub fn run(
        &self,
        network: &Network,
        sampler: &dyn Sampler<2>,
        (levels, hops): (&[Level], usize),
        (start, mut noise): (Tensor<2>, Source),
    ) -> Result<Tensor<2>> {
        let denoiser = self.process.denoiser(network);
        let cond = Unconditional(start.dims()[0]);
        let run = Run::new(sampler, &*self.process.schedule, levels, &mut noise)?.until(hops);
        Ok(run.sample(|x, level| denoiser.denoise(x, &[level], &cond), start))
    }

    /// A batch of a step at uniform levels.
    pub fn noised(&self, step: u64) -> Noised<2> {
        let [x0, eps] = self.pairs(step);
        Noised::new(x0, eps, self.levels("levels", step))
    }
}

/// What was drawn.
#[derive(Clone, Debug)]
pub struct Drawn {
    pub steps: usize,
    /// Squared 2-Wasserstein distance.
    pub distance: f64,
    pub points: Vec<Point>,
}

/// The eight Gaussians as noise of samplers: of this process it is what noise is. Other noise for each hop of each step.
pub struct Source {
    seed: u64,
    group: u64,
}

impl Source {
    /// Of a run in a step of training, or of one that is measured.
    pub fn new(seed: u64, purpose: &str, step: u64) -> Self {
        const MOST_HOPS: u64 = 1 << 16;
        Self { seed: seed_for(seed, purpose), group: step * MOST_HOPS }
    }
}

impl Noise<2> for Source {
    fn normal_like(&mut self, x: &Tensor<2>) -> Tensor<2> {
        self.group += 1;
        tensor(&eight_gaussians(self.seed, self.group, x.dims()[0]), &x.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A student that is trained with the same few points again and again learns them, and no distribution.
    #[test]
    fn every_hop_of_every_step_has_noise_of_its_own() {
        let like = Tensor::zeros([4, 2], &Device::flex());
        let mut seen: Vec<Vec<f32>> = Vec::new();
        for (purpose, step) in [("hops", 0), ("hops", 1), ("hops", 2), ("drawing", 0)] {
            let mut source = Source::new(0, purpose, step);
            for _hop in 0..4 {
                seen.push(source.normal_like(&like).into_data().iter().collect());
            }
            let again = Source::new(0, purpose, step).normal_like(&like).into_data();
            assert_eq!(again.iter::<f32>().collect::<Vec<_>>(), seen[seen.len() - 4]);
        }
        let all = seen.len();
        seen.sort_by(|a, b| a[0].total_cmp(&b[0]));
        seen.dedup();
        assert_eq!(seen.len(), all);
    }
}
