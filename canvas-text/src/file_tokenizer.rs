//! Tokenizers of published models, from the files that come with them.

mod byte_level;
mod characters;
mod folder;
mod sentencepiece;

use crate::{CutPrompt, PromptError, TokenizerError};
use canvas_core::Tokens;
use std::path::{Path, PathBuf};
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection};

/// How long the rows of a batch are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLength {
    /// All of so many tokens: what is shorter is padded, what is longer is cut. transformers'
    /// `padding="max_length", max_length=n, truncation=True`.
    Exactly(usize),
    /// As long as the longest prompt, which is cut to so many tokens. transformers'
    /// `padding=True, max_length=n, truncation=True`.
    AtMost(usize),
    /// As long as the longest prompt. transformers' `padding=True`.
    Whole,
}

/// An end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the first token.
    Left,
    /// Behind the last token.
    Right,
}

/// Tokenized prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenized {
    /// One row a prompt.
    pub tokens: Tokens,
    /// Prompts that lost a part.
    pub warnings: Vec<CutPrompt>,
}

/// The tokenizer of T5, of a language model, or of any other model that comes with a `tokenizer.json`.
///
/// Rows are what transformers' tokenizers make: special tokens as the files say (T5 has an end token behind each
/// prompt), cut within them, padded at the model's own side. Special tokens inside of a prompt's text are recognised.
///
/// # Reference
/// transformers' `TokenizersBackend`, `T5Tokenizer`, `LlamaTokenizer`, `Qwen2Tokenizer`, whose ids tests compare.
///
/// # Differs from transformers
/// A `tokenizer.json` is followed to the letter. transformers 5 rebuilds the tokenizers of some classes from its
/// vocabulary alone, which differs in how a few of the older files treat white space: a `LlamaTokenizer` of version 4
/// has a token for a space that a prompt begins with, and one of version 5 has not.
///
/// # Example
/// ```
/// use canvas_text::{FileTokenizer, RowLength};
///
/// let folder = std::env::temp_dir().join(format!("canvas-text-tokenizer-{}", std::process::id()));
/// std::fs::create_dir_all(&folder)?;
/// let words = r#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
///     "model": {"type": "WordLevel", "vocab": {"[pad]": 0, "?": 1, "a": 2, "red": 3, "cat": 4}, "unk_token": "?"}}"#;
/// std::fs::write(folder.join("tokenizer.json"), words)?;
/// std::fs::write(folder.join("tokenizer_config.json"), r#"{"pad_token": "[pad]"}"#)?;
///
/// let found = FileTokenizer::from_folder(&folder)?.tokenize(&["a cat", "a red blue cat"], RowLength::Exactly(3))?;
/// assert_eq!(found.tokens.ids, [2, 4, 0, 2, 3, 1]);
/// assert_eq!(found.warnings[0].cut, "cat");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileTokenizer {
    tokenizer: Tokenizer,
    /// The file it came from, for messages.
    path: PathBuf,
    named: Named,
    limit: Option<usize>,
    padding: Side,
    cutting: Side,
    special: bool,
}

/// Ids of tokens with a meaning.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    start: Option<u32>,
    end: Option<u32>,
    pad: Option<u32>,
}

impl FileTokenizer {
    /// Reads the `tokenizer` folder of a model: its `tokenizer.json`; else SentencePiece's `spiece.model` or
    /// `tokenizer.model`; else `vocab.json` and `merges.txt`. Special tokens, lengths and sides are read from
    /// `tokenizer_config.json` and `special_tokens_map.json` where they exist.
    ///
    /// Without a `tokenizer.json`, the rules for cutting texts are those of the `tokenizer_class`: T5's, Llama's, or
    /// Qwen2's. A file that names no class is T5's if it is a `spiece.model`, and else Llama's or Qwen2's.
    ///
    /// # Errors
    /// Names the file that is missing or wrong, and what is wrong with it.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        folder::read(folder)
    }

    /// With or without the tokens that the files put before and behind each prompt.
    #[must_use]
    pub fn with_special_tokens(mut self, special: bool) -> Self {
        self.special = special;
        self
    }

    /// Padded at this side.
    #[must_use]
    pub fn with_padding_side(mut self, side: Side) -> Self {
        self.padding = side;
        self
    }

    /// Size of the vocabulary: one more than the largest id. An encoder must have at least as many rows.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The most tokens of a row, where the files say so.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Side at which rows are padded.
    pub fn padding_side(&self) -> Side {
        self.padding
    }

    /// Id of the start token, which need not be in the rows.
    pub fn start(&self) -> Option<u32> {
        self.named.start
    }

    /// Id of the end token, which need not be in the rows.
    pub fn end(&self) -> Option<u32> {
        self.named.end
    }

    /// Id that fills rows.
    pub fn pad(&self) -> Option<u32> {
        self.named.pad
    }

    /// The id of a token as it is written in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The ids of a text: with special tokens, whole, not padded.
    ///
    /// # Errors
    /// If the tokenizer's file is such that it fails on this text.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        Ok(self.row(text, None)?.0.get_ids().to_vec())
    }

    /// Tokenizes prompts to one row each.
    ///
    /// # Errors
    /// If rows must be padded and the files name no pad token, if the special tokens do not fit into the length, if no
    /// prompt has a token, or if the tokenizer's file is such that it fails on a prompt.
    pub fn tokenize<S: AsRef<str>>(
        &self,
        prompts: &[S],
        length: RowLength,
    ) -> Result<Tokenized, PromptError> {
        let most = match length {
            RowLength::Exactly(most) | RowLength::AtMost(most) => Some(most),
            RowLength::Whole => None,
        };
        let (mut rows, mut warnings) = (Vec::with_capacity(prompts.len()), Vec::new());
        for prompt in prompts {
            let (row, cut) = self.row(prompt.as_ref(), most)?;
            rows.push(row);
            warnings.extend(cut);
        }
        let longest = rows.iter().map(Encoding::len).max().unwrap_or(0);
        let length = if let RowLength::Exactly(length) = length { length } else { longest };
        let empty = || PromptError::Failed {
            prompt: prompts.first().map_or_else(String::new, |prompt| prompt.as_ref().to_owned()),
            message: "it has no token, and this tokenizer adds none".into(),
        };
        if length == 0 {
            return Err(empty());
        }
        let tokens = self.padded(&rows, length)?;
        Ok(Tokenized { tokens, warnings })
    }

    /// The tokens of a prompt within its special ones, and what was cut.
    fn row(&self, prompt: &str, most: Option<usize>) -> Result<(Encoding, Option<CutPrompt>), PromptError> {
        let failed = |error: tokenizers::Error| PromptError::Failed {
            prompt: prompt.to_owned(),
            message: error.to_string(),
        };
        let mut found = self.tokenizer.encode(prompt, false).map_err(failed)?;
        let cut = most.map_or(Ok(None), |most| self.cut(prompt, &mut found, most))?;
        found.take_overflowing();
        Ok((self.tokenizer.post_process(found, None, self.special).map_err(failed)?, cut))
    }

    /// Leaves out what does not fit, and quotes it.
    fn cut(&self, prompt: &str, found: &mut Encoding, most: usize) -> Result<Option<CutPrompt>, PromptError> {
        let added = match self.tokenizer.get_post_processor() {
            Some(processor) if self.special => processor.added_tokens(false),
            _ => 0,
        };
        let (tokens, offsets) = (found.len() + added, found.get_offsets());
        if added > most {
            return Err(PromptError::NoRoom { path: self.path.clone(), special: added, length: most });
        }
        if tokens <= most {
            return Ok(None);
        }
        let kept = most - added;
        let (cut, direction) = match self.cutting {
            Side::Right => {
                (&prompt[prompt.floor_char_boundary(offsets[kept].0)..], TruncationDirection::Right)
            }
            Side::Left => {
                let last = offsets[offsets.len() - kept - 1];
                (&prompt[..prompt.ceil_char_boundary(last.1)], TruncationDirection::Left)
            }
        };
        let cut = CutPrompt { prompt: prompt.to_owned(), cut: cut.to_owned(), tokens, context: most };
        found.truncate(kept, 0, direction);
        Ok(Some(cut))
    }

    fn padded(&self, rows: &[Encoding], length: usize) -> Result<Tokens, PromptError> {
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for row in rows {
            let missing = length - row.len();
            if missing > 0 && self.named.pad.is_none() {
                return Err(PromptError::NoPad { path: self.path.clone(), tokens: row.len(), length });
            }
            let (before, behind) = match self.padding {
                Side::Left => (missing, 0),
                Side::Right => (0, missing),
            };
            let end = ids.len() + length;
            let pad = self.named.pad.unwrap_or_default();
            ids.resize(ids.len() + before, pad);
            ids.extend_from_slice(row.get_ids());
            ids.resize(end, pad);
            mask.resize(mask.len() + before, false);
            mask.resize(end - behind, true);
            mask.resize(end, false);
        }
        Ok(Tokens { ids, mask, length })
    }
}
