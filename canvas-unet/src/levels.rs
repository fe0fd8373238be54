//! The levels of a text-conditioned UNet: down, middle and up.

use crate::UnetConfig;
use crate::blocks::{ResBlock, SpatialTransformer};
use crate::blocks::{conv3, double, downsample};
use burn::nn::conv::Conv2d;
use burn::prelude::*;
use canvas_core::nn::conv2d;
use canvas_core::{Text, trace};

/// One step down or up within a level: a residual block and, where the level attends, a transformer.
#[derive(Module, Debug)]
struct Stage {
    res: ResBlock,
    transformer: Option<SpatialTransformer>,
}

impl Stage {
    /// `h`: `[B, C, H, S]`, `embedding`: `[B, E]`, output: `[B, O, H, S]`.
    pub(crate) fn forward(&self, h: Tensor<4>, embedding: &Tensor<2>, text: &Text) -> Tensor<4> {
        let h = trace::part(|| "res".into(), || self.res.forward(h, embedding.clone())); // [B, O, H, S]
        match &self.transformer {
            Some(transformer) => trace::block(|| "transformer".into(), h, |h| transformer.forward(h, text)),
            None => h,
        }
    }
}

/// A level on the way down.
#[derive(Module, Debug)]
pub(crate) struct Down {
    stages: Vec<Stage>,
    downsample: Option<Conv2d>,
}

impl Down {
    /// Adds the channels of everything it will leave behind to `skips`.
    pub(crate) fn new(config: &UnetConfig, level: usize, skips: &mut Vec<usize>, device: &Device) -> Self {
        let channels = config.channels[level];
        let mut stage = || {
            let from = *skips.last().expect("starts with the input convolution's");
            skips.push(channels);
            Stage {
                res: config.res_block(from, channels, device),
                transformer: config.transformer(level, false, device),
            }
        };
        let stages = (0..config.blocks).map(|_| stage()).collect();
        let last = level + 1 == config.channels.len();
        if !last {
            skips.push(channels);
        }
        Self { stages, downsample: (!last).then(|| downsample(channels, device)) }
    }

    /// All levels: what the last leaves, and everything on the way, the input first. `added` has one entry a level,
    /// or is empty.
    pub(crate) fn all(
        levels: &[Self],
        mut h: Tensor<4>,
        embedding: &Tensor<2>,
        text: &Text,
        added: &[Tensor<4>],
    ) -> (Tensor<4>, Vec<Tensor<4>>) {
        let mut skips = vec![h.clone()];
        for (i, level) in levels.iter().enumerate() {
            let run = || level.forward(h, embedding, text, (added.get(i), &mut skips)); // [B, Ci, H / 2^i, S / 2^i]
            h = trace::part(|| format!("down.{i}"), run);
        }
        (h, skips)
    }

    /// `h`: `[B, C, H, S]`, output: `[B, O, H/2, S/2]`, in the last level `[B, O, H, S]`.
    ///
    /// What is added comes behind the last transformer, or at the very end of a level without one.
    fn forward(
        &self,
        mut h: Tensor<4>,
        embedding: &Tensor<2>,
        text: &Text,
        (added, skips): (Option<&Tensor<4>>, &mut Vec<Tensor<4>>),
    ) -> Tensor<4> {
        let last = self.stages.len() - 1;
        let attends = self.stages[last].transformer.is_some();
        for (i, stage) in self.stages.iter().enumerate() {
            h = trace::unit(|| format!("stages.{i}"), || stage.forward(h, embedding, text)); // [B, O, H, S]
            if i == last && (attends || self.downsample.is_none()) {
                h = plus(h, added);
            }
            skips.push(h.clone());
        }
        if let Some(downsample) = &self.downsample {
            h = trace::unit(|| "downsample".into(), || conv2d(downsample, h)); // [B, O, H/2, S/2]
            if !attends {
                h = plus(h, added);
            }
            skips.push(h.clone());
        }
        h
    }
}

fn plus(h: Tensor<4>, added: Option<&Tensor<4>>) -> Tensor<4> {
    let Some(added) = added else { return h };
    let (found, expected) = (added.dims(), h.dims());
    assert_eq!(found, expected, "what is added has the shape {found:?}, the level {expected:?}");
    h + added.clone()
}

/// The lowest resolution: two residual blocks around a transformer.
#[derive(Module, Debug)]
pub(crate) struct Middle {
    first: Stage,
    second: ResBlock,
}

impl Middle {
    pub(crate) fn new(config: &UnetConfig, device: &Device) -> Self {
        let level = config.channels.len() - 1;
        let channels = config.channels[level];
        Self {
            first: Stage {
                res: config.res_block(channels, channels, device),
                transformer: config.transformer(level, true, device),
            },
            second: config.res_block(channels, channels, device),
        }
    }

    /// `[B, C, H, S]` to `[B, C, H, S]`.
    pub(crate) fn forward(&self, h: Tensor<4>, embedding: &Tensor<2>, text: &Text) -> Tensor<4> {
        let h = trace::part(|| "first".into(), || self.first.forward(h, embedding, text));
        trace::block(|| "second".into(), h, |h| self.second.forward(h, embedding.clone()))
    }
}

/// A level on the way up.
#[derive(Module, Debug)]
pub(crate) struct Up {
    stages: Vec<Stage>,
    upsample: Option<Conv2d>,
}

impl Up {
    /// Takes the channels it will read from the end of `skips`, and leaves in `from` those it puts out.
    pub(crate) fn new(
        config: &UnetConfig,
        level: usize,
        (from, skips): (&mut usize, &mut Vec<usize>),
        device: &Device,
    ) -> Self {
        let channels = config.channels[level];
        let mut stage = || {
            let joined = *from + skips.pop().expect("one for each block up");
            *from = channels;
            Stage {
                res: config.res_block(joined, channels, device),
                transformer: config.transformer(level, false, device),
            }
        };
        let stages = (0..=config.blocks).map(|_| stage()).collect();
        Self { stages, upsample: (level > 0).then(|| conv3(channels, channels, device)) }
    }

    /// `h`: `[B, C, H, S]`, output: `[B, O, 2 H, 2 S]`, one less where the way down rounded up; in the first level
    /// `[B, O, H, S]`.
    pub(crate) fn forward(
        &self,
        mut h: Tensor<4>,
        embedding: &Tensor<2>,
        text: &Text,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, stage) in self.stages.iter().enumerate() {
            let joined = Tensor::cat(vec![h, skips.pop().expect("one for each block up")], 1);
            h = trace::unit(|| format!("stages.{i}"), || stage.forward(joined, embedding, text)); // [B, O, H, S]
        }
        let Some(conv) = &self.upsample else { return h };
        let [_, _, height, width] = skips.last().expect("the next level's").dims();
        let run = || conv2d(conv, double(h).narrow(2, 0, height).narrow(3, 0, width));
        trace::unit(|| "upsample".into(), run) // [B, O, 2 H, 2 S]
    }
}
