//! CLIP's text transformer, the text encoder of Stable Diffusion 1.x, 2.x and XL.

pub(crate) mod config;
mod original;
pub(crate) mod published;
mod vision;

pub use config::{ClipTextConfig, Pool};
pub use vision::{ClipVision, ClipVisionConfig};

use burn::nn::{Embedding, Linear};
use burn::prelude::*;
use burn::tensor::activation::softmax;
use canvas_core::nn::{Activation, LayerNorm, dense};
use canvas_core::{ConfigError, Text, TextEncoder, Tokens, trace};

/// Which states of a [`ClipText`] are the tokens' vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipLayer {
    /// Blocks left out, counted from the last.
    pub skip: usize,
    /// Whether the final norm is applied.
    pub norm: bool,
}

impl ClipLayer {
    /// The last block's, normed.
    pub fn last() -> Self {
        Self { skip: 0, norm: true }
    }

    /// What the pipelines of Stable Diffusion 1.x and 2.x take for `clip_skip`: that many blocks less, normed.
    pub fn sd(clip_skip: usize) -> Self {
        Self { skip: clip_skip, norm: true }
    }

    /// What the pipelines of SDXL (and SD3) take for `clip_skip`: one block more is left out, and no norm applied.
    /// Without a `clip_skip`, 0, it is the penultimate layer.
    pub fn sdxl(clip_skip: usize) -> Self {
        Self { skip: clip_skip + 1, norm: false }
    }
}

/// Everything a [`ClipText`] or a [`ClipVision`] can answer.
#[derive(Clone, Debug)]
pub struct ClipStates {
    /// What the first block reads, then each block's output: `depth + 1` times `[B, T, W]`, before the final norm.
    pub hidden: Vec<Tensor<3>>,
    /// The last block's output; of a text, after the final norm: `[B, T, W]`.
    pub last: Tensor<3>,
    /// The vectors of the prompts or pictures, projected where there is a projection: `[B, P]`.
    pub pooled: Tensor<2>,
}

/// CLIP's text transformer: token and learned position embeddings, pre-norm blocks in which a token sees itself
/// and those before it, a final norm, and the state of the end token, perhaps projected, as the prompt's vector.
///
/// Parameters are named as in transformers (norms have `gamma` and `beta` for `weight` and `bias`).
///
/// # Reference
/// Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 2.4,
/// <https://arxiv.org/abs/2103.00020>; transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.
///
/// # Differs from transformers
/// No dropout in training (published configurations have none).
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::nn::Activation;
/// use canvas_core::{TextEncoder, Tokens};
/// use canvas_text::{ClipLayer, ClipTextConfig};
///
/// let config = ClipTextConfig::new(16, 64, 2, 4, Activation::QuickGelu).with_vocabulary(10).with_context(8);
/// let clip = config.init(&Device::flex()).with_layer(ClipLayer::sdxl(0))?;
/// let tokens = Tokens { ids: vec![8, 5, 9, 9], mask: vec![true, true, true, false], length: 4 };
/// assert_eq!(clip.encode(&tokens).tokens.dims(), [1, 4, 16]);
/// # Ok::<(), canvas_core::ConfigError>(())
/// ```
#[derive(Module, Debug)]
pub struct ClipText {
    text_model: TextModel,
    text_projection: Option<Linear>,
    #[module(skip)]
    pool: Pool,
    use_attention_mask: bool,
    #[module(skip)]
    output: ClipLayer,
}

#[derive(Module, Debug)]
struct TextModel {
    embeddings: Embeddings,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Embeddings {
    token_embedding: Embedding,
    position_embedding: Embedding,
}

#[derive(Module, Debug)]
pub(crate) struct Encoder {
    pub(crate) layers: Vec<Layer>,
}

#[derive(Module, Debug)]
pub(crate) struct Layer {
    self_attn: SelfAttention,
    layer_norm1: LayerNorm,
    mlp: Perceptron,
    layer_norm2: LayerNorm,
}

#[derive(Module, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
pub(crate) struct Perceptron {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl ClipText {
    /// With other states as the tokens' vectors of [`encode`](TextEncoder::encode).
    ///
    /// # Errors
    /// If more blocks are to be left out than there are.
    pub fn with_layer(mut self, layer: ClipLayer) -> Result<Self, ConfigError> {
        let depth = self.depth();
        if layer.skip > depth {
            let message = format!("{} layers of CLIP cannot be skipped: it has {depth}", layer.skip);
            return Err(ConfigError::new(message));
        }
        self.output = layer;
        Ok(self)
    }

    /// Blocks.
    pub fn depth(&self) -> usize {
        self.text_model.encoder.layers.len()
    }

    /// The most tokens of a row.
    pub fn context(&self) -> usize {
        self.text_model.embeddings.position_embedding.weight.dims()[0]
    }

    /// Width of the prompts' vectors.
    pub fn pooled_width(&self) -> usize {
        self.text_projection.as_ref().map_or(self.width(), |projection| projection.weight.shape()[1])
    }

    /// Width of the token states.
    pub fn width(&self) -> usize {
        self.text_model.embeddings.token_embedding.weight.dims()[1]
    }

    /// Tokens it knows.
    pub fn vocabulary(&self) -> usize {
        self.text_model.embeddings.token_embedding.weight.dims()[0]
    }

    /// With other vectors `[N, W]` for the ids from `first` on; those behind the last row are added.
    pub(crate) fn with_rows(mut self, first: usize, vectors: TensorData) -> Self {
        let embedding = &mut self.text_model.embeddings.token_embedding;
        embedding.weight = embedding.weight.clone().map(|old| {
            let vectors: Tensor<2> = Tensor::from_data(vectors, (&old.device(), old.dtype()));
            let (rows, end) = (old.dims()[0], first + vectors.dims()[0]);
            let fixed = old.clone().set_require_grad(false); // the new leaf learns, not this one
            let mut parts = vec![fixed.clone().narrow(0, 0, first), vectors];
            if end < rows {
                parts.push(fixed.narrow(0, end, rows - end));
            }
            let new = Tensor::cat(parts, 0); // [V + N, W]
            if old.is_require_grad() { new.require_grad() } else { new }
        });
        self
    }

    /// All states and the prompt vectors. Blocks are tapped as `text.blocks.N`.
    ///
    /// # Panics
    /// If there is no prompt, a row is longer than the context, or an id is outside the vocabulary; with
    /// `use_attention_mask`, if a row begins with padding.
    pub fn states(&self, tokens: &Tokens) -> ClipStates {
        self.check(tokens);
        let (ids, _) = tokens.tensors(&self.text_model.embeddings.token_embedding.weight.val().device());
        let hidden = self.hidden_from(tokens, &ids);
        let last = self.text_model.final_layer_norm.forward(hidden[self.depth()].clone()); // [B, T, W]
        let mut pooled = self.pool(last.clone(), tokens); // [B, W]
        if let Some(projection) = &self.text_projection {
            pooled = projection.forward(pooled); // [B, P]
        }
        ClipStates { hidden, last, pooled }
    }

    fn hidden_from(&self, tokens: &Tokens, ids: &Tensor<2, Int>) -> Vec<Tensor<3>> {
        let (length, width) = (tokens.length, self.width());
        let Embeddings { token_embedding, position_embedding } = &self.text_model.embeddings;
        let position: Tensor<3> = position_embedding.weight.val().slice([0..length, 0..width]).unsqueeze();
        let mut x = token_embedding.forward(ids.clone()) + position; // [B, T, W]
        let unseen = self.unseen(tokens, &x.device());
        let mut hidden = vec![x.clone()];
        for (i, layer) in self.text_model.encoder.layers.iter().enumerate() {
            x = trace::block(|| format!("text.blocks.{i}"), x, |x| layer.forward(x, Some(&unseen)));
            hidden.push(x.clone());
        }
        hidden
    }

    /// True where a token (third axis) must not see another (last axis): `[B or 1, 1, T, T]`.
    fn unseen(&self, tokens: &Tokens, device: &Device) -> Tensor<4, Bool> {
        let length = tokens.length;
        let rows = if self.use_attention_mask { tokens.batch() } else { 1 };
        let hidden = |row: usize, other: usize| self.use_attention_mask && !tokens.mask[row * length + other];
        let mut unseen = Vec::with_capacity(rows * length * length);
        for row in 0..rows {
            for own in 0..length {
                unseen.extend((0..length).map(|other| other > own || hidden(row, other)));
            }
        }
        Tensor::from_data(TensorData::new(unseen, [rows, 1, length, length]), device)
    }

    fn pool(&self, states: Tensor<3>, tokens: &Tokens) -> Tensor<2> {
        let (batch, device) = (tokens.batch(), states.device());
        let place = |row: &[u32]| {
            let wanted = match self.pool {
                Pool::LargestId => row.iter().copied().max().unwrap_or_default(),
                Pool::First(id) => id,
            };
            row.iter().position(|&id| id == wanted).unwrap_or(0)
        };
        let rows = tokens.ids.chunks(tokens.length).enumerate();
        let places: Vec<i64> = rows.map(|(i, row)| (i * tokens.length + place(row)) as i64).collect();
        let states: Tensor<2> = states.flatten(0, 1); // [B T, W]
        states.select(0, Tensor::from_data(TensorData::new(places, [batch]), &device))
    }

    /// Panics with both sizes where the tokens do not fit this encoder.
    fn check(&self, tokens: &Tokens) {
        let (vocabulary, context) =
            (self.text_model.embeddings.token_embedding.weight.dims()[0], self.context());
        let length = tokens.length;
        assert!(tokens.batch() > 0, "a text encoder needs at least one prompt");
        assert!(length <= context, "rows of {length} tokens for a context of {context}");
        let largest = tokens.ids.iter().max().map_or(0, |&id| id as usize);
        assert!(largest < vocabulary, "token id {largest} for a vocabulary of {vocabulary}");
        let blind = tokens.mask.chunks(length).position(|row| !row[0]);
        assert!(
            !self.use_attention_mask || blind.is_none(),
            "row {} begins with padding: its first token could see nothing",
            blind.unwrap_or_default()
        );
    }
}

impl TextEncoder for ClipText {
    /// The states of the [chosen layer](Self::with_layer). The mask is all true: the networks of the Stable
    /// Diffusion family attend to padding, too.
    ///
    /// # Panics
    /// As [`states`](Self::states).
    fn encode(&self, tokens: &Tokens) -> Text {
        let ClipStates { mut hidden, last, pooled } = self.states(tokens);
        let chosen = hidden.swap_remove(self.depth() - self.output.skip); // [B, T, W]
        let states = match self.output {
            ClipLayer { skip: 0, norm: true } => last,
            ClipLayer { norm: true, .. } => self.text_model.final_layer_norm.forward(chosen),
            ClipLayer { norm: false, .. } => chosen,
        };
        let seen = vec![true; tokens.ids.len()];
        let mask = TensorData::new(seen, [tokens.batch(), tokens.length]);
        Text { mask: Tensor::from_data(mask, &states.device()), tokens: states, pooled }
    }
}

impl Layer {
    /// `x + attention(norm(x))`, then `x + mlp(norm(x))`: `[B, T, W]` to `[B, T, W]`.
    pub(crate) fn forward(&self, x: Tensor<3>, unseen: Option<&Tensor<4, Bool>>) -> Tensor<3> {
        let seen = self.layer_norm1.forward(x.clone());
        let x = x + trace::scope(|| "attention".into(), || self.self_attn.forward(seen, unseen));
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }
}

impl SelfAttention {
    /// Its map is tapped as `map`.
    fn forward(&self, x: Tensor<3>, unseen: Option<&Tensor<4, Bool>>) -> Tensor<3> {
        let width = x.dims()[2];
        let query = self.split(dense(&self.q_proj, x.clone())); // [B, H, T, W/H]
        let key = self.split(dense(&self.k_proj, x.clone()));
        let value = self.split(dense(&self.v_proj, x));
        let scale = ((width / self.heads) as f64).sqrt().recip();
        let mut scores = (query * scale).matmul(key.swap_dims(2, 3)); // [B, H, T, T]
        if let Some(unseen) = unseen {
            let unseen = unseen.clone().expand(scores.dims());
            scores = scores.mask_fill(unseen, f32::MIN);
        }
        let map = trace::tap(|| "map".into(), softmax(scores, 3));
        dense(&self.out_proj, map.matmul(value).swap_dims(1, 2).flatten(2, 3)) // [B, T, W]
    }

    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, length, width] = x.dims();
        x.reshape([batch, length, self.heads, width / self.heads]).swap_dims(1, 2)
    }
}

impl Perceptron {
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        dense(&self.fc2, self.activation.forward(dense(&self.fc1, x)))
    }
}
