//! Passes in order over a source, and where they are written down.

use super::fates::Fates;
use super::ledger::{self, CurationError, Named};
use super::outcome::{Outcome, Place};
use super::reading::Reading;
use super::subject::Decode;
use super::{Pass, Report};
use crate::{Fault, Record, Source};
use image::RgbImage;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::num::NonZero;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::thread;

/// What reading is called where passes are counted: it drops what cannot be read.
pub(super) const READ: &str = "read";

/// Passes, in order, and how they are run.
///
/// Each image gets the verdict of the first pass, in this order, that drops it. Which images those are depends on the source, the decoder
/// and the passes alone: not on the number of threads, on how the source is cut into [runs](Self::run_length), on how often it is
/// [read](Self::read_again), nor on where it was interrupted. (A model that gives a picture other numbers beside other pictures is held to
/// the same company by [`batch`](Self::batch) and `run_length`, so long as nothing changes what passes before it drop.)
///
/// Memory: a run's verdicts and notes, `threads * batch` decoded pictures, 8 bytes for each image of the source, and what passes need that
/// choose.
pub struct Curation<'a> {
    decoder: Value,
    pub(super) decode: Box<Decode<'a>>,
    pub(super) passes: Vec<Box<dyn Pass + 'a>>,
    breaks: Vec<usize>,
    pub(super) threads: usize,
    pub(super) batch: usize,
    run_length: usize,
}

/// How far a curation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which reading of the source, from 0.
    pub reading: usize,
    /// Images of this reading that are judged and written down.
    pub images: usize,
    /// Images of the source.
    pub of: usize,
    /// Whether the last of them were found written down.
    pub found: bool,
}

impl<'a> Curation<'a> {
    /// No pass yet: keeps what can be read.
    ///
    /// `decoder` names the function that decodes and whatever its pictures depend on; if it changes, all is judged again.
    pub fn new(
        decoder: impl Into<Value>,
        decode: impl Fn(&Record) -> Result<RgbImage, Fault> + Send + Sync + 'a,
    ) -> Self {
        Self {
            decoder: decoder.into(),
            decode: Box::new(decode),
            passes: Vec::new(),
            breaks: Vec::new(),
            threads: thread::available_parallelism().map_or(1, NonZero::get),
            batch: 16,
            run_length: 1000,
        }
    }

    /// The same with the rules by which images are decoded for training.
    pub fn decoding(decode: crate::Decode) -> Self {
        let settings = serde_json::to_value(&decode).expect("plain data");
        Self::new(settings, move |record| Ok(decode.picture(&record.key, &record.image)?.rgb))
    }

    /// Adds a pass after the others.
    pub fn pass(mut self, pass: impl Pass + 'a) -> Self {
        self.passes.push(Box::new(pass));
        self
    }

    /// Lets the passes after this read the source again, and only what the passes before this kept.
    ///
    /// Without it all passes judge an image while it is in memory, also images that a pass before theirs will drop when it has seen all.
    /// Reading again pays where judging costs more than reading: before a model, after duplicates. It changes no verdict.
    pub fn read_again(mut self) -> Self {
        self.breaks.push(self.passes.len());
        self
    }

    /// How many threads judge; all of the machine's unless said.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// How many images a thread takes at a time, and a model gets at most; 16 unless said.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// How many images of a block are written down together, and lost together when the process dies; 1000 unless said.
    pub fn run_length(self, images: usize) -> Self {
        Self { run_length: images.max(1), ..self }
    }

    /// Judges every image of a source, going on with what the folder has.
    ///
    /// The folder belongs to this source: what is written there is taken to be of these images if their keys and numbers and the
    /// source's [settings](Source::settings) are the same. Images that could not be read are read again
    /// ([`Fault::may_pass`]).
    ///
    /// # Errors
    /// See [`CurationError`]. What is written stays good.
    ///
    /// # Panics
    /// If the source's [blocks](Source::blocks) leave images out, or have some twice.
    pub fn run(&self, source: &dyn Source, folder: &Path) -> Result<Outcome, CurationError> {
        self.run_watched(source, folder, &mut |_| ControlFlow::Continue(()))
    }

    /// The same, telling how far it is whenever something more is written down, until told to break off.
    ///
    /// # Errors
    /// See [`CurationError`]; [`CurationError::Stopped`] if it was broken off.
    pub fn run_watched(
        &self,
        source: &dyn Source,
        folder: &Path,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Outcome, CurationError> {
        self.check_names()?;
        let held = ledger::hold(folder)?;
        let runs = cut(source, self.run_length);
        let mut fates = Fates::new(source.len());
        let mut after = String::new();
        let mut places = Vec::new();
        for (number, positions) in self.readings().into_iter().enumerate() {
            let folder = folder.join(format!("reading-{number}"));
            let place = Place { folder, positions };
            let reading = Reading { curation: self, source, number, place: &place, runs: &runs, after };
            after = reading.run(&mut fates, watch)?;
            places.push(place);
        }
        let names: Vec<String> =
            (0..=self.passes.len()).map(|position| self.name(position).to_owned()).collect();
        let report = Report::new(&fates, &names, source.faults());
        let json = serde_json::to_vec_pretty(&report).expect("plain data into memory");
        ledger::replace(&folder.join("report.json"), &json)?;
        drop(held);
        Ok(Outcome { places, runs, names, fates, report })
    }

    /// The passes of each reading, by position: reading itself is at 0, the first pass at 1.
    fn readings(&self) -> Vec<Range<usize>> {
        let mut ends: Vec<usize> = self.breaks.iter().map(|passes| passes + 1).collect();
        ends.push(self.passes.len() + 1);
        ends.dedup();
        let starts = std::iter::once(0).chain(ends.clone());
        starts.zip(ends).map(|(start, end)| start..end).collect()
    }

    /// The name of the pass at a position.
    pub(super) fn name(&self, position: usize) -> &str {
        position.checked_sub(1).map_or(READ, |pass| self.passes[pass].name())
    }

    /// The pass at a position, as it is written down.
    pub(super) fn named(&self, position: usize, source: &dyn Source) -> Named {
        let read = || json!({ "decoder": self.decoder, "source": source.settings() });
        let settings = position.checked_sub(1).map_or_else(read, |pass| self.passes[pass].settings());
        Named { name: self.name(position).to_owned(), settings }
    }

    fn check_names(&self) -> Result<(), CurationError> {
        let mut names = HashSet::from([READ]);
        match self.passes.iter().find(|pass| !names.insert(pass.name())) {
            Some(pass) => Err(CurationError::SameName(pass.name().to_owned())),
            None => Ok(()),
        }
    }
}

/// A source's blocks, the long ones cut.
fn cut(source: &dyn Source, length: usize) -> Vec<Range<usize>> {
    let parts = |block: Range<usize>| {
        block.clone().step_by(length).map(move |start| start..block.end.min(start + length))
    };
    let (blocks, images) = (source.blocks(), source.len());
    let end = blocks.iter().try_fold(0, |end, block| (block.start == end).then_some(block.end));
    assert_eq!(end, Some(images), "blocks {blocks:?} must lie side by side and hold all {images} images");
    blocks.into_iter().flat_map(parts).collect()
}
