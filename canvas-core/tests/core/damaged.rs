//! Published weights that are damaged, incomplete or none: what is said of them.

use crate::tiny::{fixtures, load, rules};
use crate::with_damaged_headers;
use canvas_core::weights::{Source, WeightsError};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// What goes wrong with a directory, without the directory's name.
fn refusal(folder: &Path) -> String {
    let shown = load(folder, None, &rules()).unwrap_err().to_string();
    assert!(shown.starts_with(&folder.display().to_string()), "{shown}");
    shown.replace(&format!("{}/", folder.display()), "")
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
    with_damaged_headers(&path, || {
        if let Ok(source) = Source::open(&path, None) {
            source.keys().for_each(|key| drop(source.read(key)));
        }
    });
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
