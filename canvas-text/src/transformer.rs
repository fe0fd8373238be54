//! A small transformer text encoder, trained together with the denoiser.

use burn::nn::Embedding;
use burn::prelude::*;
use canvas_core::nn::init::normal_embedding;
use canvas_core::nn::{Activation, Attention, AttentionConfig, LayerNorm, LayerNormConfig, Mlp, MlpConfig};
use canvas_core::{ConfigError, Text, TextEncoder, Tokens, check, trace};

/// Sizes of a [`TextTransformer`].
#[derive(Config, Debug)]
pub struct TextTransformerConfig {
    /// Tokens it knows, special tokens included: [`WordTokenizer::vocabulary`](crate::WordTokenizer::vocabulary).
    pub vocabulary: usize,
    /// The most tokens of a prompt: [`WordTokenizer::context`](crate::WordTokenizer::context).
    pub context: usize,
    /// Width of the token states and of the prompt vector.
    #[config(default = 128)]
    pub width: usize,
    /// Blocks. With 0 it is embeddings, positions and the final norm: the cheapest encoder, and enough where
    /// the denoiser attends to the tokens. The prompt's vector is then the mean of its states, for without a
    /// block the state at `[end]` knows nothing of the words before it.
    #[config(default = 2)]
    pub depth: usize,
    /// Attention heads of each block; must divide the width.
    #[config(default = 4)]
    pub heads: usize,
    /// Nonlinearity of the blocks.
    #[config(default = "Activation::ReluSquared")]
    pub activation: Activation,
}

impl TextTransformerConfig {
    /// # Errors
    /// Names the fields that are zero or do not divide.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("vocabulary", self.vocabulary))?;
        check::positive(("context", self.context))?;
        check::positive(("width", self.width))?;
        check::divides(("heads", self.heads), ("width", self.width))
    }

    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> TextTransformer {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        TextTransformer {
            token: normal_embedding(0.02, self.vocabulary, self.width, device),
            position: normal_embedding(0.01, self.context, self.width, device),
            blocks: (0..self.depth).map(|_| self.block(device)).collect(),
            norm: LayerNormConfig::new(self.width).init(device),
        }
    }

    fn block(&self, device: &Device) -> Block {
        let mlp = MlpConfig::new(self.width, 4 * self.width).with_activation(self.activation);
        Block {
            attention_norm: LayerNormConfig::new(self.width).init(device),
            attention: AttentionConfig::new(self.width, self.heads).init(device),
            mlp_norm: LayerNormConfig::new(self.width).init(device),
            mlp: mlp.init(device),
        }
    }
}

/// A pre-norm transformer block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl Block {
    /// # Shapes
    /// - `x`, output: `[B, T, W]`; `mask`: `[B, T]`, true where a token is real
    pub fn forward(&self, x: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let seen = self.attention_norm.forward(x.clone());
        let own = || self.attention.forward(seen.clone(), seen, mask); // [B, T, W]
        let x = x + trace::scope(|| "attention".into(), own);
        let seen = self.mlp_norm.forward(x.clone());
        x + self.mlp.forward(seen) // [B, T, W]
    }
}

/// A text encoder in CLIP's shape: token and learned position embeddings, pre-norm blocks, a final norm. The
/// prompt's vector is the state at `[end]`, its last token (without blocks, the mean of all its states).
///
/// # Reference
/// Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 2.4,
/// <https://arxiv.org/abs/2103.00020>.
///
/// # Differs from the paper
/// Each token attends to all real tokens, not only to those before it: nothing is generated here, and a short
/// prompt can afford it. Block weights start Xavier-uniform, and there is no projection of the pooled state.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{TextEncoder, Tokens};
/// use canvas_text::TextTransformerConfig;
///
/// let encoder = TextTransformerConfig::new(10, 8).with_width(16).with_depth(1).init(&Device::flex());
/// let long = Tokens { ids: vec![2, 5, 7, 3], mask: vec![true; 4], length: 4 };
/// assert_eq!(encoder.encode(&long).tokens.dims(), [1, 4, 16]);
/// ```
#[derive(Module, Debug)]
pub struct TextTransformer {
    token: Embedding,
    position: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl TextTransformer {
    /// Width of the token states and of the prompt vector.
    pub fn width(&self) -> usize {
        self.token.weight.dims()[1]
    }

    /// Panics with both sizes where the tokens do not fit this encoder; on some devices a wrong id would
    /// otherwise read whatever lies there.
    fn check(&self, tokens: &Tokens) {
        let (vocabulary, context) = (self.token.weight.dims()[0], self.position.weight.dims()[0]);
        let length = tokens.length;
        assert!(tokens.batch() > 0, "a text encoder needs at least one prompt");
        assert!(length <= context, "rows of {length} tokens for a context of {context}");
        let largest = tokens.ids.iter().max().map_or(0, |&id| id as usize);
        assert!(largest < vocabulary, "token id {largest} for a vocabulary of {vocabulary}");
        let empty = tokens.mask.chunks(length).position(|row| !row.contains(&true));
        assert!(empty.is_none(), "row {} of the tokens is all padding", empty.unwrap_or_default());
    }

    /// Token embeddings plus positions: `[B, T, W]`.
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let (length, width) = (ids.dims()[1], self.width());
        let position: Tensor<3> = self.position.weight.val().slice([0..length, 0..width]).unsqueeze(); // [1, T, W]
        self.token.forward(ids) + position
    }

    /// The prompt vectors `[B, W]` of states `[B, T, W]` that are zero at padding.
    fn pool(&self, states: Tensor<3>, tokens: &Tokens) -> Tensor<2> {
        let ([batch, _, width], device) = (states.dims(), states.device());
        let rows = tokens.mask.chunks(tokens.length);
        if self.blocks.is_empty() {
            let count = |row: &[bool]| row.iter().filter(|&&real| real).count() as f32;
            let counts = TensorData::new(rows.map(count).collect::<Vec<f32>>(), [batch, 1]);
            return states.sum_dim(1).reshape([batch, width]) / Tensor::from_data(counts, &device);
        }
        let last = |row: &[bool]| row.iter().rposition(|&real| real).expect("checked") as i64;
        let places = rows.enumerate().map(|(i, row)| (i * tokens.length) as i64 + last(row));
        let places = TensorData::new(places.collect::<Vec<i64>>(), [batch]);
        let states: Tensor<2> = states.flatten(0, 1); // [B T, W]
        states.select(0, Tensor::from_data(places, &device))
    }
}

impl TextEncoder for TextTransformer {
    /// Padding never shows: real tokens do not attend to it, and its own states are zero.
    ///
    /// # Panics
    /// If there is no prompt, a row is all padding or longer than the context, or an id is outside the
    /// vocabulary.
    fn encode(&self, tokens: &Tokens) -> Text {
        self.check(tokens);
        let (ids, mask) = tokens.tensors(&self.token.weight.val().device()); // [B, T], [B, T]
        // Prompts of one length need no mask: attention without one is cheaper and gives the same.
        let padded = tokens.mask.contains(&false).then(|| mask.clone());
        let mut x = self.embed(ids); // [B, T, W]
        for (i, block) in self.blocks.iter().enumerate() {
            x = trace::block(|| format!("text.blocks.{i}"), x, |x| block.forward(x, padded.clone()));
        }
        let mut x = self.norm.forward(x); // [B, T, W]
        if let Some(mask) = padded {
            let hidden = mask.bool_not().unsqueeze_dim::<3>(2).expand(x.dims());
            x = x.mask_fill(hidden, 0.0);
        }
        Text { tokens: x.clone(), mask, pooled: self.pool(x, tokens) } // [B, T, W], [B, T], [B, W]
    }
}
