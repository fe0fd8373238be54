//! The toy's networks: one of two times, which at equal times is one of one, and a critic.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, linear};
use canvas_core::{Backbone, Level, TwoTimes, Unconditional, per_sample};
use canvas_train::distill::Critic;

const WIDTH: usize = 64;

/// Residual blocks that are told a time, and how much later another is: as a velocity's network 0, so that every student begins as
/// its teacher, a mean flow's too.
#[derive(Module, Debug)]
pub struct Network {
    input: Linear,
    times: Linear,
    blocks: Vec<Block>,
    output: Linear,
}

#[derive(Module, Debug)]
struct Block {
    up: Linear,
    down: Linear,
}

impl Network {
    pub fn new(outputs: usize, device: &Device) -> Self {
        let layer = |from, to| LinearConfig::new(from, to).init(device);
        let block = |_| Block { up: layer(WIDTH, 4 * WIDTH), down: layer(4 * WIDTH, WIDTH) };
        Self {
            input: layer(2, WIDTH),
            times: layer(2, WIDTH),
            blocks: (0..3).map(block).collect(),
            output: layer(WIDTH, outputs),
        }
    }

    fn run(&self, x: Tensor<2>, times: [Tensor<1>; 2]) -> Tensor<2> {
        let times = Tensor::stack::<2>(Vec::from(times), 1); // [B, 2]
        let mut h = linear(&self.input, x) + linear(&self.times, times);
        for block in &self.blocks {
            let up = Activation::Gelu.forward(linear(&block.up, h.clone()));
            h = h + linear(&block.down, up);
        }
        linear(&self.output, h)
    }
}

impl Backbone<2> for Network {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _: &Unconditional) -> Tensor<2> {
        self.run(x, [time.clone(), time.zeros_like()])
    }
}

impl TwoTimes<2> for Network {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, r: Tensor<1>, t: Tensor<1>, _: &Unconditional) -> Tensor<2> {
        self.run(x, [t.clone(), t - r])
    }
}

/// A network that is told, beside what its points are noised to, from which level they were drawn: what it says of drawings is of those
/// from there, and not of all.
pub struct Told<'a> {
    pub network: &'a Network,
    pub from: Level,
}

impl Told<'_> {
    fn run(&self, x: Tensor<2>, time: Tensor<1>) -> Tensor<2> {
        // Of pure noise nothing: so it begins as a network that is told nothing.
        let from = Tensor::full_like(&time, 1.0 - self.from.sigma);
        self.network.run(x, [time, from])
    }
}

impl Backbone<2> for Told<'_> {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _: &Unconditional) -> Tensor<2> {
        self.run(x, time)
    }
}

impl Critic<2> for Told<'_> {
    type Cond = Unconditional;
    fn logits(&self, x: Tensor<2>, at: &[Level], _: &Unconditional) -> Tensor<2> {
        let time = per_sample::<1>(at, &x.device(), |level| level.sigma);
        self.run(x, time)
    }
}
