//! Captioned images of the user's: from wherever they are to the images of a run.

use crate::data::Data;
use anyhow::{Context, Result, bail};
use canvas_core::seed_for;
use canvas_data::{
    Assignment, Batch, Begun, Buckets, Caption, Draw, Fault, LoadError, Loader, Loading, Manifest, OnFault,
    Part, Place, Prepare, Prepared, Record, Source, Stream, Survey,
};
use canvas_examples::autoencoder::Pictures;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Of so many images one is held out.
const HELD_OUT: usize = 20;
/// More are not.
const MOST_HELD_OUT: usize = 64;
/// Shards, or groups of rows, that are read at a time.
const WINDOW: usize = 8;

/// A source, and which of its images are trained on.
pub struct Images {
    /// What became of each image.
    pub manifest: Manifest,
    source: Box<dyn Source>,
    trained: Vec<Vec<usize>>,
    held_out: Vec<usize>,
    seed: u64,
}

impl Images {
    /// Looks at each image of a source once, whole, so that a run does not stop at a damaged one; `manifest.jsonl` in `folder` says
    /// what became of each. A run that has one goes on with it; without a folder nothing is written.
    ///
    /// # Errors
    /// If the source has too few images, or is not the one that the run began with.
    pub fn new(
        (source, data): (Box<dyn Source>, &Data),
        buckets: Buckets,
        folder: Option<&Path>,
        seed: u64,
    ) -> Result<Self> {
        let written = folder.map(|folder| folder.join("manifest.jsonl")).filter(|path| path.exists());
        let manifest = match written {
            Some(path) => {
                let manifest = Manifest::read(&path)?;
                let changed =
                    || format!("{}: the images are not those that the run began with", data.path().display());
                manifest.check(&*source).with_context(changed)?;
                manifest
            }
            None => survey(&*source, buckets.enlarge(data.enlarge).crop(data.crop), folder)?,
        };
        eprintln!("{manifest}");

        // By its key, so that other images hardly change which are held out.
        let mut kept = manifest.kept().concat();
        kept.sort_by_cached_key(|&index| seed_for(seed, &source.key(index)));
        let out = (kept.len() / HELD_OUT).clamp(1, MOST_HELD_OUT);
        if kept.len() < 2 * out + 1 {
            let shown = manifest.dropped().take(3).map(|(_, fault)| format!("\n{fault}"));
            let why: String =
                manifest.faults().iter().map(|fault| format!("\n{fault}")).take(3).chain(shown).collect();
            bail!(
                "{}: {} images that can be trained on, at least 3 are needed{why}",
                data.path().display(),
                kept.len()
            );
        }
        let mut held_out = kept[..out].to_vec();
        held_out
            .sort_by_key(|&index| (manifest.assignment(index).map(|assignment| assignment.bucket), index));
        let left =
            |bucket: Vec<usize>| bucket.into_iter().filter(|index| !held_out.contains(index)).collect();
        let trained = manifest.kept().into_iter().map(left).collect();
        Ok(Self { manifest, source, trained, held_out, seed })
    }

    /// Images that are trained on, those of one size together.
    pub fn trained(&self) -> impl Iterator<Item = usize> {
        self.trained.iter().flatten().copied()
    }

    /// Those that are held out, those of one size together.
    pub fn held_out(&self) -> &[usize] {
        &self.held_out
    }

    /// Some of those that are trained on, evenly taken, those of one size together.
    pub fn some_trained(&self, most: usize) -> Vec<usize> {
        let all: Vec<usize> = self.trained().collect();
        let some = most.min(all.len());
        (0..some).map(|n| all[n * all.len() / some]).collect()
    }

    /// Captions of images, in their order; `done` is told of each image.
    ///
    /// # Errors
    /// If one cannot be read any more.
    pub fn captions(&self, images: &[usize], done: impl Fn() + Sync) -> Result<Vec<Vec<Caption>>, Fault> {
        let read = |&index: &usize| {
            done();
            Ok(self.source.read(index)?.captions)
        };
        images.par_iter().map(read).collect()
    }

    /// Makes something of an image as it is stored; `number` is that of the run's image, on which all that is random depends.
    ///
    /// # Errors
    /// If it cannot be read any more.
    pub fn read<T>(
        &self,
        index: usize,
        number: u64,
        make: impl Fn(&Given) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let record = self.source.read(index)?;
        let assignment = *self.manifest.assignment(index).expect("kept images have a bucket");
        make(&Given { record, assignment, draw: Draw { seed: self.seed, number } })
    }
}

/// Looks at all images, and writes the manifest.
fn survey(source: &dyn Source, buckets: Buckets, folder: Option<&Path>) -> Result<Manifest> {
    let survey = Survey { whole: true, ..Survey::new(buckets) };
    let progress = folder.map(|folder| folder.join("survey.jsonl"));
    eprintln!("looking at {} images", source.len());
    let bar = bar(source.len());
    let surveyed = survey.run(source, progress.as_deref(), &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if let (Some(folder), Some(progress)) = (folder, progress) {
        if let Begun::Anew { .. } = surveyed.begun {
            eprintln!("{}: of other images or settings; all images were looked at anew", progress.display());
        }
        surveyed.manifest.write(&folder.join("manifest.jsonl"))?;
        std::fs::remove_file(&progress).with_context(|| progress.display().to_string())?;
    }
    Ok(surveyed.manifest)
}

/// Shows how many images have been looked at.
pub fn bar(images: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len}, {eta} to go");
    ProgressBar::new(images as u64).with_style(style.expect("a template without mistakes"))
}

/// An image as it is stored, and how it is trained.
pub struct Given {
    /// Its file and captions.
    pub record: Record,
    /// Its size in training.
    pub assignment: Assignment,
    /// What all that is random about it depends on.
    pub draw: Draw,
}

impl Given {
    /// The image in its size.
    ///
    /// # Errors
    /// If it is not what it was when it was surveyed.
    pub fn prepared(&self, prepare: &Prepare) -> Result<Prepared, Fault> {
        prepare.prepared(&self.record, &self.assignment, self.draw)
    }
}

/// Makes something of an image, on the threads that read.
type Make<T> = dyn Fn(&Given) -> Result<T, Fault> + Send + Sync;

/// The images of a run by number, read ahead by other threads.
pub struct Feed<T> {
    images: Arc<Images>,
    stream: Stream,
    make: Arc<Make<T>>,
    reading: Mutex<Option<Reading<T>>>,
}

/// Images from number `first` on that were read, and what reads the next.
struct Reading<T> {
    first: u64,
    read: VecDeque<Arc<T>>,
    loader: Loader<T>,
}

impl<T: Send + Sync + 'static> Feed<T> {
    /// In groups of one size; `purpose` keys the order.
    pub fn new(
        images: &Arc<Images>,
        (purpose, group): (&str, usize),
        make: impl Fn(&Given) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Self {
        let part = Part::new(images.trained.clone()).windows(&images.source.blocks(), WINDOW);
        let stream = Stream::new(seed_for(images.seed, purpose), group, vec![part]);
        Self { images: Arc::clone(images), stream, make: Arc::new(make), reading: Mutex::new(None) }
    }

    /// Some images of the run, within a group. Asked for in order they are there when they are needed; the group that was read
    /// last is kept.
    ///
    /// # Errors
    /// If one cannot be read any more.
    pub fn take(&self, images: Range<u64>) -> Result<Vec<Arc<T>>> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = |reading: &Reading<T>| {
            (reading.first..=reading.first + reading.read.len() as u64).contains(&images.start)
        };
        if !reading.as_ref().is_some_and(goes_on) {
            *reading = Some(Reading {
                first: images.start,
                read: VecDeque::new(),
                loader: self.loader(images.start)?,
            });
        }
        let Reading { first, read, loader } = reading.as_mut().expect("it was begun above");
        while *first + (read.len() as u64) < images.end {
            let Batch { items, .. } = loader.next().context("the images have ended")??;
            read.extend(items.into_iter().map(Arc::new));
        }
        let place = |number: u64| (number - *first) as usize;
        let taken = read.range(place(images.start)..place(images.end)).cloned().collect();
        while read.len() > self.stream.group() {
            read.pop_front();
            *first += 1;
        }
        Ok(taken)
    }

    fn loader(&self, start: u64) -> Result<Loader<T>, LoadError> {
        let (images, make) = (Arc::clone(&self.images), Arc::clone(&self.make));
        let prepare = move |number: u64, place: Place| images.read(place.index, number, |given| make(given));
        // One by one, so that a step can be taken in parts.
        let ahead = 2 * self.stream.group();
        Loader::new(
            &self.stream,
            Loading { start, ahead, on_fault: OnFault::Refuse, ..Loading::new(1) },
            prepare,
        )
    }

    /// Which image is number `number` of the run.
    pub fn name(&self, number: u64) -> String {
        self.images.source.key(self.stream.at(number).index)
    }
}

impl Pictures for Feed<RgbImage> {
    fn pictures(&self, images: Range<u64>) -> Result<Vec<Arc<RgbImage>>> {
        self.take(images)
    }

    fn name(&self, number: u64) -> String {
        self.name(number)
    }
}
