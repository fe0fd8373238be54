//! Adding LoRAs to a module's parameters.

use super::super::layout::Walk;
use super::super::{Report, Rules, WeightsError};
use super::names::Names;
use super::{Layer, Lora, Part};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::DType;
use std::collections::HashMap;

/// LoRAs on their way into the parts of a pipeline: merge each part, then [`finish`](Self::finish).
///
/// With several LoRAs every change is that of the original weights, and their sum is added, as diffusers computes
/// the adapters of `set_adapters`.
///
/// There is nothing to take back: keep a clone of the module, which is as it was, bit by bit. A clone shares every
/// parameter that no LoRA changes, so both together hold the changed ones twice and everything else once; merging into
/// another clone gives the LoRAs other weights.
///
/// # Example
/// ```
/// use burn::nn::LinearConfig;
/// use burn::prelude::*;
/// use canvas_core::params::realise;
/// use canvas_core::weights::{Lora, Merging, Part, Rules, write_tensors};
///
/// # let path = std::env::temp_dir().join(format!("canvas-lora-{}.safetensors", std::process::id()));
/// let half = |key: &str, shape: [usize; 2]| (key.to_owned(), TensorData::ones::<f32, _>(shape));
/// let tensors = [half("unet.proj.lora_A.weight", [2, 3]), half("unet.proj.lora_B.weight", [4, 2])];
/// write_tensors(&path, &tensors, &Default::default())?;
///
/// let unet = realise(LinearConfig::new(3, 4).init(&Device::flex()));
/// let names = Rules::new().prefix("proj", ""); // what the LoRA calls it
///
/// let lora = Lora::open(&path)?;
/// let mut merging = Merging::new(&[(&lora, 0.5)]);
/// let merged = merging.merge(unet.clone(), Part::Unet, &[&names])?;
/// let report = merging.finish()?.remove(0);
/// assert_eq!(report.renamed.len(), 2);
/// let change = merged.weight.val() - unet.weight.val(); // 0.5 x 2, everywhere
/// assert!((change - 1.0).abs().max().into_scalar::<f32>() < 1e-6);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "finish says whether every key of the files had an effect"]
#[derive(Debug)]
pub struct Merging<'a> {
    files: Vec<File<'a>>,
}

/// A LoRA, its weight, and what has become of its layers.
#[derive(Debug)]
struct File<'a> {
    lora: &'a Lora,
    weight: f64,
    done: Vec<bool>,
    /// For layers that are not done: a layer that is called almost the same.
    nearest: Vec<Option<String>>,
    report: Report,
}

/// A layer of a LoRA that changes a parameter.
struct Change<'a> {
    lora: &'a Lora,
    layer: &'a Layer,
    weight: f64,
}

impl<'a> Merging<'a> {
    /// LoRAs with their weights: 1 is as it was trained, 0 is without it, a DoRA's magnitude apart.
    pub fn new(loras: &[(&'a Lora, f64)]) -> Self {
        let file = |&(lora, weight): &(&'a Lora, f64)| {
            let count = lora.layers.len();
            let (done, nearest) = (vec![false; count], vec![None; count]);
            File { lora, weight, done, nearest, report: Report::default() }
        };
        Self { files: loras.iter().map(file).collect() }
    }

    /// Adds to a module what the LoRAs have for it, in f32; parameters keep their type.
    ///
    /// `names` are the schemes by which LoRAs may call the module's layers: diffusers' names
    /// (`UnetConfig::published`), and those of the original code, which kohya's files for SDXL use. A name with
    /// underscores is looked up among the module's own, so nothing is guessed. Where all keys of a scheme begin with the
    /// same segments, LoRAs may leave those out.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] names every key of this part that no layer has, with the nearest layer, and every
    /// shape that does not fit; [`WeightsError::Tensor`] a tensor that could not be read. The module is consumed, and
    /// this is of no further use.
    pub fn merge<M: Module>(&mut self, module: M, part: Part, names: &[&Rules]) -> Result<M, WeightsError> {
        let names = Names::new(&module, names);
        let mut plan = HashMap::new();
        for file in &mut self.files {
            file.plan(part, &names, &mut plan)?;
        }
        let mut apply = Apply { walk: Walk::default(), plan, error: None };
        let module = module.map(&mut apply);
        apply.error.map_or(Ok(module), Err)
    }

    /// Leaves a part out on purpose, for a reason that the reports give.
    pub fn leave_out(&mut self, part: Part, reason: &str) {
        for file in &mut self.files {
            for (layer, done) in file.lora.layers.iter().zip(&mut file.done) {
                if layer.place.part == Some(part) {
                    *done = true;
                    file.report.ignored.extend(layer.keys.iter().map(|key| (key.clone(), reason.to_owned())));
                }
            }
        }
    }

    /// What became of every key of each file: `renamed` to a parameter, or `ignored`.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] names every key without an effect: of a part that was not merged, or that no
    /// merged part has.
    pub fn finish(self) -> Result<Vec<Report>, WeightsError> {
        self.files.into_iter().map(File::finish).collect()
    }
}

impl<'a> File<'a> {
    /// Finds the parameter of each layer of this part, or of none.
    fn plan(
        &mut self,
        part: Part,
        names: &Names,
        plan: &mut HashMap<String, Vec<Change<'a>>>,
    ) -> Result<(), WeightsError> {
        let (lora, weight) = (self.lora, self.weight);
        let mut wrong = Report::default();
        let mut by_path = HashMap::<&str, &Layer>::new();
        let (mut used, mut all) = (0, 0);
        for (at, layer) in lora.layers.iter().enumerate() {
            if self.done[at] || layer.place.part.is_some_and(|own| own != part) {
                continue;
            }
            let found = names.find(&layer.place);
            if found.is_empty() && layer.place.part.is_none() {
                self.nearest[at] = self.nearest[at].take().or_else(|| names.nearest(&layer.place));
                continue;
            }
            all += layer.keys.len();
            let [slot] = found.as_slice() else {
                let near = names.nearest(&layer.place).filter(|_| found.is_empty());
                let paths: Vec<&str> = found.iter().map(|slot| slot.path.as_str()).collect();
                let note = (!found.is_empty()).then(|| format!("the name of {}", paths.join(" and of ")));
                lora.unexpected(layer, near.as_deref(), note.as_deref(), &mut wrong);
                continue;
            };
            if let Some(other) = by_path.insert(&slot.path, layer) {
                let note = format!("{} is changed by {} already", slot.path, other.keys[0]);
                lora.unexpected(layer, None, Some(&note), &mut wrong);
                continue;
            }
            let misshapen = match slot.shape.len() {
                0 | 1 => vec![(layer.keys[0].clone(), vec![], slot.shape.clone())],
                _ => layer.factors.misshapen(&lora.source, &slot.shape),
            };
            if misshapen.is_empty() {
                used += layer.keys.len();
                self.done[at] = true;
                self.report.renamed.extend(layer.keys.iter().map(|key| (key.clone(), slot.path.clone())));
                plan.entry(slot.path.clone()).or_default().push(Change { lora, layer, weight });
            }
            wrong.shapes.extend(misshapen);
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let path = lora.path().to_owned();
        Err(WeightsError::Mismatch { path, used, expected: all, report: wrong.into() })
    }

    fn finish(self) -> Result<Report, WeightsError> {
        let (mut wrong, mut used, mut all) = (Report::default(), 0, 0);
        for ((layer, done), near) in self.lora.layers.iter().zip(self.done).zip(self.nearest) {
            all += layer.keys.len();
            if done {
                used += layer.keys.len();
                continue;
            }
            let note = layer.place.part.map(|part| format!("for the {part}, which was not merged"));
            self.lora.unexpected(layer, near.as_deref(), note.as_deref(), &mut wrong);
        }
        if wrong.is_empty() {
            return Ok(self.report);
        }
        let path = self.lora.path().to_owned();
        Err(WeightsError::Mismatch { path, used, expected: all, report: wrong.into() })
    }
}

impl Lora {
    /// Reports every key of a layer that has no place.
    fn unexpected(&self, layer: &Layer, near: Option<&str>, note: Option<&str>, report: &mut Report) {
        for key in &layer.keys {
            let shape = self.source.shape(key).unwrap_or_default().to_vec();
            report.unexpected.push((key.clone(), shape, near.map(str::to_owned)));
            report.unexpected_notes.extend(note.map(|note| (key.clone(), note.to_owned())));
        }
    }
}

struct Apply<'a> {
    walk: Walk,
    plan: HashMap<String, Vec<Change<'a>>>,
    /// The first one; a mapper cannot return it.
    error: Option<WeightsError>,
}

impl ModuleMapper for Apply<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(changes) = self.plan.remove(&self.walk.path()).filter(|_| self.error.is_none()) else {
            return param;
        };
        let transposed = self.walk.is_transposed();
        param.map(|old| match changed(&old, transposed, &changes) {
            Ok(new) => new,
            Err(error) => {
                self.error = Some(error);
                old
            }
        })
    }
}

/// The parameter with the sum of all changes, each of the parameter as it was.
fn changed<const D: usize>(
    old: &Tensor<D>,
    transposed: bool,
    changes: &[Change<'_>],
) -> Result<Tensor<D>, WeightsError> {
    let (dtype, dims) = (old.dtype(), old.dims());
    let published = |x: Tensor<D>| if transposed { x.swap_dims(0, 1) } else { x };
    let base = published(old.clone().set_require_grad(false).cast(DType::F32));
    let shape = base.dims();
    let base: Tensor<2> = base.reshape([shape[0], shape[1..].iter().product()]); // [O, I]
    let mut sum = base.clone();
    for Change { lora, layer, weight } in changes {
        sum = sum + layer.factors.change(&lora.source, &base, weight * layer.scale)?;
    }
    let new = published(sum.reshape(shape)).cast(dtype);
    assert_eq!(new.dims(), dims, "a parameter keeps its shape");
    Ok(if old.is_require_grad() { new.require_grad() } else { new })
}
