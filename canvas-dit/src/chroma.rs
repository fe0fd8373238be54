//! Chroma: Flux.1 without the pooled text, its modulation made by one small network, its padding masked.
//!
//! Lodestone Rock, Chroma1, 2025, <https://huggingface.co/lodestones/Chroma1-HD>. Flux's modulation layers are a quarter of
//! its parameters and hardly depend on the text: here one perceptron, the approximator, makes each vector of them from the
//! time and the vector's number.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `N` image tokens, `T` text tokens, `W` width, `M`
//! modulation vectors, `F` features of the approximator.

mod published;

use crate::prompt::Expected;
use crate::streams::{DoubleBlock, SingleBlock, check_heads};
use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::memo::{Constant, keep};
use canvas_core::nn::init::{xavier_linear, zero_linear};
use canvas_core::nn::{
    Activation, Mlp, MlpConfig, Pairs, RmsNorm, RmsNormConfig, Rope, Scores, dense, modulate, patch,
    sinusoidal,
};
use canvas_core::{Backbone, ConfigError, Text, check, trace};
use serde::{Deserialize, Serialize};

/// What attention does with padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChromaMask {
    /// Tokens that are not seen are hidden, as in Chroma's own code.
    Hides,
    /// 1 is added to the scores between tokens that are seen, and nothing is hidden: what diffusers 0.42.1 draws, whose
    /// pipeline hands its mask on as numbers.
    Favours,
}

/// Sizes of a [`Chroma`].
#[derive(Config, Debug)]
pub struct ChromaConfig {
    /// Blocks of two streams.
    pub double: usize,
    /// Blocks of one stream.
    pub single: usize,
    /// Attention heads; the width is that of all of them.
    pub heads: usize,
    /// Width of the text tokens (T5).
    pub text: usize,
    /// Features that the approximator reads: a quarter for the time, a quarter left blank, half for the vector's number.
    #[config(default = 64)]
    pub features: usize,
    /// Width of the approximator.
    #[config(default = 5120)]
    pub hidden: usize,
    /// Layers of the approximator.
    #[config(default = 5)]
    pub layers: usize,
    /// Features of a head that each axis of positions rotates: reference, row, column; all together are a head.
    #[config(default = "[16, 56, 56]")]
    pub axes: [usize; 3],
    /// Channels of the latents.
    #[config(default = 16)]
    pub channels: usize,
    /// Side of a patch.
    #[config(default = 2)]
    pub patch: usize,
    /// What attention does with padding.
    #[config(default = "ChromaMask::Hides")]
    pub mask: ChromaMask,
}

impl ChromaConfig {
    /// Chroma1: 8.9 billion parameters.
    pub fn chroma1() -> Self {
        Self::new(19, 38, 24, 4096)
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.heads * self.axes.iter().sum::<usize>()
    }

    /// Modulation vectors: 3 a single block, 6 for each stream of a double block, 2 for the last layer.
    pub fn vectors(&self) -> usize {
        3 * self.single + 12 * self.double + 2
    }

    /// # Errors
    /// Names the value that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_heads(self.heads, &self.axes)?;
        check::divides(("8", 8), ("features", self.features))?;
        check::positive(("features", self.features))?;
        check::positive(("channels", self.channels))?;
        check::positive(("patch", self.patch))
    }

    /// Xavier-uniform weights and zero biases, but zeros for the last layers of the approximator and of the network
    /// (adaLN-Zero).
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Chroma {
        self.validate().unwrap_or_else(|error| panic!("ChromaConfig: {error}"));
        let (width, token) = (self.width(), self.channels * self.patch * self.patch);
        Chroma {
            approximator: Approximator::new(self, device),
            text_in: xavier_linear(self.text, width, device),
            image_in: xavier_linear(token, width, device),
            double: (0..self.double).map(|_| DoubleBlock::new(width, self.heads, device)).collect(),
            single: (0..self.single).map(|_| SingleBlock::new(width, self.heads, device)).collect(),
            unembed: zero_linear(width, token, device),
            config: self.clone(),
        }
    }
}

/// The transformer of Chroma: noise fraction in `[0, 1]` as time, `noise - data` as answer.
///
/// The text's mask says which tokens are words (the end of the text is one). Of the padding Chroma reads the first token
/// and no other, which is seen to here.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Text};
/// use canvas_dit::ChromaConfig;
///
/// let device = Device::flex();
/// # let mask = Tensor::<2, Int>::ones([1, 3], &device).bool();
/// # let text = Text { tokens: Tensor::ones([1, 3, 8], &device), mask, pooled: Tensor::ones([1, 4], &device) };
/// let config = ChromaConfig::new(1, 1, 2, 8).with_axes([2, 2, 4]).with_channels(4);
/// let net = config.with_features(8).with_hidden(16).with_layers(1).init(&device);
/// let x = Tensor::ones([1, 4, 6, 8], &device);
/// assert_eq!(net.forward(x, Tensor::from_floats([0.7], &device), &text).dims(), [1, 4, 6, 8]);
/// ```
#[derive(Module, Debug)]
pub struct Chroma {
    approximator: Approximator,
    text_in: Linear,
    image_in: Linear,
    double: Vec<DoubleBlock>,
    single: Vec<SingleBlock>,
    unembed: Linear,
    #[module(skip)]
    config: ChromaConfig,
}

impl Chroma {
    /// What the mask does to the scores of `T + N` tokens.
    fn scores(&self, mask: &Tensor<2, Bool>, places: usize) -> Scores {
        let ([batch, tokens], device) = (mask.dims(), mask.device());
        let first = Tensor::<2, Int>::ones([batch, 1], &device);
        // One further than the words: a token is seen if it or the one before it is a word.
        let behind = Tensor::cat(vec![first, mask.clone().int()], 1).narrow(1, 0, tokens).bool();
        let text = mask.clone().bool_or(behind); // [B, T]
        let image = Tensor::<2, Int>::ones([batch, places], &device).bool();
        let seen = Tensor::cat(vec![text, image], 1); // [B, T + N]
        match self.config.mask {
            ChromaMask::Hides => Scores::seen(Some(seen)),
            ChromaMask::Favours => {
                let seen = seen.float().cast(self.text_in.weight.val().dtype());
                let pairs = seen.clone().unsqueeze_dim::<3>(2) * seen.unsqueeze_dim::<3>(1); // [B, L, L]
                Scores { bias: Some(pairs.unsqueeze_dim(1)), ..Scores::default() }
            }
        }
    }

    fn rope(&self, tokens: usize, [rows, columns]: [usize; 2], device: &Device) -> Rope {
        let mut positions = vec![[0.0; 3]; tokens];
        positions.extend((0..rows).flat_map(|y| (0..columns).map(move |x| [0.0, y as f64, x as f64])));
        Rope::new(&positions, &self.config.axes, 10000.0, Pairs::Neighbours, device)
    }
}

impl Backbone<4> for Chroma {
    type Cond = Text;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`, where the patch divides `H` and `S`; `time`: `[B]`, the noise fraction
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If sizes disagree.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Text) -> Tensor<4> {
        let ChromaConfig { channels, text, double, single, patch, .. } = self.config;
        Expected { channels, text, pooled: None }.check(&x, &time, cond);
        let ([_, _, height, width], device) = (x.dims(), x.device());
        let grid = [height / patch, width / patch];
        let (tokens, places) = (cond.tokens.dims()[1], grid[0] * grid[1]);
        let rope =
            keep(|| format!("rope {grid:?}"), Constant::Condition, || self.rope(tokens, grid, &device));
        let scores = self.scores(&cond.mask, places);
        let all = keep(|| "modulation".into(), Constant::Time, || self.approximator.forward(time)); // [B, M, W]
        let (of_images, of_texts) = (3 * single, 3 * single + 6 * double);

        let mut text = keep(
            || "text".into(),
            Constant::Condition,
            || dense(&self.text_in, cond.tokens.clone()), // [B, T, W]
        );
        let mut h = dense(&self.image_in, patch::split(x, patch)); // [B, N, W]
        for (i, block) in self.double.iter().enumerate() {
            let run = |(h, text)| {
                let of_text = rows("text_modulation", &all, of_texts + 6 * i);
                let modulation = [of_text, rows("modulation", &all, of_images + 6 * i)];
                let [text, h] = block.forward([text, h], modulation, &rope, &scores);
                (h, text)
            };
            (h, text) = trace::block(|| format!("double.{i}"), (h, text), run);
        }
        let mut h = Tensor::cat(vec![text, h], 1); // [B, T + N, W]
        for (i, block) in self.single.iter().enumerate() {
            let run = |h| block.forward(h, rows("modulation", &all, 3 * i), &rope, &scores);
            h = trace::block(|| format!("single.{i}"), h, run);
        }
        let [shift, scale] = rows("final_modulation", &all, self.config.vectors() - 2);
        let h = modulate::normed(h.narrow(1, tokens, places), shift, scale); // [B, N, W]
        patch::join(dense(&self.unembed, h), patch, height, width) // [B, C, H, S]
    }
}

/// `K` modulation vectors `[B, 1, W]` of all `[B, M, W]`; tapped in a row, `[B, 1, K W]`, as in other networks.
fn rows<const K: usize>(name: &str, all: &Tensor<3>, start: usize) -> [Tensor<3>; K] {
    let [batch, _, width] = all.dims();
    let own = all.clone().narrow(1, start, K).reshape([batch, 1, K * width]);
    modulate::cut(trace::tap(|| name.into(), own))
}

/// Makes every modulation vector from the time and the vector's number.
#[derive(Module, Debug)]
struct Approximator {
    input: Linear,
    norms: Vec<RmsNorm>,
    layers: Vec<Mlp>,
    output: Linear,
    numbers: Tensor<3>, // fixed, so not a parameter
    features: usize,
}

impl Approximator {
    fn new(config: &ChromaConfig, device: &Device) -> Self {
        let (width, hidden) = (config.width(), config.hidden);
        let layer = || MlpConfig::new(hidden, hidden).with_activation(Activation::Silu).init(device);
        // PyTorch's own epsilon where none is given, for 32 bits.
        let norm = || RmsNormConfig::new(hidden).with_epsilon(f64::from(f32::EPSILON)).init(device);
        Self {
            input: xavier_linear(config.features, hidden, device),
            norms: (0..config.layers).map(|_| norm()).collect(),
            layers: (0..config.layers).map(|_| layer()).collect(),
            output: zero_linear(hidden, width, device),
            numbers: numbers(config.vectors(), config.features / 2, device),
            features: config.features,
        }
    }

    /// `[B]` to `[B, M, W]`.
    fn forward(&self, time: Tensor<1>) -> Tensor<3> {
        let ([batch], [_, vectors, half]) = (time.dims(), self.numbers.dims());
        let blank = time.zeros_like(); // where Flux has its guidance
        let told = [time * 1000.0, blank].map(|x| sinusoidal(x, self.features / 4, 10000.0));
        let told = Tensor::cat(told.to_vec(), 1).unsqueeze_dim::<3>(1).expand([batch, vectors, half]);
        let numbers = self.numbers.clone().expand([batch, vectors, half]);
        let features = Tensor::cat(vec![told, numbers], 2); // [B, M, F]
        let mut h = dense(&self.input, features.cast(self.input.weight.val().dtype()));
        for (norm, layer) in self.norms.iter().zip(&self.layers) {
            h = h.clone() + layer.forward(norm.forward(h));
        }
        dense(&self.output, h) // [B, M, W]
    }
}

/// Sinusoidal features `[1, M, width]` of 1000 times the vectors' numbers.
///
/// In 32 bits all the way, as published weights have seen them: at the last of Chroma's 344 vectors a rounding of the
/// frequency turns an angle by 0.02.
fn numbers(vectors: usize, width: usize, device: &Device) -> Tensor<3> {
    let half = width / 2;
    let frequency = |i: usize| f64::from(-(10000f64.ln() as f32) * i as f32 / half as f32).exp() as f32;
    let angle = |number: usize, i: usize| f64::from((1000 * number) as f32 * frequency(i));
    let row = |number: usize| {
        let cosines = (0..half).map(move |i| angle(number, i).cos() as f32);
        cosines.chain((0..half).map(move |i| angle(number, i).sin() as f32))
    };
    let values: Vec<f32> = (0..vectors).flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [1, vectors, width]), device)
}
