//! Published weights: one file, a set of shards with an index, or the directory that holds them.

use super::WeightsError;
use super::index::Index;
use super::shard::{Shard, Stored, is_float};
use burn::prelude::*;
use burn::tensor::DType;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The names under which diffusers and transformers keep a component's weights, by the kind of file.
const STEMS: [(&str, [&str; 2]); 2] = [
    ("safetensors", ["diffusion_pytorch_model", "model"]),
    ("bin", ["diffusion_pytorch_model", "pytorch_model"]),
];

/// Published weights, opened: every key with its shape, type and file. Values stay on the disk until they are read.
///
/// Files are not mapped into memory, which needs `unsafe` code; a tensor is read in pieces of 64 Ki values
/// (or one row, where it is to be transposed) straight into its final type and layout. So loading holds the
/// module and one such piece. (A tensor that PyTorch saved with steps of its own is read whole.)
#[derive(Clone, Debug)]
pub struct Source {
    place: PathBuf,
    /// What its keys begin with in the file.
    prefix: String,
    shards: Arc<[Shard]>,
    tensors: BTreeMap<String, (usize, Stored)>,
}

impl Source {
    /// Opens a file, a `*.index.json` with the shards beside it, or a directory that holds one of them under
    /// diffusers' or transformers' name. In a directory `variant` (such as `fp16`) chooses among the sets that lie
    /// side by side, and safetensors are taken before PyTorch's own files; a path of a file says itself which one
    /// it is.
    ///
    /// Files that end in `.bin`, `.pt`, `.pth` or `.ckpt` are read as PyTorch's: their tensors, those under
    /// `state_dict` where there is such an entry, and those of dictionaries in it as `name.key`. What is no tensor is
    /// left out, and no code of such a file is run: one that asks for more than tensors and dictionaries is refused.
    ///
    /// # Errors
    /// Names the file and the key, what was expected and what was found: a file that is not whole, a shard that
    /// is missing, a key that is in another shard than the index says, in two, in none or not in the index, a
    /// total size that is not the tensors', a directory with none or several sets of weights, a PyTorch file that
    /// asks for anything but tensors.
    pub fn open(path: &Path, variant: Option<&str>) -> Result<Self, WeightsError> {
        let path = if path.is_dir() { choose(path, variant)? } else { path.to_owned() };
        if path.extension().is_some_and(|end| end == "json") {
            return Self::sharded(path);
        }
        let (shard, tensors) = Shard::open(&path)?;
        let tensors = tensors.into_iter().map(|(key, stored)| (key, (0, stored))).collect();
        Ok(Self { place: path, prefix: String::new(), shards: [shard].into(), tensors })
    }

    /// The keys that begin with a prefix, without it: `part("model.diffusion_model.")` is the UNet of a file that holds
    /// more. Errors and reports name whole keys.
    pub fn part(&self, prefix: &str) -> Self {
        let inside = |(key, stored): (&String, &(usize, Stored))| {
            Some((key.strip_prefix(prefix)?.to_owned(), stored.clone()))
        };
        Self {
            place: self.place.clone(),
            prefix: self.whole(prefix),
            shards: self.shards.clone(),
            tensors: self.tensors.iter().filter_map(inside).collect(),
        }
    }

    /// The file, or the index.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// What its keys begin with in the file; empty for all of a file.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A key as the file has it.
    pub fn whole(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Every key, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, as it is in the file.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(|(_, stored)| stored.shape.as_slice())
    }

    /// Shape of a tensor that must be there, with this many axes.
    ///
    /// # Errors
    /// Names the file and the key, and the shape if there is one.
    pub fn dims<const D: usize>(&self, key: &str) -> Result<[usize; D], WeightsError> {
        let expected = format!("a tensor with {D} axes");
        let Some(shape) = self.shape(key) else { return Err(self.refuse(key, &expected, "none")) };
        shape.try_into().map_err(|_| self.refuse(key, &expected, &format!("the shape {shape:?}")))
    }

    /// An error about a tensor of this source: what a reader of its shapes expected and found.
    pub fn refuse(&self, key: &str, expected: &str, found: &str) -> WeightsError {
        WeightsError::Tensor {
            path: self.file(key).unwrap_or(&self.place).to_owned(),
            key: self.whole(key),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }

    /// Type of a tensor in the file, as safetensors names it: `F16`, `BF16`, `F32`, `I64`.
    pub fn kind(&self, key: &str) -> Option<String> {
        self.dtype(key).map(|kind| format!("{kind:?}"))
    }

    pub(super) fn dtype(&self, key: &str) -> Option<Dtype> {
        self.stored(key).map(|stored| stored.dtype)
    }

    pub(super) fn stored(&self, key: &str) -> Option<&Stored> {
        self.tensors.get(key).map(|(_, stored)| stored)
    }

    /// The file that holds a tensor.
    pub fn file(&self, key: &str) -> Option<&Path> {
        self.tensors.get(key).map(|(shard, _)| self.shards[*shard].path.as_path())
    }

    /// Whether the weights lie in several files.
    pub fn is_sharded(&self) -> bool {
        self.place.extension().is_some_and(|end| end == "json")
    }

    /// Reads one tensor of floats, in the file's layout, as f32.
    ///
    /// # Errors
    /// Names the file and the key: none of that name, not a float of 16, 32 or 64 bits, or unreadable.
    pub fn read(&self, key: &str) -> Result<TensorData, WeightsError> {
        self.read_as(key, Stored::clone, DType::F32, false)
    }

    /// Reads what a view leaves of one tensor in another float type, a matrix transposed if asked to.
    pub(super) fn read_as(
        &self,
        key: &str,
        view: impl FnOnce(&Stored) -> Stored,
        to: DType,
        transposed: bool,
    ) -> Result<TensorData, WeightsError> {
        let Some((shard, stored)) = self.tensors.get(key) else {
            let found = format!("{} others", self.tensors.len());
            return Err(self.refuse(key, "a tensor of this name", &found));
        };
        if !is_float(stored.dtype) {
            return Err(self.refuse(key, "f16, bf16, f32 or f64", &format!("{:?}", stored.dtype)));
        }
        let read = self.shards[*shard].read(&view(stored), to, transposed);
        read.map_err(|found| self.refuse(key, "readable values", &found.to_string()))
    }

    fn sharded(path: PathBuf) -> Result<Self, WeightsError> {
        let error = |message: String| WeightsError::Index { path: path.clone(), message };
        let text = fs::read(&path).map_err(|source| WeightsError::Io { path: path.clone(), source })?;
        let index: Index = serde_json::from_slice(&text).map_err(|found| error(found.to_string()))?;
        let said = index.shards().map_err(&error)?;
        let (mut shards, mut tensors) = (Vec::new(), BTreeMap::<String, (usize, Stored)>::new());
        for (name, keys) in said {
            let file = path.with_file_name(name);
            if !file.is_file() {
                return Err(error(format!(
                    "shard {name} does not exist; {} keys should be in it",
                    keys.len()
                )));
            }
            let (shard, found) = Shard::open(&file)?;
            if let Some(key) = keys.iter().find(|key| !found.contains_key(**key)) {
                return Err(error(format!("{key}: expected in shard {name}, not found there")));
            }
            for (key, stored) in found {
                if let Some((other, _)) = tensors.get(&key) {
                    let other: &Shard = &shards[*other];
                    return Err(error(format!("{key}: found in two shards, {} and {name}", other.name())));
                }
                if !keys.contains(key.as_str()) {
                    let expected = index.place(&key).map_or("nowhere".to_owned(), |at| format!("in {at}"));
                    return Err(error(format!("{key}: expected {expected}, found in shard {name}")));
                }
                tensors.insert(key, (shards.len(), stored));
            }
            shards.push(shard);
        }
        let total: u64 = tensors.values().map(|(_, stored)| stored.bytes()).sum();
        match index.total_size() {
            Some(size) if size != total as f64 => {
                Err(error(format!("total_size: expected {size} bytes, found {total} in the shards")))
            }
            _ => Ok(Self { place: path, prefix: String::new(), shards: shards.into(), tensors }),
        }
    }
}

/// The one set of weights in a directory: of PyTorch's own files only where there are no safetensors.
fn choose(folder: &Path, variant: Option<&str>) -> Result<PathBuf, WeightsError> {
    let names = |(end, stems): (&str, [&str; 2])| {
        let both = |stem: &str| match variant {
            None => [format!("{stem}.{end}"), format!("{stem}.{end}.index.json")],
            Some(variant) => {
                [format!("{stem}.{variant}.{end}"), format!("{stem}.{end}.index.{variant}.json")]
            }
        };
        stems.map(both).concat()
    };
    let present = |names: &[String]| -> Vec<String> {
        names.iter().filter(|name| folder.join(name).is_file()).cloned().collect()
    };
    let kinds = STEMS.map(names);
    let mut found = kinds.iter().map(|names| present(names)).find(|set| !set.is_empty()).unwrap_or_default();
    if let [one] = found.as_slice() {
        return Ok(folder.join(one));
    }
    if found.is_empty() {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|source| WeightsError::Io { path: folder.to_owned(), source })?;
        found = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        found.sort();
    }
    Err(WeightsError::Directory { path: folder.to_owned(), expected: kinds.concat(), found })
}
