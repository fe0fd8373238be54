//! A word-level tokenizer, for captions of a small vocabulary.

use crate::{PromptError, TokenizerError, UnknownWord};
use canvas_core::Tokens;
use canvas_core::weights::write_atomically;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tokenizers::models::ModelWrapper;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::{Lowercase, NFC, Sequence};
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    Encoding, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer,
};

/// Ids of the special tokens, the first four of every vocabulary.
pub mod special {
    /// Fills the end of the shorter rows of a batch.
    pub const PAD: u32 = 0;
    /// A word that is not in the vocabulary.
    pub const UNKNOWN: u32 = 1;
    /// Opens each prompt.
    pub const START: u32 = 2;
    /// Closes each prompt; its state is the prompt's vector.
    pub const END: u32 = 3;
    /// The tokens themselves, in the order of their ids. No prompt can spell them: brackets are words.
    pub const NAMES: [&str; 4] = ["[pad]", "[unk]", "[start]", "[end]"];
}

/// Words longer than this have no suggestion: comparing them would cost more than it could help.
const LONGEST_SUGGESTED: usize = 48;

/// Tokenized prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// `B` rows, padded to the longest of them.
    pub tokens: Tokens,
    /// Words that became `[unk]`, each once a prompt.
    pub warnings: Vec<UnknownWord>,
}

/// A tokenizer whose tokens are whole words, lowercase, and runs of punctuation.
///
/// Text is composed (Unicode NFC), lowercased, and cut into runs of letters, digits and marks, and runs of
/// anything else that is not white space. Accents count: "pinata" is not "piñata". Each prompt becomes
/// `[start] words [end]`, and the rows of a batch are padded with `[pad]` to the longest row, not to the
/// context: that is cheaper, and no result depends on it, because the mask hides padding.
///
/// The file format is that of Hugging Face `tokenizers`, with the context as its truncation length, so other
/// tools read the file too (they truncate where this one refuses).
#[derive(Clone, Debug)]
pub struct WordTokenizer {
    tokenizer: Tokenizer,
    context: usize,
    /// All words but the special tokens, in the order of their ids.
    words: Vec<String>,
}

impl WordTokenizer {
    /// The vocabulary of these captions: the most frequent word first, equals in the order of the alphabet.
    ///
    /// `context` counts all tokens of a prompt, `[start]` and `[end]` included.
    ///
    /// # Errors
    /// If `context` is below 3, or no caption holds a word.
    pub fn from_captions<S: AsRef<str>>(captions: &[S], context: usize) -> Result<Self, TokenizerError> {
        Self::most_frequent(captions, context, usize::MAX)
    }

    /// The same of so many words, those that the captions hold most often: the others are read as `[unk]`.
    ///
    /// # Errors
    /// If `context` is below 3, or no caption holds a word.
    ///
    /// # Panics
    /// If `words` is 0.
    pub fn most_frequent<S: AsRef<str>>(
        captions: &[S],
        context: usize,
        words: usize,
    ) -> Result<Self, TokenizerError> {
        assert!(words > 0, "a vocabulary of no words");
        let most = words;
        if context < 3 {
            return Err(TokenizerError::Context { context });
        }
        let mut counts = BTreeMap::<String, usize>::new();
        for caption in captions {
            for word in split(caption.as_ref()) {
                *counts.entry(word).or_default() += 1;
            }
        }
        if counts.is_empty() {
            return Err(TokenizerError::NoWords { captions: captions.len() });
        }
        let mut words: Vec<(String, usize)> = counts.into_iter().collect();
        words.sort_by_key(|(_, count)| Reverse(*count)); // stable: equals stay in the order of the alphabet
        let words: Vec<String> = words.into_iter().take(most).map(|(word, _)| word).collect();
        Ok(Self { tokenizer: assemble(&words), context, words })
    }

    /// Size of the vocabulary, special tokens included.
    pub fn vocabulary(&self) -> usize {
        self.words.len() + special::NAMES.len()
    }

    /// The most tokens a prompt may have, `[start]` and `[end]` included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// All words but the special tokens, in the order of their ids (from 4 on).
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Writes a `tokenizer.json`.
    ///
    /// # Errors
    /// Names the file; an old one stays as it was.
    pub fn save(&self, path: &Path) -> Result<(), TokenizerError> {
        let wrong = |error: serde_json::Error| TokenizerError::Format {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let mut json = serde_json::to_value(&self.tokenizer).map_err(wrong)?;
        json["truncation"] = json!({
            "direction": "Right", "max_length": self.context, "strategy": "LongestFirst", "stride": 0
        });
        let text = serde_json::to_string_pretty(&json).map_err(wrong)?;
        Ok(write_atomically(path, text.as_bytes())?)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it: unreadable, not JSON, another kind of tokenizer, other
    /// special tokens.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let bytes =
            fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes).map_err(|message| TokenizerError::Format { path: path.to_owned(), message })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut json: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let context = json["truncation"]["max_length"].as_u64().unwrap_or(0) as usize;
        if context < 3 {
            return Err("truncation.max_length, the context, must be at least 3".into());
        }
        // Taken out: the library would cut long prompts without a word, and underflows on a short length.
        json["truncation"] = Value::Null;
        let tokenizer: Tokenizer = serde_json::from_value(json).map_err(|error| error.to_string())?;
        let ModelWrapper::WordLevel(_) = tokenizer.get_model() else {
            return Err("its model is not WordLevel".into());
        };
        let mut vocabulary: Vec<(u32, String)> =
            tokenizer.get_vocab(true).into_iter().map(|(word, id)| (id, word)).collect();
        vocabulary.sort_unstable();
        if vocabulary.iter().enumerate().any(|(place, (id, _))| place != *id as usize) {
            return Err("the ids of its words are not 0, 1, 2, ..".into());
        }
        let mut words: Vec<String> = vocabulary.into_iter().map(|(_, word)| word).collect();
        if !words.iter().take(4).eq(special::NAMES.iter()) {
            return Err(format!("its first four tokens are not {:?}", special::NAMES));
        }
        let empty = tokenizer.encode("", true).map_err(|error| error.to_string())?;
        if empty.get_ids() != [special::START, special::END] {
            return Err("an empty prompt does not become [start] [end]".into());
        }
        Ok(Self { tokenizer, context, words: words.split_off(special::NAMES.len()) })
    }

    /// Tokenizes a batch of prompts, padded to the longest.
    ///
    /// An empty prompt is `[start] [end]`, the null condition of classifier-free guidance; whether a user may
    /// ask for it is the program's decision. Some unknown words are warnings, only unknown words an error.
    ///
    /// # Errors
    /// Of the first prompt that is too long or has no known word.
    pub fn tokenize<S: AsRef<str>>(&self, prompts: &[S]) -> Result<Encoded, PromptError> {
        let (mut rows, mut warnings) = (Vec::with_capacity(prompts.len()), Vec::new());
        for prompt in prompts {
            let (row, unknown) = self.row(prompt.as_ref())?;
            rows.push(row);
            warnings.extend(unknown);
        }
        Ok(Encoded { tokens: padded(rows), warnings })
    }

    /// Tokenizes captions of data, which nobody is there to write anew: what does not fit the context is cut at its end, and
    /// unknown words are `[unk]`. [`length`](Self::length) says whether one fits.
    ///
    /// # Errors
    /// Of the first that the library fails at.
    ///
    /// # Example
    /// ```
    /// use canvas_text::{WordTokenizer, special};
    /// let captions = ["a red heart", "a blue heart on a red square"];
    /// let tokenizer = WordTokenizer::most_frequent(&captions, 6, 3)?;
    /// assert_eq!(tokenizer.words(), ["a", "heart", "red"]);
    /// assert_eq!(tokenizer.length(captions[1])?, 9);
    /// let tokens = tokenizer.tokenize_cut(&captions[1..])?;
    /// assert_eq!(tokens.ids, [special::START, 4, special::UNKNOWN, 5, special::UNKNOWN, special::END]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tokenize_cut<S: AsRef<str>>(&self, captions: &[S]) -> Result<Tokens, PromptError> {
        let cut = |caption: &S| {
            let mut ids = self.encode(caption.as_ref())?.get_ids().to_vec();
            if ids.len() > self.context {
                ids.truncate(self.context - 1);
                ids.push(special::END);
            }
            Ok(ids)
        };
        Ok(padded(captions.iter().map(cut).collect::<Result<_, _>>()?))
    }

    /// How many tokens a caption is, `[start]` and `[end]` included.
    ///
    /// # Errors
    /// If the library fails at it.
    pub fn length(&self, caption: &str) -> Result<usize, PromptError> {
        Ok(self.encode(caption)?.len())
    }

    fn encode(&self, prompt: &str) -> Result<Encoding, PromptError> {
        self.tokenizer
            .encode(prompt, true)
            .map_err(|error| PromptError::Failed { prompt: prompt.to_owned(), message: error.to_string() })
    }

    /// The ids of one prompt and its unknown words.
    fn row(&self, prompt: &str) -> Result<(Vec<u32>, Vec<UnknownWord>), PromptError> {
        let encoding = self.encode(prompt)?;
        let (ids, offsets) = (encoding.get_ids().to_vec(), encoding.get_offsets());
        if ids.len() > self.context {
            // [start] and context - 2 words fit; the next word is the first that does not.
            let rest = prompt.get(offsets[self.context - 1].0..).unwrap_or(prompt).to_owned();
            return Err(PromptError::TooLong { tokens: ids.len(), context: self.context, rest });
        }
        let mut unknown = Vec::<UnknownWord>::new();
        for (&id, &(from, to)) in ids.iter().zip(offsets) {
            let word = prompt.get(from..to).unwrap_or_default();
            if id == special::UNKNOWN && unknown.iter().all(|seen| seen.word != word) {
                let (word, prompt) = (word.to_owned(), prompt.to_owned());
                unknown.push(UnknownWord { nearest: self.nearest(&word), word, prompt });
            }
        }
        let words = &ids[1..ids.len() - 1];
        if !words.is_empty() && words.iter().all(|&id| id == special::UNKNOWN) {
            return Err(PromptError::AllUnknown { prompt: prompt.to_owned(), words: unknown });
        }
        Ok((ids, unknown))
    }

    /// The most similar word, the more frequent of equals; `None` if none is similar.
    fn nearest(&self, word: &str) -> Option<String> {
        if word.chars().count() > LONGEST_SUGGESTED {
            return None;
        }
        let word = word.to_lowercase();
        let scored = self.words.iter().rev().map(|known| (strsim::jaro_winkler(&word, known), known));
        let (score, best) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (score > 0.8).then(|| best.clone())
    }
}

/// Rows of ids, padded to the longest.
fn padded(rows: Vec<Vec<u32>>) -> Tokens {
    let length = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (mut ids, mut mask) = (Vec::with_capacity(rows.len() * length), Vec::new());
    for row in rows {
        let padding = length - row.len();
        mask.extend(row.iter().map(|_| true).chain((0..padding).map(|_| false)));
        ids.extend(row.into_iter().chain((0..padding).map(|_| special::PAD)));
    }
    Tokens { ids, mask, length }
}

fn normalizer() -> Sequence {
    Sequence::new(vec![NFC.into(), Lowercase.into()])
}

/// The words of a caption, cut by the same rules as a prompt's.
fn split(caption: &str) -> Vec<String> {
    let mut text = NormalizedString::from(caption);
    normalizer().normalize(&mut text).expect("composing and lowercasing cannot fail");
    let mut pieces = PreTokenizedString::from(text);
    Whitespace.pre_tokenize(&mut pieces).expect("a fixed pattern cannot fail");
    let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    pieces.into_iter().map(|(word, _, _)| word.to_owned()).collect()
}

fn assemble(words: &[String]) -> Tokenizer {
    let all = special::NAMES.into_iter().map(str::to_owned).chain(words.iter().cloned());
    let model = WordLevel::builder()
        .vocab(all.zip(0..).collect())
        .unk_token(special::NAMES[special::UNKNOWN as usize].to_owned())
        .build()
        .expect("a vocabulary in memory needs no file");
    let ends = TemplateProcessing::builder()
        .try_single("[start] $A [end]")
        .expect("a fixed template")
        .special_tokens(vec![("[start]", special::START), ("[end]", special::END)])
        .build()
        .expect("both tokens of the template are named");
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer())).expect("there are no added tokens to normalise");
    tokenizer.with_pre_tokenizer(Some(Whitespace)).with_post_processor(Some(ends));
    tokenizer
}
