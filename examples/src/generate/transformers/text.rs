//! Prompts to token states, by the text encoders of transformer pipelines.

use super::{Encoders, Folder, Given, Request, cost};
use crate::generate::text::Reader as Clip;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::{Text, TextEncoder, Tokens};
use canvas_text::{
    ChatTemplate, ClipLayer, CutPrompt, Emphasis, FileTokenizer, Llm, LlmConfig, LongPrompt, Message,
    PromptError, RowLength, T5Config, T5Encoder,
};
use std::path::{Path, PathBuf};

/// T5 or UMT5 with its tokenizer.
pub struct T5 {
    tokenizer: FileTokenizer,
    encoder: T5Encoder,
    heads: usize,
}

/// A language model with its tokenizer.
pub struct LanguageModel {
    /// Makes ids.
    pub tokenizer: FileTokenizer,
    /// Reads them.
    pub encoder: Llm,
    /// How chats are written down, if the tokenizer knows.
    chat: Option<ChatTemplate>,
    /// The tokenizer's folder, for messages.
    path: PathBuf,
}

impl Folder<'_> {
    /// A language model and its tokenizer, with these of its states, side by side, of so many blocks.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn language_model(&mut self, states: impl Fn(usize) -> Vec<usize>) -> Result<LanguageModel> {
        let (path, folder) = (self.component("tokenizer")?, self.component("text_encoder")?);
        let config = LlmConfig::from_transformers_file(&folder.join("config.json"))?;
        let tokenizer = self.tokenizer("tokenizer", config.vocabulary)?;
        let encoder = self.weights("text_encoder", config.init(self.device), &config.published())?;
        let states = states(encoder.depth());
        let encoder = encoder.with_layers(&states)?;
        Ok(LanguageModel { tokenizer, encoder, chat: ChatTemplate::from_folder(&path)?, path })
    }

    /// A CLIP text encoder and its tokenizer.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn clip(&mut self, encoder: &str, tokenizer: &str) -> Result<Clip> {
        self.component(encoder)?;
        self.component(tokenizer)?;
        let root = &self.args.model;
        self.loader().reader(root, encoder, tokenizer)
    }

    /// A T5 encoder and its tokenizer.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn t5(&mut self, encoder: &str, tokenizer: &str) -> Result<T5> {
        let path = self.component(encoder)?;
        let config = T5Config::from_transformers_file(&path.join("config.json"))?;
        let tokenizer = self.tokenizer(tokenizer, config.vocabulary)?;
        let encoder = self.weights(encoder, config.init(self.device), &config.published())?;
        Ok(T5 { tokenizer, encoder, heads: config.heads })
    }

    /// A tokenizer for an encoder that knows so many tokens.
    ///
    /// # Errors
    /// Names the file, or both numbers if there are more.
    pub fn tokenizer(&self, name: &str, known: usize) -> Result<FileTokenizer> {
        let path = self.component(name)?;
        let tokenizer = FileTokenizer::from_folder(&path)?;
        let found = tokenizer.vocabulary();
        if found > known {
            bail!("{}: {found} tokens for an encoder that knows {known}", path.display());
        }
        Ok(tokenizer)
    }
}

impl T5 {
    /// Width of the token states.
    pub fn width(&self) -> usize {
        self.encoder.width()
    }

    /// Last states of prompts of so many tokens; `masked` keeps them from seeing padding.
    ///
    /// # Errors
    /// If a prompt cannot be tokenized.
    pub fn read(&self, prompts: &[String], length: usize, masked: bool) -> Result<Text> {
        let tokens = tokens(&self.tokenizer, prompts, RowLength::Exactly(length), masked)?;
        Ok(self.encoder.clone().with_mask(masked).encode(&tokens))
    }
}

impl Encoders for T5 {
    /// Numbers that this takes at the worst moment, about: tokens, and for each pair of them a bucket of distances and what
    /// each head adds to its score, once as read from the table and once in attention's order.
    fn numbers(&self, batch: usize, length: usize) -> f64 {
        let (length, pair) = (length as f64, 2 * self.heads + 2);
        cost::tokens(batch as f64 * length, self.width()) + pair as f64 * length * length
    }
}

impl LanguageModel {
    /// Width of the token states.
    pub fn width(&self, states: usize) -> usize {
        states * self.encoder.width()
    }

    /// States of texts, and which of them are of real tokens.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn read(&self, texts: &[String], length: RowLength) -> Result<Text> {
        let fits = |tokens: usize| match self.encoder.context() {
            most if tokens > most => bail!(
                "rows of {tokens} tokens: the text encoder reads {most} at most, the max_position_embeddings of \
                 its config.json (--max-sequence-length)"
            ),
            _ => Ok(()),
        };
        if let RowLength::Exactly(tokens) = length {
            fits(tokens)?;
        }
        let tokens = tokens(&self.tokenizer, texts, length, true)?;
        fits(tokens.length)?;
        Ok(self.encoder.encode(&tokens))
    }

    /// A chat, written down as the tokenizer's template says.
    ///
    /// # Errors
    /// If it has none, or it fails.
    pub fn chat(&self, messages: &[Message], generation: bool, thinking: Option<bool>) -> Result<String> {
        match &self.chat {
            Some(chat) => Ok(chat.render(messages, generation, thinking)?),
            None => bail!("{}: expected a chat template, found none", self.path.display()),
        }
    }
}

impl Encoders for LanguageModel {
    /// Numbers that this takes at the worst moment, about: tokens, and who sees whom.
    fn numbers(&self, batch: usize, length: usize) -> f64 {
        let (batch, length) = (batch as f64, length as f64);
        cost::tokens(batch * length, self.encoder.width()) + batch * length * length
    }
}

/// Prompts in tokens, none of them without one where padding is not read.
fn tokens(tokenizer: &FileTokenizer, prompts: &[String], length: RowLength, masked: bool) -> Result<Tokens> {
    let found = tokenizer.tokenize(prompts, length);
    let found = match found {
        Err(PromptError::NoRoom { .. }) => found.context("--max-sequence-length")?,
        found => found?,
    };
    warn(&found.warnings);
    let empty = found.tokens.mask.chunks(found.tokens.length).position(|row| !row.contains(&true));
    match empty.filter(|_| masked) {
        Some(row) => bail!("the prompt {:?} has no token, and this tokenizer adds none", prompts[row]),
        None => Ok(found.tokens),
    }
}

/// The states of real tokens only, without the first so many of them, and cut to `most`: rows are filled with zeros behind.
pub fn packed(text: &Text, dropped: usize, most: usize) -> Text {
    let [batch, length, width] = text.tokens.dims();
    let mask: Vec<bool> = text.mask.clone().into_data().iter::<bool>().collect();
    let real =
        |row: usize| (0..length).filter(|&at| mask[row * length + at]).skip(dropped).collect::<Vec<_>>();
    let rows: Vec<Vec<usize>> = (0..batch).map(real).collect();
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0).min(most).max(1);
    let device = text.tokens.device();
    let (mut tokens, mut seen) = (Vec::new(), Vec::new());
    for (row, places) in rows.iter().enumerate() {
        let count = places.len().min(longest);
        let at: Vec<i64> = places[..count].iter().map(|&at| at as i64).collect();
        let own = text.tokens.clone().narrow(0, row, 1);
        let mut parts = Vec::new();
        if count > 0 {
            parts.push(own.select(1, Tensor::from_data(TensorData::new(at, [count]), &device)));
        }
        if count < longest {
            parts.push(Tensor::zeros([1, longest - count, width], (&device, text.tokens.dtype())));
        }
        tokens.push(Tensor::cat(parts, 1));
        seen.extend((0..longest).map(|at| at < count));
    }
    Text {
        tokens: Tensor::cat(tokens, 0), // [B, longest, W]
        mask: Tensor::from_data(TensorData::new(seen, [batch, longest]), &device),
        pooled: text.pooled.clone(),
    }
}

/// States of a CLIP encoder's layer.
///
/// # Errors
/// If there is no such layer, or a prompt cannot be tokenized.
pub fn clip(reader: &Clip, prompts: &[String], layer: ClipLayer) -> Result<Text> {
    let tokens = reader.tokenizer.tokenize(prompts, LongPrompt::Truncate)?;
    warn(&tokens.warnings);
    let encoder = reader.encoder.clone().with_layer(layer)?;
    Ok(tokens.encode(&encoder, Emphasis::RestoreMean))
}

/// Says what was cut, once each.
pub fn warn(cut: &[CutPrompt]) {
    let mut said: Vec<String> = cut.iter().map(ToString::to_string).collect();
    said.dedup();
    said.iter().for_each(|warning| eprintln!("warning: {warning}"));
}

/// Two texts side by side: `[B, T, W1 + W2]`, and pooled alike.
pub fn beside(first: Text, second: Text) -> Text {
    Text {
        tokens: Tensor::cat(vec![first.tokens, second.tokens], 2),
        mask: first.mask,
        pooled: Tensor::cat(vec![first.pooled, second.pooled], 1),
    }
}

/// A text behind another: `[B, T1 + T2, W]`, the narrower one filled with zeros; pooled is the first one's.
pub fn behind(first: Text, second: Text) -> Text {
    let width = first.tokens.dims()[2].max(second.tokens.dims()[2]);
    let wide = |tokens: Tensor<3>| {
        let [batch, length, own] = tokens.dims();
        match width - own {
            0 => tokens,
            missing => {
                let zeros = Tensor::zeros([batch, length, missing], (&tokens.device(), tokens.dtype()));
                Tensor::cat(vec![tokens, zeros], 2)
            }
        }
    };
    Text {
        tokens: Tensor::cat(vec![wide(first.tokens), wide(second.tokens)], 1),
        mask: Tensor::cat(vec![first.mask, second.mask], 1),
        pooled: first.pooled,
    }
}

/// An error if an encoder's tokens are not as wide as those that the transformer reads.
///
/// # Errors
/// Names the transformer's folder and both widths.
pub fn reads(transformer: &Path, found: usize, expected: usize) -> Result<()> {
    if found != expected {
        bail!(
            "{}: the text encoder makes tokens of width {found}, the transformer reads {expected}",
            transformer.display()
        );
    }
    Ok(())
}

/// An error if a transformer has fewer positions of text than its pipeline needs for one token.
///
/// # Errors
/// Names the file, the key, and both numbers.
pub fn check_places(transformer: &Path, [places, ..]: [usize; 3], least: usize) -> Result<()> {
    if places < least {
        let file = transformer.join("config.json");
        bail!("{}: axes_lens: expected at least {least} positions of text, found {places}", file.display());
    }
    Ok(())
}

impl Request<'_> {
    /// What is asked for and, where guidance is on, what is not, read alike.
    ///
    /// # Errors
    /// As `read`.
    pub fn both(&self, read: impl Fn(Vec<String>) -> Result<Text>) -> Result<Given<Text>> {
        let positive = read(self.prompts())?;
        let negative = self.guidance.map(|_| read(self.negatives())).transpose()?;
        Ok(Given { positive, negative })
    }

    /// One text for each picture: as given, one for all, or the other list's where none is given.
    pub fn spread(&self, given: &[String], otherwise: &[String]) -> Vec<String> {
        let given = if given.is_empty() { otherwise } else { given };
        match given {
            [] => vec![String::new(); self.batch],
            [one] => vec![one.clone(); self.batch],
            many => many.to_vec(),
        }
    }

    /// The prompts.
    pub fn prompts(&self) -> Vec<String> {
        self.spread(&self.args.prompt, &[])
    }

    /// The negative prompts; empty ones where none are given.
    pub fn negatives(&self) -> Vec<String> {
        self.spread(&self.args.negative_prompt, &[])
    }

    /// A text in the network's numbers.
    pub fn cast(&self, text: Text) -> Text {
        Text { tokens: text.tokens.cast(self.dtype), pooled: text.pooled.cast(self.dtype), ..text }
    }
}
