//! Published weights: one file, a set of shards with an index, or the directory that holds them.

use super::WeightsError;
use super::index::Index;
use burn::prelude::*;
use burn::tensor::{DType, Element, bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The names under which diffusers and transformers keep a component's weights.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// As large as the reference implementation lets a header be.
const LONGEST_HEADER: u64 = 100_000_000;

/// Values converted at a time.
const CHUNK: usize = 1 << 16;

/// Published weights, opened: every key with its shape, type and file. Values stay on the disk until they are read.
///
/// Files are not mapped into memory, which needs `unsafe` code; a tensor is read in pieces of 64 Ki values
/// (or one row, where it is to be transposed) straight into its final type and layout. So loading holds the
/// module and one such piece.
#[derive(Debug)]
pub struct Source {
    place: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    /// Where the values begin.
    start: u64,
    /// What the header says beside its tensors.
    metadata: HashMap<String, String>,
}

impl Source {
    /// Opens a `.safetensors` file, a `*.safetensors.index.json` with the shards beside it, or a directory that
    /// holds one of them under diffusers' or transformers' name. In a directory `variant` (such as `fp16`)
    /// chooses among the sets that lie side by side; a path of a file says itself which one it is.
    ///
    /// # Errors
    /// Names the file and the key, what was expected and what was found: a file that is not whole, a shard that
    /// is missing, a key that is in another shard than the index says, in two, in none or not in the index, a
    /// total size that is not the tensors', a directory with none or several sets of weights.
    pub fn open(path: &Path, variant: Option<&str>) -> Result<Self, WeightsError> {
        let path = if path.is_dir() { choose(path, variant)? } else { path.to_owned() };
        if path.extension().is_some_and(|end| end == "json") {
            return Self::sharded(path);
        }
        let (shard, tensors) = Shard::open(&path)?;
        let tensors = tensors.into_iter().map(|(key, info)| (key, (0, info))).collect();
        Ok(Self { place: path, shards: vec![shard], tensors })
    }

    /// The file, or the index.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Every key, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, as it is in the file.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(|(_, info)| info.shape.as_slice())
    }

    /// Type of a tensor in the file, as safetensors names it: `F16`, `BF16`, `F32`, `I64`.
    pub fn kind(&self, key: &str) -> Option<String> {
        self.tensors.get(key).map(|(_, info)| format!("{:?}", info.dtype))
    }

    pub(super) fn dtype(&self, key: &str) -> Option<Dtype> {
        self.tensors.get(key).map(|(_, info)| info.dtype)
    }

    /// The file that holds a tensor.
    pub fn file(&self, key: &str) -> Option<&Path> {
        self.tensors.get(key).map(|(shard, _)| self.shards[*shard].path.as_path())
    }

    /// What the file's header (or the first shard's that has it) says under a key of its metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.shards.iter().find_map(|shard| shard.metadata.get(key)).map(String::as_str)
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
        self.read_as(key, DType::F32, false)
    }

    /// Reads one tensor in another float type, a matrix transposed if asked to.
    pub(super) fn read_as(&self, key: &str, to: DType, transposed: bool) -> Result<TensorData, WeightsError> {
        let Some((shard, info)) = self.tensors.get(key) else {
            return Err(WeightsError::Tensor {
                path: self.place.clone(),
                key: key.to_owned(),
                expected: "a tensor of this name".to_owned(),
                found: format!("{} others", self.tensors.len()),
            });
        };
        let shard = &self.shards[*shard];
        let error = |expected: &str, found: String| WeightsError::Tensor {
            path: shard.path.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        if !is_float(info.dtype) {
            return Err(error("f16, bf16, f32 or f64", format!("{:?}", info.dtype)));
        }
        let read = match to {
            DType::F64 => shard.values::<f64>(info, transposed, |value| value),
            DType::F16 => shard.values(info, transposed, f16::from_f64),
            DType::BF16 => shard.values(info, transposed, bf16::from_f64),
            _ => shard.values(info, transposed, |value| value as f32),
        };
        read.map_err(|found| error("readable values", found.to_string()))
    }

    /// Reads the one number of a tensor, which may be an integer.
    pub(super) fn scalar(&self, key: &str) -> Result<f64, WeightsError> {
        let error = |expected: &str, found: String| WeightsError::Tensor {
            path: self.place.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let (shard, info) = self.tensors.get(key).ok_or_else(|| error("a number", "no tensor".to_owned()))?;
        let whole = matches!(info.dtype, Dtype::I64 | Dtype::I32);
        if info.shape.iter().product::<usize>() != 1 || !(whole || is_float(info.dtype)) {
            return Err(error("one number", format!("{:?} {:?}", info.dtype, info.shape)));
        }
        let read = self.shards[*shard].values::<f64>(info, false, |value| value);
        let data = read.map_err(|found| error("a readable value", found.to_string()))?;
        Ok(data.iter::<f64>().sum())
    }

    fn sharded(path: PathBuf) -> Result<Self, WeightsError> {
        let error = |message: String| WeightsError::Index { path: path.clone(), message };
        let text = fs::read(&path).map_err(|source| WeightsError::Io { path: path.clone(), source })?;
        let index: Index = serde_json::from_slice(&text).map_err(|found| error(found.to_string()))?;
        let said = index.shards().map_err(&error)?;
        let (mut shards, mut tensors) = (Vec::new(), BTreeMap::<String, (usize, TensorInfo)>::new());
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
            for (key, info) in found {
                if let Some((other, _)) = tensors.get(&key) {
                    let other: &Shard = &shards[*other];
                    return Err(error(format!("{key}: found in two shards, {} and {name}", other.name())));
                }
                if !keys.contains(key.as_str()) {
                    let expected = index.place(&key).map_or("nowhere".to_owned(), |at| format!("in {at}"));
                    return Err(error(format!("{key}: expected {expected}, found in shard {name}")));
                }
                tensors.insert(key, (shards.len(), info));
            }
            shards.push(shard);
        }
        let total: u64 = tensors.values().map(|(_, info)| bytes(info)).sum();
        match index.total_size() {
            Some(size) if size != total as f64 => {
                Err(error(format!("total_size: expected {size} bytes, found {total} in the shards")))
            }
            _ => Ok(Self { place: path, shards, tensors }),
        }
    }
}

/// The one set of weights in a directory.
fn choose(folder: &Path, variant: Option<&str>) -> Result<PathBuf, WeightsError> {
    let names = STEMS.iter().flat_map(|stem| match variant {
        None => vec![format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")],
        Some(variant) => {
            vec![format!("{stem}.{variant}.safetensors"), format!("{stem}.safetensors.index.{variant}.json")]
        }
    });
    let expected: Vec<String> = names.collect();
    let mut found: Vec<String> =
        expected.iter().filter(|name| folder.join(name).is_file()).cloned().collect();
    if let [one] = found.as_slice() {
        return Ok(folder.join(one));
    }
    if found.is_empty() {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|source| WeightsError::Io { path: folder.to_owned(), source })?;
        found = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        found.sort();
    }
    Err(WeightsError::Directory { path: folder.to_owned(), expected, found })
}

pub(super) fn is_float(kind: Dtype) -> bool {
    matches!(kind, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

fn bytes(info: &TensorInfo) -> u64 {
    (info.data_offsets.1 - info.data_offsets.0) as u64
}

impl Shard {
    /// Reads the header only, and compares the file's length with it.
    fn open(path: &Path) -> Result<(Self, BTreeMap<String, TensorInfo>), WeightsError> {
        let broken = |message: String| WeightsError::Format { path: path.to_owned(), message };
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < 8 {
            return Err(broken(format!("{length} bytes")));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(io)?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER || size > length - 8 {
            return Err(broken(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&header).map_err(|found| broken(found.to_string()))?;
        let expected = 8 + size + header.data_len() as u64;
        if expected != length {
            return Err(broken(format!("expected {expected} bytes, found {length}")));
        }
        let tensors = header.tensors().into_iter().map(|(key, info)| (key, info.clone())).collect();
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok((Self { path: path.to_owned(), file, start: 8 + size, metadata }, tensors))
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Values in their final type and order, read piece by piece.
    fn values<T: Element + Default>(
        &self,
        info: &TensorInfo,
        transposed: bool,
        cast: impl Fn(f64) -> T,
    ) -> io::Result<TensorData> {
        let mut shape = info.shape.clone();
        let count = shape.iter().product();
        let (rows, columns) = if transposed { (shape[0], shape[1]) } else { (count, 1) };
        let size = info.dtype.bitsize() / 8;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + info.data_offsets.0 as u64))?;

        let mut values = vec![T::default(); count];
        let (mut raw, mut wide) = (Vec::new(), Vec::new());
        let step = (CHUNK / columns.max(1)).max(1);
        for first in (0..rows).step_by(step) {
            let here = step.min(rows - first);
            raw.resize(here * columns * size, 0);
            file.read_exact(&mut raw)?;
            widen(info.dtype, &raw, &mut wide);
            for column in 0..columns {
                let to = &mut values[column * rows + first..][..here];
                for (row, to) in to.iter_mut().enumerate() {
                    *to = cast(wide[row * columns + column]);
                }
            }
        }
        if transposed {
            shape.reverse();
        }
        Ok(TensorData::new(values, shape))
    }
}

/// Little-endian numbers as f64, which holds all floats and all small integers exactly.
fn widen(kind: Dtype, raw: &[u8], wide: &mut Vec<f64>) {
    wide.clear();
    match kind {
        Dtype::F64 => wide.extend(raw.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b))),
        Dtype::F32 => wide.extend(raw.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)))),
        Dtype::F16 => {
            wide.extend(raw.as_chunks().0.iter().map(|b| f64::from(f16::from_le_bytes(*b).to_f32())));
        }
        Dtype::BF16 => {
            wide.extend(raw.as_chunks().0.iter().map(|b| f64::from(bf16::from_le_bytes(*b).to_f32())));
        }
        Dtype::I64 => wide.extend(raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64)),
        Dtype::I32 => wide.extend(raw.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b)))),
        _ => unreachable!("checked to be a float"),
    }
}
