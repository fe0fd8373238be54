//! Tokenizers and text encoders: from prompts to [`canvas_core::Text`].
//!
//! Tokenizing is fallible and on the host: [`WordTokenizer`] turns prompts into [`canvas_core::Tokens`], or
//! says which part of a prompt it cannot use. Encoding cannot fail: a [`TextTransformer`] turns tokens into
//! one vector a token and one a prompt.
//!
//! For the Stable Diffusion family there are [`ClipTokenizer`], which reads a model's own files, cuts long prompts or
//! reads them in windows and knows weighted words, and [`ClipText`] with the published sizes;
//! [`TextualInversion`] adds learned words to both;
//! [`FileTokenizer`] reads the tokenizer of any other published model, [`T5Encoder`] is T5's and UMT5's encoder, and [`Llm`]
//! the encoder of language models, whose chats a [`ChatTemplate`] writes down.
//! [`ClipVision`] is IP-Adapter's image encoder, and [`ClipImageProcessor`] makes what it reads; [`SiglipVision`] and
//! [`SiglipImageProcessor`] are those of Flux Redux.
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

mod chat;
mod cleaning;
mod clip;
mod clip_image;
mod clip_tokenizer;
mod emphasis;
mod error;
mod file_tokenizer;
mod llm;
mod siglip;
mod siglip_image;
mod t5;
pub mod templates;
mod textual_inversion;
mod transformer;
mod words;

pub use chat::{ChatError, ChatTemplate, Content, Message};
pub use cleaning::clean_caption;
pub use clip::{ClipLayer, ClipStates, ClipText, ClipTextConfig, ClipVision, ClipVisionConfig, Pool};
pub use clip_image::ClipImageProcessor;
pub use clip_tokenizer::{ClipTokenizer, ClipTokens, LongPrompt};
pub use emphasis::{Emphasis, Weighted, weighted};
pub use error::{ClipConfigError, CutPrompt, PromptError, TokenizerError, UnknownWord};
pub use file_tokenizer::{FileTokenizer, RowLength, Side, Tokenized};
pub use llm::{Blind, Llama3Rope, Llm, LlmConfig, Rope};
pub use siglip::{SiglipVision, SiglipVisionConfig};
pub use siglip_image::SiglipImageProcessor;
pub use t5::{T5Config, T5Encoder};
pub use textual_inversion::{TextualInversion, TextualInversionError};
pub use transformer::{Block, TextTransformer, TextTransformerConfig};
pub use words::{Encoded, WordTokenizer, special};
