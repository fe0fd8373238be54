//! T5's encoder against transformers (fixture by `tools/fixtures_t5.py`), sizes, configurations, weight files.

use crate::reference::{Answers, compare, fixture, gradients, halved, host, near, pattern, read_json};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::weights::{self, Source};
use canvas_core::{Condition, TextEncoder, Tokens};
use canvas_testkit::chirped;
use canvas_text::{T5Config, T5Encoder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Heads that do not fill the width, and gaps that reach the last bucket.
fn t5() -> T5Config {
    T5Config::new(32, 7, 4, 37, 3).with_vocabulary(99).with_buckets(8).with_distance(9)
}

fn umt5() -> T5Config {
    t5().with_positions_everywhere(true).with_epsilon(1e-3)
}

fn first() -> T5Config {
    t5().with_gated(false).with_activation(Activation::Relu)
}

fn tokens() -> Tokens {
    let ids = [[5, 7, 12, 98, 44, 3, 21, 8, 9, 30, 1], [90, 44, 7, 7, 33, 1, 0, 0, 0, 0, 0]];
    let mask = [11, 6].into_iter().flat_map(|real| (0..11).map(move |i| i < real)).collect();
    Tokens { ids: ids.concat(), mask, length: 11 }
}

fn filled(config: &T5Config, device: &Device) -> T5Encoder {
    chirped(config.init(device))
}

fn answers(config: &T5Config, masked: bool) -> Answers {
    let device = Device::flex().autodiff();
    let t5 = filled(config, &device).with_mask(masked);
    let text = t5.encode(&tokens());
    let loss = (text.tokens.clone() * pattern(text.tokens.dims(), 1.0, &device)).sum();
    let mut found = gradients(&t5, &loss);
    found.insert("last".into(), host(&text.tokens));
    found
}

#[test]
fn equals_transformers() {
    let cases = [
        ("t5.", answers(&t5(), true)),
        ("t5_unmasked.", answers(&t5(), false)),
        ("umt5.", answers(&umt5(), true)),
        ("first.", answers(&first(), true)),
    ];
    compare("t5.safetensors", &cases, "none");
}

/// Where no gradient is asked for, attention goes another way.
#[test]
fn states_are_the_same_without_gradients() {
    for (config, masked) in [(t5(), true), (t5(), false), (umt5(), true)] {
        let encode = |device: &Device| filled(&config, device).with_mask(masked).encode(&tokens()).tokens;
        let (found, expected) = (encode(&Device::flex()), encode(&Device::flex().autodiff()));
        let off = host(&found).iter().zip(host(&expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-5, "off by {off:e}");
    }
}

#[test]
fn runs_in_16_bits() {
    for config in [t5(), first()] {
        let t5 = filled(&config, &Device::flex());
        let found = halved(t5.clone()).encode(&tokens());
        assert_eq!(found.pooled.dtype(), found.tokens.dtype());
        near(found.tokens, t5.encode(&tokens()).tokens);
    }
}

#[test]
fn masks_are_kept_or_all_true() {
    let t5 = filled(&t5(), &Device::flex());
    let mask = |text: canvas_core::Text| text.mask.into_data().iter::<bool>().collect::<Vec<_>>();
    assert_eq!(mask(t5.encode(&tokens())), tokens().mask);
    assert_eq!(mask(t5.with_mask(false).encode(&tokens())), vec![true; 22]);
}

/// There is no vector for a prompt, and nothing that must be joined.
#[test]
fn prompts_are_joined_and_picked_without_a_vector() {
    let t5 = filled(&t5(), &Device::flex());
    let text = t5.encode(&tokens());
    assert_eq!(text.pooled.dims(), [2, 0]);
    let both = canvas_core::Text::cat(&[text.clone(), text.select(&[1])]);
    assert_eq!((both.tokens.dims(), both.pooled.dims()), ([3, 11, 32], [3, 0]));
    assert_eq!(both.select(&[2, 0]).pooled.dims(), [2, 0]);
}

#[test]
fn a_prompt_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let most = |a: Tensor<3>, b: Tensor<3>| (a - b).abs().max().into_scalar::<f32>();
    for config in [t5(), umt5()] {
        let t5 = filled(&config, &device);
        let together = t5.encode(&tokens()).tokens;
        let alone = t5.encode(&tokens().select(&[1])).tokens;
        assert!(most(alone, together.clone().narrow(0, 1, 1)) < 1e-5);
        // Neither does its padding matter, if it is hidden.
        let short = Tokens { ids: tokens().ids[11..17].to_vec(), mask: vec![true; 6], length: 6 };
        let real = together.narrow(0, 1, 1).narrow(1, 0, 6);
        assert!(most(t5.encode(&short).tokens, real.clone()) < 1e-5);
        assert!(
            most(t5.with_mask(false).encode(&tokens()).tokens.narrow(0, 1, 1).narrow(1, 0, 6), real) > 1e-2
        );
    }
}

#[test]
fn published_models_have_their_number_of_parameters() {
    let pile = T5Config::new(2048, 64, 32, 5120, 24).with_positions_everywhere(true); // AuraFlow's
    for (config, count) in [(T5Config::v1_1_xxl(), 4_762_310_656), (pile, 1_223_550_976)] {
        assert_eq!(config.init(&Device::flex()).num_params(), count);
    }
}

fn state_dicts() -> Value {
    read_json(&fixture("t5.json"))
}

/// Names and shapes of every tensor, and every size, from what transformers saves.
#[test]
fn configurations_and_names_are_those_of_transformers() {
    for (label, config) in [("t5", t5()), ("umt5", umt5()), ("first", first())] {
        let saved = &state_dicts()[label];
        assert_eq!(T5Config::from_transformers(&saved["config"].to_string()).unwrap(), config);
        let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(saved["shapes"].clone()).unwrap();
        assert_eq!(weights::published_shapes(&config.init(&Device::flex()), &config.published()), shapes);
    }
}

#[test]
fn configurations_are_read_strictly() {
    let xxl = json!({"architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64,
        "d_model": 4096, "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1,
        "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
        "is_encoder_decoder": true, "is_gated_act": true, "layer_norm_epsilon": 1e-6, "model_type": "t5",
        "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24, "output_past": true, "pad_token_id": 0,
        "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
        "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.41.2",
        "use_cache": true, "vocab_size": 32128, "_name_or_path": "google/t5-v1_1-xxl"});
    assert_eq!(T5Config::from_transformers(&xxl.to_string()).unwrap(), T5Config::v1_1_xxl());
    for (field, value, message) in [
        ("model_type", json!("bart"), "model_type: expected \"t5\", \"mt5\" or \"umt5\", found \"bart\""),
        (
            "feed_forward_proj",
            json!("gated-mish"),
            "feed_forward_proj: expected relu, silu, gelu or gelu_new",
        ),
        ("is_decoder", json!(true), "is_decoder: expected false, found true"),
        ("d_kv", json!(-1), "d_kv: expected a whole number, found -1"),
        ("num_layers", json!(0), "depth"),
        ("relative_attention_num_buckets", json!(30), "4 (4) must divide buckets (30)"),
        ("relative_attention_max_distance", json!(8), "distance (8) must be above a quarter of buckets (8)"),
        ("num_experts", json!(8), "unknown fields num_experts"),
    ] {
        let mut changed = xxl.clone();
        changed[field] = value;
        let error = T5Config::from_transformers(&changed.to_string()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // Smallest of its kind where the file says nothing.
    let small = T5Config::from_transformers(r#"{"model_type": "umt5"}"#).unwrap();
    let expected =
        T5Config::new(512, 64, 6, 1024, 8).with_vocabulary(250_112).with_positions_everywhere(true);
    assert_eq!(small, expected);
}

/// A file of this encoder's weights, changed.
fn file(folder: &tempfile::TempDir, change: impl FnOnce(&mut BTreeMap<String, TensorData>)) -> PathBuf {
    let path = folder.path().join("model.safetensors");
    let t5 = filled(&t5(), &Device::flex());
    weights::save_published(&t5, &path, &self::t5().published()).unwrap();
    let mut tensors: BTreeMap<String, TensorData> =
        weights::read_tensors(&path).unwrap().into_iter().collect();
    change(&mut tensors);
    weights::write_tensors(&path, &tensors.into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    path
}

#[test]
fn token_embeddings_may_be_there_twice_or_under_either_name() {
    let (shared, tied) = ("shared.weight".to_owned(), "encoder.embed_tokens.weight".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &PathBuf| {
        let source = Source::open(path, None).unwrap();
        weights::load_published(t5().init(&Device::flex()), &source, &t5().published())
    };
    let expected = filled(&t5(), &Device::flex()).encode(&tokens()).tokens;
    let same = |t5: &T5Encoder| {
        let off = (t5.encode(&tokens()).tokens - expected.clone()).abs().max();
        off.into_scalar::<f32>() == 0.0
    };
    let (found, report) = read(&file(&folder, |_| {})).unwrap();
    assert!(same(&found) && report.one_way.is_empty() && report.ignored.is_empty());
    let (found, report) = read(&file(&folder, |tensors| {
        tensors.insert(tied.clone(), tensors[&shared].clone());
        let decoder = TensorData::new(vec![1.0f32; 4], [2, 2]);
        tensors.insert("decoder.block.0.layer.0.SelfAttention.q.weight".into(), decoder);
    }))
    .unwrap();
    assert!(same(&found));
    assert_eq!(report.ignored.len(), 2);
    assert_eq!(report.ignored[1], (tied.clone(), "the same as shared.weight".to_owned()));
    let (found, report) = read(&file(&folder, |tensors| {
        let embedding = tensors.remove(&shared).unwrap();
        tensors.insert(tied.clone(), embedding);
    }))
    .unwrap();
    assert!(same(&found));
    assert_eq!(report.one_way, [(tied, shared.clone())]);
    let error = read(&file(&folder, |tensors| drop(tensors.remove(&shared)))).unwrap_err().to_string();
    assert!(error.contains("missing shared.weight"), "{error}");
}

#[test]
#[should_panic(expected = "token id 99 for a vocabulary of 99")]
fn a_token_outside_of_the_vocabulary_is_refused() {
    let tokens = Tokens { ids: vec![99], mask: vec![true], length: 1 };
    filled(&t5(), &Device::flex()).encode(&tokens);
}

#[test]
#[should_panic(expected = "row 1 of the tokens is all padding: it could see nothing")]
fn a_row_of_padding_is_refused() {
    let mask = [true, true, false, false].to_vec();
    let t5 = filled(&t5(), &Device::flex());
    let tokens = Tokens { ids: vec![5, 1, 0, 0], mask, length: 2 };
    t5.clone().with_mask(false).encode(&tokens); // which is what it could not have without a mask
    t5.encode(&tokens);
}
