//! ControlNet: a copy of a UNet's way down that also sees an image, and adds what it finds to the UNet.
//!
//! Zhang et al., "Adding Conditional Control to Text-to-Image Diffusion Models", 2023,
//! <https://arxiv.org/abs/2302.05543>.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width of the latents, `X` channels of the hint.

use crate::blocks::{conv3, zero_conv3};
use crate::embed::{Conditions, Extra};
use crate::levels::{Down, Middle};
use crate::residuals::Residuals;
use crate::sd::{check_shapes, embed};
use crate::{Unet, UnetConfig};
use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, PaddingConfig2d};
use burn::prelude::*;
use canvas_core::nn::{TimeEmbed, conv2d};
use canvas_core::ops::silu;
use canvas_core::weights::Walk;
use canvas_core::{Backbone, Channels, ConfigError, check, trace};
use std::any::Any;
use std::collections::BTreeMap;

/// Sizes of a [`ControlNet`].
#[derive(Config, Debug)]
pub struct ControlNetConfig {
    /// Of the UNet it is for.
    pub unet: UnetConfig,
    /// Channels of the hint, an image.
    #[config(default = 3)]
    pub hint_channels: usize,
    /// Channels of the hint's convolutions; each but the first halves the size: three halvings take pixels to the
    /// latents of Stable Diffusion.
    #[config(default = "vec![16, 32, 96, 256]")]
    pub hint_widths: Vec<usize>,
}

impl ControlNetConfig {
    /// # Errors
    /// Names the value that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.unet.validate()?;
        check::positive(("hint_channels", self.hint_channels))?;
        check::positive(("entries of hint_widths", self.hint_widths.len()))?;
        let positive = |&width: &usize| check::positive(("an entry of hint_widths", width));
        self.hint_widths.iter().try_for_each(positive)
    }

    /// The last convolution of the hint and all that lead to the UNet start at zero: at first it adds nothing.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> ControlNet {
        self.validate().unwrap_or_else(|error| panic!("ControlNetConfig: {error}"));
        let (unet, levels) = (&self.unet, self.unet.channels.len());
        let mut skips = vec![unet.channels[0]];
        let down = (0..levels).map(|level| Down::new(unet, level, &mut skips, device)).collect();
        ControlNet {
            input: conv3(unet.in_channels, unet.channels[0], device),
            time: unet.time(device),
            pooled: unet.pooled(device),
            extra: Extra::new(unet, device),
            hint: Hint::new(self, device),
            down,
            middle: Middle::new(unet, device),
            skips: skips.into_iter().map(|channels| zero_conv1(channels, device)).collect(),
            middle_out: zero_conv1(unet.channels[levels - 1], device),
            in_channels: unet.in_channels,
            context_width: unet.context_width,
        }
    }
}

fn zero_conv1(channels: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([channels; 2], [1, 1]).with_initializer(Initializer::Zeros).init(device)
}

/// From an image to features of the latents' size: convolutions with SiLU between.
#[derive(Module, Debug)]
struct Hint {
    input: Conv2d,
    blocks: Vec<Conv2d>,
    output: Conv2d,
    channels: usize,
}

impl Hint {
    fn new(config: &ControlNetConfig, device: &Device) -> Self {
        let widths = &config.hint_widths;
        let halve = |from, to| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        };
        let pair = |ends: &[usize]| [conv3(ends[0], ends[0], device), halve(ends[0], ends[1])];
        Self {
            input: conv3(config.hint_channels, widths[0], device),
            blocks: widths.windows(2).flat_map(pair).collect(),
            output: zero_conv3(widths[widths.len() - 1], config.unet.channels[0], device),
            channels: config.hint_channels,
        }
    }

    /// `[B, X, f H, f S]` to `[B, C0, H, S]`, the size of `like`, where `f` is the factor of the halvings.
    fn forward(&self, hint: Tensor<4>, like: &Tensor<4>) -> Tensor<4> {
        let (size, channels) = (hint.dims(), self.channels);
        assert_eq!(size[1], channels, "a hint of {} channels, the ControlNet reads {channels}", size[1]);
        let first = silu(conv2d(&self.input, hint)); // [B, W0, f H, f S]
        let hint = conv2d(&self.output, self.blocks.iter().fold(first, |h, conv| silu(conv2d(conv, h))));
        let (found, expected) = (hint.dims(), like.dims());
        assert_eq!(found, expected, "a hint of {size:?} becomes {found:?}, the latents {expected:?}");
        hint
    }
}

/// Reads a noised latent and a hint, and answers with [`Residuals`] for the [`Unet`] of the same sizes.
///
/// # Reference
/// Zhang et al., 2023, <https://arxiv.org/abs/2302.05543>.
#[derive(Module, Debug)]
pub struct ControlNet {
    input: Conv2d,
    time: TimeEmbed,
    pooled: Option<Linear>,
    extra: Extra,
    hint: Hint,
    down: Vec<Down>,
    middle: Middle,
    skips: Vec<Conv2d>,
    middle_out: Conv2d,
    in_channels: usize,
    context_width: usize,
}

impl ControlNet {
    /// Begins training where the paper does: as a copy of the UNet's way down and middle. The hint's last convolution and all
    /// that lead to the UNet stay as they are, at zero after [`init`](ControlNetConfig::init).
    ///
    /// The UNet may itself be frozen: what is copied learns as this ControlNet's parameters do.
    ///
    /// # Panics
    /// If the UNet is another than the configured one.
    ///
    /// # Reference
    /// Zhang et al., 2023, section 3.1, <https://arxiv.org/abs/2302.05543>; diffusers' `ControlNetModel.from_unet`.
    #[must_use]
    pub fn from_unet(self, unet: &Unet) -> Self {
        let mut found = Found::default();
        unet.visit(&mut found);
        let mut copy = Copy { walk: Walk::default(), from: found.by_path, missed: None };
        let started = self.map(&mut copy);
        if let Some(missed) = copy.missed {
            panic!("the ControlNet is for another UNet: {missed}");
        }
        started
    }

    /// What is to be added to the UNet. Its parts are [traced](trace) behind `control.`.
    ///
    /// # Shapes
    /// - `x`: `[B, C, H, S]`, `time`: `[B]`, `cond` as in [`Unet::run`]
    /// - `hint`: `[B, X, f H, f S]` with `f = 2^(len(hint_widths) - 1)`, values in `[0, 1]` for published weights
    ///
    /// # Panics
    /// If a size does not fit the configuration, or the batches differ.
    pub fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Conditions, hint: Tensor<4>) -> Residuals {
        let text = &cond.text;
        check_shapes(&x, &time, text, [self.in_channels, self.context_width]);
        let run = || {
            let embedding = embed(self.time.forward(time), self.pooled.as_ref(), &self.extra, cond); // [B, E]
            let h = trace::tap(|| "input".into(), conv2d(&self.input, x)); // [B, C0, H, S]
            let hint = trace::unit(|| "hint".into(), || self.hint.forward(hint, &h)); // [B, C0, H, S]
            let (h, skips) = Down::all(&self.down, h + hint, &embedding, text, &[]); // [B, Cn, H / 2^n, S / 2^n]
            (trace::block(|| "middle".into(), h, |h| self.middle.forward(h, &embedding, text)), skips)
        };
        // The parts have the names of the UNet's; hooks that are meant for those must not act here.
        let (h, skips) = trace::scope(|| "control".into(), run);
        let skips = skips.into_iter().zip(&self.skips).map(|(skip, conv)| conv2d(conv, skip)).collect();
        Residuals { levels: Vec::new(), skips, middle: Some(conv2d(&self.middle_out, h)) }
    }
}

/// A UNet's parameters by path, each a `Tensor<D>` of its own rank.
#[derive(Default)]
struct Found {
    walk: Walk,
    by_path: BTreeMap<String, Box<dyn Any>>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.by_path.insert(self.walk.path(), Box::new(param.val().detach()));
    }
}

/// Takes what the UNet has under the same path; what it has not is the ControlNet's own.
struct Copy {
    walk: Walk,
    from: BTreeMap<String, Box<dyn Any>>,
    missed: Option<String>,
}

impl ModuleMapper for Copy {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.walk.path();
        if OWN.iter().any(|own| path.starts_with(own)) {
            return param;
        }
        let (dims, found) = (param.val().dims(), self.from.get(&path));
        let found = found.and_then(|value| value.downcast_ref::<Tensor<D>>().cloned());
        let Some(value) = found.clone().filter(|value| value.dims() == dims) else {
            let has = found.map_or("nothing".to_owned(), |value| format!("{:?}", value.dims()));
            self.missed.get_or_insert(format!("{path} is {dims:?}, and that of the UNet {has}"));
            return param;
        };
        param.map(|old| if old.is_require_grad() { value.require_grad() } else { value })
    }
}

/// Where the parameters are that a UNet has none of.
const OWN: [&str; 3] = ["hint.", "skips.", "middle_out."];

impl Residuals {
    /// Weights that rise from a tenth at the first value to one at the middle, evenly in the logarithm: diffusers'
    /// guess mode, in which the hint works without a prompt.
    pub fn graded(self) -> Self {
        let count = self.skips.len() as f64;
        let weight = |i: usize| 10f64.powf(i as f64 / count - 1.0);
        let skips = self.skips.iter().enumerate().map(|(i, x)| x.clone() * weight(i)).collect();
        Self { skips, ..self }
    }
}

/// A UNet with any number of ControlNets, each with its strength; the condition has one hint for each.
#[derive(Clone, Debug)]
pub struct Controlled<'a> {
    /// The network.
    pub unet: &'a Unet,
    /// ControlNets and what their residuals are multiplied by.
    pub controls: Vec<(&'a ControlNet, f64)>,
}

impl Controlled<'_> {
    /// The sum of what all ControlNets add, or none without any.
    ///
    /// # Shapes
    /// As [`ControlNet::forward`].
    ///
    /// # Panics
    /// If there is not one hint for each.
    pub fn residuals(
        &self,
        x: &Tensor<4>,
        time: &Tensor<1>,
        cond: &Conditions,
        hints: &[Channels<4>],
    ) -> Option<Residuals> {
        let (found, expected) = (hints.len(), self.controls.len());
        assert_eq!(found, expected, "{found} hints for {expected} ControlNets");
        let each = self.controls.iter().zip(hints).map(|((net, scale), hint)| {
            net.forward(x.clone(), time.clone(), cond, hint.values.clone()).scaled(*scale)
        });
        each.reduce(Residuals::plus)
    }
}

impl Backbone<4> for Controlled<'_> {
    type Cond = (Conditions, Hints);

    /// # Shapes
    /// As [`Unet::run`] and [`ControlNet::forward`].
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, (cond, hints): &Self::Cond) -> Tensor<4> {
        let added = self.residuals(&x, &time, cond, &hints.0);
        self.unet.run(x, time, cond, added.as_ref())
    }
}

/// One hint for each ControlNet of a [`Controlled`]; at least one.
#[derive(Clone, Debug)]
pub struct Hints(pub Vec<Channels<4>>);

impl canvas_core::Condition for Hints {
    fn batch(&self) -> usize {
        self.0[0].batch()
    }
    fn cat(parts: &[Self]) -> Self {
        let hint = |i: usize| Channels::cat(&parts.iter().map(|part| part.0[i].clone()).collect::<Vec<_>>());
        Self((0..parts[0].0.len()).map(hint).collect())
    }
    fn select(&self, rows: &[usize]) -> Self {
        Self(self.0.iter().map(|hint| hint.select(rows)).collect())
    }
}
