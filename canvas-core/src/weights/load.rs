//! Loading what PyTorch, diffusers and transformers publish.

use super::error::suggest;
use super::layout::{Walk, loads_transposed, slots};
use super::rules::Form;
use super::shard::{Stored, is_float};
use super::{Report, Rules, Source, WeightsError};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::DType;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How much of a module's parameters has been read, in bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Read so far.
    pub done: u64,
    /// Of all parameters.
    pub total: u64,
}

/// Loads published weights into a module, strictly: every key is taken by a parameter after the renaming rules, or
/// ignored by one of them, and every parameter is found, or it is an error.
///
/// Layouts are told from the types of the layers: the matrix of a `Linear` is transposed, `weight` and `bias` of
/// norms are `gamma` and `beta`. A type of your own named `Linear` or as one of Burn's norms would be taken for
/// it. Values of 16, 32 or 64 bits become the parameter's type; parameters that were never drawn
/// are not drawn, so do not call [`realise`](crate::params::realise) before. Nothing is read before all names, shapes and
/// types fit; then one tensor after the other.
///
/// Measured with two processors, both busy, on the CPU: a file of 3.44 GB of f32 (the UNet of Stable Diffusion 1) is
/// loaded in 2.2 s, 0.6 s of them converting and transposing and 1.6 s in the system, which reads the file and hands out
/// memory; reading it and no more takes 0.5 s. Memory is 3.449 GB at the highest, 10 MB of it before; the module is
/// 3.438 GB. (`cargo test --release -p canvas-unet --test original -- --ignored --nocapture`)
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
    load_published_with(module, source, rules, &mut |_| {})
}

/// As [`load_published`], telling after each parameter how far it is: a program draws its bar from that.
///
/// # Errors
/// As [`load_published`].
pub fn load_published_with<M: Module>(
    module: M,
    source: &Source,
    rules: &Rules,
    progress: &mut dyn FnMut(Progress),
) -> Result<(M, Report), WeightsError> {
    let (plan, report, expected) = plan(&module, source, rules);
    let report = report.whole(source.prefix());
    if !report.is_empty() {
        let path = source.path().to_owned();
        return Err(WeightsError::Mismatch { path, used: plan.len(), expected, report: report.into() });
    }
    let so_far = Progress { done: 0, total: plan.values().map(|take| take.bytes(source)).sum() };
    let mut fill = Fill { walk: Walk::default(), source, rules, plan, so_far, progress, error: None };
    let module = module.map(&mut fill);
    fill.error.map_or(Ok((module, report)), Err)
}

/// A tensor of the source, or one of its parts.
struct Take {
    key: String,
    part: usize,
    of: usize,
}

impl Take {
    fn bytes(&self, source: &Source) -> u64 {
        source.stored(&self.key).map_or(0, Stored::bytes) / self.of as u64
    }
}

/// What each parameter takes, and what becomes of all other keys.
fn plan<M: Module>(module: &M, source: &Source, rules: &Rules) -> (HashMap<String, Take>, Report, usize) {
    let mut report = Report::default();
    let mut takes = candidates(source, rules, &mut report);
    let (mut plan, slots) = (HashMap::new(), slots(module));
    let expected = slots.len();
    for slot in slots {
        let saved = rules.published(&slot.name);
        let Some(take) = takes.remove(&slot.name) else {
            if saved != slot.path {
                report.notes.entry(saved.clone()).or_insert(format!("our {}", slot.path));
            }
            let shape = rules.shape(&saved, &slot.shape);
            once(&mut report.missing, (saved, shape, None), |entry| &entry.0);
            continue;
        };
        let key = take.key.clone();
        let (found, shape) =
            (source.stored(&key).expect("a key of the source"), rules.shape(&key, &slot.shape));
        if !is_float(found.dtype) {
            once(&mut report.types, (key, format!("{:?}", found.dtype)), |entry| &entry.0);
        } else if !fits(rules.form(&key), &found.shape, &shape) {
            once(&mut report.shapes, (key, shape, found.shape.clone()), |entry| &entry.0);
        } else {
            note_taken(&mut report, &take, &slot.name, &slot.path);
            if saved != key {
                once(&mut report.one_way, (key, saved), |entry| &entry.0);
            }
            plan.insert(slot.path, take);
        }
    }
    let left: BTreeSet<String> = takes.into_values().map(|take| take.key).collect();
    let shape = |key: &str| source.shape(key).unwrap_or_default().to_vec();
    report.unexpected.extend(left.into_iter().map(|key| (key.clone(), shape(&key), None)));
    suggest(&mut report);
    note_keys(source, rules, &mut report);
    (plan, report, expected)
}

/// Adds what is to be said of a key, unless it was for another of its parts.
fn once<T>(entries: &mut Vec<T>, entry: T, key: impl Fn(&T) -> &String) {
    if !entries.iter().any(|other| key(other) == key(&entry)) {
        entries.push(entry);
    }
}

fn note_taken(report: &mut Report, take: &Take, name: &str, path: &str) {
    let (key, path) = (take.key.clone(), path.to_owned());
    if take.of > 1 {
        match report.split.iter_mut().find(|entry| entry.0 == key) {
            Some((_, names)) => names.push(path),
            None => report.split.push((key, vec![path])),
        }
    } else if key == name {
        report.used.push(key);
    } else {
        report.renamed.push((key, path));
    }
}

fn fits(form: Form, found: &[usize], expected: &[usize]) -> bool {
    let matrix = |shape: &[usize]| {
        let ones = shape.iter().skip(2).all(|size| *size == 1);
        if ones && shape.len() >= 2 { Some([shape[0], shape[1]]) } else { None }
    };
    let same = || matrix(found).is_some_and(|matrix_found| Some(matrix_found) == matrix(expected));
    found == expected || (form == Form::Pointwise && same())
}

/// The keys that are not ignored, by our names; of two that come to one name the second is reported.
fn candidates(source: &Source, rules: &Rules, report: &mut Report) -> BTreeMap<String, Take> {
    let mut takes = BTreeMap::<String, Take>::new();
    for key in source.keys() {
        if let Some(reason) = rules.ignored(key) {
            report.ignored.push((key.to_owned(), reason.to_owned()));
            continue;
        }
        let original = rules.original(key);
        if let Some(original) = original.filter(|original| source.stored(original).is_some()) {
            report.ignored.push((key.to_owned(), format!("the same as {}", source.whole(original))));
            continue;
        }
        let names = rules.parts(original.unwrap_or(key));
        if let Some((name, other)) = names.iter().find_map(|name| Some((name, takes.get(name)?))) {
            let note = format!("renamed to {name}, as {} is", source.whole(&other.key));
            report.unexpected_notes.insert(key.to_owned(), note);
            report.unexpected.push((key.to_owned(), source.shape(key).unwrap_or_default().to_vec(), None));
            continue;
        }
        let of = names.len();
        let take = |part| Take { key: key.to_owned(), part, of };
        takes.extend(names.into_iter().enumerate().map(|(part, name)| (name, take(part))));
    }
    takes
}

/// Says what the rules made of a key, and of several files, which one holds it.
fn note_keys(source: &Source, rules: &Rules, report: &mut Report) {
    let shard = |key: &str| {
        let name = source.file(key).filter(|_| source.is_sharded())?.file_name()?;
        Some(format!("in {}", name.to_string_lossy()))
    };
    for (key, ..) in &report.unexpected {
        let parts = rules.parts(key);
        let renamed = (parts != [key.as_str()]).then(|| format!("read as {}", parts.join(", ")));
        let notes: Vec<String> = renamed.into_iter().chain(shard(key)).collect();
        // A missing parameter may have the same name, and its own note.
        if !notes.is_empty() {
            report.unexpected_notes.entry(key.clone()).or_insert(notes.join(", "));
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
    rules: &'a Rules,
    plan: HashMap<String, Take>,
    so_far: Progress,
    progress: &'a mut dyn FnMut(Progress),
    /// The first one; a mapper cannot return it.
    error: Option<WeightsError>,
}

impl Fill<'_> {
    fn read(&self, take: &Take, to: DType, linear: bool) -> Result<TensorData, WeightsError> {
        let form = self.rules.form(&take.key);
        let view = |stored: &Stored| {
            let part = stored.clone().part(take.part, take.of);
            match form {
                Form::Pointwise => part.matrix(),
                Form::Last { axis, .. } => part.last_slice(axis),
                Form::Plain | Form::Transposed => part,
            }
        };
        self.source.read_as(&take.key, view, to, linear ^ (form == Form::Transposed))
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(take) = self.plan.remove(&self.walk.path()).filter(|_| self.error.is_none()) else {
            return param;
        };
        let (device, id) = (param.lazy_device(), param.id);
        let dtype = if param.is_initialized() { Some(param.val().dtype()) } else { None };
        let linear = self.walk.is_transposed() && !loads_transposed(&param);
        match self.read(&take, dtype.unwrap_or(DType::F32), linear) {
            Ok(data) => {
                let value = match dtype {
                    Some(dtype) => Tensor::from_data(data, (&device, dtype)),
                    None => Tensor::from_data(data, &device),
                };
                self.so_far.done += take.bytes(self.source);
                (self.progress)(self.so_far);
                param.transform_for_load(value, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
