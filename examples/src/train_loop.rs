//! The loop both stages share: steps, log, checkpoints, progress.

use crate::config::StageConfig;
use crate::progress::Stage;
use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::params;
use canvas_train::{AdamW, Checkpoints, Ema, Log, NonFinite, StepOptions, TrainState};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
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
pub trait Task<M> {
    /// Per-sample losses `[B]` of images number `start..start + batch` of the run.
    fn losses(&self, model: &M, start: u64, batch: usize) -> Tensor<1>;

    /// Looks at the state every so often, and at the end.
    ///
    /// # Errors
    /// Stops the run.
    fn evaluate(&mut self, average: &M, images: u64, stage: &Stage) -> Result<()>;

    /// Which image, in words, is number `number` of the run.
    fn name(&self, number: u64) -> String;
}

/// A stage's folder and settings.
pub struct TrainLoop<'a> {
    /// Shown beside the bar.
    pub name: &'a str,
    /// Holds `log.jsonl` and the checkpoints.
    pub folder: PathBuf,
    /// Sizes and rates.
    pub config: &'a StageConfig,
}

impl TrainLoop<'_> {
    /// Trains from the newest whole checkpoint, or from the start, to the end; returns the final state and the
    /// images per second of this process (NaN if there was nothing left to do).
    ///
    /// # Errors
    /// If a file cannot be read or written, or a loss is not finite: names image and layer. The last
    /// checkpoint is whole in every case.
    pub fn run<M: Module>(&self, model: M, task: &mut impl Task<M>) -> Result<(TrainState<M, AdamW>, f64)> {
        std::fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let checkpoints = Checkpoints::new(self.folder.join("checkpoints"), 2);
        let mut state = TrainState::new(model, optimizer(self.config));
        if let Some(found) = checkpoints.newest()? {
            found.passed_over.iter().for_each(|line| eprintln!("passed over {line}"));
            state.restore(&found.path)?;
        }
        let from = state.images;
        let mut log = Log::resume(&self.folder.join("log.jsonl"), |row: &Row| row.images <= from)?;
        let (config, rate) = (self.config, self.config.rate());
        if from >= config.images {
            return Ok((state, f64::NAN));
        }

        let losses = |model: &M, images| task.losses(model, from, images);
        if let Some(memory) = state.estimate_memory(losses, config.batch, None) {
            eprintln!("{}: {memory} of memory", self.name);
        }
        let mut stage = Stage::new(self.name, config.images, from);
        while state.images < config.images {
            let start = state.images;
            let batch = config.batch.min((config.images - start) as usize);
            let losses = task.losses(&state.model, start, batch);
            let options = StepOptions {
                rate: rate.at(start + batch as u64),
                clip: CLIP,
                ema: Ema::WarmUp { limit: config.ema },
            };
            let step = state
                .step(losses, &options)
                .map_err(|error| self.explain(&error, &state.model, task, start, batch, &checkpoints))?;
            let row =
                Row { images: state.images, loss: step.loss, rate: options.rate, grad_norm: step.grad_norm };
            log.push(&row)?;
            stage.advance(batch as u64, step.loss, options.rate);
            if config.passes(config.evaluations, start, state.images) {
                task.evaluate(&state.average, state.images, &stage)?;
            }
            if config.passes(config.checkpoints, start, state.images) {
                checkpoints.write(state.images, |folder| state.save(folder))?;
            }
        }
        stage.finish();
        let rate = stage.rate();
        Ok((state, rate))
    }

    /// Says at which image and in which layer a number stopped being finite, by repeating the step.
    fn explain<M: Module>(
        &self,
        error: &NonFinite,
        model: &M,
        task: &impl Task<M>,
        start: u64,
        batch: usize,
        checkpoints: &Checkpoints,
    ) -> anyhow::Error {
        let images: Vec<String> = error.rows.iter().map(|&row| task.name(start + row as u64)).collect();
        let at = if images.is_empty() { "the whole batch".to_owned() } else { images.join(", ") };
        let parameter = params::first_non_finite(model).map(|name| format!("parameter {name}"));
        let layer = parameter.or_else(|| {
            let found = canvas_core::trace::first_non_finite(|| drop(task.losses(model, start, batch)));
            found.map(|name| format!("the output of {name}"))
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

fn optimizer(config: &StageConfig) -> AdamW {
    AdamW { beta_2: 0.99, weight_decay: config.weight_decay, ..AdamW::default() }
}

/// Images per second of a stage's steps, by a few of them on a model that is then thrown away.
///
/// # Errors
/// If a loss is not finite.
pub fn speed<M: Module>(model: M, task: &impl Task<M>, config: &StageConfig) -> Result<f64> {
    const STEPS: u64 = 8;
    let mut state = TrainState::new(model, optimizer(config));
    let options = StepOptions { rate: 0.0, clip: CLIP, ema: Ema::WarmUp { limit: config.ema } };
    let mut fastest = f64::INFINITY;
    for step in 0..STEPS {
        let begun = Instant::now();
        let losses = task.losses(&state.model, step * config.batch as u64, config.batch);
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
