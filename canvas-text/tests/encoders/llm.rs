//! Language models as text encoders: parity with transformers (fixtures by `tools/fixtures_llm.py`), names, sizes,
//! configurations.

use crate::reference::{host, pattern};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Gradients;
use canvas_core::{TextEncoder, Tokens, weights};
use canvas_testkit::chirped;
use canvas_text::{Blind, Llm, LlmConfig};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each case beside the class whose configuration it has.
const CASES: [(&str, &str); 8] = [
    ("gemma2", "Gemma2Model"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3Model"),
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
    ("mistral3", "Mistral3ForConditionalGeneration"),
    ("t5gemma", "T5GemmaEncoder"),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn facts() -> Value {
    serde_json::from_str(&fs::read_to_string(fixture("llm.json")).unwrap()).unwrap()
}

fn config(class: &str) -> LlmConfig {
    LlmConfig::from_transformers(&facts()["models"][class]["config"].to_string()).unwrap()
}

/// Padded behind, not at all, and in front.
fn tokens() -> Tokens {
    let ids = [[3, 5, 7, 11, 2, 0, 0, 0, 0], [8, 1, 30, 4, 4, 17, 29, 9, 6], [0, 0, 0, 12, 5, 21, 8, 2, 2]];
    let real = [0..5, 0..9, 3..9];
    let mask = real.into_iter().flat_map(|real| (0..9).map(move |i| real.contains(&i))).collect();
    Tokens { ids: ids.concat(), mask, length: 9 }
}

fn filled(config: &LlmConfig, device: &Device) -> Llm {
    chirped(config.init(device))
}

/// Of every parameter's gradient, by its path, the length and its products with three waves.
struct Grads<'a> {
    path: Vec<String>,
    all: &'a Gradients,
    found: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for Grads<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = param.val().grad(self.all).unwrap_or_else(|| panic!("no gradient: {:?}", self.path));
        let grad: Vec<f64> = grad.into_data().iter::<f64>().collect();
        let product = |wave: usize| {
            let rate = 0.37 + 0.21 * wave as f64;
            grad.iter().enumerate().map(|(i, g)| g * (rate * i as f64 + wave as f64).sin()).sum()
        };
        let length = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
        self.found.insert(self.path.join("."), std::iter::once(length).chain((0..3).map(product)).collect());
    }
}

/// The largest difference, beside the largest of the expected values.
fn off(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    found.iter().zip(expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest
}

/// Where the loss counts, `[B or 1, T or 1, 1]`: see the fixture's script.
fn counted(blind: Blind, device: &Device) -> Tensor<3> {
    match blind {
        Blind::Zero => Tensor::ones([1, 1, 1], device),
        Blind::Mean => tokens().tensors(device).1.float().unsqueeze_dim(2),
    }
}

#[test]
fn equals_transformers() {
    let expected = weights::read_tensors(&fixture("llm.safetensors")).unwrap();
    let device = Device::flex().autodiff();
    for (label, class) in CASES {
        let wanted = |name: &str| expected[&format!("{label}.{name}")].iter::<f64>().collect::<Vec<f64>>();
        let config = config(class);
        let model = filled(&config, &device);
        let states = model.states(&tokens(), &[2, 3]);
        let [middle, last] = [0, 1].map(|i| states[i].clone() * counted(config.blind, &device));
        let loss = (middle * pattern(states[0].dims(), 3.0, &device)).sum()
            + (last * pattern(states[1].dims(), 1.0, &device)).sum();
        let [middle, last] =
            [("middle", 0), ("last", 1)].map(|(name, i)| off(&host(&states[i]), &wanted(name)));
        let all = loss.backward();
        let mut grads = Grads { path: Vec::new(), all: &all, found: BTreeMap::new() };
        model.visit(&mut grads);
        let wanted = wanted("grads");
        assert_eq!(grads.found.len() * 4, wanted.len(), "{label}");
        let mut worst = (0.0, "");
        for ((path, found), expected) in grads.found.iter().zip(wanted.chunks(4)) {
            let error = off(found, expected);
            worst = if error > worst.0 { (error, path) } else { worst };
        }
        // Without gradients attention is another: in blocks, and on the CPU without a map.
        let plain = filled(&config, &Device::flex()).states(&tokens(), &[2, 3]);
        for (state, plain) in states.iter().zip(&plain) {
            let error = off(&host(plain), &host(state));
            assert!(error < 1e-5, "{label}: without gradients off by {error:e}");
        }
        println!("{label}: states {middle:.1e} and {last:.1e}, gradients {:.1e} at {}", worst.0, worst.1);
        assert!(middle < 1e-5 && last < 1e-5, "{label}: {middle:e} {last:e}");
        assert!(worst.0 < 1e-4, "{label}: {} is off by {:e}", worst.1, worst.0);
    }
}

#[test]
fn names_are_those_of_transformers() {
    let facts = facts();
    for (class, model) in facts["models"].as_object().unwrap() {
        let config = LlmConfig::from_transformers(&model["config"].to_string()).unwrap();
        let rules = config.published();
        let (mut kept, mut left) = (BTreeMap::new(), Vec::new());
        for (key, shape) in model["keys"].as_object().unwrap() {
            match rules.ignored(key) {
                None => drop(kept.insert(rules.published(&rules.ours(key)), shape.clone())),
                Some(_) => left.push(key.as_str()),
            }
        }
        let ours = weights::published_shapes(&config.init(&Device::flex()), &rules);
        let ours: BTreeMap<String, Value> =
            ours.into_iter().map(|(key, shape)| (key, shape.into())).collect();
        assert_eq!(ours, kept, "{class}");
        // Saved by the bare model's names, and every name is read back.
        assert!(ours.contains_key("layers.2.mlp.down_proj.weight") && ours.contains_key("norm.weight"));
        let foreign = ["lm_head", "visual", "vision_tower", "multi_modal_projector", "decoder"];
        let known = |key: &&str| foreign.iter().any(|part| key.split('.').any(|segment| segment == *part));
        assert!(left.iter().all(known), "{class}: {left:?}");
        assert_eq!(left.is_empty(), !class.contains("For"), "{class}: {left:?}");
    }
}

#[test]
fn files_of_every_class_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("Qwen3Model");
    let model = filled(&config, &Device::flex());
    let bare = folder.path().join("bare.safetensors");
    weights::save_published(&model, &bare, &config.published()).unwrap();
    let tensors = weights::read_tensors(&bare).unwrap();
    for place in ["", "model.", "model.language_model.", "language_model.model."] {
        let path = folder.path().join("placed.safetensors");
        let placed = tensors.iter().map(|(key, data)| (format!("{place}{key}"), data.clone()));
        let head = ("lm_head.weight".to_owned(), TensorData::from([[1f32]]));
        weights::write_tensors(&path, &placed.chain([head]).collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
        let source = weights::Source::open(&path, None).unwrap();
        let (loaded, report) =
            weights::load_published(config.init(&Device::flex()), &source, &config.published()).unwrap();
        assert_eq!(report.ignored.len(), 1, "{place}");
        let [found, expected] = [&loaded, &model].map(|model| host(&model.encode(&tokens()).tokens));
        assert_eq!(found, expected, "{place}");
    }
}

/// `config.json` of published models, fields of transformers 4 and all.
const PUBLISHED: [(&str, &str); 6] = [
    (
        "qwen3-4b",
        r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560,
        "initializer_range": 0.02, "intermediate_size": 9728, "max_position_embeddings": 40960,
        "max_window_layers": 36, "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}"#,
    ),
    (
        "gemma-2-2b",
        r#"{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 107],
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.4", "use_cache": true, "vocab_size": 256000}"#,
    ),
    (
        "llama-3.1-8b",
        r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256}"#,
    ),
    (
        "qwen2.5-vl-7b",
        r#"{"architectures": ["Qwen2_5_VLForConditionalGeneration"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "vision_start_token_id": 151652, "vision_end_token_id": 151653,
        "vision_token_id": 151654, "image_token_id": 151655, "video_token_id": 151656, "hidden_act": "silu",
        "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944, "max_position_embeddings": 128000,
        "max_window_layers": 28, "model_type": "qwen2_5_vl", "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.41.2", "use_cache": true,
        "use_sliding_window": false, "vision_config": {"depth": 32, "hidden_act": "silu", "hidden_size": 1280},
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 152064}"#,
    ),
    (
        "mistral-small-24b",
        r#"{"architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10, "model_type": "mistral3",
        "multimodal_projector_bias": false, "projector_hidden_act": "gelu", "spatial_merge_size": 2,
        "text_config": {"attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
        "initializer_range": 0.02, "intermediate_size": 32768, "max_position_embeddings": 131072,
        "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000000.0, "sliding_window": null, "use_cache": true,
        "vocab_size": 131072}, "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1024, "model_type": "pixtral"}, "vision_feature_layer": -1}"#,
    ),
    ("t5gemma-2b", r#"{"model_type": "t5_gemma_module", "architectures": ["T5GemmaEncoder"]}"#),
];

#[test]
fn published_sizes_are_read() {
    let facts = facts();
    for (name, json) in PUBLISHED {
        let config = LlmConfig::from_transformers(json).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shapes = weights::published_shapes(&config.init(&Device::flex()), &config.published());
        let count: usize = shapes.values().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!(count as u64, facts["counts"][name].as_u64().unwrap(), "{name}");
        assert!(name == "gemma-2-2b" || name == "t5gemma-2b" || config.windows.iter().all(Option::is_none));
    }
    let gemma = LlmConfig::from_transformers(PUBLISHED[1].1).unwrap();
    assert_eq!(gemma.windows[..3], [Some(4096), None, Some(4096)]);
    assert_eq!((gemma.softcap, gemma.query_scalar, gemma.blind), (Some(50.0), Some(256.0), Blind::Mean));
    let qwen = LlmConfig::from_transformers(PUBLISHED[3].1).unwrap();
    assert_eq!((qwen.rope.theta, qwen.query_bias, qwen.output_bias), (1e6, true, false));
    let mistral = LlmConfig::from_transformers(PUBLISHED[4].1).unwrap();
    assert_eq!((mistral.rope.theta, mistral.epsilon, mistral.head_width()), (1e9, 1e-5, 128));
}

#[test]
fn what_is_not_here_is_refused() {
    for (json, expected) in [
        (
            r#"{"model_type": "phi3"}"#,
            "model_type: expected gemma2, llama, mistral, mistral3, qwen2, qwen2_5_vl, qwen3 or t5gemma, found \"phi3\"",
        ),
        (
            "{}",
            "model_type: expected gemma2, llama, mistral, mistral3, qwen2, qwen2_5_vl, qwen3 or t5gemma, found nothing",
        ),
        (
            r#"{"_class_name": "UNet2DConditionModel"}"#,
            "_class_name: expected \"a model of transformers\", found \"UNet2DConditionModel\"",
        ),
        (r#"{"model_type": "qwen3", "hidden_act": "relu"}"#, "hidden_act: expected \"silu\", found \"relu\""),
        (
            r#"{"model_type": "llama", "rope_scaling": {"rope_type": "yarn"}}"#,
            "rope_scaling: rope_type: expected default or llama3, found \"yarn\"",
        ),
        (
            r#"{"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}}"#,
            "rope_scaling: low_freq_factor: expected a number above 0, found nothing",
        ),
        (
            r#"{"model_type": "llama", "rope_scaling": {"type": "default", "beta": 1}}"#,
            "rope_scaling: unknown fields beta",
        ),
        (r#"{"model_type": "llama", "num_key_value_heads": 5}"#, "groups (5) must divide heads (32)"),
        (
            r#"{"model_type": "llama", "head_dim": 7}"#,
            "the 2 elements that a position turns (2) must divide head_width (7)",
        ),
        (r#"{"model_type": "llama", "hidden_size": 4097}"#, "heads (32) must divide width (4097)"),
        (
            r#"{"model_type": "gemma2", "use_bidirectional_attention": true}"#,
            "use_bidirectional_attention: expected false, found true",
        ),
        (
            r#"{"model_type": "qwen2", "layer_types": ["full_attention"]}"#,
            "layer_types: expected 32 of sliding_attention and full_attention, found [\"full_attention\"]",
        ),
        (r#"{"model_type": "qwen2", "attention_bias": true}"#, "unknown fields attention_bias"),
        (
            r#"{"model_type": "mistral3"}"#,
            "text_config: expected the configuration of the text model, found nothing",
        ),
        (
            r#"{"model_type": "mistral3", "text_config": {"model_type": "llama"}}"#,
            "text_config: model_type: expected a language model of this family, found \"llama\"",
        ),
    ] {
        let error = LlmConfig::from_transformers(json).unwrap_err().to_string();
        assert_eq!(error, format!("the text: {expected}"), "{json}");
    }
}

#[test]
fn a_row_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    for (label, class) in CASES {
        let model = filled(&config(class), &device).with_layers(&[1, 3]).unwrap();
        let batch = model.encode(&tokens());
        assert_eq!(
            host(&batch.mask.clone().int().float()),
            tokens().mask.iter().map(|&real| f64::from(real)).collect::<Vec<_>>()
        );
        for (row, real) in [0..5, 0..9, 3..9].into_iter().enumerate() {
            let ids = tokens().ids[row * 9 + real.start..row * 9 + real.end].to_vec();
            let alone = model.encode(&Tokens { mask: vec![true; ids.len()], length: ids.len(), ids });
            let found = batch.tokens.clone().narrow(0, row, 1).narrow(1, real.start, real.len());
            let error = off(&host(&found), &host(&alone.tokens));
            assert!(error < 1e-5, "{label}: row {row} is off by {error:e}");
            let error = off(&host(&batch.pooled.clone().narrow(0, row, 1)), &host(&alone.pooled));
            assert!(error < 1e-5, "{label}: vector {row} is off by {error:e}");
        }
    }
}

#[test]
fn chosen_states_stand_side_by_side() {
    let config = config("Gemma2Model");
    let model = filled(&config, &Device::flex());
    let states = model.states(&tokens(), &[3, 0, 1]);
    assert_eq!(states.len(), 3);
    let both = model.clone().with_layers(&[3, 1]).unwrap().encode(&tokens()).tokens;
    assert_eq!(host(&both), host(&Tensor::cat(vec![states[0].clone(), states[2].clone()], 2)));
    let error = model.clone().with_layers(&[1, 4]).unwrap_err().to_string();
    assert_eq!(error, "state 4 of a language model of 3 blocks");
    assert_eq!(model.with_layers(&[]).unwrap_err().to_string(), "an encoder without a state to answer");
}

#[test]
fn blocks_behind_the_last_state_need_not_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.safetensors");
    let config = config("Qwen3Model");
    let whole = filled(&config, &Device::flex());
    weights::save_published(&whole, &path, &config.published()).unwrap();
    let config = config.with_kept(Some(2));
    let source = weights::Source::open(&path, None).unwrap();
    let (part, report) =
        weights::load_published(config.init(&Device::flex()), &source, &config.published()).unwrap();
    assert_eq!(report.ignored.len(), 11 + 1); // a block and the final norm
    assert_eq!(host(&part.states(&tokens(), &[2])[0]), host(&whole.states(&tokens(), &[2])[0]));
    assert_eq!((part.depth(), part.clone().with_layers(&[2]).is_ok()), (3, true));
    let error = part.with_layers(&[3]).unwrap_err().to_string();
    assert_eq!(error, "state 3 of a language model of 2 blocks");
    let error = config.with_kept(Some(4)).validate().unwrap_err().to_string();
    assert_eq!(error, "kept are 4 blocks of 3");
}

#[test]
fn configurations_of_whole_pipelines_are_read() {
    let models =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tests/fixtures/generate_transformers/models");
    for name in ["lumina2", "sana", "z_image", "qwen_image", "flux2", "flux2_klein", "prx"] {
        let path = models.join(name).join("text_encoder/config.json");
        let config = LlmConfig::from_transformers_file(&path).unwrap();
        assert_eq!(config.causal, name != "prx");
    }
    // As transformers saves a T5Gemma's encoder that it has read: fields of the whole, and defaults within.
    let saved = r#"{"model_type": "t5gemma", "hidden_size": 24, "num_hidden_layers": 2, "encoder": {}, "decoder": {},
        "classifier_dropout_rate": 0.0, "dropout_rate": 0.0, "is_encoder_decoder": true, "vocab_size": 7}"#;
    assert_eq!(LlmConfig::from_transformers(saved).unwrap().width, 24);
}

fn encode(tokens: &Tokens) {
    drop(config("Qwen3Model").init(&Device::flex()).encode(tokens));
}

#[test]
#[should_panic(expected = "rows of 65 tokens for a context of 64")]
fn rows_beyond_the_context_panic() {
    encode(&Tokens { ids: vec![1; 65], mask: vec![true; 65], length: 65 });
}

#[test]
#[should_panic(expected = "token id 31 for a vocabulary of 31")]
fn unknown_ids_panic() {
    encode(&Tokens { ids: vec![31], mask: vec![true], length: 1 });
}

#[test]
#[should_panic(expected = "row 1 of the tokens is all padding")]
fn rows_of_padding_panic() {
    encode(&Tokens { ids: vec![1, 1], mask: vec![true, false], length: 1 });
}
