//! T2I-Adapter: a small network that reads an image once and adds to the levels of a UNet.
//!
//! Mou et al., "T2I-Adapter: Learning Adapters to Dig Out More Controllable Ability for Text-to-Image Diffusion
//! Models", 2023, <https://arxiv.org/abs/2302.08453>.
//!
//! Shape letters: `B` batch, `X` channels of the hint, `H` and `S` height and width after unshuffling by `f`.

use crate::Residuals;
use crate::blocks::{Resize, conv3};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;
use canvas_core::nn::conv2d;
use canvas_core::{ConfigError, check, trace};
use serde::{Deserialize, Serialize};

/// Which of the published shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// Every part but the first halves the size: for Stable Diffusion.
    Full,
    /// Only the third halves it: for SDXL, whose first level does not attend and whose middle is the fourth.
    FullXl,
    /// As full, narrow inside, with one part more than there are channels.
    Light,
}

/// Sizes of a [`T2iAdapter`].
#[derive(Config, Debug)]
pub struct T2iAdapterConfig {
    /// Which of the published shapes.
    pub kind: AdapterKind,
    /// Channels of the levels they are added to; four for [`AdapterKind::FullXl`].
    pub channels: Vec<usize>,
    /// Channels of the hint, an image: 3, or 1 for sketches.
    #[config(default = 3)]
    pub hint_channels: usize,
    /// Residual blocks of each part.
    #[config(default = 2)]
    pub blocks: usize,
    /// Pixels in each direction that become channels: 8, for SDXL 16.
    #[config(default = 8)]
    pub factor: usize,
}

impl T2iAdapterConfig {
    /// For Stable Diffusion 1: 77,369,280 parameters.
    pub fn sd1() -> Self {
        Self::new(AdapterKind::Full, vec![320, 640, 1280, 1280])
    }

    /// For SDXL: 79,028,160 parameters.
    pub fn sdxl() -> Self {
        Self::new(AdapterKind::FullXl, vec![320, 640, 1280, 1280]).with_factor(16)
    }

    /// The light one for Stable Diffusion 1 (colours): 18,689,200 parameters.
    pub fn sd1_light() -> Self {
        Self::new(AdapterKind::Light, vec![320, 640, 1280]).with_blocks(4)
    }

    /// # Errors
    /// Names the value that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("hint_channels", self.hint_channels))?;
        check::positive(("factor", self.factor))?;
        check::positive(("blocks", self.blocks))?;
        check::positive(("entries of channels", self.channels.len()))?;
        for (level, &channels) in self.channels.iter().enumerate() {
            let name = format!("channels of level {level}");
            check::positive((&name, channels))?;
            if self.kind == AdapterKind::Light {
                check::divides(("4, of the light adapter's width,", 4), (&name, channels))?;
            }
        }
        Ok(())
    }

    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> T2iAdapter {
        self.validate().unwrap_or_else(|error| panic!("T2iAdapterConfig: {error}"));
        let (first, read) = (self.channels[0], self.hint_channels * self.factor * self.factor);
        let light = self.kind == AdapterKind::Light;
        let mut widths = self.channels.clone();
        if light {
            widths.extend(self.channels.last());
        }
        let mut from = if light { read } else { first };
        let part = |(i, &to): (usize, &usize)| {
            let halves = if self.kind == AdapterKind::FullXl { i == 2 } else { i > 0 };
            let part = Part::new(self, [from, to], halves, device);
            from = to;
            part
        };
        T2iAdapter {
            blocks: widths.iter().enumerate().map(part).collect(),
            input: (!light).then(|| conv3(read, first, device)),
            hint_channels: self.hint_channels,
            factor: self.factor,
        }
    }
}

/// Reads a hint and answers with [`Residuals`] for the levels of a UNet, the same at all times.
///
/// # Reference
/// Mou et al., 2023, <https://arxiv.org/abs/2302.08453>.
#[derive(Module, Debug)]
pub struct T2iAdapter {
    input: Option<Conv2d>,
    blocks: Vec<Part>,
    hint_channels: usize,
    factor: usize,
}

impl T2iAdapter {
    /// Height and width of a hint must be multiples of this.
    pub fn unit(&self) -> usize {
        self.factor << self.blocks.iter().filter(|part| part.halves).count()
    }

    /// # Shapes
    /// - `hint`: `[B, X, f H, f S]`, values in `[0, 1]` for published weights
    /// - output: `levels` with one entry a part, the first `[B, C0, H, S]`
    ///
    /// # Panics
    /// If the channels are not the configured ones, or the size cannot be divided as often as needed.
    pub fn forward(&self, hint: Tensor<4>) -> Residuals {
        let [_, channels, height, width] = hint.dims();
        let expected = self.hint_channels;
        assert_eq!(channels, expected, "a hint of {channels} channels, the adapter reads {expected}");
        let unit = self.unit();
        assert!(
            height.is_multiple_of(unit) && width.is_multiple_of(unit),
            "height ({height}) and width ({width}) of the hint must be multiples of {unit}"
        );
        let mut h = unshuffle(hint, self.factor); // [B, X f f, H, S]
        if let Some(input) = &self.input {
            h = conv2d(input, h); // [B, C0, H, S]
        }
        let mut levels = Vec::with_capacity(self.blocks.len());
        for (i, part) in self.blocks.iter().enumerate() {
            h = trace::unit(|| format!("adapter.{i}"), || part.forward(h)); // [B, Ci, H / 2^i, S / 2^i]
            levels.push(h.clone());
        }
        Residuals { levels, skips: Vec::new(), middle: None }
    }
}

/// Pixels to channels: `[B, X, f H, f S]` to `[B, X f f, H, S]`, the offsets fastest.
fn unshuffle(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let (h, s) = (height / factor, width / factor);
    let cells = x.reshape([batch, channels, h, factor, s, factor]).permute([0, 1, 3, 5, 2, 4]);
    cells.reshape([batch, channels * factor * factor, h, s])
}

/// A halving if need be, a change of channels, and residual blocks.
#[derive(Module, Debug)]
struct Part {
    input: Option<Conv2d>,
    stages: Vec<Stage>,
    output: Option<Conv2d>,
    halves: bool,
}

impl Part {
    fn new(config: &T2iAdapterConfig, [from, to]: [usize; 2], halves: bool, device: &Device) -> Self {
        let light = config.kind == AdapterKind::Light;
        let inner = if light { to / 4 } else { to };
        let conv1 = |from, to| Conv2dConfig::new([from, to], [1, 1]).init(device);
        let stage = || Stage {
            first: conv3(inner, inner, device),
            second: if light { conv3(inner, inner, device) } else { conv1(inner, inner) },
        };
        Self {
            input: (light || from != to).then(|| conv1(from, inner)),
            stages: (0..config.blocks).map(|_| stage()).collect(),
            output: light.then(|| conv1(inner, to)),
            halves,
        }
    }

    /// `[B, C, H, S]` to `[B, O, H, S]`, or half that size.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let resize = if self.halves { Resize::Halve } else { Resize::Keep };
        let mut h = resize.forward(x); // [B, C, H/2, S/2]
        if let Some(input) = &self.input {
            h = conv2d(input, h);
        }
        for stage in &self.stages {
            h = stage.forward(h);
        }
        match &self.output {
            Some(output) => conv2d(output, h),
            None => h,
        }
    }
}

/// `x + second(relu(first(x)))`.
#[derive(Module, Debug)]
struct Stage {
    first: Conv2d,
    second: Conv2d,
}

impl Stage {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        x.clone() + conv2d(&self.second, relu(conv2d(&self.first, x)))
    }
}
