//! Language models as text encoders: one decoder whose switches give Llama, Mistral, Qwen 2, 2.5 and 3, Gemma 2,
//! and T5Gemma's encoder.
//!
//! What diffusers' pipelines (0.42.1) ask of them, `depth` blocks and states numbered as transformers does, state 0
//! the embeddings and state `depth` the last one after the final norm:
//!
//! | pipeline | model | states | text | tokens | what the network reads |
//! |---|---|---|---|---|---|
//! | Sana | Gemma 2 | `depth` | lowercase, no blanks around; [`SANA_INSTRUCTION`] in front, but not of the negative prompt | right-padded to 300, with the instruction to `n + 298`, `n` its tokens with the start token | with the instruction the first state and the last 299, so padding stays; its mask goes along |
//! | Lumina 2 | Gemma 2 | `depth - 1` | [`LUMINA2_SYSTEM`] in front, but not of the negative prompt | right-padded to 256 | all, with the mask |
//! | Z-Image | Qwen 3 | `depth - 1` | chat: user; generation prompt, thinking | padded to 512 | real tokens only |
//! | Qwen-Image | Qwen 2.5 VL | `depth` | [`QWEN_IMAGE`] around | padded to the longest, at most 1024 + 34 | real tokens from the 35th on, at most 512; right-padded with zeros, with a mask unless all are real |
//! | Flux.2 | Mistral 3 | 10, 20, 30 side by side | chat: [`FLUX2_SYSTEM`], user (`[IMG]` removed), both as [parts](crate::Message::part); no generation prompt | padded to 512, without special tokens, which the template writes | all, padding too, and no mask |
//! | Flux.2 klein | Qwen 3 | 9, 18, 27 side by side | chat: user; generation prompt, no thinking | padded to 512 | all, padding too, and no mask |
//! | PRX | T5Gemma encoder | `depth` | cleaned as DeepFloyd's | padded to the tokenizer's `model_max_length` | all, with the mask |
//! | HiDream | Llama 3.1 | each from 1 to `depth` | the prompt | padded to 128 | all, padding too, and no mask |
//!
//! The encoders themselves are always given the mask. Where it says "padded" and no side, the side is the
//! tokenizer's own: `padding_side` of its `tokenizer_config.json`. Where padding is kept, what stands there counts:
//! right padding is a token that reads the prompt before it, left padding reads [nothing](Blind).
//!
//! [`SANA_INSTRUCTION`]: crate::templates::SANA_INSTRUCTION
//! [`LUMINA2_SYSTEM`]: crate::templates::LUMINA2_SYSTEM
//! [`QWEN_IMAGE`]: crate::templates::QWEN_IMAGE
//! [`FLUX2_SYSTEM`]: crate::templates::FLUX2_SYSTEM

mod attention;
mod config;
mod files;
mod published;
mod rope;

pub use attention::Blind;
pub use config::LlmConfig;
pub use rope::{Llama3Rope, Rope};

use attention::{Attention, Sight};
use burn::module::Param;
use burn::nn::Embedding;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::nn::{GatedMlp, Rope as Rotation};
use canvas_core::{ConfigError, Text, TextEncoder, Tokens, trace};

/// A language model without its head: token embeddings, blocks of attention and a gated perceptron behind RMS norms,
/// rotary positions, a final norm.
///
/// A token sees itself and the real tokens before it. Positions count from the row's first token, padding or not, as
/// in transformers: rotary positions are relative, so a row padded in front answers what it does alone.
///
/// # Reference
/// Touvron et al., "Llama 2", 2023, section 2.2, <https://arxiv.org/abs/2307.09288>; Jiang et al., "Mistral 7B",
/// 2023, <https://arxiv.org/abs/2310.06825>; Gemma Team, "Gemma 2", 2024, section 2,
/// <https://arxiv.org/abs/2408.00118>; Qwen Team, "Qwen2.5 Technical Report", 2024,
/// <https://arxiv.org/abs/2412.15115>; "Qwen3 Technical Report", 2025, <https://arxiv.org/abs/2505.09388>; Zhang et
/// al., "Encoder-Decoder Gemma", 2025, <https://arxiv.org/abs/2504.06225>; transformers' classes of these names.
///
/// # Differs from transformers
/// No cache of keys and values, no head and so no cap of its logits, no dropout in training. The embedding of the pad
/// token learns where it counts; there, never.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{TextEncoder, Tokens};
/// use canvas_text::LlmConfig;
///
/// let qwen3 = LlmConfig::new(16, 24, 3, 4, 10).with_groups(Some(2)).with_head_width(Some(6)).with_head_norm(true);
/// let encoder = qwen3.init(&Device::flex()).with_layers(&[1, 2])?;
/// let tokens = Tokens { ids: vec![8, 5, 9, 0], mask: vec![true, true, true, false], length: 4 };
/// assert_eq!(encoder.encode(&tokens).tokens.dims(), [1, 4, 32]); // two states side by side
/// # Ok::<(), canvas_core::ConfigError>(())
/// ```
#[derive(Module, Debug)]
pub struct Llm {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Option<RmsNorm>,
    #[module(skip)]
    layers: Vec<usize>,
    #[module(skip)]
    config: LlmConfig,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    attention_after: Option<RmsNorm>,
    mlp_norm: RmsNorm,
    mlp: GatedMlp,
    mlp_after: Option<RmsNorm>,
}

/// `x / sqrt(mean(x^2) + epsilon)` in f32, times `gamma` or `1 + gamma`. The weights' reader knows it by its name.
#[derive(Module, Debug)]
struct RmsNorm {
    gamma: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
    one_plus: bool,
}

impl Llm {
    /// With other states as the tokens' vectors of [`encode`](TextEncoder::encode), side by side in this order: 0 is
    /// what the first block reads, `i` what the block of this number (from 1) answers, and the last is behind the
    /// final norm. Blocks behind the last of them are not run.
    ///
    /// # Errors
    /// If there is none, or one is beyond the last.
    pub fn with_layers(mut self, layers: &[usize]) -> Result<Self, ConfigError> {
        if layers.is_empty() {
            return Err(ConfigError::new("an encoder without a state to answer"));
        }
        let last = self.blocks.len();
        if let Some(layer) = layers.iter().find(|layer| **layer > last) {
            return Err(ConfigError::new(format!("state {layer} of a language model of {last} blocks")));
        }
        self.layers = layers.to_vec();
        Ok(self)
    }

    /// Blocks, be they [kept](LlmConfig::kept) or not: the number of the state behind the final norm.
    pub fn depth(&self) -> usize {
        self.config.depth
    }

    /// Width of a state.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Tokens it knows.
    pub fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// The most tokens of a row.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// States by their numbers, as in [`with_layers`](Self::with_layers), each `[B, T, W]`. Blocks are tapped as
    /// `text.blocks.N`.
    ///
    /// # Panics
    /// If there is no prompt, a row is all padding or longer than the context, an id is outside the vocabulary, or a
    /// state beyond the last.
    pub fn states(&self, tokens: &Tokens, layers: &[usize]) -> Vec<Tensor<3>> {
        self.check(tokens);
        let (last, made) = (layers.iter().max().copied().unwrap_or_default(), self.blocks.len());
        assert!(last <= made, "state {last} of a language model of {made} blocks");
        let (ids, _) = tokens.tensors(&self.embedding.weight.val().device());
        let mut x = self.embedding.forward(ids); // [B, T, W]
        if self.config.scaled_embedding {
            x = x * (self.width() as f64).sqrt();
        }
        let device = x.device();
        let rotation = self.config.rope.rotation(tokens.length, self.config.head_width(), &device);
        let mut sights = Vec::<(Option<usize>, Option<Sight>)>::new(); // one a window
        let mut found = vec![None; last + 1];
        for (i, block) in self.blocks.iter().take(last).enumerate() {
            if layers.contains(&i) {
                found[i] = Some(x.clone());
            }
            let window = self.config.windows.get(i).copied().flatten();
            if sights.iter().all(|(known, _)| *known != window) {
                sights.push((window, self.sight(tokens, window, &device)));
            }
            let sight =
                sights.iter().find(|(known, _)| *known == window).and_then(|(_, sight)| sight.as_ref());
            x = trace::block(|| format!("text.blocks.{i}"), x, |x| block.forward(x, &rotation, sight));
        }
        found[last] = Some(match &self.norm {
            Some(norm) if last == made => norm.forward(x),
            _ => x,
        });
        layers.iter().map(|layer| found[*layer].clone().expect("every state up to the last")).collect()
    }

    fn sight(&self, tokens: &Tokens, window: Option<usize>, device: &Device) -> Option<Sight> {
        Sight::new(tokens, self.config.causal, window, device)
    }

    /// Panics with both sizes where the tokens do not fit this encoder.
    fn check(&self, tokens: &Tokens) {
        let (vocabulary, context, length) = (self.vocabulary(), self.context(), tokens.length);
        assert!(tokens.batch() > 0, "a text encoder needs at least one prompt");
        assert!(length <= context, "rows of {length} tokens for a context of {context}");
        let largest = tokens.ids.iter().max().map_or(0, |&id| id as usize);
        assert!(largest < vocabulary, "token id {largest} for a vocabulary of {vocabulary}");
        let empty = tokens.mask.chunks(length).position(|row| !row.contains(&true));
        assert!(empty.is_none(), "row {} of the tokens is all padding", empty.unwrap_or_default());
    }
}

impl TextEncoder for Llm {
    /// The [chosen states](Self::with_layers) side by side, `[B, T, N W]`, and the tokens' own mask. The prompt's
    /// vector is that of its last real token, which alone has read all of it.
    ///
    /// # Panics
    /// As [`states`](Self::states).
    fn encode(&self, tokens: &Tokens) -> Text {
        let states = Tensor::cat(self.states(tokens, &self.layers), 2); // [B, T, N W]
        let (_, mask) = tokens.tensors(&states.device());
        let rows = tokens.mask.chunks(tokens.length).enumerate();
        let last = |row: &[bool]| row.iter().rposition(|&real| real).expect("checked");
        let places: Vec<i64> = rows.map(|(i, row)| (i * tokens.length + last(row)) as i64).collect();
        let places = Tensor::from_data(TensorData::new(places, [tokens.batch()]), &states.device());
        let pooled = states.clone().flatten::<2>(0, 1).select(0, places); // [B, N W]
        Text { tokens: states, mask, pooled }
    }
}

impl Block {
    /// `[B, T, W]` to `[B, T, W]`.
    fn forward(&self, x: Tensor<3>, rotation: &Rotation, sight: Option<&Sight>) -> Tensor<3> {
        let after = |norm: &Option<RmsNorm>, x: Tensor<3>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let seen = self.attention_norm.forward(x.clone());
        let read = trace::scope(|| "attention".into(), || self.attention.forward(seen, rotation, sight));
        let x = x + after(&self.attention_after, read);
        let thought = self.mlp.forward(self.mlp_norm.forward(x.clone()));
        x + after(&self.mlp_after, thought)
    }
}

impl RmsNorm {
    /// Over the last axis. In half precision Gemma rounds behind the product and the others before it, so here.
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (dtype, gamma) = (x.dtype(), self.gamma.val().unsqueeze::<D>());
        let x = x.cast(DType::F32);
        let size = (x.clone().square().mean_dim(D - 1) + self.epsilon).sqrt();
        let x = x / size;
        if self.one_plus { (x * (gamma.cast(DType::F32) + 1.0)).cast(dtype) } else { x.cast(dtype) * gamma }
    }
}
