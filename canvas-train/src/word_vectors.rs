//! Textual inversion: a new word of a text encoder, of one vector or several, learned while everything else stays as it is.
//!
//! [`WordVectors`] is a module of its own, as [`Adapters`](crate::adapters) are: optimizers, averages and checkpoints know no more of
//! it. [`WordVectors::apply`] makes the encoder that knows the word, of the same type.
//!
//! # Reference
//! Gal et al., "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion", 2022,
//! <https://arxiv.org/abs/2208.01618>.
//!
//! # Example
//! Two vectors that begin as `photo`:
//! ```
//! use burn::prelude::*;
//! use canvas_core::nn::Activation;
//! use canvas_core::{TextEncoder, Tokens};
//! use canvas_text::{ClipTextConfig, TextualInversion};
//! use canvas_train::word_vectors::{WordVectors, mean_length};
//! use canvas_train::{AdamW, Ema, StepOptions, TrainState};
//!
//! let device = Device::flex().autodiff();
//! let config = ClipTextConfig::new(12, 20, 1, 3, Activation::QuickGelu).with_vocabulary(50).with_context(6);
//! let clip = config.init(&device).no_grad();
//! let table = "text_model.embeddings.token_embedding.weight";
//! // Of a tokenizer that knows 50 tokens, to which `<cat>` and `<cat>_1` were added as 50 and 51; `photo` is 7.
//! let words = WordVectors::new(&clip, table, 50, &[7, 7])?;
//!
//! let mut state = TrainState::new(words, AdamW::default());
//! let prompt = Tokens { ids: vec![48, 3, 50, 51, 49, 49], mask: vec![true; 6], length: 6 };
//! let text = state.model.apply(&clip).encode(&prompt); // what the denoiser reads; here its own length is the loss
//! let losses = text.tokens.square().mean_dim(2).mean_dim(1).reshape([1]);
//! state.step(losses, &StepOptions { rate: 1e-3, clip: 1.0, ema: Ema::WarmUp { limit: 0.999 } })?;
//! let longest = mean_length(&clip, table)?;
//! state.model = state.model.clone().clipped(longest); // after each step, where it is asked for
//!
//! # let folder = std::env::temp_dir().join(format!("canvas-word-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let file = folder.join("learned_embeds.safetensors");
//! state.average.save(&file, "<cat>")?;
//! assert_eq!(TextualInversion::open(&file)?.tokens(), ["<cat>"]);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use canvas_core::ConfigError;
use canvas_core::weights::{Walk, WeightsError, write_tensors};
use std::collections::BTreeMap;
use std::path::Path;

/// Vectors of new words: rows of a text encoder's table, which are trained alone.
#[derive(Module, Debug)]
pub struct WordVectors {
    rows: Param<Tensor<2>>, // [N, W]
    #[module(skip)]
    table: String,
    first: usize,
}

impl WordVectors {
    /// The vectors of ids from `first` on, one for each of `like`: each begins as the row of that id.
    ///
    /// `table` is the path of the embedding's weight; `first` may be its number of rows, so that it grows, or a row that no
    /// token uses.
    ///
    /// # Errors
    /// If there is no such table (names those that could be), it has no row of an id of `like`, `like` is empty, or the table ends
    /// before `first`.
    pub fn new<M: Module>(model: &M, table: &str, first: usize, like: &[u32]) -> Result<Self, ConfigError> {
        let old = read(model, table)?;
        let ([count, _], device) = (old.dims(), old.device());
        let message = match like.iter().find(|&&id| id as usize >= count) {
            Some(id) => Some(format!("{table} has {count} rows, and none of the id {id} to begin with")),
            None if like.is_empty() => Some(format!("no vectors of {table} were asked for")),
            None if first > count => {
                Some(format!("{table} has {count} rows: no word can have the id {first}"))
            }
            None => None,
        };
        if let Some(message) = message {
            return Err(ConfigError::new(message));
        }
        let ids: Vec<i64> = like.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [like.len()]), &device);
        Ok(Self { rows: Param::from_tensor(old.select(0, ids)), table: table.to_owned(), first })
    }

    /// The vectors, `[N, W]`.
    pub fn vectors(&self) -> Tensor<2> {
        self.rows.val()
    }

    /// The encoder that knows the words. Gradients reach their vectors, and no other row of the table.
    ///
    /// # Panics
    /// If the encoder is another one.
    pub fn apply<M: Module>(&self, model: &M) -> M {
        let mut apply = Apply { walk: Walk::default(), words: self, done: false };
        let told = model.clone().map(&mut apply);
        assert!(apply.done, "the encoder has no {}: these are words of another", self.table);
        told
    }

    /// With no vector longer than so much; the direction stays. Vectors far longer than [those of words](mean_length) drown the
    /// rest of a prompt.
    #[must_use]
    pub fn clipped(mut self, longest: f64) -> Self {
        self.rows = self.rows.map(|rows| {
            let tracked = rows.is_require_grad();
            let lengths = rows.clone().square().sum_dim(1).sqrt(); // [N, 1]
            let fits = lengths.clone().lower_equal_elem(longest);
            let factor = (lengths.recip() * longest).mask_fill(fits, 1.0);
            let rows = (rows * factor).detach();
            if tracked { rows.require_grad() } else { rows }
        });
        self
    }

    /// Writes the word as diffusers' `learned_embeds.safetensors`: one key, its name, of `[N, W]`.
    ///
    /// # Errors
    /// Names the file.
    pub fn save(&self, path: &Path, word: &str) -> Result<(), WeightsError> {
        let tensors = [(word.to_owned(), self.rows.val().into_data())];
        write_tensors(path, &tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))
    }
}

/// The mean length of the rows of a table.
///
/// # Errors
/// If there is no such table: names those that could be.
pub fn mean_length<M: Module>(model: &M, table: &str) -> Result<f64, ConfigError> {
    Ok(read(model, table)?.square().sum_dim(1).sqrt().mean().into_scalar::<f64>())
}

/// A matrix of a module, without a graph.
fn read<M: Module>(model: &M, table: &str) -> Result<Tensor<2>, ConfigError> {
    let mut find = Find { walk: Walk::default(), table, found: None, others: Vec::new() };
    model.visit(&mut find);
    find.found.ok_or_else(|| {
        ConfigError::new(format!("there is no table {table}; embeddings are {}", find.others.join(", ")))
    })
}

struct Find<'a> {
    walk: Walk,
    table: &'a str,
    found: Option<Tensor<2>>,
    others: Vec<String>,
}

impl ModuleVisitor for Find<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D != 2 || !self.walk.is_weight_of("Embedding") {
            return;
        }
        let path = self.walk.path();
        if path == self.table {
            let value = param.val().detach();
            let dims = [value.dims()[0], value.dims()[1]];
            self.found = Some(value.reshape(dims));
        }
        self.others.push(path);
    }
}

struct Apply<'a> {
    walk: Walk,
    words: &'a WordVectors,
    done: bool,
}

impl ModuleMapper for Apply<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 || self.walk.path() != self.words.table {
            return param;
        }
        self.done = true;
        let (rows, first) = (self.words.rows.val(), self.words.first);
        param.map(|old| {
            let [count, width] = [old.dims()[0], old.dims()[1]];
            let ([vectors, own], table) = (rows.dims(), &self.words.table);
            assert!(
                own == width && first <= count,
                "{vectors} vectors of width {own} from row {first}: {table} is [{count}, {width}]"
            );
            let old: Tensor<2> = old.detach().reshape([count, width]);
            let mut parts = vec![old.clone().narrow(0, 0, first), rows];
            if first + vectors < count {
                parts.push(old.narrow(0, first + vectors, count - first - vectors));
            }
            let mut dims = [width; D];
            dims[0] = count.max(first + vectors);
            Tensor::cat(parts, 0).reshape(dims)
        })
    }
}
