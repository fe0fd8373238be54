//! Everything that changes while a model trains, in one value that is saved and restored exactly.

use crate::ema::Moment;
use crate::{CheckpointError, Ema, Gradients, ModuleOptimizer, clip_global_norm};
use burn::module::Module;
use burn::optim::Optimizer;
use burn::prelude::*;
use canvas_core::{params, weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// A model in training.
///
/// Randomness is not part of it: noise and data order are functions of the seed and [`images`](Self::images).
pub struct TrainState<M, O> {
    /// The model, on a device with gradients.
    pub model: M,
    /// Its moving average, without gradients: what to draw and evaluate with.
    pub average: M,
    /// Images trained on.
    pub images: u64,
    /// Optimizer steps taken.
    pub steps: u64,
    pub(crate) optimizer: ModuleOptimizer<O>,
    others: Vec<(Ema, M)>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Mean loss of the batch before the step.
    pub loss: f64,
    /// L2 norm of all gradients before clipping.
    pub grad_norm: f64,
}

/// A loss or a gradient was not finite; nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what} is not finite after {images} images")]
pub struct NonFinite {
    /// Images trained on before this step.
    pub images: u64,
    /// Rows of the batch whose loss is not finite; empty if it is the gradient.
    pub rows: Vec<usize>,
    /// "loss" or "gradient norm".
    pub what: &'static str,
}

/// How a step is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOptions {
    /// Learning rate.
    pub rate: f64,
    /// Largest joint norm of the gradients.
    pub clip: f64,
    /// How [`TrainState::average`] moves.
    pub ema: Ema,
}

#[derive(Serialize, Deserialize)]
struct Counters {
    images: u64,
    steps: u64,
}

impl NonFinite {
    /// As rows of the batch from one that begins so many images before.
    pub(crate) fn later(mut self, start: usize) -> Self {
        self.rows.iter_mut().for_each(|row| *row += start);
        self
    }
}

/// The file of an average beside the first.
fn other(number: usize) -> String {
    format!("average-{}.safetensors", number + 2)
}

impl<M: Module, O: Optimizer> TrainState<M, O> {
    /// At the start of training. Parameters are realised here, before the average is cloned from them.
    ///
    /// # Panics
    /// If the model's device does not track gradients.
    pub fn new(model: M, optimizer: O) -> Self {
        Self::with_groups(model, ModuleOptimizer::new(optimizer))
    }

    /// As [`new`](Self::new), with settings of their own for [groups](ModuleOptimizer::with_group) of parameters.
    ///
    /// # Panics
    /// If the model's device does not track gradients.
    pub fn with_groups(model: M, optimizer: ModuleOptimizer<O>) -> Self {
        let model = params::realise(model);
        let tracked = model.devices().first().is_none_or(Device::is_autodiff);
        assert!(tracked, "train on a device with autodiff: device.autodiff()");
        let average = model.valid();
        Self { model, average, images: 0, steps: 0, optimizer, others: Vec::new() }
    }

    /// Keeps one more average, from now on: saved and restored with the rest. Those that are
    /// [power functions](Ema::Power) make any other when training is over ([`crate::post_hoc`]).
    pub fn also_average(&mut self, ema: Ema) {
        self.others.push((ema, self.model.valid()));
    }

    /// The averages that are kept beside [`average`](Self::average), in the order in which they were asked for.
    pub fn others(&self) -> impl Iterator<Item = (Ema, &M)> {
        self.others.iter().map(|(ema, model)| (*ema, model))
    }

    /// Takes one step on per-sample losses `[B]`: mean, backward, clip, update, average.
    ///
    /// # Errors
    /// If a loss or the gradient is not finite: nothing is changed.
    pub fn step(&mut self, losses: Tensor<1>, options: &StepOptions) -> Result<StepReport, NonFinite> {
        let gradients = self.gradients(losses)?;
        self.update(gradients, options)
    }

    /// As [`step`](Self::step), with [gradients recomputed](Self::gradients_recomputed) `blocks` blocks at a time.
    ///
    /// # Errors
    /// If a loss or the gradient is not finite: nothing is changed.
    ///
    /// # Panics
    /// If `blocks` is 0, or `losses` does not do the same each time.
    pub fn step_recomputed(
        &mut self,
        losses: impl Fn(&M) -> Tensor<1>,
        blocks: usize,
        options: &StepOptions,
    ) -> Result<StepReport, NonFinite> {
        let gradients = self.gradients_recomputed(losses, blocks)?;
        self.update(gradients, options)
    }

    /// As [`step`](Self::step), with [gradients accumulated](Self::gradients_accumulated) over a few images of the batch at
    /// a time.
    ///
    /// # Errors
    /// If a loss or the gradient is not finite: nothing is changed.
    ///
    /// # Panics
    /// If `batch` or `at_once` is 0, or there are not as many losses as images.
    pub fn step_accumulated(
        &mut self,
        losses: impl Fn(&M, Range<usize>) -> Tensor<1>,
        batch: usize,
        at_once: usize,
        options: &StepOptions,
    ) -> Result<StepReport, NonFinite> {
        let gradients = self.gradients_accumulated(losses, batch, at_once)?;
        self.update(gradients, options)
    }

    /// Where the model is; tracks gradients.
    ///
    /// # Panics
    /// If it has no parameters.
    pub fn device(&self) -> Device {
        self.model.devices().first().cloned().expect("a model with parameters")
    }

    /// Bytes that the optimizer will keep for parameters it has not seen yet.
    pub(crate) fn moments_to_come(&self) -> u64 {
        self.optimizer.bytes_to_come(&self.model)
    }

    pub(crate) fn broken(&self, what: &'static str, rows: Vec<usize>) -> NonFinite {
        NonFinite { images: self.images, rows, what }
    }

    /// The second half of a step: clip, update, average, count. What looks at a step stands between the halves
    /// ([`crate::seeing::Watch`]).
    ///
    /// # Errors
    /// If the gradient is not finite: nothing is changed.
    pub fn update(&mut self, gradients: Gradients, options: &StepOptions) -> Result<StepReport, NonFinite> {
        let Gradients { losses, grads } = gradients;
        let (grads, grad_norm) = clip_global_norm(&self.model, grads, options.clip);
        if !grad_norm.is_finite() {
            return Err(self.broken("gradient norm", Vec::new()));
        }
        // Given away, not cloned: what nobody else holds is changed in place. The average stands in for it meanwhile.
        let model = std::mem::replace(&mut self.model, self.average.clone());
        self.model = self.optimizer.step(options.rate, model, grads);
        let batch = losses.len() as u64;
        self.images += batch;
        let moment = Moment { step: self.steps, images: self.images, batch };
        let average = std::mem::replace(&mut self.average, self.model.valid());
        self.average = options.ema.update(average, &self.model, moment);
        for (ema, average) in &mut self.others {
            let before = std::mem::replace(average, self.average.clone());
            *average = ema.update(before, &self.model, moment);
        }
        self.steps += 1;
        Ok(StepReport { loss: losses.iter().sum::<f64>() / losses.len() as f64, grad_norm })
    }

    /// Writes model, averages, optimizer and counters into a folder, as `model.safetensors`,
    /// `average.safetensors` (the others as `average-2.safetensors` and so on), `optimizer.safetensors` and `counters.json`.
    ///
    /// # Errors
    /// Names the file.
    pub fn save(&self, folder: &Path) -> Result<(), CheckpointError> {
        let none = BTreeMap::new();
        weights::save(&self.model, &folder.join("model.safetensors"), &none)?;
        weights::save(&self.average, &folder.join("average.safetensors"), &none)?;
        for (number, (_, average)) in self.others.iter().enumerate() {
            weights::save(average, &folder.join(other(number)), &none)?;
        }
        let state = self.optimizer.export(&self.model);
        weights::write_tensors(&folder.join("optimizer.safetensors"), &state, &none)?;
        let counters = Counters { images: self.images, steps: self.steps };
        let counters = serde_json::to_vec(&counters).expect("plain data");
        Ok(weights::write_atomically(&folder.join("counters.json"), &counters)?)
    }

    /// Restores what [`save`](Self::save) wrote, exactly, into a state of which the same averages were asked.
    ///
    /// # Errors
    /// Names the file, and every parameter that does not fit; the state is as it was.
    pub fn restore(&mut self, folder: &Path) -> Result<(), CheckpointError> {
        let content =
            |path: &Path, message: String| CheckpointError::Content { path: path.to_owned(), message };
        let path = folder.join("counters.json");
        let text =
            std::fs::read(&path).map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
        let counters: Counters =
            serde_json::from_slice(&text).map_err(|error| content(&path, error.to_string()))?;
        let model = weights::load(self.model.clone(), &folder.join("model.safetensors"), &[])?;
        let average = weights::load(self.average.clone(), &folder.join("average.safetensors"), &[])?;
        let mut others = Vec::new();
        for (number, (ema, old)) in self.others.iter().enumerate() {
            others.push((*ema, weights::load(old.clone(), &folder.join(other(number)), &[])?));
        }
        let left = folder.join(other(others.len()));
        if left.exists() {
            return Err(content(
                &left,
                format!("it has more averages than the {} kept here", others.len() + 1),
            ));
        }
        let path = folder.join("optimizer.safetensors");
        let device = average.devices().first().cloned().expect("a model with parameters");
        self.optimizer
            .import(&model, weights::read_tensors(&path)?, &device)
            .map_err(|error| content(&path, error.to_string()))?;
        (self.model, self.average, self.others) = (model, average, others);
        (self.images, self.steps) = (counters.images, counters.steps);
        Ok(())
    }
}
