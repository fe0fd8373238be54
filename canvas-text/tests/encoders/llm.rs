//! Language models as text encoders: parity with transformers (fixtures by `tools/fixtures_llm.py`), files, rows,
//! states.

use crate::reference::{fixture, host, pattern, read_json, summary};
use burn::prelude::*;
use canvas_core::{TextEncoder, Tokens, weights};
use canvas_testkit::{chirped, gradients_by_path, relative};
use canvas_text::{Blind, Llm, LlmConfig};
use std::collections::BTreeMap;

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

fn config(class: &str) -> LlmConfig {
    LlmConfig::from_transformers(&read_json(&fixture("llm.json"))["models"][class]["config"].to_string())
        .unwrap()
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
            [("middle", 0), ("last", 1)].map(|(name, i)| relative(&host(&states[i]), &wanted(name)));
        let (grads, wanted) = (gradients_by_path(&model, &loss.backward()), wanted("grads"));
        assert_eq!(grads.len() * 4, wanted.len(), "{label}");
        let mut worst = 0.0;
        for ((path, grad), expected) in grads.iter().zip(wanted.chunks(4)) {
            let error = relative(&summary(&grad.iter::<f64>().collect::<Vec<_>>(), 3), expected);
            assert!(error < 1e-4, "{label}: {path} is off by {error:e}");
            worst = error.max(worst);
        }
        // Without gradients attention is another: in blocks, and on the CPU without a map.
        let plain = filled(&config, &Device::flex()).states(&tokens(), &[2, 3]);
        for (state, plain) in states.iter().zip(&plain) {
            let error = relative(&host(plain), &host(state));
            assert!(error < 1e-5, "{label}: without gradients off by {error:e}");
        }
        println!("{label}: states {middle:.1e} and {last:.1e}, gradients {worst:.1e}");
        assert!(middle < 1e-5 && last < 1e-5, "{label}: {middle:e} {last:e}");
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
            let error = relative(&host(&found), &host(&alone.tokens));
            assert!(error < 1e-5, "{label}: row {row} is off by {error:e}");
            let error = relative(&host(&batch.pooled.clone().narrow(0, row, 1)), &host(&alone.pooled));
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
