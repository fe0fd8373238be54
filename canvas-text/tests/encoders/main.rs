//! Encoders and tokenizers of published models against transformers.

#[path = "../../../canvas-unet/tests/chirp/mod.rs"]
mod chirp;
mod chat;
mod file_tokenizer;
mod llm;
mod llm_tokens;
mod reference;
mod siglip;
mod t5;
