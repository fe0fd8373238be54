//! Encoders and tokenizers of published models against transformers.

mod chat;
#[path = "../../../canvas-unet/tests/chirp/mod.rs"]
mod chirp;
mod file_tokenizer;
mod llm;
mod llm_tokens;
mod reference;
mod siglip;
mod t5;
