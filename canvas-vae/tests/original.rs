//! Single files in the original layout: names and shapes as diffusers converts them (`tools/fixtures_original.py`),
//! configurations from shapes, and the same answers through both layouts.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{Rules, Source, load_published, published_shapes, save_published};
use canvas_core::{Autoencoder, params};
use canvas_vae::AutoencoderKlConfig;
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
    let path = env::temp_dir().join(format!("canvas-vae-{name}-{}.safetensors", process::id()));
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    let source = Source::open(&path, None).unwrap();
    (path, source.part(prefix))
}

/// Filled by formula, saved in one layout, and loaded again.
fn through<M: Module>(name: &str, fresh: impl Fn() -> M, rules: &Rules) -> M {
    let path = env::temp_dir().join(format!("canvas-vae-{name}-{}.safetensors", process::id()));
    save_published(&params::fill_by_formula(fresh()), &path, rules).unwrap();
    let source = Source::open(&path, None).unwrap();
    let (module, report) = load_published(fresh(), &source, rules).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(report.one_way.is_empty(), "{name}: {:?}", report.one_way);
    module
}

#[test]
fn names_shapes_and_configurations_are_those_of_published_files() {
    let device = Device::flex();
    for (case, config) in [("sd", AutoencoderKlConfig::sd()), ("flux", AutoencoderKlConfig::flux())] {
        let model = config.init(&device);
        same_names(case, &model, &config.original(), &config.published());
        let shapes = published_shapes(&model, &config.original());
        let (path, part) = sparse(case, "first_stage_model.", &shapes);
        let found = AutoencoderKlConfig::detect(&part).unwrap();
        fs::remove_file(path).unwrap();
        assert_eq!(format!("{found:?}"), format!("{config:?}"), "{case}");
    }
    let (path, part) = sparse("none", "first_stage_model.", &BTreeMap::new());
    let shown = AutoencoderKlConfig::detect(&part).unwrap_err().to_string();
    fs::remove_file(path).unwrap();
    assert!(
        shown
            .ends_with("first_stage_model.encoder.conv_in.weight: expected a tensor with 4 axes, found none")
    );
}

#[test]
fn both_layouts_give_the_same_bits() {
    let device = Device::flex();
    let config = AutoencoderKlConfig::new().with_channels(vec![8, 16, 16]).with_layers(1).with_groups(4);
    let values: Vec<f32> = (0..3 * 8 * 12).map(|i| (0.37 * i as f32).sin()).collect();
    let images = Tensor::<4>::from_data(TensorData::new(values, [1, 3, 8, 12]), &device);
    let [one, other] = [config.original(), config.published()].map(|rules| {
        let model = through("tiny", || config.init(&device), &rules);
        let latents = model.encode(images.clone()).mode();
        [latents.clone().into_data(), model.decode(latents).into_data()]
    });
    assert_eq!(one, other);
    assert!(one[1].iter::<f32>().any(|value| value.abs() > 1e-3));
}

/// The attention's matrices lie as kernels in the original files, and as matrices in files made from diffusers'.
#[test]
fn matrices_in_the_place_of_kernels_load() {
    let device = Device::flex();
    let config = AutoencoderKlConfig::new().with_channels(vec![8]).with_layers(1).with_groups(4);
    let path = env::temp_dir().join(format!("canvas-vae-matrices-{}.safetensors", process::id()));
    let filled = params::fill_by_formula(config.init(&device));
    save_published(&filled, &path, &config.original()).unwrap();
    let source = Source::open(&path, None).unwrap();
    assert_eq!(source.shape("encoder.mid.attn_1.q.weight"), Some(&[8, 8, 1, 1][..]));
    let matrix = |key: &str| {
        let data = source.read(key).unwrap();
        let mut shape = data.shape().to_vec();
        shape.truncate(if key.contains("attn_1") && shape.len() == 4 { 2 } else { 4 });
        (key.to_owned(), TensorData::new(data.iter::<f32>().collect::<Vec<f32>>(), shape))
    };
    let tensors: Vec<_> = source.keys().map(matrix).collect();
    canvas_core::weights::write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let (module, _) =
        load_published(config.init(&device), &Source::open(&path, None).unwrap(), &config.original())
            .unwrap();
    fs::remove_file(&path).unwrap();
    let values = |module| params::named(module).into_iter().map(|param| param.data).collect::<Vec<_>>();
    assert_eq!(values(&module), values(&filled));
}
