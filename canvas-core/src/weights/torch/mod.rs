//! Files that `torch.save` wrote: a zip with a pickle and the blocks of values that it refers to.

mod pickle;
mod value;

use super::WeightsError;
use super::shard::Stored;
use safetensors::Dtype;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use value::{At, Heap, Storage, Value, View};
use zip::{CompressionMethod, ZipArchive};

/// Where each tensor of a file lies, by its key.
pub(super) fn tensors(path: &Path, file: &File) -> Result<BTreeMap<String, Stored>, WeightsError> {
    let refused = |message| WeightsError::Torch { path: path.to_owned(), message };
    let mut archive = Archive::open(file).map_err(refused)?;
    let (heap, root) = pickle::read(&archive.text("data.pkl").map_err(refused)?).map_err(refused)?;
    let views = state_dict(&heap, root).map_err(refused)?;
    let place = |(key, view): (String, &View)| match archive.place(view) {
        Ok(stored) => Ok((key, stored)),
        Err(message) => Err(refused(format!("{key}: {message}"))),
    };
    views.into_iter().map(place).collect()
}

/// The tensors of the innermost `state_dict`, and those of dictionaries in it as `name.key`.
fn state_dict(heap: &Heap, mut root: At) -> Result<BTreeMap<String, &View>, String> {
    let inner = |root| heap.entries(root).ok()?.into_iter().find(|(key, _)| *key == "state_dict");
    let mut seen = HashSet::from([root]);
    while let Some((_, next)) = inner(root).filter(|(_, next)| seen.insert(*next)) {
        root = next;
    }
    let mut found = BTreeMap::new();
    for (name, at) in heap.entries(root)? {
        match heap.get(at) {
            Value::Tensor(view) => drop(found.insert(name.to_owned(), view)),
            Value::Dict(_) => {
                for (key, at) in heap.entries(at)? {
                    match heap.get(at) {
                        Value::Tensor(view) => drop(found.insert(format!("{name}.{key}"), view)),
                        Value::Dict(_) => return Err(format!("{name}.{key}: dictionaries three deep")),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if found.is_empty() { Err("it holds no tensor under a name".to_owned()) } else { Ok(found) }
}

struct Archive<'a> {
    zip: ZipArchive<BufReader<&'a File>>,
    /// The folder that holds everything, with its slash: the file's name where it was saved.
    root: String,
}

impl<'a> Archive<'a> {
    fn open(mut file: &'a File) -> Result<Self, String> {
        let mut first = [0; 2];
        file.read_exact(&mut first).map_err(|_| "it has less than two bytes".to_owned())?;
        file.rewind().map_err(|error| error.to_string())?;
        if &first != b"PK" {
            let advice = "load it with torch and save it again, or as safetensors";
            return Err(match first {
                [0x80, _] => format!("it is in the format that PyTorch had before 1.6: {advice}"),
                _ => format!("expected a zip archive, found another format: {advice}"),
            });
        }
        let zip =
            ZipArchive::new(BufReader::new(file)).map_err(|error| format!("{error}; it may be truncated"))?;
        let pickles =
            zip.file_names().filter_map(|name| name.ok()?.strip_suffix("data.pkl").map(str::to_owned));
        let roots: Vec<String> = pickles.collect();
        let [root] = roots.as_slice() else {
            return Err(format!("expected one data.pkl in the zip, found {}", roots.len()));
        };
        let mut archive = Self { root: root.clone(), zip };
        // Files of the first versions do not say.
        if archive.zip.index_for_name(&format!("{root}byteorder")).is_some() {
            let order = archive.text("byteorder")?;
            if order != b"little" {
                let order = String::from_utf8_lossy(&order).into_owned();
                return Err(format!("expected little-endian values, found {order:?}"));
            }
        }
        Ok(archive)
    }

    fn text(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let (_, size) = self.entry(name)?;
        let mut entry =
            self.zip.by_name(&format!("{}{name}", self.root)).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let read = entry.read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
        if read as u64 == size {
            Ok(bytes)
        } else {
            Err(format!("{name}: expected {size} bytes, found {read}"))
        }
    }

    /// Where the bytes of an entry begin, and how many they are.
    fn entry(&mut self, name: &str) -> Result<(u64, u64), String> {
        let found = self.zip.by_name(&format!("{}{name}", self.root));
        let entry = found.map_err(|error| format!("{name}: {error}"))?;
        match (entry.compression(), entry.data_start()) {
            (CompressionMethod::Stored, Some(start)) => Ok((start, entry.size())),
            (method, _) => Err(format!("{name}: expected it uncompressed, found {method}")),
        }
    }

    /// Where a tensor lies in the file.
    fn place(&mut self, view: &View) -> Result<Stored, String> {
        let Storage { kind, key, count } = &view.storage;
        let dtype = dtype(kind).ok_or_else(|| format!("a type that is not known: {kind}"))?;
        let (start, size) = self.entry(&format!("data/{key}"))?;
        let width = dtype.bitsize() / 8;
        if count.checked_mul(width).is_none_or(|bytes| bytes as u64 != size) {
            return Err(format!("expected {count} values of {dtype:?}, found {size} bytes"));
        }
        let past = past(view).filter(|past| past <= count);
        if past.is_none() {
            let View { shape, strides, offset, .. } = view;
            return Err(format!("shape {shape:?} with steps {strides:?} from {offset} in {count} values"));
        }
        let start = start + (view.offset * width) as u64;
        let strides = (!is_contiguous(view)).then(|| view.strides.clone());
        Ok(Stored { dtype, shape: view.shape.clone(), start, strides })
    }
}

/// The place behind the last value; none where there are more values than the storage has.
fn past(view: &View) -> Option<usize> {
    let count = view.shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))?;
    if count > view.storage.count {
        return None;
    }
    if count == 0 {
        return Some(view.offset);
    }
    let step =
        |place: usize, (size, step): (&usize, &usize)| place.checked_add((size - 1).checked_mul(*step)?);
    view.shape.iter().zip(&view.strides).try_fold(view.offset, step)?.checked_add(1)
}

/// Whether rows lie one behind the other; the step of an axis of one value does not matter.
fn is_contiguous(view: &View) -> bool {
    let mut expected = 1;
    view.shape.iter().zip(&view.strides).rev().all(|(size, step)| {
        let fits = *size == 1 || *step == expected;
        expected = expected.saturating_mul(*size);
        fits
    })
}

fn dtype(storage: &str) -> Option<Dtype> {
    Some(match storage {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}
