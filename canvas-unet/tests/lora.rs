//! LoRA files of every kind on a UNet: parity with diffusers and peft (fixture by `tools/fixtures_lora.py`).

use burn::prelude::*;
use canvas_core::weights::{
    Lora, Merging, Part, Rules, Source, load_published, read_tensors, save_published, write_tensors,
};
use canvas_core::{Backbone, Text};
use canvas_unet::{Conditions, Unet, UnetConfig};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Tensors by key.
type File = BTreeMap<String, TensorData>;

/// As `hashed` of the script: `centre + scale u`, u by splitmix64 of name and index.
fn hashed(name: &str, shape: &[usize], scale: f64, centre: f64) -> TensorData {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    let unit = |i: usize| {
        let mut x = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (centre + scale * ((x >> 11) as f64 / 2f64.powi(52) - 1.0)) as f32
    };
    TensorData::new((0..shape.iter().product()).map(unit).collect::<Vec<f32>>(), shape.to_vec())
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lora").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn write(path: &Path, file: &File, metadata: &BTreeMap<String, String>) {
    let tensors: Vec<(String, TensorData)> = file.clone().into_iter().collect();
    write_tensors(path, &tensors, metadata).unwrap();
}

/// A model with hashed weights, and its layers as diffusers calls them.
struct Model {
    config: UnetConfig,
    unet: Unet,
    layers: Vec<(String, Vec<usize>)>,
}

impl Model {
    fn new(name: &str, config: UnetConfig) -> Self {
        let path = folder(name).join("model.safetensors");
        save_published(&config.init(&Device::flex()), &path, &config.published()).unwrap();
        let source = Source::open(&path, None).unwrap();
        let hash = |key: &str| {
            let shape = source.shape(key).unwrap();
            let norm = key.contains("norm") && key.ends_with("weight");
            let fan = if shape.len() < 2 { 16 } else { shape[1..].iter().product::<usize>() };
            let scale = if norm { 0.1 } else { (fan as f64).powf(-0.5) };
            (key.to_owned(), hashed(key, shape, scale, if norm { 1.0 } else { 0.0 }))
        };
        let values: File = source.keys().map(hash).collect();
        write(&path, &values, &BTreeMap::new());
        let source = Source::open(&path, None).unwrap();
        let (unet, _) = load_published(config.init(&Device::flex()), &source, &config.published()).unwrap();
        let layer = |key: &str| {
            let shape = source.shape(key)?.to_vec();
            Some((key.strip_suffix(".weight")?.to_owned(), shape)).filter(|(_, shape)| shape.len() > 1)
        };
        let layers = source.keys().filter_map(layer).collect();
        Self { config, unet, layers }
    }

    fn sd(name: &str) -> Self {
        let config = UnetConfig::new(3, 10, vec![8, 12], vec![1, 0], vec![2, 3]);
        Self::new(name, config.with_blocks(1).with_norm_groups(2))
    }

    fn sdxl(name: &str) -> Self {
        let config = UnetConfig::new(3, 10, vec![8, 12], vec![0, 2], vec![2, 3])
            .with_middle_depth(2)
            .with_norm_groups(2)
            .with_linear_projection(true)
            .with_pooled_width(Some(7))
            .with_size_features(Some(4));
        Self::new(name, config)
    }

    /// Tensors for every chosen layer.
    fn file(&self, chosen: fn(&str) -> bool, tensors: impl Fn(&str, &[usize]) -> File) -> File {
        let layers = self.layers.iter().filter(|(name, _)| chosen(name));
        layers.flat_map(|(name, shape)| tensors(name, shape)).collect()
    }

    /// The model with these LoRAs, every key of which must be used.
    fn with(&self, loras: &[(&Lora, f64)], names: &[&Rules]) -> Unet {
        let mut merging = Merging::new(loras);
        let merged = merging.merge(self.unet.clone(), Part::Unet, names).unwrap();
        for (report, (lora, _)) in merging.finish().unwrap().iter().zip(loras) {
            let keys = Source::open(lora.path(), None).unwrap().keys().count();
            assert_eq!((report.renamed.len(), report.ignored.len()), (keys, 0));
        }
        merged
    }
}

fn pattern<const D: usize>(dims: [usize; D], seed: f64) -> Tensor<D> {
    let count = dims.iter().product();
    let values: Vec<f32> = (0..count).map(|i: usize| (0.37 * i as f64 + seed).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

fn draw(unet: &Unet, sized: bool) -> Vec<f64> {
    let device = Device::flex();
    let mask = Tensor::from_data(TensorData::from([[true; 5]]), &device);
    let text = Text { tokens: pattern([1, 5, 10], 1.0), mask, pooled: pattern([1, 7], 3.0) };
    let sizes = [[512.0f32, 768.0, 3.0, 17.0, 1024.0, 896.0]];
    let sizes = sized.then(|| Tensor::from_floats(sizes, &device));
    let cond = Conditions { sizes, ..text.into() };
    let time = Tensor::from_floats([0.25], &device);
    let drawn = unet.told().forward(pattern([1, 3, 4, 6], 1.0) * 3.0, time, &cond);
    drawn.into_data().iter::<f64>().collect()
}

#[track_caller]
fn assert_draws(unet: &Unet, case: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lora.safetensors");
    let expected: Vec<f64> = read_tensors(&fixture).unwrap()[case].iter::<f64>().collect();
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let found = draw(unet, ["sdxl", "ldm"].contains(&case));
    assert_eq!(found.len(), expected.len());
    let error = found.iter().zip(&expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest;
    println!("{case}: {error:.1e}");
    assert!(error < 1e-5, "{case}: relative error {error:.2e}");
}

fn all(_: &str) -> bool {
    true
}

fn attention(name: &str) -> bool {
    name.contains("attn") || name.contains(".ff.")
}

/// The two tensors of a LoRA on a weight of this shape.
fn low(down: &str, up: &str, shape: &[usize], rank: usize) -> File {
    let wide = [&[rank], &shape[1..]].concat();
    let tall = [vec![shape[0], rank], vec![1; shape.len() - 2]].concat();
    [(down, wide), (up, tall)].map(|(key, shape)| (key.to_owned(), hashed(key, &shape, 0.3, 0.0))).into()
}

fn peft(start: &str, name: &str, shape: &[usize], rank: usize) -> File {
    low(&format!("{start}{name}.lora_A.weight"), &format!("{start}{name}.lora_B.weight"), shape, rank)
}

fn kohya(name: &str, shape: &[usize]) -> File {
    let key = format!("lora_unet_{}", name.replace('.', "_"));
    let mut file = low(&format!("{key}.lora_down.weight"), &format!("{key}.lora_up.weight"), shape, 3);
    file.insert(format!("{key}.alpha"), TensorData::new(vec![2f32], Vec::<usize>::new()));
    file
}

fn open(name: &str, file: &File) -> Lora {
    let path = folder(name).join("lora.safetensors");
    write(&path, file, &BTreeMap::new());
    Lora::open(&path).unwrap()
}

/// Merges one file, and compares.
#[track_caller]
fn check(case: &str, model: &Model, file: &File, weight: f64) {
    let lora = open(case, file);
    assert_draws(&model.with(&[(&lora, weight)], &[&model.config.published()]), case);
}

#[test]
fn without_a_lora_the_models_are_those_of_the_fixture() {
    assert_draws(&Model::sd("plain").unet, "sd");
    assert_draws(&Model::sdxl("plain_xl").unet, "sdxl");
}

#[test]
fn diffusers_files_equal_diffusers() {
    let model = Model::sd("diffusers");
    let file = model.file(attention, |name, shape| peft("unet.", name, shape, 3));
    check("peft", &model, &file, 0.7);
    let rank = |name: &str| if name.contains(".attn2.") { 2 } else { 3 };
    let mixed = model.file(attention, |name, shape| peft("unet.", name, shape, rank(name)));
    check("ranks", &model, &mixed, 1.0);
    // As saved without peft's own function: with the adapter's name.
    let named = |(key, data): (String, TensorData)| (key.replace(".weight", ".default.weight"), data);
    let mut with_name = open("named", &file.into_iter().map(named).collect());
    with_name = Lora::open(with_name.path()).unwrap();
    assert_draws(&model.with(&[(&with_name, 0.7)], &[&model.config.published()]), "peft");
}

#[test]
fn alphas_of_the_metadata_equal_diffusers() {
    let model = Model::sd("metadata_model");
    let file = model.file(attention, |name, shape| peft("unet.", name, shape, 3));
    let settings = r#"{"unet.r": 3, "unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_k": 2.0,
        "^mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 9.0}}"#;
    let path = folder("metadata").join("lora.safetensors");
    write(&path, &file, &BTreeMap::from([("lora_adapter_metadata".into(), settings.into())]));
    let lora = Lora::open(&path).unwrap();
    assert_draws(&model.with(&[(&lora, 1.0)], &[&model.config.published()]), "metadata");
}

#[test]
fn older_diffusers_files_equal_diffusers() {
    let model = Model::sd("old_model");
    let old = |name: &str| match name.rsplit_once(".to_") {
        Some((attention, layer)) => format!("{attention}.processor.to_{}_lora", layer.trim_end_matches(".0")),
        None => format!("{name}.lora"),
    };
    let file = model.file(attention, |name, shape| {
        let name = old(name);
        low(&format!("unet.{name}.down.weight"), &format!("unet.{name}.up.weight"), shape, 3)
    });
    assert!(file.contains_key(
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight"
    ));
    check("old", &model, &file, 1.0);
}

#[test]
fn kohya_files_equal_diffusers() {
    let model = Model::sd("kohya_model");
    check("kohya", &model, &model.file(all, kohya), 0.8);
}

/// The original code's name of a layer of `Model::sdxl`.
fn ldm_name(name: &str, rules: &Rules, ldm: &Rules) -> String {
    ldm.published(&rules.ours(&format!("{name}.weight"))).trim_end_matches(".weight").to_owned()
}

/// The original code's names, as far as they are layers', after other rules.
fn ldm(rules: Rules) -> Rules {
    let mut rules = rules
        .prefix("input_blocks.0.0", "input")
        .prefix("out.2", "output")
        .prefix("time_embed.0", "time.input")
        .prefix("time_embed.2", "time.output")
        .prefix("label_emb.0.0", "extra.sizes.input")
        .prefix("label_emb.0.2", "extra.sizes.output")
        .prefix("input_blocks.3.0.op", "down.0.downsample")
        .prefix("output_blocks.2.2.conv", "up.0.upsample")
        .prefix("middle_block.0", "middle.first.res")
        .prefix("middle_block.1", "middle.first.transformer")
        .prefix("middle_block.2", "middle.second");
    let down =
        [(1, "down.0.stages.0"), (2, "down.0.stages.1"), (4, "down.1.stages.0"), (5, "down.1.stages.1")];
    for (at, stage) in down {
        rules = rules.prefix(&format!("input_blocks.{at}.0"), &format!("{stage}.res"));
        rules = rules.prefix(&format!("input_blocks.{at}.1"), &format!("{stage}.transformer"));
    }
    for at in 0..6 {
        let stage = format!("up.{}.stages.{}", at / 3, at % 3);
        rules = rules.prefix(&format!("output_blocks.{at}.0"), &format!("{stage}.res"));
        rules = rules.prefix(&format!("output_blocks.{at}.1"), &format!("{stage}.transformer"));
    }
    for block in ["res", "middle.second"] {
        for (theirs, ours) in [
            ("in_layers.2", "conv_in"),
            ("emb_layers.1", "time"),
            ("out_layers.3", "conv_out"),
            ("skip_connection", "skip"),
        ] {
            rules = rules.segments(&format!("{block}.{theirs}"), &format!("{block}.{ours}"));
        }
    }
    for (theirs, ours) in [
        ("proj_in", "linear_in"),
        ("proj_out", "linear_out"),
        ("transformer_blocks.{i}.attn1.to_q", "blocks.{i}.attention.query"),
        ("transformer_blocks.{i}.attn1.to_k", "blocks.{i}.attention.key"),
        ("transformer_blocks.{i}.attn1.to_v", "blocks.{i}.attention.value"),
        ("transformer_blocks.{i}.attn1.to_out.0", "blocks.{i}.attention.output"),
        ("transformer_blocks.{i}.attn2.to_q", "blocks.{i}.cross.query"),
        ("transformer_blocks.{i}.attn2.to_k", "blocks.{i}.cross.key"),
        ("transformer_blocks.{i}.attn2.to_v", "blocks.{i}.cross.value"),
        ("transformer_blocks.{i}.attn2.to_out.0", "blocks.{i}.cross.output"),
        ("transformer_blocks.{i}.ff.net.0.proj", "blocks.{i}.feed.up"),
        ("transformer_blocks.{i}.ff.net.2", "blocks.{i}.feed.down"),
    ] {
        rules = rules.segments(&format!("transformer.{theirs}"), &format!("transformer.{ours}"));
    }
    rules
}

#[test]
fn kohya_files_with_the_original_names_equal_diffusers() {
    let model = Model::sdxl("ldm_model");
    let (published, ldm) = (model.config.published(), ldm(Rules::new()));
    let file = model.file(all, |name, shape| kohya(&ldm_name(name, &published, &ldm), shape));
    for key in [
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0.alpha",
        "lora_unet_input_blocks_0_0.alpha",
        "lora_unet_output_blocks_2_2_conv.alpha",
        "lora_unet_middle_block_2_in_layers_2.alpha",
        "lora_unet_label_emb_0_2.alpha",
    ] {
        assert!(file.contains_key(key), "{key}");
    }
    let lora = open("ldm", &file);
    assert_draws(&model.with(&[(&lora, 0.8)], &[&published, &ldm]), "ldm");
    // A single file's keys begin with the same segments, which kohya leaves out.
    let single = self::ldm(Rules::new().prefix("model.diffusion_model", ""));
    assert_draws(&model.with(&[(&lora, 0.8)], &[&published, &single]), "ldm");
    let error = Merging::new(&[(&lora, 0.8)]).merge(model.unet.clone(), Part::Unet, &[&published]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("unexpected lora_unet_input_blocks_4_1_proj_in.alpha"), "{error}");
}

#[test]
fn several_loras_with_weights_equal_diffusers() {
    let model = Model::sd("two_model");
    let first = open("two_first", &model.file(attention, |name, shape| peft("unet.", name, shape, 3)));
    let second = open("two_second", &model.file(all, kohya));
    let merged = model.with(&[(&first, 0.7), (&second, -0.4)], &[&model.config.published()]);
    assert_draws(&merged, "two");
}

#[test]
fn doras_equal_diffusers() {
    let model = Model::sd("dora_model");
    let file = model.file(all, |name, shape| {
        let mut file = peft("unet.", name, shape, 3);
        let key = format!("unet.{name}.lora_magnitude_vector");
        let size = if shape.len() == 2 { vec![shape[0]] } else { vec![1, shape[0], 1, 1] };
        file.insert(key.clone(), hashed(&key, &size, 0.3, 0.8));
        file
    });
    check("dora", &model, &file, 0.7);
    let (dora, plain) = (open("dora_first", &file), open("dora_second", &model.file(all, kohya)));
    let merged = model.with(&[(&dora, 0.7), (&plain, -0.4)], &[&model.config.published()]);
    assert_draws(&merged, "dora_two");
}

#[test]
fn a_folder_of_peft_equals_peft() {
    let model = Model::sd("peft_folder_model");
    let folder = folder("peft_folder");
    let file = model.file(all, |name, shape| peft("base_model.model.", name, shape, 3));
    write(&folder.join("adapter_model.safetensors"), &file, &BTreeMap::new());
    let settings = r#"{"r": 3, "lora_alpha": 5, "use_rslora": true, "peft_type": "LORA",
        "alpha_pattern": {"to_q": 2.0, "mid_block.attentions.0.proj_in": 7.0}}"#;
    fs::write(folder.join("adapter_config.json"), settings).unwrap();
    let lora = Lora::open(&folder).unwrap();
    assert!(lora.parts().is_empty());
    assert_draws(&model.with(&[(&lora, 1.0)], &[&model.config.published()]), "peft_folder");
}

/// A file in LyCORIS' way, with an alpha of 3 everywhere.
fn lycoris(model: &Model, shapes: impl Fn(&str, &[usize]) -> Vec<(&'static str, Vec<usize>)>) -> File {
    model.file(all, |name, shape| {
        let key = format!("lora_unet_{}", name.replace('.', "_"));
        // The fixture's keys have dots and no prefix.
        let value = |(role, shape): (&str, Vec<usize>)| {
            (format!("{key}.{role}"), hashed(&format!("{name}.{role}"), &shape, 0.5, 0.0))
        };
        let mut file: File = shapes(name, shape).into_iter().map(value).collect();
        file.insert(format!("{key}.alpha"), TensorData::new(vec![3f32], Vec::<usize>::new()));
        file
    })
}

#[test]
fn loha_equals_peft() {
    let model = Model::sd("loha_model");
    let file = lycoris(&model, |_, shape| {
        let (out, inner, flat) = (shape[0], shape[1], shape[1..].iter().product());
        if shape[2..] == [3, 3] {
            let core = vec![2, 2, 3, 3];
            let sides = [("hada_w1_a", out), ("hada_w1_b", inner), ("hada_w2_a", out), ("hada_w2_b", inner)];
            let sides = sides.into_iter().map(|(role, size)| (role, vec![2, size]));
            return sides.chain([("hada_t1", core.clone()), ("hada_t2", core)]).collect();
        }
        let (tall, wide) = (vec![out, 2], vec![2, flat]);
        let first = [("hada_w1_a", tall.clone()), ("hada_w1_b", wide.clone())];
        first.into_iter().chain([("hada_w2_a", tall), ("hada_w2_b", wide)]).collect()
    });
    check("loha", &model, &file, 1.0);
}

#[test]
fn lokr_equals_peft() {
    let model = Model::sd("lokr_model");
    let file = lycoris(&model, |name, shape| {
        let first = if shape[0].is_multiple_of(2) { 2 } else { 1 };
        let (out, inner, kernel) = (shape[0] / first, shape[1], &shape[2..]);
        let mut shapes = vec![("lokr_w1", vec![first, 1])];
        if name.contains(".ff.") {
            shapes = vec![("lokr_w1_a", vec![first, 2]), ("lokr_w1_b", vec![2, 1])];
        }
        if name.contains("conv1") {
            shapes.push(("lokr_w2", [&[out, inner], kernel].concat()));
        } else if kernel == [3, 3] {
            shapes.extend([("lokr_w2_a", vec![2, out]), ("lokr_w2_b", vec![2, inner])]);
            shapes.push(("lokr_t2", vec![2, 2, 3, 3]));
        } else {
            let flat = shape[1..].iter().product();
            shapes.extend([("lokr_w2_a", vec![out, 2]), ("lokr_w2_b", vec![2, flat])]);
        }
        shapes
    });
    check("lokr", &model, &file, 1.0);
}

#[test]
fn a_kernel_in_the_middle_equals_three_convolutions() {
    let model = Model::sd("middle_model");
    let file = model.file(all, |name, shape| {
        if shape.get(2) != Some(&3) {
            return File::new();
        }
        let key = format!("lora_unet_{}", name.replace('.', "_"));
        let shapes =
            [("down", vec![2, shape[1], 1, 1]), ("mid", vec![2, 2, 3, 3]), ("up", vec![shape[0], 2, 1, 1])];
        let mut file: File = shapes
            .into_iter()
            .map(|(role, shape)| {
                let key = format!("{key}.lora_{role}.weight");
                (key.clone(), hashed(&key, &shape, 0.5, 0.0))
            })
            .collect();
        file.insert(format!("{key}.alpha"), TensorData::new(vec![3f32], Vec::<usize>::new()));
        file
    });
    check("middle", &model, &file, 1.0);
}

/// Some trainers write a convolution of size 1 for a linear layer, and the other way round.
#[test]
fn matrices_and_kernels_of_size_one_are_the_same() {
    let model = Model::sd("sizes_model");
    let mut file = model.file(all, kohya);
    for (key, data) in &mut file {
        let shape = data.shape().to_vec();
        let shape = match shape.as_slice() {
            [a, b] => vec![*a, *b, 1, 1],
            [a, b, 1, 1] => vec![*a, *b],
            _ => continue,
        };
        assert!(!key.ends_with("alpha"));
        *data = TensorData::new(data.iter::<f32>().collect::<Vec<f32>>(), shape);
    }
    let lora = open("sizes", &file);
    assert_draws(&model.with(&[(&lora, 0.8)], &[&model.config.published()]), "kohya");
}
