//! Our own modules' files: parameters under their own names, in their own layout.

use super::error::suggest;
use super::{Report, WeightsError};
use crate::params;
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A rule that maps a key of the file to a parameter's name: literal replacements, applied in order.
pub type Rename<'a> = (&'a str, &'a str);

/// Writes a file whole or not at all: beside its place, flushed to the disk, then renamed.
///
/// # Errors
/// Names the file; the old one, if any, is as it was, and nothing is left beside it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    replace(path, |beside| {
        let mut file = File::create(beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    })
}

/// Writes a file beside its place and renames it, or removes it again.
pub(super) fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), WeightsError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".partial");
    let beside = PathBuf::from(beside);
    write(&beside).and_then(|()| fs::rename(&beside, path)).map_err(|source| {
        fs::remove_file(&beside).ok();
        WeightsError::Io { path: path.to_owned(), source }
    })
}

/// Writes named tensors as f32 safetensors with string metadata.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_tensors(
    path: &Path,
    tensors: &[(String, TensorData)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, data)| {
            let raw = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
            (name.as_str(), data.shape().to_vec(), raw)
        })
        .collect();
    let format = |error: safetensors::SafeTensorError| WeightsError::Format {
        path: path.to_owned(),
        message: error.to_string(),
    };
    let views = bytes
        .iter()
        .map(|(name, shape, raw)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), raw)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(format)?;
    let metadata: HashMap<String, String> = metadata.clone().into_iter().collect();
    let file = safetensors::serialize(views, Some(metadata)).map_err(format)?;
    write_atomically(path, &file)
}

/// Reads every tensor of a safetensors file, floats widened or narrowed to f32.
///
/// # Errors
/// Names the file; for a type that is not a float, the key and the type.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, TensorData>, WeightsError> {
    let bytes = fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| WeightsError::Format { path: path.to_owned(), message: error.to_string() })?;
    let (mut found, mut report) = (BTreeMap::new(), Report::default());
    for (name, view) in file.tensors() {
        match floats(&view) {
            Some(values) => {
                found.insert(name, TensorData::new(values, view.shape().to_vec()));
            }
            None => report.types.push((name, format!("{:?}", view.dtype()))),
        }
    }
    if report.is_empty() {
        return Ok(found);
    }
    let (used, expected) = (found.len(), found.len() + report.types.len());
    Err(WeightsError::Mismatch { path: path.to_owned(), used, expected, report: report.into() })
}

fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let raw = view.data();
    Some(match view.dtype() {
        Dtype::F32 => raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => raw.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => {
            raw.as_chunks::<2>().0.iter().map(|b| burn::tensor::f16::from_le_bytes(*b).to_f32()).collect()
        }
        Dtype::BF16 => {
            raw.as_chunks::<2>().0.iter().map(|b| burn::tensor::bf16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => return None,
    })
}

/// Saves a module's parameters under their own names, with metadata.
///
/// # Errors
/// As [`write_atomically`].
pub fn save<M: Module>(
    module: &M,
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let tensors: Vec<_> = params::named(module).into_iter().map(|p| (p.name, p.data)).collect();
    write_tensors(path, &tensors, metadata)
}

/// Loads a module's parameters, strictly: every key is used, after the renaming rules, or it is an error.
///
/// # Errors
/// [`WeightsError::Mismatch`] lists every missing, unexpected and misshapen parameter with its shape and the
/// nearest name. The module is consumed only on success in the sense that a clone stays as it was.
pub fn load<M: Module>(module: M, path: &Path, renames: &[Rename<'_>]) -> Result<M, WeightsError> {
    let mut report = Report::default();
    let mut file = rename(read_tensors(path)?, renames, &mut report);
    let wanted = params::named(&module);
    let expected = wanted.len();

    let mut taken = HashMap::new();
    for param in wanted {
        match file.remove(&param.name) {
            None => report.missing.push((param.name, param.data.shape().to_vec(), None)),
            Some(data) if data.shape() == param.data.shape() => {
                taken.insert(param.name, data);
            }
            Some(data) => {
                report.shapes.push((param.name, param.data.shape().to_vec(), data.shape().to_vec()));
            }
        }
    }
    report.unexpected.extend(file.iter().map(|(name, data)| (name.clone(), data.shape().to_vec(), None)));
    suggest(&mut report);
    if report.is_empty() {
        return Ok(module.map(&mut Fill { path: Vec::new(), values: taken }));
    }
    let (used, report) = (taken.len(), report.into());
    Err(WeightsError::Mismatch { path: path.to_owned(), used, expected, report })
}

/// Renames keys; of two that come to one name the second is reported, or it would vanish unread.
fn rename(
    file: BTreeMap<String, TensorData>,
    rules: &[Rename<'_>],
    report: &mut Report,
) -> BTreeMap<String, TensorData> {
    let mut renamed = BTreeMap::new();
    for (key, data) in file {
        let name = rules.iter().fold(key.clone(), |name, (from, to)| name.replace(from, to));
        match renamed.entry(name) {
            Entry::Vacant(free) => {
                free.insert(data);
            }
            Entry::Occupied(taken) => {
                let key = format!("{key} (renamed to {}, as another key is)", taken.key());
                report.unexpected.push((key, data.shape().to_vec(), None));
            }
        }
    }
    renamed
}

struct Fill {
    path: Vec<String>,
    values: HashMap<String, TensorData>,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.values.remove(&self.path.join(".")) else { return param };
        param.map(|old| {
            let value = Tensor::from_data(data, &old.device());
            if old.is_require_grad() { value.require_grad() } else { value }
        })
    }
}
