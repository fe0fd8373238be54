//! Blocks of two streams and of one, as Flux, Chroma and Qwen-Image have them alike.
//!
//! Shape letters: `B` batch, `T` text tokens, `N` image tokens, `L` both, `W` width.

use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::nn::init::xavier_linear;
use canvas_core::nn::{
    Activation, Mlp, MlpConfig, Qkv, QkvConfig, Rope, Scores, attend_jointly, dense, modulate,
};
use canvas_core::ops::residual;
use canvas_core::{ConfigError, check, trace};

/// Shift, scale and gate of attention, then of the perceptron: each `[B, 1, W]`, or one a token.
pub(crate) type Modulation = [Tensor<3>; 6];

/// Heads are as wide as the axes of rotary positions together, which must be even.
pub(crate) fn check_heads(heads: usize, axes: &[usize]) -> Result<(), ConfigError> {
    check::positive(("heads", heads))?;
    check::positive(("the sum of axes", axes.iter().sum()))?;
    axes.iter().try_for_each(|&axis| check::divides(("2", 2), ("an axis of rotary positions", axis)))
}

/// Queries, keys and values of a stream, normalised and modulated.
pub(crate) fn ask(qkv: &Qkv, h: &Tensor<3>, modulation: &Modulation, rope: &Rope) -> [Tensor<4>; 3] {
    let [shift, scale, ..] = modulation.clone();
    qkv.forward(modulate::normed(h.clone(), shift, scale), Some(rope))
}

/// A stream after what its tokens have read, and their perceptron.
pub(crate) fn answer(
    h: Tensor<3>,
    read: Tensor<3>,
    [_, _, gate_a, shift, scale, gate_m]: Modulation,
    mlp: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let h = residual(h, gate_a, read);
    let m = modulate::normed(h.clone(), shift, scale);
    residual(h, gate_m, mlp(m))
}

/// Attention of text and image to both: what each has read.
pub(crate) fn attend_both(
    [text, image]: [(&Qkv, &Tensor<3>, &Modulation); 2],
    rope: &Rope,
    scores: &Scores,
) -> [Tensor<3>; 2] {
    let tokens = text.1.dims()[1];
    let places = rope.positions() - tokens; // not the image's, of which some may go around
    trace::scope(
        || "attention".into(),
        || {
            let text = ask(text.0, text.1, text.2, &rope.narrow(0, tokens));
            let image = ask(image.0, image.1, image.2, &rope.narrow(tokens, places));
            attend_jointly([text, image], scores)
        },
    )
}

/// A stream's own layers in a [`DoubleBlock`].
#[derive(Module, Debug)]
struct Stream {
    qkv: Qkv,
    output: Linear,
    mlp: Mlp,
}

impl Stream {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self {
            qkv: QkvConfig::new(width, heads, width / heads).with_norm(Some(1e-6)).init(device),
            output: xavier_linear(width, width, device),
            mlp: MlpConfig::new(width, 4 * width).init(device),
        }
    }
}

/// Text and image with layers of their own, which attend to each other; modulation comes from outside.
///
/// # Reference
/// Esser et al., "Scaling Rectified Flow Transformers", 2024, Figure 2b, <https://arxiv.org/abs/2403.03206>.
#[derive(Module, Debug)]
pub(crate) struct DoubleBlock {
    text: Stream,
    image: Stream,
}

impl DoubleBlock {
    pub(crate) fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self { text: Stream::new(width, heads, device), image: Stream::new(width, heads, device) }
    }

    /// Text `[B, T, W]` and image `[B, N, W]`, with their modulation, to the same; `rope` is of `T + N` positions.
    pub(crate) fn forward(
        &self,
        [text, image]: [Tensor<3>; 2],
        [of_text, of_image]: [Modulation; 2],
        rope: &Rope,
        scores: &Scores,
    ) -> [Tensor<3>; 2] {
        let streams = [(&self.text.qkv, &text, &of_text), (&self.image.qkv, &image, &of_image)];
        let [read_text, read_image] = attend_both(streams, rope, scores);
        let after = |stream: &Stream, h, read, modulation| {
            answer(h, dense(&stream.output, read), modulation, |m| stream.mlp.forward(m))
        };
        [after(&self.text, text, read_text, of_text), after(&self.image, image, read_image, of_image)]
    }
}

/// Attention and perceptron side by side on one stream, joined by one output layer; modulation comes from outside.
///
/// # Reference
/// Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023, section 2.1,
/// <https://arxiv.org/abs/2302.05442>.
#[derive(Module, Debug)]
pub(crate) struct SingleBlock {
    qkv: Qkv,
    up: Linear,
    output: Linear,
}

impl SingleBlock {
    pub(crate) fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self {
            qkv: QkvConfig::new(width, heads, width / heads).with_norm(Some(1e-6)).init(device),
            up: xavier_linear(width, 4 * width, device),
            output: xavier_linear(5 * width, width, device),
        }
    }

    /// `[B, L, W]`, with shift, scale and gate `[B, 1, W]`, to `[B, L, W]`.
    pub(crate) fn forward(
        &self,
        h: Tensor<3>,
        [shift, scale, gate]: [Tensor<3>; 3],
        rope: &Rope,
        scores: &Scores,
    ) -> Tensor<3> {
        let x = modulate::normed(h.clone(), shift, scale);
        let [read] = trace::scope(
            || "attention".into(),
            || attend_jointly([self.qkv.forward(x.clone(), Some(rope))], scores),
        );
        let wide = Activation::GeluTanh.forward(dense(&self.up, x)); // [B, L, 4 W]
        residual(h, gate, dense(&self.output, Tensor::cat(vec![read, wide], 2)))
    }
}

/// diffusers' names of the layers of these blocks.
pub(crate) mod published {
    use canvas_core::weights::Rules;

    /// What a [`DoubleBlock`](super::DoubleBlock) is called, whose perceptrons are `[of text, of image]`.
    pub(crate) fn double(rules: Rules, published: &str, ours: &str, mlps: [&str; 2]) -> Rules {
        let parts = [
            ("attn.to_q", "image.qkv.query"),
            ("attn.to_k", "image.qkv.key"),
            ("attn.to_v", "image.qkv.value"),
            ("attn.norm_q", "image.qkv.query_norm"),
            ("attn.norm_k", "image.qkv.key_norm"),
            ("attn.to_out.0", "image.output"),
            ("attn.add_q_proj", "text.qkv.query"),
            ("attn.add_k_proj", "text.qkv.key"),
            ("attn.add_v_proj", "text.qkv.value"),
            ("attn.norm_added_q", "text.qkv.query_norm"),
            ("attn.norm_added_k", "text.qkv.key_norm"),
            ("attn.to_add_out", "text.output"),
        ];
        let rules = parts.iter().fold(rules, |rules, (theirs, part)| {
            rules.prefix(&format!("{published}.{theirs}"), &format!("{ours}.{part}"))
        });
        ["text", "image"].iter().zip(mlps).fold(rules, |rules, (stream, mlp)| {
            rules
                .prefix(&format!("{published}.{mlp}.net.0.proj"), &format!("{ours}.{stream}.mlp.up"))
                .prefix(&format!("{published}.{mlp}.net.2"), &format!("{ours}.{stream}.mlp.down"))
        })
    }

    /// What a [`SingleBlock`](super::SingleBlock) is called.
    pub(crate) fn single(rules: Rules, published: &str, ours: &str) -> Rules {
        let parts = [
            ("attn.to_q", "qkv.query"),
            ("attn.to_k", "qkv.key"),
            ("attn.to_v", "qkv.value"),
            ("attn.norm_q", "qkv.query_norm"),
            ("attn.norm_k", "qkv.key_norm"),
            ("proj_mlp", "up"),
            ("proj_out", "output"),
        ];
        parts.iter().fold(rules, |rules, (theirs, part)| {
            rules.prefix(&format!("{published}.{theirs}"), &format!("{ours}.{part}"))
        })
    }
}
