//! Learned words: vectors for a text encoder's embedding, under names of their own.

use crate::{ClipText, ClipTokenizer};
use burn::prelude::*;
use canvas_core::weights::{Source, WeightsError};
use std::path::{Path, PathBuf};

/// The key of A1111's files.
const A1111: &str = "emb_params";

/// The keys of files for SDXL's two encoders.
const SDXL: [&str; 2] = ["clip_l", "clip_g"];

/// A learned word ("textual inversion") of one or several vectors, from a `.safetensors` file.
///
/// | written by | keys |
/// |---|---|
/// | diffusers | the word itself: `[W]` or `[N, W]` |
/// | A1111 | `emb_params`: `[N, W]`; the word is the file's name |
/// | trainers of SDXL | `clip_l` and `clip_g`, one for each encoder; the word is the file's name |
///
/// A word of `N` vectors becomes the tokens `<cat>`, `<cat>_1`, .., and a prompt that says `<cat>` reads all of them.
///
/// # Reference
/// Gal et al., "An Image is Worth One Word", 2022, <https://arxiv.org/abs/2208.01618>; diffusers'
/// `load_textual_inversion` and `maybe_convert_prompt`.
///
/// # Differs from diffusers
/// Words of several vectors are put in after tokenizing. diffusers replaces them in the text, and so inside longer words,
/// too (`cat` in `concatenate`), and not where the prompt writes them with other capitals.
#[derive(Clone, Debug)]
pub struct TextualInversion {
    path: PathBuf,
    tokens: Vec<String>,
    /// Key and `[N, W]`; two for SDXL.
    sets: Vec<(String, TensorData)>,
}

/// Why a learned word was not read or added. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TextualInversionError {
    /// The file could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file holds something else, or does not fit this tokenizer or encoder.
    #[error("{}: {message}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What was expected, and what was found.
        message: String,
    },
}

impl TextualInversion {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file and the key: keys of no known kind, vectors of no shape `[W]` or `[N, W]`, a file that cannot be
    /// read.
    pub fn open(path: &Path) -> Result<Self, TextualInversionError> {
        let source = Source::open(path, None)?;
        let keys: Vec<&str> = source.keys().collect();
        let wrong = |message: String| TextualInversionError::Unusable { path: path.to_owned(), message };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let token = match keys.as_slice() {
            [key] if *key != A1111 && !SDXL.contains(key) => (*key).to_owned(),
            keys if keys.contains(&A1111) || keys.iter().all(|key| SDXL.contains(key)) => stem,
            _ => {
                let expected = format!("one key, or {A1111}, or {} and {}", SDXL[0], SDXL[1]);
                return Err(wrong(format!("not a textual inversion: expected {expected}, found {keys:?}")));
            }
        };
        let mut sets = Vec::new();
        // A1111 keeps notes of its training beside the vectors.
        for key in keys.iter().filter(|key| !keys.contains(&A1111) || **key == A1111) {
            let data = source.read(key)?;
            let shape = match data.shape().to_vec().as_slice() {
                [width] => [1, *width],
                [count, width] if *count > 0 => [*count, *width],
                other => return Err(wrong(format!("{key}: expected [W] or [N, W], found {other:?}"))),
            };
            sets.push(((*key).to_owned(), TensorData::new(data.iter::<f32>().collect::<Vec<f32>>(), shape)));
        }
        if sets.is_empty() {
            return Err(wrong("not a textual inversion: it holds no tensor".to_owned()));
        }
        Ok(Self { path: path.to_owned(), tokens: vec![token], sets })
    }

    /// Under another word; or one word for each vector.
    pub fn with_tokens<S: AsRef<str>>(mut self, tokens: &[S]) -> Self {
        self.tokens = tokens.iter().map(|token| token.as_ref().to_owned()).collect();
        self
    }

    /// The words.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Adds the words to a tokenizer, and their vectors to its encoder, in its type. Of a file for SDXL's two encoders it is
    /// the vectors of this encoder's width: add it to both.
    ///
    /// An encoder whose prompt vector is the state of the largest id (`Pool::LargestId`) takes that of a learned word then, as
    /// transformers does.
    ///
    /// # Errors
    /// Names a word that is there already and its id, the widths that differ, the number of words and vectors that
    /// differ, or a tokenizer of more tokens than the encoder has rows. Both are consumed; clones stay as they were.
    pub fn add(
        &self,
        mut tokenizer: ClipTokenizer,
        clip: ClipText,
    ) -> Result<(ClipTokenizer, ClipText), TextualInversionError> {
        let wrong = |message: String| TextualInversionError::Unusable { path: self.path.clone(), message };
        let vectors = self.of_width(clip.width()).map_err(wrong)?;
        let words = self.words(vectors.shape()[0]).map_err(wrong)?;
        if let Some((word, id)) = words.iter().flatten().find_map(|word| Some((word, tokenizer.id(word)?))) {
            return Err(wrong(format!("the word {word:?} is in the vocabulary already, with id {id}")));
        }
        let (first, rows) = (tokenizer.vocabulary(), clip.vocabulary());
        if first > rows {
            return Err(wrong(format!("the tokenizer has {first} tokens, but the encoder {rows} rows")));
        }
        for word in &words {
            tokenizer.add_word(word).map_err(|error| wrong(error.to_string()))?;
        }
        Ok((tokenizer, clip.with_rows(first, vectors)))
    }

    /// The vectors for an encoder.
    fn of_width(&self, width: usize) -> Result<TensorData, String> {
        let fits = self.sets.iter().filter(|(_, data)| data.shape()[1] == width);
        match fits.collect::<Vec<_>>().as_slice() {
            [(_, data)] => Ok(data.clone()),
            [] => {
                let shown = |(key, data): &(String, TensorData)| format!("{key}: {}", data.shape()[1]);
                let found: Vec<String> = self.sets.iter().map(shown).collect();
                Err(format!("expected vectors of width {width}, found {}", found.join(", ")))
            }
            _ => Err(format!("{} and {} both have the width {width}", SDXL[0], SDXL[1])),
        }
    }

    /// The tokens of each word.
    fn words(&self, count: usize) -> Result<Vec<Vec<String>>, String> {
        match self.tokens.as_slice() {
            [word] => {
                let rest = (1..count).map(|i| format!("{word}_{i}"));
                Ok(vec![std::iter::once(word.clone()).chain(rest).collect()])
            }
            words if words.len() == count => Ok(words.iter().map(|word| vec![word.clone()]).collect()),
            words => Err(format!("{} words for {count} vectors: expected one, or as many", words.len())),
        }
    }
}
