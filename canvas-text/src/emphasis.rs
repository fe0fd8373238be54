//! Weighted prompts: which words count more, in the syntax that AUTOMATIC1111's web interface made common.

use crate::ClipTokens;
use burn::prelude::*;
use canvas_core::{Text, TextEncoder};

/// A part of a prompt and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// The part, brackets and escapes resolved.
    pub text: String,
    /// 1 for text outside of brackets.
    pub weight: f32,
}

/// What one pair of brackets multiplies or divides by.
const STEP: f32 = 1.1;

/// The parts of a prompt with their weights; neighbours of equal weight are one part.
///
/// `(word)` counts 1.1 times, `(word:1.3)` 1.3 times, `[word]` 1/1.1 times; nested brackets multiply. A backslash
/// makes the next bracket or backslash a letter. Brackets that stay open reach to the end; brackets that close
/// nothing are letters, and so is a weight that is no number.
///
/// # Example
/// ```
/// let parts = canvas_text::weighted("a (very:1.5) blue \\(dark\\) heart");
/// let shown: Vec<_> = parts.iter().map(|part| (part.text.as_str(), part.weight)).collect();
/// assert_eq!(shown, [("a ", 1.0), ("very", 1.5), (" blue (dark) heart", 1.0)]);
/// ```
pub fn weighted(prompt: &str) -> Vec<Weighted> {
    let mut parser = Parser::default();
    let mut rest = prompt;
    while let Some(next) = rest.chars().next() {
        rest = parser.read(next, rest);
    }
    parser.finish()
}

#[derive(Default)]
struct Parser {
    parts: Vec<Weighted>,
    /// Where the open round and square brackets began: an index of `parts`.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parser {
    /// Reads one element, and gives what is left.
    fn read<'a>(&mut self, next: char, rest: &'a str) -> &'a str {
        let after = &rest[next.len_utf8()..];
        match next {
            '\\' => {
                let escaped = after.chars().next().filter(|c| "()[]\\".contains(*c));
                self.text(escaped.map_or("", |c| &after[..c.len_utf8()]));
                return &after[escaped.map_or(0, char::len_utf8)..];
            }
            '(' => self.round.push(self.parts.len()),
            '[' => self.square.push(self.parts.len()),
            ')' => match self.round.pop() {
                Some(from) => self.multiply(from, STEP),
                None => self.text(")"),
            },
            ']' => match self.square.pop() {
                Some(from) => self.multiply(from, STEP.recip()),
                None => self.text("]"),
            },
            ':' => match (self.round.last(), weight(after)) {
                (Some(&from), Some((weight, after))) => {
                    self.round.pop();
                    self.multiply(from, weight);
                    return after;
                }
                _ => self.text(":"),
            },
            _ => {
                let end = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                self.text(&rest[..end]);
                return &rest[end..];
            }
        }
        after
    }

    fn text(&mut self, text: &str) {
        self.parts.push(Weighted { text: text.to_owned(), weight: 1.0 });
    }

    fn multiply(&mut self, from: usize, by: f32) {
        self.parts[from..].iter_mut().for_each(|part| part.weight *= by);
    }

    fn finish(mut self) -> Vec<Weighted> {
        for from in std::mem::take(&mut self.round) {
            self.multiply(from, STEP);
        }
        for from in std::mem::take(&mut self.square) {
            self.multiply(from, STEP.recip());
        }
        let mut merged: Vec<Weighted> = Vec::new();
        for part in self.parts {
            match merged.last_mut() {
                Some(last) if last.weight == part.weight => last.text.push_str(&part.text),
                _ => merged.push(part),
            }
        }
        merged
    }
}

/// The number of `1.3)`, and what follows.
fn weight(text: &str) -> Option<(f32, &str)> {
    let end = text.find(')')?;
    let number = text[..end].trim();
    let plain = number.chars().all(|c| c.is_ascii_digit() || "+-.".contains(c));
    let weight: f32 = number.parse().ok().filter(|weight: &f32| plain && weight.is_finite())?;
    Some((weight, &text[end + 1..]))
}

/// How weights change the tokens' vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// Each vector times its weight; then all of a window times one number that brings its mean back.
    /// AUTOMATIC1111's "original" emphasis, but for each prompt of a batch by itself. It needs a mean that is not
    /// zero: those of trained encoders are not, those of a norm that was never trained are.
    RestoreMean,
    /// Each vector times its weight.
    Multiply,
}

impl Emphasis {
    /// # Shapes
    /// - `states`, output: `[B, T, W]`; `weights`: `[B, T]`
    pub fn apply(self, states: Tensor<3>, weights: Tensor<2>) -> Tensor<3> {
        let weighted = states.clone() * weights.unsqueeze_dim::<3>(2); // [B, T, W]
        if self == Self::Multiply {
            return weighted;
        }
        let mean = |x: Tensor<3>| x.mean_dim(2).mean_dim(1); // [B, 1, 1]
        let restore = mean(states) / mean(weighted.clone());
        weighted * restore
    }
}

impl ClipTokens {
    /// Encodes all windows, weights their vectors, and lays the windows of a prompt end to end. The prompt's vector is
    /// that of its first window.
    ///
    /// # Shapes
    /// For `B` prompts of `N` windows of `T` tokens: `tokens` `[B, N T, W]`, `mask` `[B, N T]`, `pooled` `[B, P]`.
    ///
    /// # Panics
    /// As the encoder.
    pub fn encode(&self, encoder: &impl TextEncoder, emphasis: Emphasis) -> Text {
        let Text { mut tokens, mask, pooled } = encoder.encode(&self.tokens); // [B N, T, W], [B N, T], [B N, P]
        let [rows, length, width] = tokens.dims();
        let device = tokens.device();
        if self.weights.iter().any(|&weight| weight != 1.0) {
            let weights = TensorData::new(self.weights.clone(), [rows, length]);
            tokens = emphasis.apply(tokens, Tensor::from_data(weights, &device));
        }
        let batch = rows / self.windows;
        let first = (0..batch).map(|row| (row * self.windows) as i64).collect::<Vec<i64>>();
        let first = Tensor::from_data(TensorData::new(first, [batch]), &device);
        Text {
            tokens: tokens.reshape([batch, self.windows * length, width]),
            mask: mask.reshape([batch, self.windows * length]),
            pooled: pooled.select(0, first),
        }
    }
}
