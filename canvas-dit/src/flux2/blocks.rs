//! The two kinds of blocks of Flux.2; their modulation comes from outside.

use super::Flux2Config;
use crate::streams::{Modulation, answer, attend_both};
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::nn::{
    Activation, GatedMlp, GatedMlpConfig, Qkv, QkvConfig, RmsNorm, RmsNormConfig, Rope, Scores,
    attend_jointly, attention, dense, init, modulate,
};
use canvas_core::ops::{self, residual};
use canvas_core::trace;

/// A stream's own layers in a [`Double`].
#[derive(Module, Debug)]
struct Stream {
    qkv: Qkv,
    output: Linear,
    mlp: GatedMlp,
}

impl Stream {
    fn new(config: &Flux2Config, device: &Device) -> Self {
        let (width, heads) = (config.width(), config.heads);
        let qkv = QkvConfig::new(width, heads, width / heads).with_bias(false).with_norm(Some(1e-6));
        Self {
            qkv: qkv.init(device),
            output: init::linear(width, width, false, device),
            mlp: GatedMlpConfig::new(width, config.hidden()).init(device),
        }
    }
}

/// Text and image with layers of their own, which attend to each other.
#[derive(Module, Debug)]
pub(super) struct Double {
    text: Stream,
    image: Stream,
}

impl Double {
    pub(super) fn new(config: &Flux2Config, device: &Device) -> Self {
        Self { text: Stream::new(config, device), image: Stream::new(config, device) }
    }

    pub(super) fn forward(
        &self,
        [text, image]: [Tensor<3>; 2],
        [of_text, of_image]: [Modulation; 2],
        rope: &Rope,
    ) -> [Tensor<3>; 2] {
        let streams = [(&self.text.qkv, &text, &of_text), (&self.image.qkv, &image, &of_image)];
        let [read_text, read_image] = attend_both(streams, rope, &Scores::default());
        let after = |stream: &Stream, h, read, modulation| {
            answer(h, dense(&stream.output, read), modulation, |m| stream.mlp.forward(m))
        };
        [after(&self.text, text, read_text, of_text), after(&self.image, image, read_image, of_image)]
    }
}

/// Attention and gated perceptron side by side, with one layer before both and one behind.
#[derive(Module, Debug)]
pub(super) struct Single {
    input: Linear,
    query_norm: RmsNorm,
    key_norm: RmsNorm,
    output: Linear,
    heads: usize,
    hidden: usize,
}

impl Single {
    pub(super) fn new(config: &Flux2Config, device: &Device) -> Self {
        let (width, heads, hidden) = (config.width(), config.heads, config.hidden());
        let norm = || RmsNormConfig::new(width / heads).with_epsilon(1e-6).init(device);
        Self {
            input: init::linear(width, 3 * width + 2 * hidden, false, device),
            query_norm: norm(),
            key_norm: norm(),
            output: init::linear(width + hidden, width, false, device),
            heads,
            hidden,
        }
    }

    /// `[B, L, W]` to `[B, L, W]`.
    pub(super) fn forward(
        &self,
        h: Tensor<3>,
        [shift, scale, gate]: [Tensor<3>; 3],
        rope: &Rope,
    ) -> Tensor<3> {
        let (width, hidden) = (h.dims()[2], self.hidden);
        let all = dense(&self.input, modulate::normed(h.clone(), shift, scale));
        let [query, key, value] =
            [0, 1, 2].map(|k| attention::split(all.clone().narrow(2, k * width, width), self.heads));
        let query = rope.rotate(self.query_norm.forward(query)); // [B, H, L, W/H]
        let key = rope.rotate(self.key_norm.forward(key));
        let [read] =
            trace::scope(|| "attention".into(), || attend_jointly([[query, key, value]], &Scores::default()));
        let [open, up] = [0, 1].map(|k| all.clone().narrow(2, 3 * width + k * hidden, hidden));
        residual(
            h,
            gate,
            dense(&self.output, Tensor::cat(vec![read, ops::gate(Activation::Silu, open, up)], 2)),
        )
    }
}
