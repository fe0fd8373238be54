//! The encoder: states, vectors, gradients, errors.

use crate::{encode, tokenizer};
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::{Condition, Text, TextEncoder, Tokens, params};
use canvas_testkit::{distance, gradients_by_path};
use canvas_text::{TextTransformer, TextTransformerConfig};

fn encoder(depth: usize) -> TextTransformer {
    let config = TextTransformerConfig::new(tokenizer().vocabulary(), 8).with_width(16).with_depth(depth);
    params::fill_by_formula(config.init(&Device::flex()))
}

fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let difference = distance(a, b);
    assert!(difference < 1e-5, "{what}: {difference}");
}

/// The first `length` states of one row, and its vector.
fn row(text: &Text, row: usize, length: usize) -> (Tensor<3>, Tensor<2>) {
    let text = text.select(&[row]);
    let width = text.tokens.dims()[2];
    (text.tokens.slice([0..1, 0..length, 0..width]), text.pooled)
}

#[test]
fn padding_changes_nothing() {
    let prompts = [("blue heart", 4), ("", 2), ("red circle, large blue heart", 8), ("red", 3)];
    let all: Vec<&str> = prompts.iter().map(|(prompt, _)| *prompt).collect();
    for depth in [0, 2] {
        let encoder = encoder(depth);
        let together = encoder.encode(&encode(&all).tokens);
        assert_eq!(together.tokens.dims(), [4, 8, 16]);
        for (i, (prompt, length)) in prompts.into_iter().enumerate() {
            let alone = encoder.encode(&encode(&[prompt]).tokens);
            assert_eq!(alone.tokens.dims()[1], length);
            let (states, pooled) = row(&together, i, length);
            assert_close(states, alone.tokens.clone(), prompt);
            assert_close(pooled, alone.pooled.clone(), prompt);
            // And the padded states are what joining batches pads with.
            let joined = Text::cat(&[alone, together.select(&[2])]);
            assert_close(joined.select(&[0]).tokens, together.select(&[i]).tokens, prompt);
        }
    }
}

#[test]
fn words_and_their_order_reach_the_prompt_vector() {
    let pooled =
        |depth| encoder(depth).encode(&encode(&["red heart", "blue heart", "heart red"]).tokens).pooled;
    let apart = |vectors: &Tensor<2>, a: usize, b: usize| -> f32 {
        let row = |i: usize| vectors.clone().slice([i..i + 1, 0..16]);
        (row(a) - row(b)).abs().max().into_scalar()
    };
    let (cheap, deep) = (pooled(0), pooled(2));
    assert!(apart(&cheap, 0, 1) > 1e-3 && apart(&deep, 0, 1) > 1e-3);
    assert!(apart(&deep, 0, 2) > 1e-3);
}

#[test]
fn prompt_vector_is_the_state_at_the_end_token() {
    let text = encoder(1).encode(&encode(&["red", "blue heart"]).tokens);
    for (i, length) in [(0, 3), (1, 4)] {
        let (states, pooled) = row(&text, i, length);
        let end: Tensor<2> = states.slice([0..1, length - 1..length, 0..16]).flatten(0, 1);
        assert_close(end, pooled, "pooled");
    }
}

#[test]
fn prompt_vector_without_blocks_is_the_mean_of_real_states() {
    let text = encoder(0).encode(&encode(&["red", "blue heart"]).tokens);
    for (i, length) in [(0, 3), (1, 4)] {
        let (states, pooled) = row(&text, i, length);
        assert_close(states.mean_dim(1).flatten(0, 1), pooled, "pooled");
    }
}

#[test]
fn gradient_reaches_every_parameter_and_only_the_words_used() {
    let device = Device::flex().autodiff();
    let config = TextTransformerConfig::new(10, 8).with_width(16).with_depth(1);
    let encoder = params::fill_by_formula(config.init(&device));
    let tokens = Tokens { ids: vec![2, 7, 3, 0], mask: vec![true, true, true, false], length: 4 };
    let text = encoder.encode(&tokens);
    // A weighted sum: plain sums of normalised states are constant.
    let weights = text.pooled.random_like(burn::tensor::Distribution::Default);
    let gradients = (text.pooled * weights).sum().backward();
    let gradients = gradients_by_path(&encoder, &gradients);
    assert_eq!(gradients.len(), params::named(&encoder).len());
    for (name, gradient) in gradients {
        let (rows, values) = (gradient.shape()[0], gradient.iter::<f32>().collect::<Vec<_>>());
        let counts = |row: &[f32]| row.iter().any(|x| x.abs() > 1e-9);
        let by_row = values.chunks(values.len() / rows).map(counts).enumerate();
        let reached: Vec<usize> = by_row.filter_map(|(i, reached)| reached.then_some(i)).collect();
        match name.as_str() {
            "token.weight" => assert_eq!(reached, [2, 3, 7]),
            "position.weight" => assert_eq!(reached, [0, 1, 2]),
            // It shifts all scores of a query alike, and softmax takes that out.
            "blocks.0.attention.key.bias" => {}
            _ => assert!(!reached.is_empty(), "{name} has no gradient"),
        }
    }
}

#[test]
#[should_panic(expected = "token id 99 for a vocabulary of 19")]
fn refuses_ids_of_another_tokenizer() {
    encoder(0).encode(&Tokens { ids: vec![2, 99, 3], mask: vec![true; 3], length: 3 });
}

#[test]
#[should_panic(expected = "row 1 of the tokens is all padding")]
fn refuses_a_row_without_tokens() {
    encoder(1).encode(&Tokens { ids: vec![2, 3, 0, 0], mask: vec![true, true, false, false], length: 2 });
}

#[test]
#[should_panic(expected = "rows of 9 tokens for a context of 8")]
fn refuses_rows_longer_than_the_context() {
    encoder(1).encode(&Tokens { ids: vec![4; 9], mask: vec![true; 9], length: 9 });
}

#[test]
#[should_panic(expected = "at least one prompt")]
fn refuses_an_empty_batch() {
    encoder(1).encode(&encode(&[]).tokens);
}

#[test]
fn configurations_that_do_not_fit_are_named() {
    let config = TextTransformerConfig::new(10, 8).with_width(30).with_activation(Activation::Gelu);
    assert_eq!(config.validate().unwrap_err().to_string(), "heads (4) must divide width (30)");
    assert!(TextTransformerConfig::new(0, 8).validate().is_err());
    assert!(TextTransformerConfig::new(10, 0).validate().is_err());
}

#[test]
fn starts_with_small_embeddings_as_clip_does() {
    let device = Device::flex();
    device.seed(3);
    let encoder = TextTransformerConfig::new(500, 64).init(&device);
    for param in params::named(&encoder) {
        let std = match param.name.as_str() {
            "token.weight" => 0.02,
            "position.weight" => 0.01,
            _ => continue,
        };
        let values: Vec<f32> = param.data.iter::<f32>().collect();
        let square = values.iter().map(|v| f64::from(v * v)).sum::<f64>() / values.len() as f64;
        assert!((square.sqrt() / std - 1.0).abs() < 0.05, "{}: {}", param.name, square.sqrt());
    }
}
