//! Text encoders in single files: names and shapes as diffusers converts them (`tools/fixtures_original.py`),
//! configurations from shapes, and the same answers through both layouts.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::weights::{Rules, Source, load_published, published_shapes, save_published};
use canvas_core::{TextEncoder, Tokens, params};
use canvas_text::ClipTextConfig;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::{env, process};

/// FNV-1a, as `fnv1a` of tools/formula.py.
fn digest(text: &str) -> String {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
}

/// Every key and shape that would be saved, and what diffusers calls it, against what diffusers itself converts.
fn same_names<M: Module>(case: &str, module: &M, original: &Rules, diffusers: &Rules) {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/original.json")).unwrap();
    let line = |(key, shape): (String, Vec<usize>)| {
        let names: Vec<String> = original.parts(&key).iter().map(|name| diffusers.published(name)).collect();
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        format!("{key} {} {}", names.join(","), shape.join("x"))
    };
    let lines: Vec<String> = published_shapes(module, original).into_iter().map(line).collect();
    for some in fixture[case]["some"].as_array().unwrap() {
        let some = some.as_str().unwrap();
        assert!(lines.iter().any(|line| line == some), "{case}: no {some}");
    }
    assert_eq!(lines.len() as u64, fixture[case]["count"].as_u64().unwrap(), "{case}");
    assert_eq!(digest(&lines.join("\n")), fixture[case]["digest"].as_str().unwrap(), "{case}");
}

/// A file of f32 tensors whose values take no room on the disk: zeros that were never written.
fn sparse(name: &str, prefix: &str, shapes: &BTreeMap<String, Vec<usize>>) -> (PathBuf, Source) {
    let (mut end, mut header) = (0u64, Map::new());
    for (key, shape) in shapes {
        let start = end;
        end += 4 * shape.iter().product::<usize>() as u64;
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(format!("{prefix}{key}"), entry);
    }
    let header = Value::Object(header).to_string();
    let path = env::temp_dir().join(format!("canvas-text-{name}-{}.safetensors", process::id()));
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    let source = Source::open(&path, None).unwrap();
    (path, source.part(prefix))
}

/// Filled by formula, saved in one layout, and loaded again.
fn through<M: Module>(name: &str, fresh: impl Fn() -> M, rules: &Rules) -> M {
    let path = env::temp_dir().join(format!("canvas-text-{name}-{}.safetensors", process::id()));
    save_published(&params::fill_by_formula(fresh()), &path, rules).unwrap();
    let source = Source::open(&path, None).unwrap();
    let (module, report) = load_published(fresh(), &source, rules).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(report.one_way.is_empty(), "{name}: {:?}", report.one_way);
    module
}

#[test]
fn names_and_shapes_are_those_that_diffusers_converts() {
    let device = Device::flex();
    let clip_l = ClipTextConfig::clip_l();
    same_names("clip_l", &clip_l.init(&device), &clip_l.published(), &clip_l.published());
    for (case, config) in [
        ("open_clip_h", ClipTextConfig::open_clip_h()),
        ("open_clip_big_g", ClipTextConfig::open_clip_big_g()),
    ] {
        same_names(case, &config.init(&device), &config.open_clip(), &config.published());
    }
}

#[test]
fn published_configurations_are_told_from_the_shapes() {
    let device = Device::flex();
    let sd1 = ("cond_stage_model.transformer.", ClipTextConfig::clip_l());
    let sd2 = ("cond_stage_model.model.", ClipTextConfig::open_clip_h());
    let first = ("conditioner.embedders.0.transformer.", ClipTextConfig::clip_l());
    let second = ("conditioner.embedders.1.model.", ClipTextConfig::open_clip_big_g());
    let refiner = ("conditioner.embedders.0.model.", ClipTextConfig::open_clip_big_g());
    for (prefix, config) in [sd1, sd2, first, second, refiner] {
        let rules = if prefix.ends_with("model.") { config.open_clip() } else { config.published() };
        let mut shapes = published_shapes(&config.init(&device), &rules);
        if prefix == "cond_stage_model.model." {
            // The file holds one block more, and a projection.
            let more = shapes.clone().into_iter().filter(|(key, _)| key.contains("resblocks.22."));
            shapes.extend(more.map(|(key, shape)| (key.replace("resblocks.22.", "resblocks.23."), shape)));
            shapes.insert("text_projection".into(), vec![1024, 1024]);
        }
        shapes.insert("logit_scale".into(), vec![]);
        let (path, part) = sparse(prefix, prefix, &shapes);
        assert_eq!(ClipTextConfig::detect(&part).unwrap(), config, "{prefix}");
        let rules = config.original(&part);
        let taken = part.keys().filter(|key| rules.ignored(key).is_none()).count();
        assert_eq!(taken, published_shapes(&config.init(&device), &rules).len(), "{prefix}");
        fs::remove_file(path).unwrap();
    }
    let (path, part) = sparse("none", "x.", &BTreeMap::new());
    let shown = ClipTextConfig::detect(&part).unwrap_err().to_string();
    fs::remove_file(path).unwrap();
    let expected =
        "x.text_model.embeddings.position_embedding.weight: expected a tensor with 2 axes, found none";
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn both_layouts_give_the_same_bits() {
    let device = Device::flex();
    let config = ClipTextConfig::new(64, 96, 2, 1, Activation::Gelu).with_vocabulary(50).with_context(7);
    let tokens = Tokens { ids: vec![48, 5, 7, 49, 49], mask: vec![true; 5], length: 5 };
    for config in [config.clone(), config.with_projection(Some(24))] {
        let [one, other] = [config.open_clip(), config.published()].map(|rules| {
            let text = through("tiny", || config.init(&device), &rules).encode(&tokens);
            [text.tokens.into_data(), text.pooled.into_data()]
        });
        assert_eq!(one, other);
        // OpenCLIP multiplies by it from the right, unlike a linear layer.
        let shapes = published_shapes(&config.init(&device), &config.open_clip());
        assert_eq!(shapes.get("text_projection"), config.projection.map(|width| vec![64, width]).as_ref());
        assert!(one[1].iter::<f32>().any(|value| value.abs() > 1e-3));
    }
}
