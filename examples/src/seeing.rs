//! What is shown and written of a stage while it trains: the bar, logs of JSON lines, TensorBoard's event files.
//!
//! `docs/seeing.md` says what each file holds.

use crate::config::WatchConfig;
use crate::progress::Stage;
use crate::sheet::png_bytes;
use crate::train_loop::{Row, Task, TrainLoop};
use anyhow::{Context, Result};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Level, macs, weights};
use canvas_train::seeing::{
    Clock, Event, EventWriter, LevelAxis, LossByLevel, Norms, Phase, Split, Watch, block_of, grouped,
};
use canvas_train::{AdamW, Checkpoint, Checkpoints, Gradients, Log, PeakAlloc, TrainState};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::rc::Rc;

/// Bins of the losses by level.
const BINS: usize = 10;
/// Of evaluations.
const EVALUATIONS: &str = "evaluation.jsonl";
/// A checkpoint's file of losses by level that no row holds yet.
const TABLE: &str = "losses-by-level.json";

/// What is watched of a run's steps.
#[derive(Clone, Debug)]
pub struct Watching {
    /// What is asked for.
    pub config: WatchConfig,
    /// Operations a second that the machine can do, if it is known.
    pub peak: Option<f64>,
    /// The device, if it queues work.
    pub queues: Option<Device>,
    /// What TensorBoard says of the run, as Markdown.
    pub about: String,
}

/// A row of `layers.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayersRow {
    /// Images trained on, the step's included.
    pub images: u64,
    /// Of each parameter that has a gradient, in the model's order.
    pub norms: Vec<Norms>,
}

/// A row of `speed.jsonl`: where the time went since the row before. Not the same in two runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeedRow {
    /// Images trained on, at the end of the interval.
    pub images: u64,
    /// Images trained on at its start: those of the row before, or of the checkpoint that this process went on from.
    pub from: u64,
    /// Without evaluations and checkpoints.
    pub images_per_second: f64,
    /// The network's operations: two for each multiply-accumulate of the forward pass, three times for the backward pass.
    pub flops_per_second: f64,
    /// Their share of what the machine can do, if that is known.
    pub utilisation: Option<f64>,
    /// The most memory that the process had allocated at once, if its allocator counts.
    pub peak_bytes: Option<u64>,
    /// Seconds by phase.
    pub split: Split,
}

/// What a step has to say.
pub struct Step<'a> {
    /// The row of the log.
    pub row: Row,
    /// Images trained on before it.
    pub before: u64,
    /// Levels of its images, or none.
    pub levels: &'a [Level],
    /// Losses of its images.
    pub losses: &'a [f64],
    /// Norms of the layers, if they were looked at.
    pub norms: Option<Vec<Norms>>,
}

/// Only the images of a row, whatever else it holds.
#[derive(Deserialize)]
struct At {
    images: u64,
}

/// Everything that watches a stage.
pub struct Seeing {
    /// Where the time goes.
    pub clock: Rc<Clock>,
    config: WatchConfig,
    peak: Option<f64>,
    /// Multiply-accumulate operations of an image's forward pass.
    macs: u64,
    total: u64,
    since: u64,
    bar: Stage,
    table: LossByLevel,
    steps: Log,
    layers: Log,
    levels: Log,
    speed: Log,
    events: Option<EventWriter>,
}

impl Seeing {
    /// Of a stage that begins, or goes on from a checkpoint: the files hold what was written until then, and no more.
    ///
    /// # Errors
    /// Names the file.
    pub fn resume<M: Module, T: Task<M>>(
        stage: &TrainLoop,
        from: Option<&Checkpoint>,
        model: &M,
        task: &T,
    ) -> Result<Self> {
        let done = from.map_or(0, |checkpoint| checkpoint.images);
        let log = |name: &str| Log::resume(&stage.folder.join(name), |row: &At| row.images <= done);
        let watching = stage.watch;
        let events =
            watching.config.tensorboard.then(|| EventWriter::resume(&stage.folder, done)).transpose()?;
        drop(log(EVALUATIONS)?);
        let one = task.batch(done..done + 1)?;
        let macs = macs::count(|| drop(task.losses(model, &one))).1;
        let mut seeing = Self {
            clock: Rc::new(Clock::start(watching.queues.clone().map(waiting))),
            config: watching.config.clone(),
            peak: watching.peak,
            macs,
            total: stage.config.images,
            since: done,
            bar: Stage::new(stage.name, stage.config.images, done),
            table: table(from)?,
            steps: log("log.jsonl")?,
            layers: log("layers.jsonl")?,
            levels: log("levels.jsonl")?,
            speed: log("speed.jsonl")?,
            events,
        };
        // Behind what is kept: of a run that was resumed from here before, it is void.
        seeing.event(done + 1, Event::text("run", &watching.about))?;
        PeakAlloc.reset_peak_usage();
        Ok(seeing)
    }

    /// A step begins, of this number.
    pub fn begin(&self, step: u64) {
        let every = if self.config.layers > 0 { self.config.layers } else { 50 };
        // Not the step whose layers are looked at, which takes longer.
        self.clock.measure(step % every == 1 % every);
    }

    /// Looks at the layers in this step, if it is one of those.
    pub fn watch<M: Module>(&self, state: &TrainState<M, AdamW>, gradients: &Gradients) -> Option<Watch> {
        let asked = self.config.layers > 0 && state.steps.is_multiple_of(self.config.layers);
        asked.then(|| Watch::before(&state.model, gradients))
    }

    /// Writes down a step, and what has come together since the last interval if it ends one.
    ///
    /// # Errors
    /// Names the file.
    pub fn step(&mut self, step: &Step) -> Result<()> {
        let row = step.row;
        self.steps.push(&row)?;
        let values = [("loss", row.loss), ("rate", row.rate), ("gradient norm", row.grad_norm)];
        self.scalars(row.images, values.map(|(name, value)| (format!("train/{name}"), value)))?;
        if let Some(norms) = &step.norms {
            self.norms(row.images, norms)?;
        }
        if !step.levels.is_empty() {
            self.table.add(step.levels, step.losses);
        }
        self.bar.advance(row.images - step.before, row.loss, row.rate);
        let mark = |images: u64| images * self.config.intervals / self.total.max(1);
        if mark(row.images) > mark(step.before) {
            self.interval(row.images, !step.levels.is_empty())?;
        }
        Ok(())
    }

    fn norms(&mut self, images: u64, norms: &[Norms]) -> Result<()> {
        self.layers.push(&LayersRow { images, norms: norms.to_vec() })?;
        let blocks = grouped(norms, block_of);
        let values = blocks.iter().flat_map(|block| {
            let Norms { name, gradient, parameter, .. } = block;
            [("gradient", *gradient), ("parameter", *parameter), ("relative update", block.relative())]
                .map(|(what, value)| (format!("layers {what}/{name}"), value))
        });
        self.scalars(images, values)
    }

    /// An interval ends.
    fn interval(&mut self, images: u64, levels: bool) -> Result<()> {
        if levels {
            let row = self.table.take(images);
            self.levels.push(&row)?;
            let bins = row.edges.windows(2).zip(&row.losses);
            let values =
                bins.filter_map(|(ends, loss)| Some((format!("loss by level/{:.1}", ends[0]), (*loss)?)));
            self.scalars(images, values)?;
        }
        let split = self.clock.take();
        let rate = (images - self.since) as f64 / split.training();
        let flops = rate * 6.0 * self.macs as f64;
        let peak_bytes = Some(PeakAlloc.peak_usage() as u64).filter(|&bytes| bytes > 0);
        PeakAlloc.reset_peak_usage();
        let row = SpeedRow {
            images,
            from: std::mem::replace(&mut self.since, images),
            images_per_second: rate,
            flops_per_second: flops,
            utilisation: self.peak.map(|peak| flops / peak),
            peak_bytes,
            split,
        };
        self.speed.push(&row)?;
        let some = [
            ("images per second", Some(rate)),
            ("model TFLOPS", Some(flops / 1e12)),
            ("model FLOPs utilisation", row.utilisation),
            ("memory GiB", peak_bytes.map(|bytes| bytes as f64 / (1u64 << 30) as f64)),
        ];
        let values = some.into_iter().filter_map(|(name, value)| Some((format!("speed/{name}"), value?)));
        self.scalars(images, values)
    }

    /// Writes a checkpoint, when everything that was written of the run until now is on the disk.
    ///
    /// # Errors
    /// Names the file, and what a run can go on from.
    pub fn checkpoint<M: Module>(
        &self,
        checkpoints: &Checkpoints,
        state: &TrainState<M, AdamW>,
    ) -> Result<()> {
        self.clock.within(Phase::Checkpoint, || {
            for log in [&self.steps, &self.layers, &self.levels, &self.speed] {
                log.sync()?;
            }
            self.events.as_ref().map(EventWriter::sync).transpose()?;
            let table = serde_json::to_vec(&self.table)?;
            let written = checkpoints.write(state.images, |folder| {
                state.save(folder)?;
                Ok(weights::write_atomically(&folder.join(TABLE), &table)?)
            });
            let images = state.images;
            written.map(drop).with_context(|| {
                let last = match checkpoints.newest() {
                    Ok(Some(found)) => format!("the last whole one is {}", found.path.display()),
                    _ => "there is none before it".into(),
                };
                format!("the checkpoint after {images} images could not be written; {last}")
            })
        })
    }

    /// Numbers for TensorBoard, by tag; those that are not finite are left out.
    ///
    /// # Errors
    /// Names the file.
    pub fn scalars(&mut self, images: u64, values: impl IntoIterator<Item = (String, f64)>) -> Result<()> {
        if self.events.is_none() {
            return Ok(());
        }
        let finite: Vec<(String, f64)> = values.into_iter().filter(|(_, value)| value.is_finite()).collect();
        self.event(images, Event::scalars(finite))
    }

    /// A picture for TensorBoard.
    ///
    /// # Errors
    /// Names the file.
    pub fn picture(&mut self, images: u64, tag: &str, picture: &RgbImage) -> Result<()> {
        if self.events.is_none() {
            return Ok(());
        }
        self.event(images, Event::image(tag, png_bytes(picture)?))
    }

    fn event(&mut self, images: u64, event: Event) -> Result<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        Ok(events.push(images, event)?)
    }

    /// A line that stays above the bar.
    pub fn note(&self, text: &str) {
        self.bar.note(text);
    }

    /// The end; returns the images per second of this process.
    pub fn finish(mut self) -> f64 {
        self.bar.finish();
        self.bar.rate()
    }
}

/// How to wait for a device.
fn waiting(device: Device) -> Box<dyn Fn()> {
    // What failed there fails at the next operation, too, with a better message.
    Box::new(move || drop(device.sync()))
}

/// The losses by level that a checkpoint holds, or an empty table.
fn table(from: Option<&Checkpoint>) -> Result<LossByLevel> {
    let empty = LossByLevel::new(LevelAxis::Time, [0.0, 1.0], BINS);
    let Some(path) = from.map(|checkpoint| checkpoint.path.join(TABLE)).filter(|path| path.exists()) else {
        return Ok(empty); // also of a run from before there were such tables
    };
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let table: LossByLevel =
        serde_json::from_slice(&text).with_context(|| format!("{}: no table of losses", path.display()))?;
    Ok(if table.fits(&empty) { table } else { empty })
}

/// Adds a row to `evaluation.jsonl` of a stage's folder, and puts it on the disk: the checkpoint that may follow says that it is
/// there. Rows of as many images or more are void.
///
/// # Errors
/// Names the file.
pub fn evaluated(folder: &Path, images: u64, row: &impl Serialize) -> Result<()> {
    let mut log = Log::resume(&folder.join(EVALUATIONS), |old: &At| old.images < images)?;
    log.push(row)?;
    Ok(log.sync()?)
}

/// Reads a file of JSON lines of a stage's folder; a missing one has none.
///
/// # Errors
/// Names the file and the line.
pub fn read<R: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Result<Vec<R>> {
    Ok(Log::read(&folder.join(name))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;
    use crate::interrupt::Interrupt;
    use burn::nn::{Linear, LinearConfig};
    use std::ops::Range;

    /// The least that can be trained.
    struct Plain(Device);

    impl Task<Linear> for Plain {
        type Batch = Tensor<2>;

        fn batch(&self, images: Range<u64>) -> Result<Tensor<2>> {
            Ok(Tensor::ones([(images.end - images.start) as usize, 2], &self.0))
        }

        fn losses(&self, model: &Linear, x: &Tensor<2>) -> Tensor<1> {
            model.forward(x.clone()).square().squeeze_dim(1)
        }

        fn evaluate(&mut self, _: &Linear, images: u64, _: &mut Seeing) -> Result<()> {
            anyhow::bail!("asked after {images} images")
        }

        fn name(&self, number: u64) -> String {
            number.to_string()
        }
    }

    /// Such as are left of a run whose last checkpoint turned out to be broken.
    #[test]
    fn evaluations_behind_the_checkpoint_are_cut_off_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let watch = WatchConfig { tensorboard: false, peak: None, ..WatchConfig::default() };
        let watch = Watching { config: watch, peak: None, queues: None, about: String::new() };
        let mut stage = RunConfig::smoke("test").second;
        (stage.images, stage.batch) = (4, 2);
        let device = Device::flex().autodiff();
        for images in [2, 4] {
            evaluated(folder.path(), images, &serde_json::json!({ "images": images })).unwrap();
        }
        let (place, interrupt) = (folder.path().to_owned(), &Interrupt::default());
        let watch = &watch;
        let training =
            TrainLoop { name: "test", folder: place, config: &stage, watch, interrupt, devices: None };
        let model = LinearConfig::new(2, 1).init(&device);
        let error = training.run(model, &mut Plain(device)).err().unwrap().to_string();
        assert_eq!(error, "asked after 2 images");
        assert_eq!(std::fs::read_to_string(folder.path().join(EVALUATIONS)).unwrap(), "");
    }
}
