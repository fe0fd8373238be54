//! Sizes and switches of a language model.

use super::attention::{Attention, Shape};
use super::{Blind, Block, Llm, RmsNorm, Rope};
use burn::nn::Initializer;
use burn::prelude::*;
use canvas_core::nn::init::{linear, normal_embedding};
use canvas_core::nn::{Activation, GatedMlpConfig};
use canvas_core::{ConfigError, check};

/// Sizes and switches of an [`Llm`]. Without a switch it is Llama; the published ones are read
/// [from their files](Self::from_transformers_file).
#[derive(Config, Debug, PartialEq)]
pub struct LlmConfig {
    /// Width of the token states.
    pub width: usize,
    /// Width between the layers of a perceptron.
    pub hidden: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Tokens it knows.
    pub vocabulary: usize,
    /// Heads of keys and values, which must divide those of queries; as many, if not said.
    pub groups: Option<usize>,
    /// Width of a head, an even number; `width / heads`, if not said.
    pub head_width: Option<usize>,
    /// The most tokens of a row.
    #[config(default = 4096)]
    pub context: usize,
    /// Gates the perceptrons: SiLU, or Gemma's GELU by its tanh approximation.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// Added to mean squares by the norms.
    #[config(default = 1e-6)]
    pub epsilon: f64,
    /// Positions.
    #[config(default = "Rope::new(1e4)")]
    pub rope: Rope,
    /// Whether queries, keys and values have biases: Qwen 2.
    #[config(default = false)]
    pub query_bias: bool,
    /// Whether attention's output has a bias.
    #[config(default = false)]
    pub output_bias: bool,
    /// Whether the layers of the perceptron have biases.
    #[config(default = false)]
    pub mlp_bias: bool,
    /// Whether each head's queries and keys are normed: Qwen 3.
    #[config(default = false)]
    pub head_norm: bool,
    /// Whether norms multiply by `1 + w` and not by `w`: Gemma.
    #[config(default = false)]
    pub one_plus: bool,
    /// Whether the outputs of attention and perceptron are normed, too: Gemma 2.
    #[config(default = false)]
    pub sandwich: bool,
    /// Whether embeddings are multiplied by the root of their width: Gemma.
    #[config(default = false)]
    pub scaled_embedding: bool,
    /// Scores `s` become `c tanh(s / c)`: Gemma 2.
    pub softcap: Option<f64>,
    /// Scores are divided by the root of this: the head's width, if not said.
    pub query_scalar: Option<f64>,
    /// How many tokens back each block sees, itself counted; everything, for blocks without a number.
    #[config(default = "Vec::new()")]
    pub windows: Vec<Option<usize>>,
    /// Whether a token sees only those before it. Without that it is an encoder, and windows reach both ways.
    #[config(default = true)]
    pub causal: bool,
    /// What padding in front reads.
    #[config(default = "Blind::Zero")]
    pub blind: Blind,
}

impl LlmConfig {
    /// Heads of keys and values.
    pub fn groups(&self) -> usize {
        self.groups.unwrap_or(self.heads)
    }

    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.head_width.unwrap_or(self.width / self.heads.max(1))
    }

    /// # Errors
    /// Names the fields that are zero, do not divide, or are of no use.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("width", self.width),
            ("hidden", self.hidden),
            ("depth", self.depth),
            ("heads", self.heads),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
            ("groups", self.groups()),
            ("head_width", self.head_width()),
        ];
        sizes.into_iter().try_for_each(check::positive)?;
        check::divides(("groups", self.groups()), ("heads", self.heads))?;
        if self.head_width.is_none() {
            check::divides(("heads", self.heads), ("width", self.width))?;
        }
        check::divides(("the 2 elements that a position turns", 2), ("head_width", self.head_width()))?;
        if self.windows.len() > self.depth {
            let (windows, depth) = (self.windows.len(), self.depth);
            return Err(ConfigError::new(format!("windows for {windows} blocks of {depth}")));
        }
        let window = |window: &Option<usize>| check::positive(("a window", window.unwrap_or(1)));
        self.windows.iter().try_for_each(window)?;
        let positive = [
            ("epsilon", self.epsilon),
            ("rope.theta", self.rope.theta),
            ("softcap", self.softcap.unwrap_or(1.0)),
            ("query_scalar", self.query_scalar.unwrap_or(1.0)),
        ];
        match positive.into_iter().find(|(_, value)| !value.is_finite() || *value <= 0.0) {
            Some((name, value)) => {
                Err(ConfigError::new(format!("{name} must be a number above 0, found {value}")))
            }
            None => Ok(()),
        }
    }

    /// Xavier-uniform weights, zero biases, norms that begin as nothing but norms.
    ///
    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> Llm {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        Llm {
            embedding: normal_embedding(0.02, self.vocabulary, self.width, device),
            blocks: (0..self.depth).map(|_| self.block(device)).collect(),
            norm: self.norm(self.width, device),
            layers: vec![self.depth],
            config: self.clone(),
        }
    }

    fn block(&self, device: &Device) -> Block {
        let norm = || self.norm(self.width, device);
        let mlp = GatedMlpConfig::new(self.width, self.hidden)
            .with_activation(self.activation)
            .with_bias(self.mlp_bias);
        Block {
            attention_norm: norm(),
            attention: self.attention(device),
            attention_after: self.sandwich.then(norm),
            mlp_norm: norm(),
            mlp: mlp.init(device),
            mlp_after: self.sandwich.then(norm),
        }
    }

    fn attention(&self, device: &Device) -> Attention {
        let (heads, groups, head) = (self.heads, self.groups(), self.head_width());
        let input = |heads| linear(self.width, heads * head, self.query_bias, device);
        let norm = || self.norm(head, device);
        let scale = self.query_scalar.unwrap_or(head as f64).sqrt().recip();
        Attention {
            query: input(heads),
            key: input(groups),
            value: input(groups),
            output: linear(heads * head, self.width, self.output_bias, device),
            query_norm: self.head_norm.then(norm),
            key_norm: self.head_norm.then(norm),
            shape: Shape { heads, groups, scale, softcap: self.softcap, blind: self.blind },
        }
    }

    fn norm(&self, width: usize, device: &Device) -> RmsNorm {
        let start = if self.one_plus { Initializer::Zeros } else { Initializer::Ones };
        RmsNorm { gamma: start.init([width], device), epsilon: self.epsilon, one_plus: self.one_plus }
    }
}
