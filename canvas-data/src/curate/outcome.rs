//! What a curation found: the verdict of every image, and the records that are kept.

use super::fates::Fates;
use super::ledger::{self, CurationError, Dropped, Judged};
use super::report::Report;
use crate::{Record, Source};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;

/// Where a reading is written down, and by which passes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub folder: PathBuf,
    pub positions: Range<usize>,
}

impl Place {
    /// The file of a run of images.
    pub fn run(&self, run: &Range<usize>) -> PathBuf {
        self.folder.join(format!("{:012}.jsonl", run.start))
    }

    /// The file of what a pass chose.
    pub fn choice(&self, position: usize) -> PathBuf {
        self.folder.join(format!("choice-{position:03}.jsonl"))
    }

    /// What was said of a run of images.
    pub fn lines(&self, run: &Range<usize>) -> Result<Vec<Judged>, CurationError> {
        let path = self.run(run);
        ledger::read(&path)?.map(|ledger| ledger.lines).ok_or(CurationError::Lost(path))
    }
}

/// The end of a curation: one verdict for every image of the source.
///
/// Details stay in the curation's folder and are read from there when asked for.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub(super) places: Vec<Place>,
    pub(super) runs: Vec<Range<usize>>,
    /// Of passes, by position.
    pub(super) names: Vec<String>,
    pub(super) fates: Fates,
    pub(super) report: Report,
}

impl Outcome {
    /// How many images which pass dropped, and why.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Whether an image is kept.
    ///
    /// # Panics
    /// If the source has not as many.
    pub fn is_kept(&self, number: usize) -> bool {
        self.fates.is_kept(number)
    }

    /// The numbers of the images that are kept, ascending.
    pub fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.fates.len()).filter(|&image| self.fates.is_kept(image))
    }

    /// Every image with its verdict and what passes noted up to it, by ascending number.
    ///
    /// # Errors
    /// If a file of the folder cannot be read, or has changed.
    pub fn verdicts(
        &self,
    ) -> Result<impl Iterator<Item = Result<Judged, CurationError>> + '_, CurationError> {
        let choices = self.choices()?;
        Ok(self.runs.iter().flat_map(move |run| match self.of_run(run, &choices) {
            Ok(lines) => lines.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }))
    }

    /// The records that are kept, in order, with notes of these passes as fields of the passes' names: what a writer of shards takes.
    ///
    /// # Errors
    /// If a file of the folder cannot be read or has changed, or an image cannot be read any more.
    pub fn kept_records<'a>(
        &'a self,
        source: &'a dyn Source,
        notes: &'a [&str],
    ) -> Result<impl Iterator<Item = Result<Record, CurationError>> + 'a, CurationError> {
        let kept =
            self.verdicts()?.filter(|judged| judged.as_ref().map_or(true, |judged| judged.dropped.is_none()));
        Ok(kept.map(|judged| {
            let mut judged = judged?;
            let mut record = source.read(judged.number).map_err(CurationError::reading)?;
            record.fields.extend(notes.iter().filter_map(|name| judged.notes.remove_entry(*name)));
            Ok(record)
        }))
    }

    /// What passes chose to drop.
    fn choices(&self) -> Result<HashMap<usize, Dropped>, CurationError> {
        let mut choices = HashMap::new();
        for place in &self.places {
            for position in place.positions.clone() {
                if let Some(ledger) = ledger::read(&place.choice(position))? {
                    let lines = ledger.lines.into_iter();
                    let current = lines.filter(|line| self.is_by(line.number, position));
                    choices.extend(current.filter_map(|line| Some((line.number, line.dropped?))));
                }
            }
        }
        Ok(choices)
    }

    fn is_by(&self, image: usize, position: usize) -> bool {
        image < self.fates.len() && self.fates.of(image).is_some_and(|(by, _)| *by == position)
    }

    /// The verdicts of a run of images, from all readings.
    fn of_run(
        &self,
        run: &Range<usize>,
        choices: &HashMap<usize, Dropped>,
    ) -> Result<Vec<Judged>, CurationError> {
        let mut all: BTreeMap<usize, Judged> = BTreeMap::new();
        for place in &self.places {
            for line in place.lines(run)? {
                if let Some(judged) = all.get_mut(&line.number) {
                    judged.notes.extend(line.notes);
                    judged.dropped = line.dropped;
                } else {
                    all.insert(line.number, line);
                }
            }
        }
        all.into_values().map(|judged| self.settled(judged, choices)).collect()
    }

    /// Leaves the verdict that counts, which is the first, and no notes of later passes.
    fn settled(
        &self,
        mut judged: Judged,
        choices: &HashMap<usize, Dropped>,
    ) -> Result<Judged, CurationError> {
        let Some((position, _)) = self.fates.of(judged.number) else { return Ok(judged) };
        for later in &self.names[position + 1..] {
            judged.notes.remove(later);
        }
        if judged.dropped.as_ref().is_none_or(|dropped| dropped.pass != self.names[*position]) {
            let place = self.places.iter().find(|place| place.positions.contains(position));
            let lost = || CurationError::Lost(place.map(|place| place.choice(*position)).unwrap_or_default());
            judged.dropped = Some(choices.get(&judged.number).cloned().ok_or_else(lost)?);
        }
        Ok(judged)
    }
}
