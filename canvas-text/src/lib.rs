//! Tokenizers and text encoders: from prompts to [`canvas_core::Text`].
//!
//! Tokenizing is fallible and on the host: [`WordTokenizer`] turns prompts into [`canvas_core::Tokens`], or
//! says which part of a prompt it cannot use. Encoding cannot fail: a [`TextTransformer`] turns tokens into
//! one vector a token and one a prompt.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::TextEncoder;
//! use canvas_text::{TextTransformerConfig, WordTokenizer};
//!
//! let tokenizer = WordTokenizer::from_captions(&["red heart", "blue heart", "blue square"], 8)?;
//! let encoded = tokenizer.tokenize(&["a blue heart", ""])?;
//! assert_eq!(encoded.warnings[0].to_string(), "unknown word \"a\" in \"a blue heart\"");
//!
//! let config = TextTransformerConfig::new(tokenizer.vocabulary(), tokenizer.context()).with_width(32);
//! let text = config.init(&Device::flex()).encode(&encoded.tokens);
//! assert_eq!(text.tokens.dims(), [2, 5, 32]); // [start] a blue heart [end]
//! assert_eq!(text.pooled.dims(), [2, 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clip;
mod error;
mod transformer;
mod words;

pub use clip::{ClipLayer, ClipStates, ClipText, ClipTextConfig, Pool};
pub use error::{ClipConfigError, PromptError, TokenizerError, UnknownWord};
pub use transformer::{Block, TextTransformer, TextTransformerConfig};
pub use words::{Encoded, WordTokenizer, special};
