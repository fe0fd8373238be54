//! Blocks with norms before and behind attention and perceptron, as Lumina 2 and Z-Image have them alike.
//!
//! Shape letters: `B` batch, `T` text tokens, `N` image tokens, `L` tokens of a sequence, `W` width, `V` width of the vector
//! that modulates.

use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::nn::init::{self, zero_linear};
use canvas_core::nn::{
    GatedMlp, GatedMlpConfig, Pairs, Qkv, QkvConfig, RmsNorm, RmsNormConfig, Rope, Scores, attend_jointly,
    dense, linear, modulate,
};
use canvas_core::ops::residual;
use canvas_core::trace;

/// Sizes of [`SandwichBlock`]s.
pub(crate) struct Sizes {
    pub width: usize,
    pub heads: usize,
    pub key_heads: usize,
    pub hidden: usize,
    /// Width of the vector that modulates.
    pub vector: usize,
    pub eps: f64,
}

impl Sizes {
    /// So many blocks, modulated or not.
    pub(crate) fn blocks(&self, count: usize, modulated: bool, device: &Device) -> Vec<SandwichBlock> {
        (0..count).map(|_| SandwichBlock::new(self, modulated, device)).collect()
    }
}

/// Attention and SwiGLU, each between two norms; scale before, `tanh` of a gate behind, by a vector where there is one.
///
/// `h + tanh(g1) norm(attention((1 + s1) norm(h)))`, then `h + tanh(g2) norm(mlp((1 + s2) norm(h)))`.
///
/// # Reference
/// Zhuo et al., "Lumina-Next", 2024, section 2.1, <https://arxiv.org/abs/2406.18583>.
#[derive(Module, Debug)]
pub(crate) struct SandwichBlock {
    modulation: Option<Linear>,
    attention_norm: RmsNorm,
    qkv: Qkv,
    output: Linear,
    read_norm: RmsNorm,
    mlp_norm: RmsNorm,
    mlp: GatedMlp,
    answer_norm: RmsNorm,
}

impl SandwichBlock {
    fn new(sizes: &Sizes, modulated: bool, device: &Device) -> Self {
        let &Sizes { width, heads, key_heads, hidden, vector, eps } = sizes;
        let norm = || RmsNormConfig::new(width).with_epsilon(eps).init(device);
        let qkv = QkvConfig::new(width, heads, width / heads).with_bias(false).with_norm(Some(1e-5));
        Self {
            modulation: modulated.then(|| zero_linear(vector, 4 * width, device)),
            attention_norm: norm(),
            qkv: qkv.with_key_heads(Some(key_heads)).init(device),
            output: init::linear(width, width, false, device),
            read_norm: norm(),
            mlp_norm: norm(),
            mlp: GatedMlpConfig::new(width, hidden).init(device),
            answer_norm: norm(),
        }
    }

    /// `[B, L, W]` to `[B, L, W]`; `c` is `[B, V]`, for a block that is modulated.
    fn forward(&self, h: Tensor<3>, c: Option<&Tensor<2>>, rope: &Rope, scores: &Scores) -> Tensor<3> {
        let attention = |x: Tensor<3>| {
            let [read] = trace::scope(
                || "attention".into(),
                || attend_jointly([self.qkv.forward(x, Some(rope))], scores),
            );
            self.read_norm.forward(dense(&self.output, read))
        };
        let mlp = |x: Tensor<3>| self.answer_norm.forward(self.mlp.forward(x));
        let Some((layer, c)) = self.modulation.as_ref().zip(c) else {
            let h = h.clone() + attention(self.attention_norm.forward(h));
            return h.clone() + mlp(self.mlp_norm.forward(h));
        };
        let all = modulate::of_time("modulation", || linear(layer, c.clone()).unsqueeze_dim(1)); // [B, 1, 4 W]
        let [scale_a, gate_a, scale_m, gate_m] = modulate::cut(all);
        let read = attention(self.attention_norm.forward(h.clone()) * (scale_a + 1.0));
        let h = residual(h, gate_a.tanh(), read);
        let thought = mlp(self.mlp_norm.forward(h.clone()) * (scale_m + 1.0));
        residual(h, gate_m.tanh(), thought)
    }
}

/// One block after the other.
pub(crate) fn run(
    blocks: &[SandwichBlock],
    name: &str,
    h: Tensor<3>,
    c: Option<&Tensor<2>>,
    rope: &Rope,
    scores: &Scores,
) -> Tensor<3> {
    let step = |h, (i, block): (usize, &SandwichBlock)| {
        trace::block(|| format!("{name}.{i}"), h, |h| block.forward(h, c, rope, scores))
    };
    blocks.iter().enumerate().fold(h, step)
}

/// What all evaluations of a run have alike, but for its latents: text as tokens, and where all tokens stand.
#[derive(Clone)]
pub(crate) struct Sequence {
    /// `[B, T, W]`.
    pub text: Tensor<3>,
    /// Of text and image: `T + N` positions.
    pub rope: Rope,
    /// Which of both may be seen, `[B, T + N]`, if not all.
    pub seen: Option<Tensor<2, Bool>>,
}

/// Real tokens of each row of a text's mask, `[B, T]`.
///
/// # Panics
/// If a row has none, or one behind a token that is not.
pub(crate) fn lengths(mask: &Tensor<2, Bool>) -> Vec<usize> {
    let [_, length] = mask.dims();
    let mask: Vec<bool> = mask.clone().into_data().iter::<bool>().collect();
    let count = |(row, mask): (usize, &[bool])| {
        let real = mask.iter().take_while(|&&real| real).count();
        assert!(real > 0, "row {row} of the text begins with no real token");
        assert!(!mask[real..].contains(&true), "row {row} of the text has real tokens behind padding");
        real
    };
    mask.chunks(length.max(1)).enumerate().map(count).collect()
}

/// Which tokens may be seen where samples have so many of `total` text tokens, before `image` others; `None` if all.
pub(crate) fn seen(
    lengths: &[usize],
    total: usize,
    image: usize,
    device: &Device,
) -> Option<Tensor<2, Bool>> {
    if lengths.iter().all(|&length| length == total) {
        return None;
    }
    let row = |&length: &usize| (0..total + image).map(move |i| i < length || i >= total);
    let mask: Vec<bool> = lengths.iter().flat_map(row).collect();
    Some(Tensor::from_data(TensorData::new(mask, [lengths.len(), total + image]), device))
}

/// Rotations of a batch, for the positions that samples of such lengths have.
pub(crate) fn rope(
    lengths: &[usize],
    positions: impl Fn(usize) -> Vec<[f64; 3]>,
    axes: &[usize; 3],
    theta: f64,
    device: &Device,
) -> Rope {
    let of = |&length: &usize| Rope::new(&positions(length), axes, theta, Pairs::Neighbours, device);
    if lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        return of(&lengths[0]);
    }
    Rope::stack(&lengths.iter().map(of).collect::<Vec<_>>())
}

/// Positions `[first, row, column]` of an image's tokens, row by row.
pub(crate) fn grid(first: usize, [rows, columns]: [usize; 2]) -> impl Iterator<Item = [f64; 3]> {
    (0..rows).flat_map(move |y| (0..columns).map(move |x| [first as f64, y as f64, x as f64]))
}

/// # Panics
/// If there are more positions than the model was trained for: words and the image behind them, rows and columns.
pub(crate) fn check_places(found: [usize; 3], most: [usize; 3]) {
    for ((name, found), most) in ["text", "rows", "columns"].iter().zip(found).zip(most) {
        assert!(found <= most, "{found} positions of {name}, where there are at most {most}");
    }
}

/// diffusers' names of a block's layers, in `theirs`, of which attention and perceptron are called so.
pub(crate) mod published {
    use canvas_core::weights::Rules;

    /// `mlp` holds the names of gate, up and down; `more` is what only these blocks have.
    pub(crate) fn block(
        rules: Rules,
        theirs: &str,
        ours: &str,
        attention: &str,
        mlp: [&str; 3],
        more: &[(&str, &str)],
    ) -> Rules {
        let own = |part: &str| format!("{attention}.{part}");
        let parts = [
            (own("to_q"), "qkv.query"),
            (own("to_k"), "qkv.key"),
            (own("to_v"), "qkv.value"),
            (own("norm_q"), "qkv.query_norm"),
            (own("norm_k"), "qkv.key_norm"),
            (own("to_out.0"), "output"),
            ("ffn_norm1".into(), "mlp_norm"),
            ("ffn_norm2".into(), "answer_norm"),
            (format!("feed_forward.{}", mlp[0]), "mlp.gate"),
            (format!("feed_forward.{}", mlp[1]), "mlp.up"),
            (format!("feed_forward.{}", mlp[2]), "mlp.down"),
        ];
        let parts = parts.iter().map(|(theirs, ours)| (theirs.as_str(), *ours)).chain(more.iter().copied());
        parts.fold(rules, |rules, (part, name)| {
            rules.prefix(&format!("{theirs}.{{i}}.{part}"), &format!("{ours}.{{i}}.{name}"))
        })
    }
}
