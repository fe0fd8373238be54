//! Tests of the tokenizer and the encoder through their public interface.

mod files;
mod prompts;
mod transformer;
mod vocabulary;

use canvas_text::{Encoded, PromptError, WordTokenizer};

const CAPTIONS: [&str; 7] =
    ["red heart", "Blue Heart", "blue square", "piñata", "man's shoe", "e-mail", "red circle, large"];

fn tokenizer() -> WordTokenizer {
    WordTokenizer::from_captions(&CAPTIONS, 8).unwrap()
}

fn encode(prompts: &[&str]) -> Encoded {
    tokenizer().tokenize(prompts).unwrap()
}

fn refusal(prompt: &str) -> PromptError {
    tokenizer().tokenize(&["red heart", prompt]).unwrap_err()
}
