//! One file of weights: which tensors lie where in it, and reading them.

use super::{WeightsError, torch};
use burn::prelude::*;
use burn::tensor::{DType, Element, bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// As large as the reference implementation lets a header be.
const LONGEST_HEADER: u64 = 100_000_000;

/// Values converted at a time.
const CHUNK: usize = 1 << 16;

/// Endings of files that PyTorch's `torch.save` writes.
const TORCH: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// Where a tensor lies in its file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Place of the first value in the file, in bytes.
    pub start: u64,
    /// Steps of each axis in values; none for rows one behind the other.
    pub strides: Option<Vec<usize>>,
}

impl Stored {
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        (self.count() * self.width()) as u64
    }

    /// Bytes of a value.
    pub fn width(&self) -> usize {
        self.dtype.bitsize() / 8
    }

    /// One of several equal parts along the first axis.
    pub fn part(mut self, index: usize, of: usize) -> Self {
        if of > 1 {
            self.shape[0] /= of;
            let step = self.strides.as_ref().map_or(self.shape[1..].iter().product(), |strides| strides[0]);
            self.start += (index * self.shape[0] * step * self.width()) as u64;
        }
        self
    }

    /// The last slice along an axis, without the axis.
    pub fn last_slice(mut self, axis: usize) -> Self {
        let steps = (0..self.shape.len()).map(|axis| self.shape[axis + 1..].iter().product());
        let mut strides = self.strides.take().unwrap_or_else(|| steps.collect());
        let (count, step) = (self.shape.remove(axis), strides.remove(axis));
        self.start += (count.saturating_sub(1) * step * self.width()) as u64;
        self.strides = Some(strides);
        self
    }

    /// Without axes of one value behind the second.
    pub fn matrix(mut self) -> Self {
        while self.shape.len() > 2 && self.shape.last() == Some(&1) {
            self.shape.pop();
            if let Some(strides) = &mut self.strides {
                strides.pop();
            }
        }
        self
    }
}

#[derive(Debug)]
pub(super) struct Shard {
    pub path: PathBuf,
    /// Shared by the parts of a source, which may be read in several threads.
    file: Mutex<File>,
    /// What the header says beside its tensors.
    pub metadata: HashMap<String, String>,
}

impl Shard {
    /// Reads what the file says of its tensors, and compares its length with that.
    pub fn open(path: &Path) -> Result<(Self, BTreeMap<String, Stored>), WeightsError> {
        let mut file =
            File::open(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
        let end = path.extension().map(|end| end.to_string_lossy().to_lowercase());
        let (tensors, metadata) = match end {
            Some(end) if TORCH.contains(&end.as_str()) => (torch::tensors(path, &file)?, HashMap::new()),
            _ => safetensors(path, &mut file)?,
        };
        Ok((Self { path: path.to_owned(), file: Mutex::new(file), metadata }, tensors))
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The values in another float type, a matrix transposed if asked to.
    pub fn read(&self, stored: &Stored, to: DType, transposed: bool) -> io::Result<TensorData> {
        // A thread that panicked left no more than another place to read from.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(stored.start))?;
        match &stored.strides {
            None => cast(&mut *file, stored, to, transposed),
            Some(strides) => {
                cast(Cursor::new(gathered(&mut *file, stored, strides)?), stored, to, transposed)
            }
        }
    }
}

/// Where each tensor lies.
type Tensors = BTreeMap<String, Stored>;

/// The tensors of a safetensors file, and its metadata.
fn safetensors(path: &Path, file: &mut File) -> Result<(Tensors, HashMap<String, String>), WeightsError> {
    let broken = |message: String| WeightsError::Format { path: path.to_owned(), message };
    let io = |source| WeightsError::Io { path: path.to_owned(), source };
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
    let stored = |info: &safetensors::tensor::TensorInfo| Stored {
        dtype: info.dtype,
        shape: info.shape.clone(),
        start: 8 + size + info.data_offsets.0 as u64,
        strides: None,
    };
    let tensors = header.tensors().into_iter().map(|(key, info)| (key, stored(info))).collect();
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// The bytes of a tensor with steps of its own, row by row; the file stands at its first value.
fn gathered(mut file: impl Read, stored: &Stored, strides: &[usize]) -> io::Result<Vec<u8>> {
    let (count, width) = (stored.count(), stored.width());
    let last: usize =
        stored.shape.iter().zip(strides).map(|(size, step)| size.saturating_sub(1) * step).sum();
    let mut raw = vec![0; if count == 0 { 0 } else { (last + 1) * width }];
    file.read_exact(&mut raw)?;
    let mut rows = Vec::with_capacity(count * width);
    for flat in 0..count {
        let (mut rest, mut place) = (flat, 0);
        for (size, step) in stored.shape.iter().zip(strides).rev() {
            place += rest % size * step;
            rest /= size;
        }
        rows.extend_from_slice(&raw[place * width..][..width]);
    }
    Ok(rows)
}

fn cast(file: impl Read, stored: &Stored, to: DType, transposed: bool) -> io::Result<TensorData> {
    match to {
        DType::F64 => typed::<f64>(file, stored, transposed, |value| value),
        DType::F16 => typed(file, stored, transposed, f16::from_f64),
        DType::BF16 => typed(file, stored, transposed, bf16::from_f64),
        _ => typed(file, stored, transposed, |value| value as f32),
    }
}

/// Every number goes through f64, which holds all floats and small integers exactly; the compiler sees through it.
fn typed<T: Element + Default>(
    file: impl Read,
    stored: &Stored,
    transposed: bool,
    narrow: impl Fn(f64) -> T,
) -> io::Result<TensorData> {
    match stored.dtype {
        Dtype::F64 => values(file, stored, transposed, |raw| narrow(f64::from_le_bytes(raw))),
        Dtype::F32 => values(file, stored, transposed, |raw| narrow(f32::from_le_bytes(raw).into())),
        Dtype::F16 => values(file, stored, transposed, |raw| narrow(f16::from_le_bytes(raw).to_f64())),
        Dtype::BF16 => values(file, stored, transposed, |raw| narrow(bf16::from_le_bytes(raw).to_f64())),
        Dtype::I64 => values(file, stored, transposed, |raw| narrow(i64::from_le_bytes(raw) as f64)),
        Dtype::I32 => values(file, stored, transposed, |raw| narrow(i32::from_le_bytes(raw).into())),
        _ => unreachable!("checked to be a number"),
    }
}

/// Values in their final type and order, read piece by piece.
fn values<T: Element + Default, const WIDTH: usize>(
    mut file: impl Read,
    stored: &Stored,
    transposed: bool,
    decode: impl Fn([u8; WIDTH]) -> T,
) -> io::Result<TensorData> {
    let (mut shape, count) = (stored.shape.clone(), stored.count());
    let (rows, columns) = if transposed { (shape[0], shape[1]) } else { (count, 1) };
    let mut values = vec![T::default(); count];
    let mut raw = Vec::new();
    let step = (CHUNK / columns.max(1)).max(1);
    for first in (0..rows).step_by(step) {
        let here = step.min(rows - first);
        raw.resize(here * columns * WIDTH, 0);
        file.read_exact(&mut raw)?;
        let (read, _) = raw.as_chunks();
        if !transposed {
            values[first..][..here].iter_mut().zip(read).for_each(|(to, from)| *to = decode(*from));
            continue;
        }
        for column in 0..columns {
            let from = read[column..].iter().step_by(columns);
            values[column * rows + first..][..here]
                .iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = decode(*from));
        }
    }
    if transposed {
        shape.reverse();
    }
    Ok(TensorData::new(values, shape))
}

pub(super) fn is_float(kind: Dtype) -> bool {
    matches!(kind, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}
