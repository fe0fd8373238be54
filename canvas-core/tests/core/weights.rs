use crate::with_damaged_headers;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::init::zero_linear;
use canvas_core::params;
use canvas_core::weights::{WeightsError, load, read_tensors, save, write_atomically, write_tensors};
use safetensors::{Dtype, tensor::TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A small network with a list and a layer that starts at zero.
#[derive(Module, Debug)]
pub struct Small {
    first: Linear,
    norms: Vec<LayerNorm>,
    zero: Linear,
}

pub fn small() -> Small {
    let device = Device::flex();
    let norm = || LayerNormConfig::new(3).init(&device);
    let first = LinearConfig::new(2, 3).init(&device);
    params::realise(Small { first, norms: vec![norm(), norm()], zero: zero_linear(3, 2, &device) })
}

type Tensors = Vec<(String, TensorData)>;

fn tensors(module: &Small) -> Tensors {
    params::named(module).into_iter().map(|param| (param.name, param.data)).collect()
}

fn bits(module: &Small) -> Vec<u32> {
    tensors(module).iter().flat_map(|(_, data)| data.iter::<f32>().map(f32::to_bits)).collect()
}

/// What loading a file with these tensors says.
fn refusal(tensors: &Tensors) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    write_tensors(&path, tensors, &BTreeMap::new()).unwrap();
    let shown = load(small(), &path, &[]).unwrap_err().to_string();
    shown.strip_prefix(&format!("{}: ", path.display())).expect("the file's name comes first").to_owned()
}

/// A file of one tensor of any type.
fn write_raw(path: &Path, name: &str, kind: Dtype, shape: &[usize], raw: &[u8]) {
    let view = TensorView::new(kind, shape.to_vec(), raw).unwrap();
    fs::write(path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
}

#[test]
fn a_round_trip_is_exact_to_the_bit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let module = params::fill_by_formula(small());
    let metadata = BTreeMap::from([("step".to_owned(), "7".to_owned())]);
    save(&module, &path, &metadata).unwrap();
    let loaded = load(small(), &path, &[]).unwrap();
    assert_eq!(bits(&loaded), bits(&module));
    assert_ne!(bits(&small()), bits(&module));
    let ids = |module| params::named(module).into_iter().map(|param| param.id).collect::<Vec<_>>();
    assert_eq!(ids(&loaded), ids(&module), "identities stay");
    let bytes = fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["step"], "7");
    // The same weights make the same bytes, or no checkpoint could be compared.
    save(&loaded, &path, &metadata).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn loaded_parameters_still_learn() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let device = Device::flex().autodiff();
    let module = LinearConfig::new(2, 1).init(&device);
    save(&module, &path, &BTreeMap::new()).unwrap();
    let loaded = load(LinearConfig::new(2, 1).init(&device), &path, &[]).unwrap();
    let gradients = loaded.forward(Tensor::<2>::ones([1, 2], &device)).sum().backward();
    assert!(loaded.weight.val().grad(&gradients).is_some());
}

#[test]
fn every_truncated_file_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    save(&small(), &path, &BTreeMap::new()).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = load(small(), &path, &[]).unwrap_err();
        assert!(matches!(error, WeightsError::Format { .. }), "{length} bytes: {error}");
        assert!(error.to_string().contains("w.safetensors: not a whole safetensors file"), "{error}");
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    assert!(load(small(), &path, &[]).is_err(), "bytes after the end");
}

#[test]
fn a_damaged_header_never_panics() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    save(&small(), &path, &BTreeMap::new()).unwrap();
    with_damaged_headers(&path, || {
        // Trailing blanks of the header may change without harm; nothing may load as another shape.
        if let Ok(module) = load(small(), &path, &[]) {
            assert_eq!(bits(&module).len(), bits(&small()).len());
        }
    });
}

#[test]
fn missing_and_unexpected_keys_are_named_with_shape_and_nearest_name() {
    let mut file = tensors(&small());
    file[0].0 = "first.wieght".into();
    assert_eq!(
        refusal(&file),
        "does not fit this model (7 of 8 parameters fit)\n  \
         missing first.weight [2, 3]; nearest: first.wieght\n  \
         unexpected first.wieght [2, 3]; nearest: first.weight"
    );
    let mut file = tensors(&small());
    file.remove(5);
    assert_eq!(refusal(&file), "does not fit this model (7 of 8 parameters fit)\n  missing norms.1.beta [3]");
    let mut file = tensors(&small());
    file.push(("q".into(), TensorData::new(vec![0f32; 4], [4, 1])));
    assert_eq!(refusal(&file), "does not fit this model (8 of 8 parameters fit)\n  unexpected q [4, 1]");
}

#[test]
fn shapes_that_differ_are_named_even_with_as_many_values() {
    let mut file = tensors(&small());
    file[0].1 = TensorData::new(vec![0f32; 6], [3, 2]);
    file[1].1 = TensorData::new(vec![0f32; 3], [3, 1]);
    assert_eq!(
        refusal(&file),
        "does not fit this model (6 of 8 parameters fit)\n  \
         first.weight: expected shape [2, 3], found [3, 2]\n  \
         first.bias: expected shape [3], found [3, 1]"
    );
}

#[test]
fn types_that_are_not_floats_are_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    write_raw(&path, "first.weight", Dtype::I32, &[2], &[0; 8]);
    for error in [read_tensors(&path).unwrap_err(), load(small(), &path, &[]).unwrap_err()] {
        let shown = error.to_string();
        assert!(shown.contains("first.weight: expected f16, bf16, f32 or f64, found I32"), "{shown}");
    }
}

#[test]
fn other_floats_are_widened_or_narrowed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let read = |kind, raw: &[u8]| {
        write_raw(&path, "x", kind, &[3], raw);
        read_tensors(&path).unwrap()["x"].iter::<f32>().collect::<Vec<f32>>()
    };
    let wide: Vec<u8> = [1.5f64, -2.0, 0.1].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(Dtype::F64, &wide), [1.5, -2.0, 0.1]);
    // f16: 1.5 = 0x3e00, -2 = 0xc000, the smallest subnormal 2^-24 = 0x0001.
    let half: Vec<u8> = [0x3e00u16, 0xc000, 0x0001].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(Dtype::F16, &half), [1.5, -2.0, 2f32.powi(-24)]);
    // bf16 is the upper half of an f32.
    let brain: Vec<u8> = [1.5f32, -2.0, 1e30].iter().flat_map(|v| v.to_le_bytes()[2..].to_vec()).collect();
    let expected = f32::from_bits(1e30f32.to_bits() & 0xffff_0000);
    assert_eq!(read(Dtype::BF16, &brain), [1.5, -2.0, expected]);
}

#[test]
fn renaming_rules_apply_in_order() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let module = params::fill_by_formula(small());
    let foreign = |name: &str| name.replace("norms.", "model.ln_").replace("first", "model.in_proj");
    let file: Tensors = tensors(&module).into_iter().map(|(name, data)| (foreign(&name), data)).collect();
    write_tensors(&path, &file, &BTreeMap::new()).unwrap();
    let rules = [("model.", ""), ("ln_", "norms."), ("in_proj", "first")];
    assert_eq!(bits(&load(small(), &path, &rules).unwrap()), bits(&module));
    assert!(load(small(), &path, &rules[..2]).unwrap_err().to_string().contains("unexpected in_proj.bias"));
}

#[test]
fn two_keys_renamed_to_one_name_are_an_error_that_names_the_loser() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let mut file = tensors(&small());
    file.push(("ema.first.bias".into(), TensorData::new(vec![9f32; 3], [3])));
    write_tensors(&path, &file, &BTreeMap::new()).unwrap();
    let shown = load(small(), &path, &[("ema.", "")]).unwrap_err().to_string();
    assert!(shown.contains("unexpected") && shown.contains("first.bias") && shown.contains("[3]"), "{shown}");
}

#[test]
fn a_refused_file_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let mut file = tensors(&params::fill_by_formula(small()));
    file.pop();
    write_tensors(&path, &file, &BTreeMap::new()).unwrap();
    let module = small();
    let before = bits(&module);
    assert!(load(module.clone(), &path, &[]).is_err());
    assert_eq!(bits(&module), before);
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w");
    write_atomically(&path, b"a long first text").unwrap();
    write_atomically(&path, b"second").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    // What a killed run left is overwritten.
    fs::write(folder.path().join("w.partial"), b"left by a killed run, and longer").unwrap();
    write_atomically(&path, b"third").unwrap();
    assert_eq!((fs::read(&path).unwrap(), names(&folder)), (b"third".to_vec(), vec!["w".to_owned()]));
}

#[test]
fn a_folder_that_does_not_exist_or_a_target_that_is_a_folder_is_named() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("nowhere").join("w");
    let error = write_atomically(&missing, b"x").unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: ", missing.display())), "{error}");
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let error = write_atomically(&taken, b"x").unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: ", taken.display())), "{error}");
    assert_eq!(names(&folder), ["taken"]);
    let error = load(small(), &missing, &[]).unwrap_err();
    assert!(matches!(error, WeightsError::Io { .. }) && error.to_string().contains("nowhere"), "{error}");
}

/// A disk that is full: the file beside the target leads to a device that refuses every byte.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    save(&small(), &path, &BTreeMap::new()).unwrap();
    let old = fs::read(&path).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("w.safetensors.partial")).unwrap();
    let error = save(&params::fill_by_formula(small()), &path, &BTreeMap::new()).unwrap_err();
    let WeightsError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    assert_eq!((fs::read(&path).unwrap(), names(&folder)), (old, vec!["w.safetensors".to_owned()]));
}
