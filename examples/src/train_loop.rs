//! The loop both stages share, to be read from top to bottom and copied: steps, and what is done between them.
//!
//! What a step needs of a model is its [`Task`]; what is shown and written of it is [`Seeing`]'s.

use crate::config::StageConfig;
use crate::device::Devices;
use crate::interrupt::{Interrupt, Interrupted};
use crate::seeing::{Seeing, Step, Watching};
use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Level, params};
use canvas_train::seeing::Phase;
use canvas_train::{
    AdamW, Checkpoints, Ema, Gradients, Log, ModuleOptimizer, NonFinite, Replica, Replicas, StepOptions,
    TrainState,
};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

/// Joint norm that gradients are clipped to.
const CLIP: f64 = 1.0;

/// A row of a stage's `log.jsonl`: one a step, the same in every run of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Images trained on, this step's included.
    pub images: u64,
    /// Mean loss of the step's batch.
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
}

/// What a stage trains: where the losses come from, and what to do now and then.
pub trait Task<M: Module>: Sync {
    /// What the losses of some images are computed from.
    type Batch: Send + Sync;

    /// Data, levels and noise of these images of the run: a function of their numbers.
    ///
    /// # Errors
    /// If they cannot be had: a file was deleted, a disk is full. Stops the run.
    fn batch(&self, images: Range<u64>) -> Result<Self::Batch>;

    /// Per-sample losses `[B]`: the same each time.
    fn losses(&self, model: &M, batch: &Self::Batch) -> Tensor<1>;

    /// A batch on another device, for a task that several devices share.
    fn to_device(&self, _batch: &Self::Batch, _device: &Device) -> Option<Self::Batch> {
        None
    }

    /// The noise levels of a batch, one an image; none if it has no such thing.
    fn levels<'b>(&self, _batch: &'b Self::Batch) -> &'b [Level] {
        &[]
    }

    /// The optimizer, and which parameters have settings of their own ([`ModuleOptimizer::with_group`]).
    fn optimizer(&self, config: &StageConfig) -> ModuleOptimizer<AdamW> {
        ModuleOptimizer::new(AdamW { beta_2: 0.99, weight_decay: config.weight_decay, ..AdamW::default() })
    }

    /// Looks at the average every so often, and at the end: losses, samples.
    ///
    /// # Errors
    /// Stops the run.
    fn evaluate(&mut self, average: &M, images: u64, seeing: &mut Seeing) -> Result<()>;

    /// Which image, in words, is number `number` of the run.
    fn name(&self, number: u64) -> String;
}

/// How many images, and their data.
type Part<B> = (usize, B);

/// A stage's folder and settings.
pub struct TrainLoop<'a> {
    /// Shown beside the bar.
    pub name: &'a str,
    /// Holds the logs and the checkpoints.
    pub folder: PathBuf,
    /// Sizes and rates.
    pub config: &'a StageConfig,
    /// What is written of the run.
    pub watch: &'a Watching,
    /// Whether the run is to stop.
    pub interrupt: &'a Interrupt,
    /// Devices that share the steps, the model's first, if there are more.
    pub devices: Option<&'a Devices>,
}

impl TrainLoop<'_> {
    /// Trains from the newest whole checkpoint, or from the start, to the end; returns the final state and the
    /// images per second of this process (NaN if there was nothing left to do).
    ///
    /// # Errors
    /// If a file cannot be read or written, a loss is not finite (names image and layer), or the run is
    /// [interrupted](Interrupted). The last checkpoint is whole in every case.
    pub fn run<M: Module, T: Task<M>>(&self, model: M, task: &mut T) -> Result<(TrainState<M, AdamW>, f64)> {
        std::fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let config = self.config;
        let checkpoints = Checkpoints::new(self.folder.join("checkpoints"), 2);

        // All that changes: the model, its averages, the optimizer, two counters.
        let mut state = TrainState::with_groups(model, task.optimizer(config));
        config.averages.iter().for_each(|&ema| state.also_average(ema));
        let found = checkpoints.newest()?;
        if let Some(found) = &found {
            found.passed_over.iter().for_each(|line| eprintln!("passed over {line}"));
            state.restore(&found.path)?;
        }
        if state.images >= config.images {
            return Ok((state, f64::NAN));
        }
        // Copies of it on further devices, if there are any.
        let mut replicas = self.replicas(&state)?;
        self.announce(&state, task)?;
        let mut seeing = Seeing::resume(self, found.as_ref(), &state.model, task)?;
        let rate = config.rate()?;

        while state.images < config.images {
            let start = state.images;
            let images = start..config.images.min(start + config.batch as u64);
            seeing.begin(state.steps);

            // A step is its gradients, and the update they make. Whoever looks at it stands between the two.
            let parts = seeing.clock.within(Phase::Data, || self.parts(task, images.clone()))?;
            let explain = |error: NonFinite, state: &TrainState<M, AdamW>, task: &T| {
                self.explain(&error, &state.model, (task, &parts), start, &checkpoints)
            };
            let gradients = self
                .gradients(&state, replicas.as_mut(), (task, &parts), &seeing)?
                .map_err(|error| explain(error, &state, task))?;
            let levels: Vec<Level> = parts.iter().flat_map(|(_, part)| task.levels(part)).copied().collect();
            let losses = gradients.losses.clone();
            let watch = seeing.watch(&state, &gradients);
            let options =
                StepOptions { rate: rate.at(images.end), clip: CLIP, ema: Ema::WarmUp { limit: config.ema } };
            let report = seeing
                .clock
                .within(Phase::Optimizer, || match &mut replicas {
                    None => state.update(gradients, &options),
                    Some(replicas) => replicas.update(&mut state, gradients, &options),
                })
                .map_err(|error| explain(error, &state, task))?;
            let norms = watch.map(|watch| watch.after(&state.model));
            let row = Row {
                images: state.images,
                loss: report.loss,
                rate: options.rate,
                grad_norm: report.grad_norm,
            };
            seeing.step(&Step { row, before: start, levels: &levels, losses: &losses, norms })?;

            // Evaluations come before the checkpoint of the same moment, so that what is resumed from it has them.
            if config.passes(config.evaluations, start, state.images) {
                let clock = Rc::clone(&seeing.clock);
                clock
                    .within(Phase::Evaluation, || task.evaluate(&state.average, state.images, &mut seeing))?;
            }
            let asked = self.interrupt.asked();
            if asked || config.passes(config.checkpoints, start, state.images) {
                seeing.checkpoint(&checkpoints, &state)?;
            }
            if asked && state.images < config.images {
                return Err(Interrupted { stage: self.name.to_owned(), images: state.images }.into());
            }
        }
        Ok((state, seeing.finish()))
    }

    /// The state's model and optimizer on the other devices that share the steps.
    fn replicas<M: Module>(&self, state: &TrainState<M, AdamW>) -> Result<Option<Replicas<M, AdamW>>> {
        let Some(devices) = self.devices.filter(|devices| !devices.further.is_empty()) else {
            return Ok(None);
        };
        devices.share(self.name, self.config)?;
        Ok(Some(Replicas::new(state, &devices.further, devices.exchange)?))
    }

    /// The images of a step, as many together as their gradients are computed of at once on a device.
    fn parts<M: Module, T: Task<M>>(&self, task: &T, images: Range<u64>) -> Result<Vec<Part<T::Batch>>> {
        let share = (images.end - images.start) as usize / self.devices.map_or(1, Devices::count);
        let at_once = self.config.at_once.unwrap_or(share).min(share);
        let starts = images.step_by(share).flat_map(|start| {
            let end = start + share as u64;
            (start..end).step_by(at_once).map(move |start| start..end.min(start + at_once as u64))
        });
        starts.map(|range| Ok(((range.end - range.start) as usize, task.batch(range)?))).collect()
    }

    /// Their gradients, on all devices.
    fn gradients<M: Module, T: Task<M>>(
        &self,
        state: &TrainState<M, AdamW>,
        replicas: Option<&mut Replicas<M, AdamW>>,
        (task, parts): (&T, &[Part<T::Batch>]),
        seeing: &Seeing,
    ) -> Result<Result<Gradients, NonFinite>> {
        let (clock, recompute) = (&seeing.clock, self.config.recompute);
        let Some(replicas) = replicas else {
            let losses =
                |model: &M, batch: &T::Batch| clock.within(Phase::Forward, || task.losses(model, batch));
            let device = state.device();
            let replica = state.replica(&device);
            return Ok(clock.within(Phase::Backward, || of_parts(&replica, parts, recompute, losses)));
        };
        // To each device its share of the parts, from this thread.
        let shares = parts.chunks(parts.len() / replicas.devices().len()).zip(replicas.devices());
        let moved = shares.map(|(share, device)| {
            let moved = |(images, batch): &Part<_>| Some((*images, task.to_device(batch, device)?));
            share.iter().map(moved).collect::<Option<Vec<_>>>()
        });
        let Some(shares) = clock.within(Phase::Data, || moved.collect::<Option<Vec<_>>>()) else {
            bail!("{}: its steps cannot be shared out among devices", self.name);
        };
        let images: usize = parts.iter().map(|(images, _)| images).sum();
        // Forward passes are not told apart from backward ones: a clock is one thread's.
        Ok(clock.within(Phase::Backward, || {
            replicas.gradients(state, images, |replica, range| {
                let share = &shares[range.start / range.len()];
                of_parts(replica, share, recompute, |model, batch| task.losses(model, batch))
            })
        }))
    }

    /// Says beforehand what memory it will take.
    fn announce<M: Module, T: Task<M>>(&self, state: &TrainState<M, AdamW>, task: &T) -> Result<()> {
        let data = |count| task.batch(state.images..state.images + count as u64);
        let share = self.config.batch / self.devices.map_or(1, Devices::count);
        let at_once = self.config.at_once.unwrap_or(share).min(share);
        let losses = |model: &M, batch: &T::Batch| task.losses(model, batch);
        if let Some(memory) = state.estimate_memory(data, losses, at_once, self.config.recompute)? {
            eprintln!("{}: {memory} of memory", self.name);
        }
        Ok(())
    }

    /// Says at which image and in which layer a number stopped being finite, by repeating the step.
    fn explain<M: Module, T: Task<M>>(
        &self,
        error: &NonFinite,
        model: &M,
        (task, parts): (&T, &[Part<T::Batch>]),
        start: u64,
        checkpoints: &Checkpoints,
    ) -> anyhow::Error {
        let named: Vec<String> = error.rows.iter().map(|&row| task.name(start + row as u64)).collect();
        let at = if named.is_empty() { "the whole batch".to_owned() } else { named.join(", ") };
        let parameter = params::first_non_finite(model).map(|name| format!("parameter {name}"));
        let layer = parameter.or_else(|| {
            let again = || parts.iter().for_each(|(_, part)| drop(task.losses(model, part)));
            canvas_core::trace::first_non_finite(again).map(|name| format!("the output of {name}"))
        });
        let layer = layer.unwrap_or_else(|| "the loss itself (every layer's output is finite)".into());
        let kept = match checkpoints.newest() {
            Ok(Some(found)) => format!("the last good checkpoint is {}", found.path.display()),
            _ => "there is no checkpoint yet".into(),
        };
        anyhow!(
            "{}: the {} is not finite at image {start} of the run ({at}); first not finite: {layer}; {kept}; \
             a lower learning rate usually helps",
            self.name,
            error.what
        )
    }
}

/// Gradients in the way that is configured: at once, part by part, or with blocks run again.
fn of_parts<M: Module, B>(
    replica: &Replica<M>,
    parts: &[Part<B>],
    recompute: Option<usize>,
    losses: impl Fn(&M, &B) -> Tensor<1>,
) -> Result<Gradients, NonFinite> {
    match (parts, recompute) {
        ([(_, batch)], Some(blocks)) => replica.gradients_recomputed(|model| losses(model, batch), blocks),
        ([(_, batch)], None) => replica.gradients(losses(replica.model, batch)),
        (parts, _) => {
            let (at_once, count) = (parts[0].0, parts.iter().map(|(images, _)| images).sum());
            let of_part = |model: &M, part: Range<usize>| losses(model, &parts[part.start / at_once].1);
            replica.gradients_accumulated(of_part, count, at_once)
        }
    }
}

/// Images per second of a stage's steps, by a few of them on a model that is then thrown away.
///
/// # Errors
/// If a loss is not finite, or a batch cannot be had.
pub fn speed<M: Module, T: Task<M>>(model: M, task: &T, config: &StageConfig) -> Result<f64> {
    const STEPS: u64 = 8;
    let mut state = TrainState::with_groups(model, task.optimizer(config));
    let options = StepOptions { rate: 0.0, clip: CLIP, ema: Ema::WarmUp { limit: config.ema } };
    let mut fastest = f64::INFINITY;
    for step in 0..STEPS {
        let begun = Instant::now();
        let start = step * config.batch as u64;
        let losses = task.losses(&state.model, &task.batch(start..start + config.batch as u64)?);
        state.step(losses, &options)?;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    Ok(config.batch as f64 / fastest)
}

/// Reads a stage's log.
///
/// # Errors
/// Names the file and the line.
pub fn rows(folder: &Path) -> Result<Vec<Row>> {
    Ok(Log::read(&folder.join("log.jsonl"))?)
}
