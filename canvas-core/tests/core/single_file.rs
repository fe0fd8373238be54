//! Parts of a file, tensors that hold several parameters or lie otherwise than in PyTorch, and whole files.

use crate::host;
use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::prelude::*;
use canvas_core::params;
use canvas_core::weights::{
    Family, Original, Progress, Rules, Source, WeightsError, load_published, load_published_with,
    published_shapes, save_published, write_tensors,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A fused projection, a transposed one and a kernel.
#[derive(Module, Debug)]
struct Three {
    q: Linear,
    k: Linear,
    v: Linear,
    project: Linear,
    output: Linear,
}

fn three(layout: LinearLayout) -> Three {
    let linear = |from, to| LinearConfig::new(from, to).with_layout(layout).init(&Device::flex());
    Three { q: linear(3, 2), k: linear(3, 2), v: linear(3, 2), project: linear(2, 4), output: linear(4, 3) }
}

impl Three {
    fn answer(&self) -> Vec<f32> {
        let x: Tensor<2> = Tensor::from_floats([[1.0, -2.0, 0.5]], &Device::flex());
        let x = self.q.forward(x.clone()) * self.k.forward(x.clone()) + self.v.forward(x);
        host(&self.output.forward(self.project.forward(x)))
    }
}

fn rules() -> Rules {
    let parts = |what: &str| ["q", "k", "v"].map(|name| format!("{name}.{what}"));
    let (weights, biases) = (parts("weight"), parts("bias"));
    Rules::new()
        .split("attn.in_proj_weight", &weights.each_ref().map(String::as_str))
        .split("attn.in_proj_bias", &biases.each_ref().map(String::as_str))
        .exact("projection", "project.weight")
        .exact("shift", "project.bias")
        .segments("proj_out", "output")
        .transposed("projection")
        .pointwise("proj_out.weight")
        .ignore("logit_scale", "of training")
}

/// Values of a file by rising numbers, so that a part in a wrong place shows.
fn write(path: &Path, shapes: &[(&str, &[usize])]) {
    let tensor = |(number, (key, shape)): (usize, &(&str, &[usize]))| {
        let value = |i: usize| (100 * number + i) as f32 / 64.0;
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        ((*key).to_owned(), TensorData::new(values, shape.to_vec()))
    };
    let tensors: Vec<_> = shapes.iter().enumerate().map(tensor).collect();
    write_tensors(path, &tensors, &BTreeMap::new()).unwrap();
}

const SHAPES: [(&str, &[usize]); 8] = [
    ("net.attn.in_proj_weight", &[6, 3]),
    ("net.attn.in_proj_bias", &[6]),
    ("net.projection", &[2, 4]),
    ("net.shift", &[4]),
    ("net.proj_out.weight", &[3, 4, 1, 1]),
    ("net.proj_out.bias", &[3]),
    ("net.logit_scale", &[]),
    ("other", &[1]),
];

fn file(shapes: &[(&str, &[usize])]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    write(&path, shapes);
    (folder, path)
}

fn values(data: &TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

/// Of each of the six rows of a kernel over time the last of four slices, in which saving writes zeros before it.
#[test]
fn the_last_slice_is_taken_and_saved_behind_zeros() {
    let rules = Rules::new().last_slice("weight", 2, 4);
    let conv = || Conv2dConfig::new([3, 2], [1, 2]).init(&Device::flex());
    let (_folder, path) = file(&[("bias", &[2]), ("weight", &[2, 3, 4, 1, 2])]);
    let source = Source::open(&path, None).unwrap();
    let (module, report) = load_published(conv(), &source, &rules).unwrap();
    assert!(report.one_way.is_empty());
    let weight = values(&module.weight.val().into_data());
    let last: Vec<f32> = (0..12).map(|i| (100 + i / 2 * 8 + 6 + i % 2) as f32 / 64.0).collect();
    assert_eq!(weight, last);

    let again = path.with_file_name("again.safetensors");
    save_published(&module, &again, &rules).unwrap();
    let saved = Source::open(&again, None).unwrap().read("weight").unwrap();
    assert_eq!(saved.shape().to_vec(), [2, 3, 4, 1, 2]);
    let behind = weight.chunks(2).flat_map(|row| [vec![0.0; 6], row.to_vec()].concat());
    assert_eq!(values(&saved), behind.collect::<Vec<f32>>());

    let (_folder, path) = file(&[("bias", &[2]), ("weight", &[2, 3, 1, 2])]);
    let error = load_published(conv(), &Source::open(&path, None).unwrap(), &rules).unwrap_err().to_string();
    assert!(error.contains("[2, 3, 4, 1, 2]") && error.contains("[2, 3, 1, 2]"), "{error}");
}

#[test]
fn a_part_is_split_transposed_and_flattened_as_the_rules_say() {
    let (folder, path) = file(&SHAPES);
    let whole = Source::open(&path, None).unwrap();
    let part = whole.part("net.");
    assert_eq!((part.prefix(), part.keys().count()), ("net.", 7));
    let named = |module: &Three| -> BTreeMap<String, Vec<f32>> {
        params::named(module).into_iter().map(|param| (param.name, values(&param.data))).collect()
    };
    let read = |key: &str| values(&part.read(key).unwrap());
    let mut answers = Vec::new();
    for (layout, col) in [(LinearLayout::Row, false), (LinearLayout::Col, true)] {
        let (module, report) = load_published(three(layout), &part, &rules()).unwrap();
        let names = named(&module);
        let fused = read("attn.in_proj_weight"); // [6, 3], and each third is [2, 3]
        for (third, name) in ["q", "k", "v"].iter().enumerate() {
            assert_eq!(names[&format!("{name}.bias")], read("attn.in_proj_bias")[2 * third..][..2]);
            let rows = &fused[6 * third..][..6];
            let columns: Vec<f32> = (0..6).map(|i| rows[i % 2 * 3 + i / 2]).collect(); // [3, 2]
            let found = &names[&format!("{name}.weight")];
            assert!(col || *found == columns, "{name}: {found:?}");
        }
        if !col {
            assert_eq!(names["project.weight"], read("projection"), "[in, out] on both sides");
        }
        answers.push(module.answer());

        let split = ["q.weight", "k.weight", "v.weight"].map(str::to_owned).to_vec();
        assert!(report.split.contains(&("net.attn.in_proj_weight".to_owned(), split)));
        let every = report.every_key();
        assert!(every.contains("\n  split net.attn.in_proj_bias into q.bias, k.bias, v.bias"), "{every}");
        assert!(every.contains("\n  renamed net.projection to project.weight"), "{every}");
        assert!(every.contains("\n  ignored net.logit_scale: of training"), "{every}");
        assert_eq!((every.trim().lines().count(), report.one_way.len()), (7, 0), "{every}");

        let again = folder.path().join("again.safetensors");
        save_published(&module, &again, &rules()).unwrap();
        let saved = Source::open(&again, None).unwrap();
        let shapes = published_shapes(&module, &rules());
        for key in part.keys().filter(|key| rules().ignored(key).is_none()) {
            assert_eq!(saved.read(key).unwrap(), part.read(key).unwrap(), "{key}");
            assert_eq!(saved.shape(key), shapes.get(key).map(Vec::as_slice), "{key}");
        }
        assert_eq!(saved.keys().count(), shapes.len());
    }
    // The two layouts multiply in another order.
    let same = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6 * a.abs();
    assert!(answers[0].iter().zip(&answers[1]).all(same), "{answers:?}");
}

/// A kernel may have lost its last axes, one of them or both; nothing else may have.
#[test]
fn kernels_are_taken_with_and_without_their_last_axes() {
    let answer = |shape: &[usize]| {
        let mut shapes = SHAPES;
        shapes[4].1 = shape;
        let (_folder, path) = file(&shapes);
        let part = Source::open(&path, None).unwrap().part("net.");
        load_published(three(LinearLayout::Row), &part, &rules()).map(|(module, _)| module.answer())
    };
    let expected = answer(&[3, 4, 1, 1]).unwrap();
    assert_eq!(answer(&[3, 4]).unwrap(), expected);
    assert_eq!(answer(&[3, 4, 1]).unwrap(), expected);
    for shape in [&[4, 3, 1, 1][..], &[3, 4, 2, 1], &[3, 4, 1, 3], &[12]] {
        let shown = answer(shape).unwrap_err().to_string();
        let differs = format!("\n  net.proj_out.weight: expected shape [3, 4, 1, 1], found {shape:?}");
        assert!(shown.contains(&differs), "{shown}");
    }
}

#[test]
fn what_does_not_fit_is_named_once_in_whole_keys() {
    let refusal = |change: fn(&mut Vec<(&str, &[usize])>)| {
        let mut shapes = SHAPES.to_vec();
        change(&mut shapes);
        let (_folder, path) = file(&shapes);
        let part = Source::open(&path, None).unwrap().part("net.");
        load_published(three(LinearLayout::Row), &part, &rules()).unwrap_err().to_string()
    };
    let shown = refusal(|shapes| shapes[0].1 = &[7, 3]);
    let differs = "(7 of 10 parameters fit)\n  net.attn.in_proj_weight: expected shape [6, 3], found [7, 3]";
    assert!(shown.ends_with(differs), "{shown}");
    let shown = refusal(|shapes| shapes.retain(|entry| entry.0 != "net.attn.in_proj_weight"));
    assert!(shown.ends_with("\n  missing net.attn.in_proj_weight (our q.weight) [6, 3]"), "{shown}");
    let shown = refusal(|shapes| shapes[2] = ("net.projecton", &[2, 4]));
    assert!(shown.contains("\n  missing net.projection (our project.weight) [2, 4]; nearest: net.projecton"));
    assert!(shown.ends_with("\n  unexpected net.projecton [2, 4]; nearest: net.projection"), "{shown}");
    let shown = refusal(|shapes| shapes.push(("net.q.bias", &[2])));
    let twice = "\n  unexpected net.q.bias (renamed to q.bias, as net.attn.in_proj_bias is) [2]";
    assert!(shown.contains(twice), "{shown}");
    let (_folder, path) = file(&SHAPES);
    let error = Source::open(&path, None).unwrap().part("net.").read("none").unwrap_err().to_string();
    assert!(error.contains("w.safetensors: net.none: expected a tensor of this name"), "{error}");
}

#[test]
fn a_part_that_the_module_lacks_is_not_saved() {
    #[derive(Module, Debug)]
    struct Two {
        q: Linear,
        k: Linear,
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let Three { q, k, .. } = three(LinearLayout::Row);
    let shown = save_published(&Two { q, k }, &path, &rules()).unwrap_err().to_string();
    assert!(
        shown.contains("v.bias would be written as attn.in_proj_bias, which is read as a part"),
        "{shown}"
    );
}

#[test]
fn rules_behind_a_split_rename_its_parts_and_lead_back() {
    let rules = Rules::new()
        .segments("resblocks.{i}", "layers.{i}")
        .split("layers.{i}.in_proj", &["layers.{i}.a", "layers.{i}.b"])
        .then(Rules::new().segments("layers.{i}.b", "layers.{i}.other"));
    assert_eq!(rules.parts("resblocks.3.in_proj"), ["layers.3.a", "layers.3.other"]);
    assert_eq!(rules.ours("resblocks.3.in_proj"), "layers.3.a");
    for name in ["layers.3.a", "layers.3.other"] {
        assert_eq!(rules.published(name), "resblocks.3.in_proj");
    }
}

#[test]
#[should_panic(expected = "can only rename")]
fn rules_that_ignore_cannot_come_second() {
    let _ = Rules::new().then(Rules::new().ignore("a", "b"));
}

#[test]
fn progress_counts_the_bytes_of_the_parameters() {
    let (_folder, path) = file(&SHAPES);
    let part = Source::open(&path, None).unwrap().part("net.");
    let mut told = Vec::new();
    load_published_with(three(LinearLayout::Row), &part, &rules(), &mut |progress| told.push(progress))
        .unwrap();
    let total = 4 * (18 + 6 + 8 + 4 + 12 + 3);
    assert_eq!((told.len(), told.last()), (10, Some(&Progress { done: total, total })));
    assert!(told.windows(2).all(|pair| pair[0].done < pair[1].done && pair[0].total == total));
}

const INPUT: &str = "model.diffusion_model.input_blocks.0.0.weight";
const LABEL: &str = "model.diffusion_model.label_emb.0.0.weight";
const SD1: &str = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight";
const SD2: &str = "cond_stage_model.model.token_embedding.weight";
const XL: &str = "conditioner.embedders.1.model.token_embedding.weight";
const REFINER: &str = "conditioner.embedders.0.model.token_embedding.weight";

fn detect(shapes: &[(&str, &[usize])]) -> Result<Original, WeightsError> {
    let (_folder, path) = file(shapes);
    Original::detect(&Source::open(&path, None).unwrap())
}

#[test]
fn families_and_their_variants_are_recognised() {
    for (text, label, family) in [
        (SD1, false, Family::Sd1),
        (SD2, false, Family::Sd2),
        (XL, true, Family::Sdxl),
        (REFINER, true, Family::SdxlRefiner),
    ] {
        for channels in [4, 8, 9] {
            let input = [2, channels, 3, 3];
            let mut shapes: Vec<(&str, &[usize])> = vec![(INPUT, &input), (text, &[3, 2])];
            shapes.extend(label.then_some((LABEL, &[1, 1][..])));
            let found = detect(&shapes).unwrap();
            assert_eq!(found, Original { family, in_channels: channels });
            assert!(found.texts().iter().any(|prefix| text.starts_with(prefix)));
            let v = family == Family::Sd2 && channels != 9;
            assert_eq!(found.prediction_type(), if v { "v_prediction" } else { "epsilon" });
        }
    }
}

#[test]
fn other_files_are_refused_with_what_was_looked_for_and_found() {
    let refused = |shapes: &[(&str, &[usize])]| detect(shapes).unwrap_err().to_string();
    let shown = refused(&[("down_blocks.0.a", &[1]), ("conv_in.weight", &[1])]);
    let expected =
        format!("{INPUT}: expected the UNet of a Stable Diffusion in one file, found none, but keys that");
    assert!(shown.contains(&expected) && shown.ends_with("begin with conv_in, down_blocks"), "{shown}");
    let shown = refused(&[(INPUT, &[2, 4, 3, 3])]);
    assert!(shown.contains(&format!("{SD2} or {SD1}: expected a text encoder, found none")), "{shown}");
    let shown = refused(&[(INPUT, &[2, 7, 3, 3]), (SD2, &[1, 1])]);
    assert!(shown.ends_with(&format!("{INPUT}: expected 4, 8 or 9 input channels, found 7")), "{shown}");
    let shown = refused(&[(INPUT, &[2, 4, 3, 3]), (SD2, &[1, 1]), (LABEL, &[3, 5])]);
    assert!(shown.contains(&format!("{LABEL}: expected no such tensor")), "{shown}");
    let shown = refused(&[(INPUT, &[2, 4, 3, 3]), (XL, &[1, 1])]);
    assert!(shown.contains(&format!("{LABEL}: expected an embedding of the sizes")), "{shown}");
    let shown = refused(&[(INPUT, &[2, 4, 3, 3]), (XL, &[1, 1]), (LABEL, &[3, 5]), ("edm_mean", &[1])]);
    assert!(shown.contains("edm_mean: expected no such tensor: it makes this a Playground 2.5"), "{shown}");
    let shown = refused(&[(INPUT, &[2, 4])]);
    assert!(shown.contains("expected a tensor with 4 axes, found the shape [2, 4]"), "{shown}");
}

#[test]
fn every_key_of_a_file_is_accounted_for() {
    let mut shapes = SHAPES.to_vec();
    shapes.pop();
    shapes.extend([("model_ema.decay", &[][..]), ("alphas_cumprod", &[3]), ("denoiser.sigmas", &[3])]);
    let original = Original { family: Family::Sd1, in_channels: 4 };
    let account = |shapes: &[(&str, &[usize])]| {
        let (_folder, path) = file(shapes);
        let source = Source::open(&path, None).unwrap();
        let (_, report) = load_published(three(LinearLayout::Row), &source.part("net."), &rules()).unwrap();
        let found = original.account(&source, vec![report]);
        found.map(|report| report.every_key().trim().lines().count())
    };
    assert_eq!(account(&shapes).unwrap(), shapes.len());
    shapes.extend([("alphas_cumprods", &[3][..]), ("net2.a", &[3])]);
    let shown = account(&shapes).unwrap_err().to_string();
    assert!(shown.ends_with("\n  unexpected alphas_cumprods [3]\n  unexpected net2.a [3]"), "{shown}");
}
