//! CLIP's tokenizer, from the files that come with a model.

pub(crate) mod files;

use crate::{CutPrompt, PromptError, TokenizerError, Weighted, weighted};
use canvas_core::Tokens;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::{AddedToken, Tokenizer};

/// What to do with a prompt that is longer than the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongPrompt {
    /// Leave out what does not fit, with a [`CutPrompt`] for a warning: what diffusers does.
    #[default]
    Truncate,
    /// Read it in windows of the context's length, each between its own start and end.
    Chunk,
}

/// Tokenized prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTokens {
    /// The windows of the first prompt, of the second, ..: rows as long as the context.
    pub tokens: Tokens,
    /// Windows a prompt: as many as the longest needs, the others' are empty.
    pub windows: usize,
    /// One weight a token, of the layout of the ids; 1 at start, end and padding.
    pub weights: Vec<f32>,
    /// Prompts that lost a part.
    pub warnings: Vec<CutPrompt>,
}

impl ClipTokens {
    /// The prompts of these numbers, with as many windows each as in the whole batch.
    ///
    /// # Panics
    /// If there are not as many prompts.
    pub fn rows(&self, prompts: Range<usize>) -> Self {
        let windows = prompts.start * self.windows..prompts.end * self.windows;
        let rows: Vec<usize> = windows.clone().collect();
        let (tokens, length) = (self.tokens.select(&rows), self.tokens.length);
        let weights = self.weights[windows.start * length..windows.end * length].to_vec();
        Self { tokens, weights, windows: self.windows, warnings: Vec::new() }
    }
}

/// CLIP's byte-pair tokenizer: text is composed (Unicode NFC), white space joined, lowercased, cut into words, single
/// digits and runs of other signs, and those into pieces of the vocabulary. Every text has tokens; none is unknown.
///
/// Rows are `[start] pieces [end]`, padded to the context. What pads is a property of the model: the end token in Stable
/// Diffusion 1.x and SDXL's first encoder, `!` (id 0) in Stable Diffusion 2.x and SDXL's second. A pad token
/// is special, as in transformers: with `!` for one, a `!` in a prompt is that token, not the vocabulary's word.
///
/// # Reference
/// Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 2.4,
/// <https://arxiv.org/abs/2103.00020>; transformers' `CLIPTokenizer`, whose ids a test compares.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    /// The file it came from, for messages.
    path: PathBuf,
    start: u32,
    end: u32,
    pad: u32,
    context: usize,
    /// By its first id, the other ids of a learned word.
    words: BTreeMap<u32, Vec<u32>>,
}

/// One piece of a prompt.
struct Piece {
    id: u32,
    weight: f32,
    /// Where it begins in the prompt's text.
    at: usize,
}

impl ClipTokenizer {
    /// The start token as it is written in the vocabulary.
    pub const START: &str = "<|startoftext|>";
    /// The end token as it is written in the vocabulary.
    pub const END: &str = "<|endoftext|>";

    /// Reads the `tokenizer` folder of a model: `tokenizer.json`, or else `vocab.json` and `merges.txt`; what pads and
    /// the context are read from `special_tokens_map.json` and `tokenizer_config.json` where they exist.
    ///
    /// # Errors
    /// Names the file that is missing or wrong, and what is wrong with it.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        files::read_folder(folder)
    }

    /// Reads a `tokenizer.json`. Padding is the end token, the context 77.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        files::read_json(path)
    }

    /// Reads a `vocab.json` and a `merges.txt`. Padding is the end token, the context 77.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn from_vocabulary(vocabulary: &Path, merges: &Path) -> Result<Self, TokenizerError> {
        files::read_vocabulary(vocabulary, merges)
    }

    /// Padded with another token, which becomes special.
    ///
    /// # Errors
    /// If the vocabulary has no such token.
    pub fn with_pad(mut self, token: &str) -> Result<Self, TokenizerError> {
        self.pad = self.known(token)?;
        self.make_special(AddedToken::from(token, true))?;
        Ok(self)
    }

    /// With rows of another length.
    ///
    /// # Errors
    /// If it holds no word: below 3.
    pub fn with_context(mut self, context: usize) -> Result<Self, TokenizerError> {
        if context < 3 {
            return Err(TokenizerError::Context { context });
        }
        self.context = context;
        Ok(self)
    }

    fn wrong(&self, message: String) -> TokenizerError {
        TokenizerError::Clip { path: self.path.clone(), message }
    }

    fn known(&self, token: &str) -> Result<u32, TokenizerError> {
        let id = self.tokenizer.token_to_id(token);
        id.ok_or_else(|| self.wrong(format!("the token {token:?} is not in the vocabulary")))
    }

    fn make_special(&mut self, token: AddedToken) -> Result<(), TokenizerError> {
        let added = self.tokenizer.add_special_tokens([token]).map_err(|error| error.to_string());
        added.map(|_| ()).map_err(|message| self.wrong(message))
    }

    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Adds the tokens of a learned word behind all others; where the first stands in a text, the rest follow.
    pub(crate) fn add_word(&mut self, tokens: &[String]) -> Result<(), TokenizerError> {
        let mut ids = Vec::with_capacity(tokens.len());
        for token in tokens {
            let added = self.tokenizer.add_tokens([AddedToken::from(token.clone(), false)]);
            added.map_err(|error| self.wrong(error.to_string()))?;
            ids.push(self.known(token)?);
        }
        if let [first, rest @ ..] = ids.as_slice() {
            self.words.insert(*first, rest.to_vec());
        }
        Ok(())
    }

    /// Size of the vocabulary: one more than the largest id. An encoder must have at least as many rows.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Tokens a row, start and end included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Id that opens each row.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Id that closes each row's text.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Id that fills each row.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The ids of a text, without start, end and padding.
    ///
    /// # Errors
    /// If the tokenizer's file is such that it fails on this text.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        Ok(self.pieces(text)?.into_iter().map(|(id, _)| id).collect())
    }

    /// Ids and where each begins in the text.
    fn pieces(&self, text: &str) -> Result<Vec<(u32, usize)>, PromptError> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|error| PromptError::Failed { prompt: text.to_owned(), message: error.to_string() })?;
        let starts = encoding.get_offsets().iter().map(|&(from, _)| from);
        let found = encoding.get_ids().iter().copied().zip(starts);
        Ok(found.flat_map(|(id, at)| self.whole(id).map(move |id| (id, at))).collect())
    }

    /// A token, with all others of a learned word that begins with it.
    fn whole(&self, id: u32) -> impl Iterator<Item = u32> {
        std::iter::once(id).chain(self.words.get(&id).into_iter().flatten().copied())
    }

    /// Tokenizes prompts as they are: brackets are signs like others.
    ///
    /// Prompt and negative prompt belong in one batch, or chunks may make them differ in length.
    ///
    /// # Errors
    /// As [`ids`](Self::ids).
    pub fn tokenize<S: AsRef<str>>(
        &self,
        prompts: &[S],
        long: LongPrompt,
    ) -> Result<ClipTokens, PromptError> {
        let whole = |text: &S| vec![Weighted { text: text.as_ref().to_owned(), weight: 1.0 }];
        self.tokenize_parts(&prompts.iter().map(whole).collect::<Vec<_>>(), long)
    }

    /// Tokenizes prompts with weights, in the syntax of [`weighted`].
    ///
    /// # Errors
    /// As [`ids`](Self::ids).
    pub fn tokenize_weighted<S: AsRef<str>>(
        &self,
        prompts: &[S],
        long: LongPrompt,
    ) -> Result<ClipTokens, PromptError> {
        let parts: Vec<_> = prompts.iter().map(|prompt| weighted(prompt.as_ref())).collect();
        self.tokenize_parts(&parts, long)
    }

    /// Tokenizes prompts of weighted parts. Each part is tokenized by itself, so that a word ends with its part.
    ///
    /// # Errors
    /// As [`ids`](Self::ids).
    pub fn tokenize_parts(
        &self,
        prompts: &[Vec<Weighted>],
        long: LongPrompt,
    ) -> Result<ClipTokens, PromptError> {
        let (mut rows, mut warnings) = (Vec::with_capacity(prompts.len()), Vec::new());
        for parts in prompts {
            let text: String = parts.iter().map(|part| part.text.as_str()).collect();
            let mut pieces = self.pieces_of(parts)?;
            let room = self.context - 2;
            if long == LongPrompt::Truncate && pieces.len() > room {
                let cut = text[text.floor_char_boundary(pieces[room].at)..].to_owned();
                warnings.push(CutPrompt {
                    tokens: pieces.len() + 2,
                    context: self.context,
                    cut,
                    prompt: text,
                });
                pieces.truncate(room);
            }
            rows.push(pieces);
        }
        Ok(self.windows(&rows, warnings))
    }

    fn pieces_of(&self, parts: &[Weighted]) -> Result<Vec<Piece>, PromptError> {
        let (mut pieces, mut before) = (Vec::new(), 0);
        for Weighted { text, weight } in parts {
            let found = self.pieces(text)?.into_iter();
            pieces.extend(found.map(|(id, at)| Piece { id, weight: *weight, at: before + at }));
            before += text.len();
        }
        Ok(pieces)
    }

    fn windows(&self, rows: &[Vec<Piece>], warnings: Vec<CutPrompt>) -> ClipTokens {
        let (length, room) = (self.context, self.context - 2);
        let windows = rows.iter().map(|row| row.len().div_ceil(room)).max().unwrap_or(0).max(1);
        let (mut ids, mut mask, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            for window in 0..windows {
                let pieces = row.chunks(room).nth(window).unwrap_or_default();
                let end = ids.len() + length;
                ids.push(self.start);
                ids.extend(pieces.iter().map(|piece| piece.id));
                ids.push(self.end);
                ids.resize(end, self.pad);
                mask.resize(mask.len() + pieces.len() + 2, true);
                mask.resize(end, false);
                weights.push(1.0);
                weights.extend(pieces.iter().map(|piece| piece.weight));
                weights.resize(end, 1.0);
            }
        }
        ClipTokens { tokens: Tokens { ids, mask, length }, windows, weights, warnings }
    }
}
