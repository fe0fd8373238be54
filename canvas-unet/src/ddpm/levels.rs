//! The levels of a [`Ddpm`](super::Ddpm): on the way down, in the middle, and on the way up.
//!
//! Shape letters: `B` batch, `C` channels in, `O` channels out, `H` and `S` height and width, `E` embedding width.

use super::{DdpmConfig, Resample};
use crate::blocks::{ImageAttention, ResBlock, Resize, conv3, double, downsample};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use canvas_core::nn::conv2d;
use canvas_core::trace;

/// One step within a level: a residual block and, where the level attends, attention.
#[derive(Module, Debug)]
pub(super) struct Stage {
    pub(super) res: ResBlock,
    pub(super) attention: Option<ImageAttention>,
}

impl Stage {
    /// `h`: `[B, C, H, S]`, `embedding`: `[B, E]`, output: `[B, O, H, S]`.
    pub(super) fn forward(&self, h: Tensor<4>, embedding: &Tensor<2>) -> Tensor<4> {
        let h = trace::part(|| "res".into(), || self.res.forward(h, embedding.clone())); // [B, O, H, S]
        match &self.attention {
            Some(attention) => trace::block(|| "attention".into(), h, |h| attention.forward(h)),
            None => h,
        }
    }
}

/// A level on the way down.
#[derive(Module, Debug)]
pub(super) struct Down {
    stages: Vec<Stage>,
    downsample: Option<Conv2d>,
    down_res: Option<ResBlock>,
    after: bool,
}

impl Down {
    /// Adds the channels of everything it will leave behind to `skips`.
    pub(super) fn new(config: &DdpmConfig, level: usize, skips: &mut Vec<usize>, device: &Device) -> Self {
        let (channels, last) = (config.channels[level], level + 1 == config.channels.len());
        let mut stage = || {
            let from = *skips.last().expect("starts with the input convolution's");
            skips.push(channels);
            config.stage(from, level, device)
        };
        let stages = (0..config.blocks).map(|_| stage()).collect();
        if !last {
            skips.push(channels);
        }
        let after = config.resample == Resample::After;
        let conv = || match config.resample {
            Resample::Residual => None,
            Resample::Around => Some(downsample(channels, device)),
            Resample::After => {
                let conv = Conv2dConfig::new([channels; 2], [3, 3]).with_stride([2, 2]);
                Some(conv.with_padding(PaddingConfig2d::Explicit(0, 0, 1, 1)).init(device))
            }
        };
        let downsample = if last { None } else { conv() };
        let down_res = if last { None } else { config.resize(channels, Resize::Halve, device) };
        Self { stages, downsample, down_res, after }
    }

    /// `h`: `[B, C, H, S]`, output: `[B, O, H/2, S/2]`, in the last level `[B, O, H, S]`.
    pub(super) fn forward(
        &self,
        mut h: Tensor<4>,
        embedding: &Tensor<2>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, stage) in self.stages.iter().enumerate() {
            h = trace::unit(|| format!("stages.{i}"), || stage.forward(h, embedding)); // [B, O, H, S]
            skips.push(h.clone());
        }
        if let Some(conv) = &self.downsample {
            h = trace::unit(|| "downsample".into(), || conv2d(conv, h)); // [B, O, H/2, S/2]
            skips.push(h.clone());
        }
        if let Some(block) = &self.down_res {
            h = trace::unit(|| "down_res".into(), || block.forward(h, embedding.clone())); // [B, O, H/2, S/2]
            skips.push(h.clone());
        }
        h
    }
}

/// The lowest resolution: two residual blocks around attention.
#[derive(Module, Debug)]
pub(super) struct Middle {
    first: ResBlock,
    attention: ImageAttention,
    second: ResBlock,
}

impl Middle {
    pub(super) fn new(config: &DdpmConfig, device: &Device) -> Self {
        let channels = config.channels[config.channels.len() - 1];
        let block = || config.res_block(channels, channels, Resize::Keep, device);
        Self { first: block(), attention: config.attention(channels, device), second: block() }
    }

    /// `[B, C, H, S]` to `[B, C, H, S]`.
    pub(super) fn forward(&self, h: Tensor<4>, embedding: &Tensor<2>) -> Tensor<4> {
        let h = trace::block(|| "first".into(), h, |h| self.first.forward(h, embedding.clone()));
        let h = trace::block(|| "attention".into(), h, |h| self.attention.forward(h));
        trace::block(|| "second".into(), h, |h| self.second.forward(h, embedding.clone()))
    }
}

/// A level on the way up.
#[derive(Module, Debug)]
pub(super) struct Up {
    stages: Vec<Stage>,
    upsample: Option<Conv2d>,
    up_res: Option<ResBlock>,
}

impl Up {
    /// Takes the channels it will read from the end of `skips`, and leaves in `from` those it puts out.
    pub(super) fn new(
        config: &DdpmConfig,
        level: usize,
        (from, skips): (&mut usize, &mut Vec<usize>),
        device: &Device,
    ) -> Self {
        let channels = config.channels[level];
        let mut stage = || {
            let joined = *from + skips.pop().expect("one for each block up");
            *from = channels;
            config.stage(joined, level, device)
        };
        let stages = (0..=config.blocks).map(|_| stage()).collect();
        let up_res = if level > 0 { config.resize(channels, Resize::Double, device) } else { None };
        let conv = level > 0 && up_res.is_none();
        Self { stages, upsample: conv.then(|| conv3(channels, channels, device)), up_res }
    }

    /// `h`: `[B, C, H, S]`, output: `[B, O, 2 H, 2 S]`, in the first level `[B, O, H, S]`.
    pub(super) fn forward(
        &self,
        mut h: Tensor<4>,
        embedding: &Tensor<2>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, stage) in self.stages.iter().enumerate() {
            let joined = Tensor::cat(vec![h, skips.pop().expect("one for each block up")], 1);
            h = trace::unit(|| format!("stages.{i}"), || stage.forward(joined, embedding)); // [B, O, H, S]
        }
        match (&self.upsample, &self.up_res) {
            (Some(conv), _) => trace::unit(|| "upsample".into(), || conv2d(conv, double(h))), // [B, O, 2 H, 2 S]
            (None, Some(block)) => {
                trace::unit(|| "up_res".into(), || block.forward(h, embedding.clone())) // [B, O, 2 H, 2 S]
            }
            (None, None) => h,
        }
    }
}
