//! Loading what PyTorch, diffusers and transformers publish, and saving what they load.

use super::error::suggest;
use super::layout::{Walk, loads_transposed, slots};
use super::own::replace;
use super::source::is_float;
use super::{Report, Rules, Source, WeightsError};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::DType;
use safetensors::{Dtype, SafeTensorError, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;

/// Loads published weights into a module, strictly: every key is taken by a parameter after the renaming rules, or
/// ignored by one of them, and every parameter is found, or it is an error.
///
/// Layouts are told from the types of the layers: the matrix of a `Linear` is transposed, `weight` and `bias` of
/// norms are `gamma` and `beta`. A type of your own named `Linear` or as one of Burn's norms would be taken for
/// it. Values of 16, 32 or 64 bits become the parameter's type; parameters that were never drawn
/// are not drawn, so do not call [`realise`](crate::params::realise) before. Nothing is read before all names, shapes and
/// types fit; then one tensor after the other. (Measured: 134 million values of f16 into an f32 module of 512 MiB on
/// the CPU, with 515 MiB of memory at the highest, in 1.4 s on a busy machine.)
///
/// # Errors
/// [`WeightsError::Mismatch`] lists, in the file's own names and shapes, everything missing, left over, misshapen
/// or of another type, with the file and the nearest name; [`WeightsError::Tensor`] names a tensor that could not be
/// read. The module is consumed; a clone stays as it was.
pub fn load_published<M: Module>(
    module: M,
    source: &Source,
    rules: &Rules,
) -> Result<(M, Report), WeightsError> {
    let (plan, report, expected) = plan(&module, source, rules);
    if !report.is_empty() {
        let path = source.path().to_owned();
        return Err(WeightsError::Mismatch { path, used: plan.len(), expected, report: report.into() });
    }
    let mut fill = Fill { walk: Walk::default(), source, plan, error: None };
    let module = module.map(&mut fill);
    fill.error.map_or(Ok((module, report)), Err)
}

/// Which key each parameter takes, and what becomes of all others.
fn plan<M: Module>(module: &M, source: &Source, rules: &Rules) -> (HashMap<String, String>, Report, usize) {
    let mut report = Report::default();
    let mut keys = candidates(source, rules, &mut report);
    let shape = |key: &str| source.shape(key).expect("a key of the source").to_vec();

    let (mut taken, slots) = (HashMap::new(), slots(module));
    let expected = slots.len();
    for slot in slots {
        let Some(key) = keys.remove(&slot.name) else {
            let key = rules.published(&slot.name);
            if key != slot.path {
                report.notes.insert(key.clone(), format!("our {}", slot.path));
            }
            report.missing.push((key, slot.shape, None));
            continue;
        };
        let (found, kind) = (shape(&key), source.dtype(&key));
        if !kind.is_some_and(is_float) {
            report.types.push((key, kind.map_or(String::new(), |kind| format!("{kind:?}"))));
        } else if found != slot.shape {
            report.shapes.push((key, slot.shape, found));
        } else {
            match key == slot.name {
                true => report.used.push(key.clone()),
                false => report.renamed.push((key.clone(), slot.path.clone())),
            }
            let saved = rules.published(&slot.name);
            if saved != key {
                report.one_way.push((key.clone(), saved));
            }
            taken.insert(slot.path, key);
        }
    }
    report.unexpected.extend(keys.into_values().map(|key| (key.clone(), shape(&key), None)));
    suggest(&mut report);
    note_keys(source, rules, &mut report);
    (taken, report, expected)
}

/// The keys that are not ignored, by our name; of two that come to one name the second is reported.
fn candidates(source: &Source, rules: &Rules, report: &mut Report) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::<String, String>::new();
    for key in source.keys() {
        let name = rules.ours(key);
        if let Some(reason) = rules.ignored(key) {
            report.ignored.push((key.to_owned(), reason.to_owned()));
        } else if let Some(other) = keys.get(&name) {
            let named = format!("{key} (renamed to {name}, as {other} is)");
            report.unexpected.push((named, source.shape(key).unwrap_or_default().to_vec(), None));
        } else {
            keys.insert(name, key.to_owned());
        }
    }
    keys
}

/// Says what the rules made of a key, and of several files, which one holds it.
fn note_keys(source: &Source, rules: &Rules, report: &mut Report) {
    let shard = |key: &str| {
        let name = source.file(key).filter(|_| source.is_sharded())?.file_name()?;
        Some(format!("in {}", name.to_string_lossy()))
    };
    for (key, ..) in &report.unexpected {
        let renamed = Some(rules.ours(key)).filter(|name| name != key).map(|name| format!("read as {name}"));
        let notes: Vec<String> = renamed.into_iter().chain(shard(key)).collect();
        // A missing parameter may have the same name, and its own note.
        if !notes.is_empty() && source.shape(key).is_some() {
            report.unexpected_notes.insert(key.clone(), notes.join(", "));
        }
    }
    let shapes = report.shapes.iter().map(|entry| &entry.0);
    let types = report.types.iter().map(|entry| &entry.0);
    for key in shapes.chain(types) {
        if let Some(note) = shard(key) {
            report.notes.insert(key.clone(), note);
        }
    }
}

struct Fill<'a> {
    walk: Walk,
    source: &'a Source,
    plan: HashMap<String, String>,
    /// The first one; a mapper cannot return it.
    error: Option<WeightsError>,
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(key) = self.plan.remove(&self.walk.path()).filter(|_| self.error.is_none()) else {
            return param;
        };
        let (device, id) = (param.lazy_device(), param.id);
        let dtype = if param.is_initialized() { Some(param.val().dtype()) } else { None };
        let transposed = self.walk.is_transposed() && !loads_transposed(&param);
        match self.source.read_as(&key, dtype.unwrap_or(DType::F32), transposed) {
            Ok(data) => {
                let value = match dtype {
                    Some(dtype) => Tensor::from_data(data, (&device, dtype)),
                    None => Tensor::from_data(data, &device),
                };
                param.transform_for_load(value, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// Saves a module as PyTorch would: keys by the rules backwards, layouts as [`load_published`] reads them, each parameter
/// in its own float type. The file is written tensor by tensor, whole or not at all.
///
/// # Errors
/// [`WeightsError::Rules`] where the rules would not read a key back as the parameter it was written from;
/// otherwise as [`write_atomically`](super::write_atomically).
pub fn save_published<M: Module>(module: &M, path: &Path, rules: &Rules) -> Result<(), WeightsError> {
    let mut collect = Collect { walk: Walk::default(), rules, found: BTreeMap::new(), error: None };
    module.visit(&mut collect);
    if let Some((name, key, back)) = collect.error {
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

struct Collect<'a> {
    walk: Walk,
    rules: &'a Rules,
    found: BTreeMap<String, Lazy>,
    error: Option<(String, String, String)>,
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
        let key = self.rules.published(&name);
        let back = self.rules.ignored(&key).map_or(self.rules.ours(&key), |why| format!("ignored ({why})"));
        let value = if self.walk.is_transposed() { param.val().swap_dims(0, 1) } else { param.val() };
        let lazy = Lazy {
            shape: value.dims().to_vec(),
            dtype: value.dtype(),
            data: Box::new(move || value.to_data().as_bytes().to_vec()),
        };
        if back != name {
            self.error.get_or_insert((name, key, back));
        } else if self.found.insert(key.clone(), lazy).is_some() {
            self.error.get_or_insert((name, key, "another parameter".to_owned()));
        }
    }
}

/// A tensor whose bytes are fetched when they are written.
struct Lazy {
    shape: Vec<usize>,
    dtype: DType,
    data: Box<dyn Fn() -> Vec<u8>>,
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
        Cow::Owned((self.data)())
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype().bitsize() / 8
    }
}
