//! Saving modules as PyTorch, diffusers and transformers would.

use super::layout::{Walk, slots};
use super::own::replace;
use super::rules::Form;
use super::{Rules, WeightsError};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::DType;
use safetensors::{Dtype, SafeTensorError, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;

/// Saves a module as PyTorch would: keys by the rules backwards, layouts as
/// [`load_published`](super::load_published) reads them, each parameter in its own float type. The file is written tensor by tensor, whole or not at all.
///
/// # Errors
/// [`WeightsError::Rules`] where the rules would not read a key back as the parameter it was written from;
/// otherwise as [`write_atomically`](super::write_atomically).
pub fn save_published<M: Module>(module: &M, path: &Path, rules: &Rules) -> Result<(), WeightsError> {
    let mut collect = Collect { walk: Walk::default(), rules, found: BTreeMap::new(), errors: Vec::new() };
    module.visit(&mut collect);
    if let Some((name, key, back)) = collect.finish() {
        return Err(WeightsError::Rules { path: path.to_owned(), name, key, back });
    }
    // transformers asks for it.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    replace(path, |beside| {
        safetensors::serialize_to_file(collect.found, Some(metadata), beside).map_err(
            |error| match error {
                SafeTensorError::IoError(error) => error,
                other => io::Error::other(other),
            },
        )?;
        File::open(beside)?.sync_all()
    })
}

/// Every key that [`save_published`] would write, with its shape; no parameter is drawn.
pub fn published_shapes<M: Module>(module: &M, rules: &Rules) -> BTreeMap<String, Vec<usize>> {
    let published = |slot: super::layout::Slot| {
        let key = rules.published(&slot.name);
        let shape = rules.shape(&key, &slot.shape);
        (key, shape)
    };
    slots(module).into_iter().map(published).collect()
}

struct Collect<'a> {
    walk: Walk,
    rules: &'a Rules,
    found: BTreeMap<String, Lazy>,
    /// Name, key, and what becomes of that key.
    errors: Vec<(String, String, String)>,
}

impl Collect<'_> {
    /// The first thing that the rules would not read back.
    fn finish(&mut self) -> Option<(String, String, String)> {
        let lacking = |(key, lazy): (&String, &Lazy)| {
            let part = lazy.parts.iter().position(Option::is_none)?;
            let name = self.rules.parts(key).swap_remove(part);
            Some((name, key.clone(), "a part that the module has not".to_owned()))
        };
        self.errors.extend(self.found.iter().find_map(lacking));
        self.errors.drain(..).next()
    }

    fn add<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Result<(), (String, String)> {
        let key = self.rules.published(name);
        let parts = self.rules.parts(&key);
        let part = match (self.rules.ignored(&key), parts.iter().position(|part| part == name)) {
            (Some(why), _) => return Err((key.clone(), format!("ignored ({why})"))),
            (None, None) => return Err((key, parts.join(" and "))),
            (None, Some(part)) => part,
        };
        let (form, shape, dtype) = (self.rules.form(&key), value.dims().to_vec(), value.dtype());
        let fresh = || Lazy {
            shape: self.rules.shape(&key, &shape),
            dtype,
            parts: parts.iter().map(|_| None).collect(),
        };
        let lazy = self.found.entry(key.clone()).or_insert_with(fresh);
        if lazy.parts[part].is_some() {
            return Err((key, "another parameter".to_owned()));
        }
        if lazy.dtype != dtype || lazy.shape != self.rules.shape(&key, &shape) {
            return Err((key, "parts of one shape and type".to_owned()));
        }
        lazy.parts[part] = Some(Box::new(move || match form {
            Form::Transposed => value.clone().swap_dims(0, 1).to_data().as_bytes().to_vec(),
            Form::Plain | Form::Pointwise => value.to_data().as_bytes().to_vec(),
            Form::Last { axis, count } => {
                let outer = &shape[..axis.min(shape.len())];
                behind_zeros(value.to_data().as_bytes(), outer, count)
            }
        }));
        Ok(())
    }
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.walk.name();
        let value = if self.walk.is_transposed() { param.val().swap_dims(0, 1) } else { param.val() };
        if let Err((key, back)) = self.add(&name, value) {
            self.errors.push((name, key, back));
        }
    }
}

/// Each of the rows that the outer axes number, as the last of so many slices.
fn behind_zeros(bytes: &[u8], outer: &[usize], count: usize) -> Vec<u8> {
    let row = bytes.len() / outer.iter().product::<usize>().max(1);
    let slices = |row: &[u8]| [vec![0; row.len() * (count - 1)], row.to_vec()].concat();
    if row == 0 { Vec::new() } else { bytes.chunks(row).flat_map(slices).collect() }
}

type Bytes = Box<dyn Fn() -> Vec<u8>>;

/// A tensor whose bytes are fetched when they are written.
struct Lazy {
    shape: Vec<usize>,
    dtype: DType,
    /// One behind the other; most tensors have one.
    parts: Vec<Option<Bytes>>,
}

impl View for Lazy {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F64 => Dtype::F64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.parts.iter().flatten().flat_map(|part| part()).collect())
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype().bitsize() / 8
    }
}
