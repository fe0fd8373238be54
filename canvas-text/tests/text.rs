//! Tests of the tokenizer and the encoder through their public interface.

use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::{Condition, Text, TextEncoder, Tokens, params};
use canvas_text::{
    Encoded, PromptError, TextTransformer, TextTransformerConfig, TokenizerError, WordTokenizer, special,
};

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

mod vocabulary {
    use super::*;

    #[test]
    fn is_sorted_by_frequency_then_alphabet() {
        let expected = [
            "blue", "heart", "red", "'", ",", "-", "circle", "e", "large", "mail", "man", "piñata", "s",
            "shoe", "square",
        ];
        assert_eq!(tokenizer().words(), expected);
        assert_eq!(tokenizer().vocabulary(), expected.len() + 4);
    }

    #[test]
    fn does_not_depend_on_the_order_of_captions() {
        let mut reversed = CAPTIONS;
        reversed.reverse();
        let other = WordTokenizer::from_captions(&reversed, 8).unwrap();
        assert_eq!(other.words(), tokenizer().words());
        let prompts = ["red heart", "piñata, large"];
        assert_eq!(other.tokenize(&prompts).unwrap(), encode(&prompts));
    }

    #[test]
    fn special_tokens_have_the_first_ids() {
        let Encoded { tokens, warnings } = encode(&["blue heart", "dragon heart red"]);
        let expected =
            [special::START, 4, 5, special::END, special::PAD, special::START, special::UNKNOWN, 5, 6];
        assert_eq!(tokens.ids[..9], expected);
        assert_eq!([special::PAD, special::UNKNOWN, special::START, special::END], [0, 1, 2, 3]);
        assert_eq!(tokens.mask, [true, true, true, true, false, true, true, true, true, true]);
        assert_eq!((tokens.length, tokens.batch(), warnings.len()), (5, 2, 1));
    }

    #[test]
    fn needs_words_and_a_context() {
        let error = WordTokenizer::from_captions(&["red"], 2).unwrap_err();
        let message = "a context of 2 tokens holds no word: [start], one word and [end] need 3";
        assert_eq!(error.to_string(), message);
        let error = WordTokenizer::from_captions(&["", " \t"], 8).unwrap_err();
        assert_eq!(error.to_string(), "no word in 2 captions: there is nothing to make a vocabulary of");
        assert!(WordTokenizer::from_captions::<&str>(&[], 8).is_err());
    }
}

mod prompts {
    use super::*;

    #[test]
    fn case_spacing_and_unicode_composition_do_not_matter() {
        let expected = encode(&["red piñata"]).tokens;
        for same in ["RED PIÑATA", "  red\tpiñata\n", "red pin\u{303}ata", "red\u{a0}piñata"] {
            assert_eq!(encode(&[same]).tokens, expected, "{same:?}");
        }
    }

    #[test]
    fn an_unknown_word_is_a_warning_with_the_nearest_word() {
        let encoded = encode(&["Haert red haert Haert", "blue"]);
        let shown: Vec<String> = encoded.warnings.iter().map(ToString::to_string).collect();
        let prompt = "\"Haert red haert Haert\"";
        assert_eq!(
            shown,
            [
                format!("unknown word \"Haert\" in {prompt}; nearest: \"heart\""),
                format!("unknown word \"haert\" in {prompt}; nearest: \"heart\""),
            ]
        );
        assert_eq!(encode(&["red zzz"]).warnings[0].nearest, None);
    }

    #[test]
    fn only_unknown_words_are_an_error() {
        let error = refusal("haert qqq");
        assert_eq!(error.to_string(), "no word of the prompt \"haert qqq\" is known; nearest: \"heart\"");
    }

    #[test]
    fn one_token_too_many_is_an_error_that_quotes_the_rest() {
        let fits = "red red red red red heart";
        assert_eq!(encode(&[fits]).tokens.length, 8);
        let error = refusal("red red red red red heart Blue  square");
        assert_eq!(
            error.to_string(),
            "a prompt of 10 tokens (with [start] and [end]) is longer than the context of 8; \
             this part does not fit: \"Blue  square\""
        );
        let one = refusal("red red red red red heart blue");
        assert_eq!(one, PromptError::TooLong { tokens: 9, context: 8, rest: "blue".into() });
    }

    #[test]
    fn the_part_that_does_not_fit_is_right_after_recomposed_letters() {
        let PromptError::TooLong { rest, .. } = refusal("pin\u{303}ata é İ ﬁ red red blue heart") else {
            panic!()
        };
        assert_eq!(rest, "blue heart");
    }

    #[test]
    fn the_empty_prompt_is_start_and_end() {
        for empty in ["", "   ", "\n\t", "\u{3000}"] {
            let encoded = encode(&[empty]);
            assert_eq!(encoded.tokens.ids, [special::START, special::END], "{empty:?}");
            assert!(encoded.warnings.is_empty());
        }
        assert_eq!(encode(&[]).tokens, Tokens { ids: vec![], mask: vec![], length: 0 });
    }

    #[test]
    fn no_prompt_spells_a_special_token() {
        let error = refusal("[end] [pad][unk]");
        assert!(matches!(error, PromptError::TooLong { tokens, .. } if tokens > 8), "{error}");
        let ids = encode(&["red [end]"]).tokens.ids;
        assert_eq!(
            ids,
            [special::START, 6, special::UNKNOWN, special::UNKNOWN, special::UNKNOWN, special::END]
        );
    }

    #[test]
    fn strange_text_is_refused_or_warned_about_and_never_panics() {
        let long = "x".repeat(1_000_000);
        let strange = [
            "❤️",
            "👩‍🚀",
            "红色的心",
            "赤い ハート",
            "éàü",
            "\u{0}\u{7f}",
            "\u{202e}dlrow",
            "???!!!",
            "a\u{301}\u{301}",
            &long,
        ];
        for text in strange {
            let error = refusal(text);
            assert!(matches!(error, PromptError::AllUnknown { .. }), "{text:.20?}: {error}");
            assert!(error.to_string().len() < 1500, "{}", error.to_string().len());
            let encoded = encode(&["red", &format!("red {text}")]);
            assert!(!encoded.warnings.is_empty(), "{text:.20?}");
            for warning in &encoded.warnings {
                let shown = warning.to_string();
                assert!(shown.len() < 1500 && !shown.contains(char::is_control), "{shown}");
            }
        }
        // What cannot be seen is escaped.
        assert!(refusal("\u{200d}").to_string().contains("\\u{200d}"));
        assert!(matches!(refusal(&"红 ".repeat(100_000)), PromptError::TooLong { tokens: 100_002, .. }));
    }
}

mod files {
    use super::*;
    use std::fs;

    #[test]
    fn survive_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        tokenizer().save(&path).unwrap();
        let loaded = WordTokenizer::load(&path).unwrap();
        let prompts = ["red heart", "", "Large piñata, blu", "man's e-mail"];
        assert_eq!(loaded.tokenize(&prompts).unwrap(), encode(&prompts));
        assert_eq!((loaded.context(), loaded.words()), (8, tokenizer().words()));
        // Limits survive too, and so do the bytes.
        assert_eq!(loaded.tokenize(&["red ".repeat(9)]), tokenizer().tokenize(&["red ".repeat(9)]));
        let again = folder.path().join("again.json");
        loaded.save(&again).unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    }

    #[test]
    fn that_are_cut_or_of_another_kind_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let refused = |text: &str, why: &str| {
            fs::write(&path, text).unwrap();
            let error = WordTokenizer::load(&path).unwrap_err();
            assert!(matches!(error, TokenizerError::Format { .. }), "{error}");
            let shown = error.to_string();
            assert!(shown.starts_with(&path.display().to_string()) && shown.contains(why), "{shown}");
        };
        tokenizer().save(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for end in (0..whole.len() - 1).filter(|end| whole.is_char_boundary(*end)) {
            refused(&whole[..end], "");
        }
        refused("[]", "");
        refused("{\"truncation\": 7}", "");
        refused(&whole.replace("\"max_length\": 8", "\"max_length\": 1"), "max_length");
        refused(&whole.replace("[pad]", "[zero]"), "first four tokens");
        refused(&whole.replace("\"red\": 6", "\"red\": 60"), "ids of its words");
        refused(&whole.replace("WordLevel", "BPE"), "");
    }

    #[test]
    fn missing_or_not_writable_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere").join("tokenizer.json");
        let missing = WordTokenizer::load(&path).unwrap_err();
        let unwritten = tokenizer().save(&path).unwrap_err();
        for error in [missing, unwritten] {
            assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        }
    }
}

mod transformer {
    use super::*;

    fn encoder(depth: usize) -> TextTransformer {
        let config = TextTransformerConfig::new(tokenizer().vocabulary(), 8).with_width(16).with_depth(depth);
        params::fill_by_formula(config.init(&Device::flex()))
    }

    fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>, what: &str) {
        assert_eq!(a.dims(), b.dims(), "{what}");
        let difference: f32 = (a - b).abs().max().into_scalar();
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
        let mut largest = Largest { gradients: &gradients, path: Vec::new(), rows: Vec::new() };
        encoder.visit(&mut largest);
        assert_eq!(largest.rows.len(), params::named(&encoder).len());
        for (name, rows) in largest.rows {
            let reached: Vec<usize> = (0..rows.len()).filter(|&i| rows[i] > 1e-9).collect();
            match name.as_str() {
                "token.weight" => assert_eq!(reached, [2, 3, 7]),
                "position.weight" => assert_eq!(reached, [0, 1, 2]),
                // It shifts all scores of a query alike, and softmax takes that out.
                "blocks.0.attention.key.bias" => {}
                _ => assert!(!reached.is_empty(), "{name} has no gradient"),
            }
        }
    }

    /// Of each parameter, the largest gradient in each row.
    struct Largest<'a> {
        gradients: &'a burn::tensor::Gradients,
        path: Vec<String>,
        rows: Vec<(String, Vec<f32>)>,
    }

    impl burn::module::ModuleVisitor for Largest<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            let gradient = param.val().grad(self.gradients).expect("a gradient");
            let (count, rows) = (param.val().shape().num_elements(), param.val().dims()[0]);
            let gradient = gradient.reshape([rows, count / rows]).abs().max_dim(1);
            self.rows.push((self.path.join("."), gradient.into_data().iter::<f32>().collect()));
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
}
