//! Single files in the original layout: names and shapes as diffusers converts them (`tools/fixtures_original.py`),
//! configurations from shapes, and the same answers through both layouts.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{Rules, Source, load_published, published_shapes, save_published};
use canvas_core::{Backbone, Text, params};
use canvas_unet::{Conditions, ControlNetConfig, LabelKind, UnetConfig};
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
    let path = env::temp_dir().join(format!("canvas-unet-{name}-{}.safetensors", process::id()));
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    let source = Source::open(&path, None).unwrap();
    (path, source.part(prefix))
}

/// Filled by formula, saved in one layout, and loaded again.
fn through<M: Module>(name: &str, fresh: impl Fn() -> M, rules: &Rules) -> M {
    let path = env::temp_dir().join(format!("canvas-unet-{name}-{}.safetensors", process::id()));
    save_published(&params::fill_by_formula(fresh()), &path, rules).unwrap();
    let source = Source::open(&path, None).unwrap();
    let (module, report) = load_published(fresh(), &source, rules).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(report.one_way.is_empty(), "{name}: {:?}", report.one_way);
    module
}

/// The published models. All but the upscaler's and unCLIP's UNets lie in files that
/// [`Original`](canvas_core::weights::Original) knows.
fn published() -> [(&'static str, UnetConfig); 7] {
    let unclip = UnetConfig::sd2().with_label(Some(LabelKind::Vector(2048)));
    [
        ("sd1", UnetConfig::sd1().with_in_channels(4)),
        ("inpaint", UnetConfig::sd1().with_in_channels(9)),
        ("sd2", UnetConfig::sd2().with_in_channels(4)),
        ("unclip", unclip.with_in_channels(4)),
        ("sdxl", UnetConfig::sdxl().with_in_channels(4)),
        ("upscaler", UnetConfig::sd_upscaler().with_in_channels(7)),
        ("refiner", UnetConfig::sdxl_refiner().with_in_channels(4)),
    ]
}

fn controls() -> [(&'static str, ControlNetConfig); 2] {
    [("controlnet_sd1", UnetConfig::sd1()), ("controlnet_sdxl", UnetConfig::sdxl())]
        .map(|(case, unet)| (case, ControlNetConfig::new(unet)))
}

#[test]
fn names_and_shapes_are_those_that_diffusers_converts() {
    let device = Device::flex();
    for (case, config) in published() {
        same_names(case, &config.init(&device), &config.original(), &config.published());
    }
    for (case, config) in controls() {
        same_names(case, &config.init(&device), &config.original(), &config.published());
    }
}

#[test]
fn published_configurations_are_told_from_the_shapes() {
    let device = Device::flex();
    for (case, config) in published() {
        let shapes = published_shapes(&config.init(&device), &config.original());
        let (path, part) = sparse(case, "model.diffusion_model.", &shapes);
        assert_eq!(format!("{:?}", UnetConfig::detect(&part).unwrap()), format!("{config:?}"), "{case}");
        fs::remove_file(path).unwrap();
    }
    for (case, config) in controls() {
        let shapes = published_shapes(&config.init(&device), &config.original());
        let (path, part) = sparse(case, "control_model.", &shapes);
        assert_eq!(
            format!("{:?}", ControlNetConfig::detect(&part).unwrap()),
            format!("{config:?}"),
            "{case}"
        );
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn shapes_that_contradict_each_other_are_named() {
    let config = UnetConfig::sd1();
    let whole = published_shapes(&config.init(&Device::flex()), &config.original());
    let refusal = |change: fn(&mut BTreeMap<String, Vec<usize>>)| {
        let mut shapes = whole.clone();
        change(&mut shapes);
        let case = format!("{:?}", std::time::SystemTime::now());
        let (path, part) = sparse(&digest(&case), "model.diffusion_model.", &shapes);
        let shown = UnetConfig::detect(&part).unwrap_err().to_string();
        fs::remove_file(&path).unwrap();
        shown.replace(&format!("{}: model.diffusion_model.", path.display()), "")
    };
    let shown = refusal(|shapes| drop(shapes.remove("out.2.weight")));
    assert_eq!(shown, "out.2.weight: expected a tensor with 4 axes, found none");
    let shown = refusal(|shapes| drop(shapes.remove("input_blocks.5.0.in_layers.2.weight")));
    assert_eq!(shown, "input_blocks.4: expected 2 residual blocks, as in the first level, found 1");
    let shown = refusal(|shapes| shapes.get_mut("input_blocks.5.0.in_layers.2.weight").unwrap()[0] = 64);
    let expected =
        "expected 640 channels and 1 transformer blocks, as its level begins, found 64 channels and 1";
    assert!(shown.contains(expected), "{shown}");
    let shown = refusal(|shapes| shapes.get_mut("input_blocks.0.0.weight").unwrap().truncate(2));
    assert_eq!(shown, "input_blocks.0.0.weight: expected a tensor with 4 axes, found the shape [320, 4]");
    let shown = refusal(|shapes| shapes.retain(|key, _| !key.starts_with("input_blocks.1.")));
    assert!(shown.starts_with("input_blocks.1.0.in_layers.2.weight: expected a residual block"), "{shown}");
}

#[test]
fn both_layouts_give_the_same_bits() {
    let device = Device::flex();
    let pattern = |count: usize| (0..count).map(|i| (0.37 * i as f32).sin()).collect::<Vec<f32>>();
    let sd1 = UnetConfig::new(4, 12, vec![32, 64], vec![1, 0], vec![8, 8]).with_blocks(1);
    let sd2 = UnetConfig::new(9, 12, vec![64, 128], vec![0, 2], vec![1, 2])
        .with_out_channels(Some(4))
        .with_linear_projection(true)
        .with_middle_depth(2);
    let xl = sd2.clone().with_pooled_width(Some(7)).with_size_features(Some(8));
    for (case, config) in [("tiny-sd1", sd1), ("tiny-sd2", sd2), ("tiny-xl", xl)] {
        let told = Conditions {
            text: Text {
                tokens: Tensor::from_data(TensorData::new(pattern(60), [1, 5, 12]), &device),
                mask: Tensor::<2, Int>::ones([1, 5], &device).bool(),
                pooled: Tensor::ones([1, 7], &device),
            },
            sizes: config.size_features.map(|_| Tensor::ones([1, 6], &device)),
            label: None,
        };
        let shape = [1, config.in_channels, 4, 6];
        let x = Tensor::<4>::from_data(TensorData::new(pattern(shape.iter().product()), shape), &device);
        let [one, other] = [config.original(), config.published()].map(|rules| {
            let unet = through(case, || config.init(&device), &rules);
            unet.told().forward(x.clone(), Tensor::from_floats([0.4], &device), &told).into_data()
        });
        assert_eq!(one, other, "{case}");
        assert!(one.iter::<f32>().any(|value| value.abs() > 1e-3), "{case}: the answer is nothing");
    }
}
