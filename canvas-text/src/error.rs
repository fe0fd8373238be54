//! What can be wrong with prompts and tokenizer files, in words that help.

use canvas_core::weights::WeightsError;
use std::fmt;
use std::path::PathBuf;

/// Characters of a prompt that a message quotes.
const QUOTED: usize = 80;

/// Why a tokenizer could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A context without room for a word.
    #[error("a context of {context} tokens holds no word: [start], one word and [end] need 3")]
    Context {
        /// The context asked for.
        context: usize,
    },
    /// Captions without a single word.
    #[error("no word in {captions} captions: there is nothing to make a vocabulary of")]
    NoWords {
        /// How many captions there were.
        captions: usize,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WeightsError),
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{}: not the tokenizer.json of a word tokenizer: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The file is no tokenizer, or none of the kinds that are read here.
    #[error("{}: not a tokenizer that can be read: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The file is not part of a CLIP tokenizer.
    #[error("{}: not a CLIP tokenizer: {message}", path.display())]
    Clip {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// A prompt that lost its end: worth a warning, since the picture will not follow it.
#[derive(Clone, Debug, PartialEq)]
pub struct CutPrompt {
    /// The whole prompt.
    pub prompt: String,
    /// The part that was cut.
    pub cut: String,
    /// Tokens of the whole prompt, start and end included.
    pub tokens: usize,
    /// Tokens that fit.
    pub context: usize,
}

impl fmt::Display for CutPrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prompt, cut, tokens, context } = self;
        let prompt = quote(prompt);
        write!(
            f,
            "the prompt {prompt} has {tokens} tokens and the encoder reads {context}; this part was cut: {cut:?}"
        )
    }
}

/// Why the configuration of an encoder was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClipConfigError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file describes something else.
    #[error("{}: not the config.json of a CLIP model: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The key, what was expected and what was found.
        message: String,
    },
}

/// Why a prompt was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PromptError {
    /// More tokens than the encoder has positions.
    #[error(
        "a prompt of {tokens} tokens (with [start] and [end]) is longer than the context of {context}; \
         this part does not fit: {}",
        quote(rest)
    )]
    TooLong {
        /// Tokens of the prompt, the two special ones included.
        tokens: usize,
        /// Tokens that fit.
        context: usize,
        /// The part of the prompt that does not fit.
        rest: String,
    },
    /// A prompt with words, none of them known: what it asks for could not matter.
    #[error("no word of the prompt {} is known{}", quote(prompt), suggestions(words))]
    AllUnknown {
        /// The prompt.
        prompt: String,
        /// Its words.
        words: Vec<UnknownWord>,
    },
    /// Rows of different lengths, and nothing to fill them with.
    #[error("a prompt of {tokens} tokens in rows of {length} needs a pad token, and {} has none", path.display())]
    NoPad {
        /// The tokenizer's file.
        path: PathBuf,
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the rows.
        length: usize,
    },
    /// Rows too short for the tokens that stand in every one.
    #[error("rows of {length} tokens cannot hold the {special} special ones that {} puts into each", path.display())]
    NoRoom {
        /// The tokenizer's file.
        path: PathBuf,
        /// Special tokens of a row.
        special: usize,
        /// Tokens of the rows.
        length: usize,
    },
    /// A tokenizer from elsewhere failed on this prompt.
    #[error("the prompt {} could not be tokenized: {message}", quote(prompt))]
    Failed {
        /// The prompt.
        prompt: String,
        /// What the tokenizer said.
        message: String,
    },
}

/// A word that became `[unk]`: worth a warning, since the picture will not follow it.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownWord {
    /// The word as it was written.
    pub word: String,
    /// The most similar word of the vocabulary, if there is a similar one.
    pub nearest: Option<String>,
    /// The prompt it stands in.
    pub prompt: String,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown word {} in {}", quote(&self.word), quote(&self.prompt))?;
        self.nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; nearest: {}", quote(nearest)))
    }
}

/// In quotation marks, invisible characters escaped, long text cut.
fn quote(text: &str) -> String {
    let start: String = text.chars().take(QUOTED).collect();
    let dots = if start.len() < text.len() { ".." } else { "" };
    format!("{start:?}{dots}")
}

/// The nearest words of a refused prompt.
fn suggestions(words: &[UnknownWord]) -> String {
    let near: Vec<String> = words.iter().filter_map(|word| word.nearest.as_deref().map(quote)).collect();
    if near.is_empty() { String::new() } else { format!("; nearest: {}", near.join(", ")) }
}
