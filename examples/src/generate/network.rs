//! A UNet with everything that was put on it, as one backbone.

use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Channels, Condition};
use canvas_unet::{Conditions, ControlNet, Hints, Residuals, Unet};
use std::cell::Cell;

/// What all parts are conditioned on.
#[derive(Clone, Debug)]
pub struct Given {
    /// Text, sizes.
    pub conditions: Conditions,
    /// Mask and masked latents of an inpainting model.
    pub channels: Option<Channels<4>>,
    /// One for each ControlNet.
    pub hints: Hints,
    /// What T2I-Adapters add: the same at all times.
    pub adapted: Option<Residuals>,
}

impl Condition for Given {
    fn batch(&self) -> usize {
        self.conditions.batch()
    }
    fn cat(parts: &[Self]) -> Self {
        let of = |part: &dyn Fn(&Self) -> Conditions| parts.iter().map(part).collect::<Vec<_>>();
        let channels: Vec<_> = parts.iter().filter_map(|part| part.channels.clone()).collect();
        let adapted: Vec<_> = parts.iter().filter_map(|part| part.adapted.clone()).collect();
        let hints: Vec<_> = parts.iter().map(|part| part.hints.clone()).collect();
        Self {
            conditions: Conditions::cat(&of(&|part| part.conditions.clone())),
            channels: (!channels.is_empty()).then(|| Channels::cat(&channels)),
            hints: if hints[0].0.is_empty() { Hints(Vec::new()) } else { Hints::cat(&hints) },
            adapted: (!adapted.is_empty()).then(|| Residuals::cat(&adapted)),
        }
    }
    fn select(&self, rows: &[usize]) -> Self {
        let hints = self.hints.0.iter().map(|hint| hint.select(rows)).collect();
        Self {
            conditions: self.conditions.select(rows),
            channels: self.channels.as_ref().map(|channels| channels.select(rows)),
            hints: Hints(hints),
            adapted: self.adapted.as_ref().map(|adapted| adapted.select(rows)),
        }
    }
}

impl Given {
    /// In the networks' numbers. Sizes stay as they are: 1023 is none of a half's.
    pub fn cast(mut self, dtype: FloatDType) -> Self {
        let text = &mut self.conditions.text;
        text.tokens = text.tokens.clone().cast(dtype);
        text.pooled = text.pooled.clone().cast(dtype);
        let other = |channels: Channels<4>| Channels { values: channels.values.cast(dtype) };
        self.channels = self.channels.map(other);
        self.hints = Hints(self.hints.0.into_iter().map(other).collect());
        self.adapted = self.adapted.map(|adapted| adapted.map(|x| x.cast(dtype)));
        self
    }
}

/// A ControlNet in a run.
pub struct Control {
    /// The network.
    pub network: ControlNet,
    /// What its residuals are multiplied by.
    pub scale: f64,
    /// In which calls of the UNet it counts, by the share of the run that is over before and after the call.
    pub window: (f64, f64),
}

/// A UNet, its ControlNets, and the numbers they compute in.
pub struct Network<'a> {
    /// The UNet.
    pub unet: &'a Unet,
    /// The ControlNets, in the order of the hints.
    pub controls: &'a [Control],
    /// Numbers of the networks; the outside is f32.
    pub dtype: FloatDType,
    /// What times are multiplied by.
    pub time_scale: f64,
    /// Which call of the run this is, and how many there are.
    pub call: Cell<usize>,
    /// Calls of the run.
    pub calls: usize,
}

impl Network<'_> {
    /// What the ControlNets that count now add.
    fn controlled(&self, x: &Tensor<4>, time: &Tensor<1>, given: &Given) -> Option<Residuals> {
        let (call, calls) = (self.call.get() as f64, self.calls as f64);
        let (before, after) = (call / calls, (call + 1.0) / calls);
        let each = self.controls.iter().zip(&given.hints.0);
        let active = each.filter(|(control, _)| before >= control.window.0 && after <= control.window.1);
        let residuals = active.map(|(control, hint)| {
            let (x, time, hint) = (x.clone(), time.clone(), hint.values.clone());
            control.network.forward(x, time, &given.conditions, hint).scaled(control.scale)
        });
        residuals.reduce(Residuals::plus)
    }
}

impl Backbone<4> for Network<'_> {
    type Cond = Given;

    /// # Shapes
    /// - `x`: `[B, 4, h, w]`, `time`: `[B]`; output: `[B, 4, h, w]`
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, given: &Given) -> Tensor<4> {
        let outside = x.dtype();
        let (x, time) = (x.cast(self.dtype), time * self.time_scale);
        let added = match (self.controlled(&x, &time, given), given.adapted.clone()) {
            (Some(controlled), Some(adapted)) => Some(controlled.plus(adapted)),
            (controlled, adapted) => controlled.or(adapted),
        };
        let x = match &given.channels {
            Some(channels) => Tensor::cat(vec![x, channels.values.clone()], 1),
            None => x,
        };
        self.unet.run(x, time, &given.conditions, added.as_ref()).cast(outside)
    }
}
