//! Configurations of language models: names and sizes that follow from them, refusals.

use crate::reference::{fixture, read_json};
use burn::prelude::*;
use canvas_core::weights;
use canvas_text::{Blind, LlmConfig};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn names_are_those_of_transformers() {
    let facts = read_json(&fixture("llm.json"));
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
    let facts = read_json(&fixture("llm.json"));
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
