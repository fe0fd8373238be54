//! Weights saved by diffusers (`tools/fixtures_weights.py`): read, and saved as they were.

use crate::tiny::{assert_answers, bits, fixtures, load, rules, tiny};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType, bf16, f16};
use canvas_core::params;
use canvas_core::weights::{Rules, Source, load_published, save_published};
use safetensors::{Dtype, tensor::TensorView};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

#[test]
fn every_type_variant_and_set_of_shards_answers_as_in_pytorch() {
    let (whole, sharded) = (fixtures().join("whole"), fixtures().join("sharded"));
    let (module, report) = load(&whole, None, &rules()).unwrap();
    assert_answers(&module, "f32");
    assert!(
        report.used.contains(&"square.weight".to_owned()) && report.used.contains(&"norm.bias".to_owned())
    );
    let renamed = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert!(report.renamed.contains(&renamed("transformer_blocks.1.norm.weight", "blocks.1.norm.gamma")));
    assert_eq!((report.ignored.len(), report.one_way.len()), (2, 0));
    let listed = report.every_key();
    assert!(listed.contains("\n  ignored position_ids: a buffer of 0, 1, 2, ..."), "{listed}");
    assert_eq!(
        listed.trim().lines().count(),
        Source::open(&whole, None).unwrap().keys().count(),
        "every key"
    );

    for variant in ["fp16", "bf16"] {
        assert_answers(&load(&whole, Some(variant), &rules()).unwrap().0, variant);
    }
    for path in [sharded.clone(), sharded.join("diffusion_pytorch_model.safetensors.index.json")] {
        assert_eq!(bits(&load(&path, None, &rules()).unwrap().0), bits(&module), "f64 holds f32 exactly");
    }
    let file = whole.join("diffusion_pytorch_model.safetensors");
    assert_eq!(bits(&load(&file, None, &rules()).unwrap().0), bits(&module));
}

#[test]
fn parameters_that_exist_and_those_kept_transposed_are_filled_as_well() {
    let source = Source::open(&fixtures().join("whole"), None).unwrap();
    let drawn = params::realise(tiny(LinearLayout::Row));
    assert_answers(&load_published(drawn, &source, &rules()).unwrap().0, "f32");
    assert_answers(&load_published(tiny(LinearLayout::Col), &source, &rules()).unwrap().0, "f32");
    let drawn = params::realise(tiny(LinearLayout::Col));
    assert_answers(&load_published(drawn, &source, &rules()).unwrap().0, "f32");
}

#[test]
fn loaded_parameters_learn_and_keep_their_identity() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let device = Device::flex().autodiff();
    let module = params::realise(LinearConfig::new(3, 2).init(&device));
    save_published(&module, &path, &Rules::new()).unwrap();
    let source = Source::open(&path, None).unwrap();
    assert_eq!(source.shape("weight"), Some(&[2, 3][..]), "PyTorch's layout");
    for fresh in [module.clone(), LinearConfig::new(3, 2).init(&device)] {
        let id = fresh.weight.id;
        let (loaded, _) = load_published(fresh, &source, &Rules::new()).unwrap();
        let gradients = loaded.forward(Tensor::<2>::ones([1, 3], &device)).sum().backward();
        assert!(loaded.weight.val().grad(&gradients).is_some());
        assert_eq!(loaded.weight.id, id);
    }
}

#[test]
fn saving_writes_the_published_keys_shapes_and_bits() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("diffusion_pytorch_model.safetensors");
    for layout in [LinearLayout::Row, LinearLayout::Col] {
        let source = Source::open(&fixtures().join("whole"), None).unwrap();
        let (module, _) = load_published(tiny(layout), &source, &rules()).unwrap();
        save_published(&module, &path, &rules()).unwrap();
        let saved = Source::open(folder.path(), None).unwrap();
        let expected: Vec<&str> = source.keys().filter(|key| rules().ignored(key).is_none()).collect();
        assert_eq!(saved.keys().collect::<Vec<_>>(), expected);
        for key in expected {
            assert_eq!(saved.read(key).unwrap(), source.read(key).unwrap(), "{key}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
#[ignore = "writes what tools/fixtures_weights.py --check reads"]
fn save_for_pytorch() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published");
    fs::create_dir_all(&folder).unwrap();
    let (module, _) = load(&fixtures().join("whole"), None, &rules()).unwrap();
    save_published(&module, &folder.join("diffusion_pytorch_model.safetensors"), &rules()).unwrap();
    println!("saved in {}", folder.display());
}

#[test]
fn rules_that_do_not_lead_back_are_refused_before_writing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let module = LinearConfig::new(3, 2).init(&Device::flex());
    let shown = |rules: &Rules| save_published(&module, &path, rules).unwrap_err().to_string();
    let rules = Rules::new().exact("a", "weight").exact("bias", "weight");
    assert!(
        shown(&rules).contains("weight would be written as bias, which is read as weight") || !path.exists()
    );
    let rules = Rules::new().ignore("bias", "none");
    assert!(shown(&rules).ends_with(
        "bias would be written as bias, which is read as ignored (none): the rules do not lead back"
    ));
    assert!(!path.exists());
}

#[test]
fn rules_that_cannot_be_undone_are_reported_when_loading() {
    let particular_first = Rules::new()
        .segments("transformer_blocks.{i}.to_q", "blocks.{i}.query")
        .segments("transformer_blocks.{i}", "blocks.{i}");
    let source = Source::open(&fixtures().join("whole"), None).unwrap();
    let rules = particular_first
        .prefix("token_embedding", "tokens")
        .prefix("proj_in", "input")
        .prefix("group_norm", "groups")
        .prefix("batch_norm", "batch")
        .prefix("instance_norm", "instance")
        .ignore("position_ids", "a buffer")
        .ignore("num_batches_tracked", "counts");
    let (_, report) = load_published(tiny(LinearLayout::Row), &source, &rules).unwrap();
    let key = |i: usize, name: &str| format!("transformer_blocks.{i}.{name}.weight");
    assert_eq!(report.one_way, [0, 1].map(|i| (key(i, "to_q"), key(i, "query"))));
    assert!(report.every_key().contains("transformer_blocks.1.to_q.weight would be saved as"));
}

#[test]
fn keys_missing_left_over_and_of_two_names_are_listed_with_the_nearest() {
    let whole = fixtures().join("whole");
    let rules = rules().exact("square.weight", "sqare.weight");
    let shown = load(&whole, None, &rules).unwrap_err().to_string();
    assert!(
        shown.contains("diffusion_pytorch_model.safetensors: does not fit this model (27 of 28"),
        "{shown}"
    );
    assert!(
        shown.contains("\n  unexpected square.weight (read as sqare.weight) [6, 6]; nearest: square.weight"),
        "{shown}"
    );

    let shown = load(&whole, None, &Rules::new()).unwrap_err().to_string();
    assert!(shown.contains("\n  missing groups.weight (our groups.gamma) [6]"), "{shown}");
    assert!(shown.contains("\n  unexpected position_ids [3]"), "{shown}");
    assert!(shown.contains("\n  missing input.weight [6, 4]; nearest: "), "{shown}");

    let rules = self::rules().exact("norm.bias", "norm.weight");
    let shown = load(&whole, None, &rules).unwrap_err().to_string();
    let twice = "\n  unexpected norm.weight (renamed to norm.weight, as norm.bias is) [6]";
    assert!(shown.contains(twice), "{shown}");
}

#[test]
fn rules_know_whole_segments_and_lead_back() {
    let rules = Rules::new()
        .segments("down_blocks.{i}.resnets.{j}", "down.{i}.stages.{j}.res")
        .segments("to_out.0", "output")
        .segments("a.{x}.{y}", "a.{y}.{x}")
        .prefix("", "net");
    for (key, name) in [
        ("down_blocks.0.resnets.11.w", "net.down.0.stages.11.res.w"),
        ("x.to_out.0.to_out.0", "net.x.output.output"),
        ("x.to_out.01", "net.x.to_out.01"),
        ("down_blocks.one.resnets.1", "net.down_blocks.one.resnets.1"),
        ("a.1.2.a.3.4", "net.a.2.1.a.4.3"),
    ] {
        assert_eq!(rules.ours(key), name);
        assert_eq!(rules.published(name), key);
    }
}

#[test]
#[should_panic(expected = "cannot be undone")]
fn a_rule_that_loses_a_number_is_refused() {
    let _ = Rules::new().segments("a.{i}", "b");
}

#[derive(Module, Debug)]
struct One {
    linear: Linear,
}

#[test]
fn values_take_the_type_of_the_parameter_and_are_saved_in_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let device = Device::flex();
    let module = |kind| {
        let mut linear = LinearConfig::new(2, 3).with_bias(false).init(&device);
        linear.weight = linear.weight.map(|weight| weight.cast(kind));
        One { linear }
    };
    // The fourth and the fifth need rounding.
    let values = [0.5, -2.0, 3.0, 1.0 + 2f64.powi(-30), 1e-3, 7.0];
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F64, vec![3, 2], &raw).unwrap();
    fs::write(&path, safetensors::serialize([("linear.weight", view)], None).unwrap()).unwrap();
    for (kind, name) in [
        (FloatDType::F64, "F64"),
        (FloatDType::F32, "F32"),
        (FloatDType::F16, "F16"),
        (FloatDType::BF16, "BF16"),
    ] {
        let source = Source::open(&path, None).unwrap();
        let (loaded, _) = load_published(module(kind), &source, &Rules::new()).unwrap();
        let weight = loaded.linear.weight.val();
        assert_eq!(weight.dtype(), DType::from(kind));
        let found: Vec<f64> = weight.transpose().to_data().iter::<f64>().collect();
        let rounded = |value: f64| match kind {
            FloatDType::F16 => f16::from_f64(value).to_f64(),
            FloatDType::BF16 => bf16::from_f64(value).to_f64(),
            FloatDType::F32 => f64::from(value as f32),
            _ => value,
        };
        assert_eq!(found, values.map(rounded), "{name}");

        let again = folder.path().join("again.safetensors");
        save_published(&loaded, &again, &Rules::new()).unwrap();
        let saved = Source::open(&again, None).unwrap();
        assert_eq!(saved.kind("linear.weight").as_deref(), Some(name));
        let read: Vec<f32> = saved.read("linear.weight").unwrap().iter::<f32>().collect();
        assert_eq!(read, found.iter().map(|value| *value as f32).collect::<Vec<_>>());
    }
}
