//! What became of each image of a source.

use crate::{Assignment, Fault, Source, disk};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A survey or its manifest could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what a survey writes, or not all of it.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected and what was found.
        message: String,
    },
    /// It is the manifest of another source, or of the same before it changed.
    #[error("the manifest is not of this source: {0}")]
    OtherSource(String),
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    let path = path.to_owned();
    |source| ManifestError::Io { path, source }
}

/// What became of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is trained with, in this bucket.
    Kept(Assignment),
    /// It is not.
    Dropped {
        /// As [`Fault::reason`].
        reason: String,
        /// As [`Fault::detail`].
        detail: String,
    },
}

/// One image of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which one.
    pub key: String,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What became of each image of a source: kept in a bucket, or dropped for a reason.
///
/// As a file it has a line of JSON about the whole, then one an image, in the source's order.
///
/// # Memory
/// About 130 bytes an image beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    settings: String,
    buckets: Vec<[u32; 2]>,
    rows: Vec<Row>,
    faults: Vec<Fault>,
}

/// A manifest's first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// The version of what follows.
    manifest: u32,
    settings: String,
    images: usize,
    kept: usize,
    buckets: Vec<[u32; 2]>,
    faults: Vec<Fault>,
}

const VERSION: u32 = 1;

/// How many images of a source are kept and dropped. `kept + dropped = images`, by bucket and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Images of the source.
    pub images: usize,
    /// Kept images, by bucket.
    pub kept: Vec<usize>,
    /// Dropped images, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// What the source found that is none of its images, by reason.
    pub faults: BTreeMap<String, usize>,
}

impl Manifest {
    pub(crate) fn new(settings: String, buckets: &[[u32; 2]], rows: Vec<Row>, faults: &[Fault]) -> Self {
        Self { settings, buckets: buckets.to_vec(), rows, faults: faults.to_vec() }
    }

    /// A hash of the source's keys and of the settings by which its images were kept.
    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// The buckets' sizes, `[width, height]`, by number.
    pub fn buckets(&self) -> &[[u32; 2]] {
        &self.buckets
    }

    /// The images, in the source's order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What the source found that is none of its images.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How image number `index` is trained, if it is kept.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn assignment(&self, index: usize) -> Option<&Assignment> {
        match &self.rows[index].fate {
            Fate::Kept(assignment) => Some(assignment),
            Fate::Dropped { .. } => None,
        }
    }

    /// The numbers of the kept images, by bucket.
    pub fn kept(&self) -> Vec<Vec<usize>> {
        let mut kept = vec![Vec::new(); self.buckets.len()];
        for index in 0..self.rows.len() {
            if let Some(assignment) = self.assignment(index) {
                kept[assignment.bucket].push(index);
            }
        }
        kept
    }

    /// The dropped images, in the source's order.
    pub fn dropped(&self) -> impl Iterator<Item = (usize, Fault)> {
        self.rows.iter().enumerate().filter_map(|(index, row)| match &row.fate {
            Fate::Kept(_) => None,
            Fate::Dropped { reason, detail } => {
                Some((index, Fault::new(row.key.clone(), reason.clone(), detail.clone())))
            }
        })
    }

    /// How many images are kept and dropped.
    pub fn totals(&self) -> Totals {
        let count = |counts: &mut BTreeMap<String, usize>, reason: &str| {
            *counts.entry(reason.to_owned()).or_default() += 1;
        };
        let (mut dropped, mut faults) = (BTreeMap::new(), BTreeMap::new());
        self.dropped().for_each(|(_, fault)| count(&mut dropped, &fault.reason));
        self.faults.iter().for_each(|fault| count(&mut faults, &fault.reason));
        let kept = self.kept().iter().map(Vec::len).collect();
        Totals { images: self.rows.len(), kept, dropped, faults }
    }

    /// Whether this is the manifest of a source: of another, its numbers mean other images.
    ///
    /// # Errors
    /// Says how many images each has, or which is the first that differs.
    pub fn check(&self, source: &dyn Source) -> Result<(), ManifestError> {
        let (listed, found) = (self.rows.len(), source.len());
        if listed != found {
            return Err(ManifestError::OtherSource(format!(
                "it lists {listed} images, the source has {found}"
            )));
        }
        for (index, row) in self.rows.iter().enumerate() {
            let (listed, found) = (&row.key, source.key(index));
            if *listed != found {
                let message = format!("image {index} is `{listed}` there and `{found}` in the source");
                return Err(ManifestError::OtherSource(message));
            }
        }
        Ok(())
    }

    /// Writes it whole or not at all: beside its place, flushed to the disk, then renamed.
    ///
    /// # Errors
    /// Names the file. An older one is as it was, and nothing is left beside it.
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        disk::replace(path, |beside| self.write_lines(beside)).map_err(io_error(path))
    }

    fn write_lines(&self, path: &Path) -> io::Result<()> {
        let head = Head {
            manifest: VERSION,
            settings: self.settings.clone(),
            images: self.rows.len(),
            kept: self.kept().iter().map(Vec::len).sum(),
            buckets: self.buckets.clone(),
            faults: self.faults.clone(),
        };
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, &head)?;
        for row in &self.rows {
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, row)?;
        }
        file.write_all(b"\n")?;
        file.into_inner()?.sync_all()
    }

    /// Reads one, and checks that it adds up.
    ///
    /// # Errors
    /// Names the file, and the line that is missing, too many or not as a survey writes it.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let content =
            |line: usize, message: String| ManifestError::Content { path: path.to_owned(), line, message };
        let mut lines = BufReader::new(File::open(path).map_err(io_error(path))?).lines();
        let first = lines.next().transpose().map_err(io_error(path))?.unwrap_or_default();
        let head: Head = serde_json::from_str(&first)
            .map_err(|error| content(1, format!("expected a manifest's first line: {error}")))?;
        if head.manifest != VERSION {
            let message = format!("expected a manifest of version {VERSION}, found {}", head.manifest);
            return Err(content(1, message));
        }
        let mut rows: Vec<Row> = Vec::new();
        for line in lines {
            let line = line.map_err(io_error(path))?;
            let row = serde_json::from_str(&line).map_err(|error| error.to_string());
            let row = row.and_then(|row| fitting(row, &head.buckets));
            rows.push(row.map_err(|message| content(rows.len() + 2, message))?);
        }
        let found = Self { settings: head.settings, buckets: head.buckets, rows, faults: head.faults };
        let (images, kept) = (found.rows.len(), found.kept().iter().map(Vec::len).sum::<usize>());
        if (images, kept) != (head.images, head.kept) {
            let (says, keeps) = (head.images, head.kept);
            let message =
                format!("expected {says} images, {keeps} kept, found {images}, {kept} kept: cut or changed");
            return Err(content(images + 2, message));
        }
        Ok(found)
    }
}

/// A row whose assignment is to one of the buckets.
fn fitting(row: Row, buckets: &[[u32; 2]]) -> Result<Row, String> {
    if let Fate::Kept(Assignment { bucket, resized, target, .. }) = row.fate {
        let covered = (0..2).all(|side| resized[side] >= target[side]);
        if buckets.get(bucket) != Some(&target) || !covered {
            return Err(format!(
                "bucket {bucket} is not of {target:?} pixels, or is not covered by {resized:?}"
            ));
        }
    }
    Ok(row)
}

/// A short table for a terminal, with the first image of each reason.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = self.totals();
        let kept: usize = totals.kept.iter().sum();
        write!(f, "{} images: {kept} kept, {} dropped", totals.images, totals.images - kept)?;
        for ([width, height], count) in self.buckets.iter().zip(&totals.kept).filter(|(_, count)| **count > 0)
        {
            write!(f, "\n  {:<20}{count:>10}", format!("{width}x{height}"))?;
        }
        let mut table =
            |title: &str, counts: &BTreeMap<String, usize>, faults: &dyn Fn(&str) -> Option<Fault>| {
                if !counts.is_empty() {
                    write!(f, "\n{title}")?;
                }
                for (reason, count) in counts {
                    let first = faults(reason).map(|fault| format!("{}: {}", fault.key, fault.detail));
                    write!(f, "\n  {reason:<20}{count:>10}  {}", first.unwrap_or_default())?;
                }
                Ok(())
            };
        let of = |reason: &str, fault: &Fault| fault.reason == reason;
        table("dropped", &totals.dropped, &|reason| {
            self.dropped().map(|(_, fault)| fault).find(|fault| of(reason, fault))
        })?;
        table("faults of the source beside its images", &totals.faults, &|reason| {
            self.faults.iter().find(|fault| of(reason, fault)).cloned()
        })
    }
}
