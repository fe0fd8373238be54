//! Weights saved by diffusers (`tools/fixtures_weights.py`), and damaged copies of them.

use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig};
use burn::nn::conv::{ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::nn::{PRelu, PReluConfig, PaddingConfig1d, PaddingConfig2d, RmsNorm, RmsNormConfig};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType, bf16, f16};
use canvas_core::params;
use canvas_core::weights::{
    Report, Rules, Source, WeightsError, load_published, read_tensors, save_published,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[derive(Module, Debug)]
struct Block {
    norm: RmsNorm,
    query: Linear,
}

/// An enum, whose variant PyTorch knows nothing of.
#[derive(Module, Debug)]
enum Norm {
    Layer(LayerNorm),
    Group(GroupNorm),
}

/// A layer of every kind.
#[derive(Module, Debug)]
pub struct Tiny {
    tokens: Embedding,
    input: Linear,
    norm: Norm,
    square: Linear,
    blocks: Vec<Block>,
    conv1: Conv1d,
    conv2: Conv2d,
    groups: GroupNorm,
    up: ConvTranspose2d,
    batch: BatchNorm,
    activation: PRelu,
    instance: InstanceNorm,
    conv3: Conv3d,
}

pub fn tiny(layout: LinearLayout) -> Tiny {
    let device = Device::flex();
    let linear = |from, to| LinearConfig::new(from, to).with_layout(layout);
    let block = || Block {
        norm: RmsNormConfig::new(6).init(&device),
        query: linear(6, 6).with_bias(false).init(&device),
    };
    let conv2 = Conv2dConfig::new([4, 6], [3, 1]).with_padding(PaddingConfig2d::Explicit(1, 0, 1, 0));
    Tiny {
        tokens: EmbeddingConfig::new(5, 4).init(&device),
        input: linear(4, 6).init(&device),
        norm: Norm::Layer(LayerNormConfig::new(6).init(&device)),
        square: linear(6, 6).init(&device),
        blocks: vec![block(), block()],
        conv1: Conv1dConfig::new(6, 4, 3).with_padding(PaddingConfig1d::Explicit(1, 1)).init(&device),
        conv2: conv2.init(&device),
        groups: GroupNormConfig::new(2, 6).init(&device),
        up: ConvTranspose2dConfig::new([6, 4], [2, 2]).with_stride([2, 2]).init(&device),
        batch: BatchNormConfig::new(4).init(&device),
        activation: PReluConfig::new().with_num_parameters(4).init(&device),
        instance: InstanceNormConfig::new(4).init(&device),
        conv3: Conv3dConfig::new([4, 2], [1, 2, 2]).init(&device),
    }
}

impl Tiny {
    fn answer(&self) -> Vec<f32> {
        let ids: Tensor<2, Int> = Tensor::from_ints([[0, 3, 1], [4, 2, 2]], &Device::flex());
        let x = self.input.forward(self.tokens.forward(ids));
        let x = match &self.norm {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Group(norm) => norm.forward(x),
        };
        let mut x = self.square.forward(x); // [2, 3, 6]
        for block in &self.blocks {
            x = x.clone() + block.query.forward(block.norm.forward(x)).tanh();
        }
        let x = self.conv1.forward(x.swap_dims(1, 2)).unsqueeze_dim::<4>(3); // [2, 4, 3, 1]
        let x = self.up.forward(self.groups.forward(self.conv2.forward(x))); // [2, 4, 6, 2]
        let x = self.instance.forward(self.activation.forward(self.batch.forward(x)));
        crate::host(&self.conv3.forward(x.unsqueeze_dim::<5>(2))) // [2, 2, 1, 5, 1]
    }
}

pub fn rules() -> Rules {
    Rules::new()
        .prefix("token_embedding", "tokens")
        .exact("proj_in.weight", "input.weight")
        .exact("proj_in.bias", "input.bias")
        .segments("transformer_blocks.{i}", "blocks.{i}")
        .segments("blocks.{i}.to_q", "blocks.{i}.query")
        .prefix("group_norm", "groups")
        .prefix("batch_norm", "batch")
        .prefix("instance_norm", "instance")
        .ignore("position_ids", "a buffer of 0, 1, 2, ...")
        .ignore("num_batches_tracked", "counts training steps")
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/published")
}

pub fn load(path: &Path, variant: Option<&str>, rules: &Rules) -> Result<(Tiny, Report), WeightsError> {
    load_published(tiny(LinearLayout::Row), &Source::open(path, variant)?, rules)
}

/// What goes wrong with a directory, without the directory's name.
fn refusal(folder: &Path) -> String {
    let shown = load(folder, None, &rules()).unwrap_err().to_string();
    assert!(shown.starts_with(&folder.display().to_string()), "{shown}");
    shown.replace(&format!("{}/", folder.display()), "")
}

#[track_caller]
pub fn assert_answers(module: &Tiny, name: &str) {
    let answers = read_tensors(&fixtures().join("answers.safetensors")).unwrap();
    let expected: Vec<f32> = answers[name].iter::<f32>().collect();
    let found = module.answer();
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
    let error = found.iter().zip(&expected).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest;
    println!("{name}: {error:.1e} of the largest value");
    assert!(error < 2e-6, "{name}: {error}");
}

pub fn bits(module: &Tiny) -> Vec<(String, Vec<u32>)> {
    let values = |data: TensorData| data.iter::<f32>().map(f32::to_bits).collect();
    params::named(module).into_iter().map(|param| (param.name, values(param.data))).collect()
}

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

/// A copy of the sharded fixture.
fn copy() -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(fixtures().join("sharded")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";
const SHARDS: [&str; 3] = [
    "diffusion_pytorch_model-00001-of-00003.safetensors",
    "diffusion_pytorch_model-00002-of-00003.safetensors",
    "diffusion_pytorch_model-00003-of-00003.safetensors",
];

/// What a copy says whose shard's tensors, or whose index, are changed.
fn after_change(shard: &str, change: impl Fn(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>)) -> String {
    let folder = copy();
    let path = folder.path().join(shard);
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(key, view)| (key, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(key, kind, shape, raw)| (key.as_str(), TensorView::new(*kind, shape.clone(), raw).unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    refusal(folder.path())
}

fn after_edit(from: &str, to: &str) -> String {
    let folder = copy();
    let path = folder.path().join(INDEX);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    refusal(folder.path())
}

#[test]
fn truncated_and_missing_shards_are_named() {
    let folder = copy();
    let path = folder.path().join(SHARDS[1]);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Source::open(folder.path(), None).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{}: not a whole safetensors file", SHARDS[1])),
            "{error}"
        );
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (expected, found) = (whole.len(), whole.len() - 1);
    let shown = refusal(folder.path());
    assert!(shown.contains(&format!("expected {expected} bytes, found {found}")), "{shown}");
    fs::remove_file(&path).unwrap();
    let shown = refusal(folder.path());
    assert!(
        shown.starts_with(&format!("{INDEX}: not a usable index of shards: shard {} does not", SHARDS[1]))
    );
}

#[test]
fn a_damaged_header_never_panics() {
    let folder = copy();
    let path = folder.path().join(SHARDS[0]);
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for place in 0..header {
        for byte in [0, b'"', b'9', b'}', 0xff] {
            let mut damaged = whole.clone();
            damaged[place] = byte;
            fs::write(&path, &damaged).unwrap();
            if let Ok(source) = Source::open(&path, None) {
                source.keys().for_each(|key| drop(source.read(key)));
            }
        }
    }
}

#[test]
fn an_index_that_its_shards_contradict_names_key_and_shards() {
    let usable = format!("{INDEX}: not a usable index of shards: ");
    let twice = after_change(SHARDS[2], |tensors| {
        tensors.push(("proj_in.bias".into(), Dtype::F32, vec![1], vec![0; 4]));
    });
    assert!(twice.starts_with(&format!("{usable}proj_in.bias: ")), "{twice}");
    assert!(twice.contains(SHARDS[2]), "{twice}");
    let unlisted = after_change(SHARDS[0], |tensors| {
        tensors.push(("extra".into(), Dtype::F32, vec![1], vec![0; 4]));
    });
    assert_eq!(unlisted, format!("{usable}extra: expected nowhere, found in shard {}", SHARDS[0]));
    let absent = after_change(SHARDS[2], |tensors| tensors.retain(|tensor| tensor.0 != "activation.weight"));
    let expected = format!("{usable}activation.weight: expected in shard {}, not found there", SHARDS[2]);
    assert_eq!(absent, expected);
    let size = after_edit("4160", "4161");
    assert_eq!(size, format!("{usable}total_size: expected 4161 bytes, found 4160 in the shards"));
}

#[test]
fn an_index_that_is_none_is_named() {
    let usable = format!("{INDEX}: not a usable index of shards: ");
    assert!(after_edit("{", "").starts_with(&usable));
    assert!(after_edit("weight_map", "weights").contains("missing field `weight_map`"));
    let shown = after_edit("\"conv1.bias\"", "\"activation.weight\"");
    assert!(shown.contains("activation.weight: listed twice"), "{shown}");
    let shown = after_edit(SHARDS[2], "../other.safetensors");
    assert!(shown.contains("expected the name of a file beside the index, found \"../other"), "{shown}");
    assert!(after_edit(&format!("\"{}\"", SHARDS[2]), "7").contains("expected a string"));
}

#[test]
fn shapes_and_types_that_differ_are_named_with_the_shard() {
    let shown = after_change(SHARDS[2], |tensors| {
        tensors.iter_mut().filter(|t| t.0 == "conv3.weight").for_each(|t| t.2 = vec![4, 2, 1, 2, 2]);
    });
    let differs =
        format!("\n  conv3.weight (in {}): expected shape [2, 4, 1, 2, 2], found [4, 2, 1, 2, 2]", SHARDS[2]);
    assert!(shown.starts_with(INDEX) && shown.contains(&differs), "{shown}");
    let shown = after_change(SHARDS[2], |tensors| {
        // As many bytes, or the total size would differ first.
        tensors.iter_mut().filter(|t| t.0 == "conv3.bias").for_each(|t| (t.1, t.2) = (Dtype::I8, vec![16]));
    });
    let differs = format!("\n  conv3.bias (in {}): expected f16, bf16, f32 or f64, found I8", SHARDS[2]);
    assert!(shown.contains(&differs), "{shown}");
}

#[test]
fn a_directory_with_no_weights_or_several_sets_says_what_it_holds() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let shown = Source::open(folder.path(), None).unwrap_err().to_string();
    assert!(shown.contains("\"model.safetensors\"") && shown.ends_with("found [\"config.json\"]"), "{shown}");
    let shown = Source::open(&fixtures().join("whole"), Some("fp8")).unwrap_err().to_string();
    assert!(shown.contains("model.fp8.safetensors") && shown.contains("fp16"), "{shown}");
    let folder = copy();
    fs::write(folder.path().join("model.safetensors"), "").unwrap();
    let shown = Source::open(folder.path(), None).unwrap_err().to_string();
    assert!(shown.contains(&format!("found [{INDEX:?}, \"model.safetensors\"]")), "{shown}");
    let error = Source::open(&folder.path().join("nowhere"), None).unwrap_err();
    assert!(matches!(error, WeightsError::Io { .. }), "{error}");
    let source = Source::open(&fixtures().join("whole"), None).unwrap();
    let shown = source.read("nothing").unwrap_err().to_string();
    assert!(shown.contains("nothing: expected a tensor of this name"), "{shown}");
    assert!(source.read("position_ids").unwrap_err().to_string().contains("found I64"));
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
