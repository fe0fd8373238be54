//! Encoders and tokenizers of published models against transformers.

#[path = "../../../canvas-unet/tests/chirp/mod.rs"]
mod chirp;
mod file_tokenizer;
mod reference;
mod siglip;
mod t5;
