//! Encoders and tokenizers of published models against transformers.

mod chat;
mod file_tokenizer;
mod llm;
mod llm_configs;
mod llm_prompts;
mod llm_tokens;
mod reference;
mod siglip;
mod t5;
