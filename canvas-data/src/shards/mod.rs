//! Writing WebDataset's tar files.

mod entry;

use crate::Record;
use crate::disk::{Held, sync_folder};
use canvas_core::weights::{WeightsError, write_atomically};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A shard could not be written, or an earlier one not be understood.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The counts of a shard could not be written.
    #[error(transparent)]
    Counts(#[from] WeightsError),
    /// The folder holds shards that this run would not write.
    #[error("{}: {why}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What is expected, and what was found.
        why: String,
    },
    /// Another writer is at work in the folder.
    #[error("{}: another writer is at work here", .0.display())]
    Busy(PathBuf),
    /// A record that cannot be stored.
    #[error("{key}: {why}")]
    Record {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ShardError {
    let path = path.to_owned();
    |source| ShardError::Io { path, source }
}

/// When a shard is full: as soon as either is reached. At least one record goes into each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLimits {
    /// The most records; at least 1.
    pub records: usize,
    /// The most bytes of members, their headers included.
    pub bytes: u64,
}

impl Default for ShardLimits {
    /// 10,000 records, as img2dataset's, and 1 GiB.
    fn default() -> Self {
        Self { records: 10_000, bytes: 1 << 30 }
    }
}

/// What is known of a finished shard: its `NNNNNN_stats.json`, with img2dataset's names where those say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStats {
    /// Records in it.
    pub count: usize,
    /// The same: a record that could not be downloaded is none here.
    pub successes: usize,
    /// Always 0.
    pub failed_to_download: usize,
    /// Always 0.
    pub failed_to_resize: usize,
    /// Records by their `status`.
    pub status_dict: BTreeMap<String, usize>,
    /// Length of the file.
    pub bytes: u64,
    /// Key of the first record, as its source named it.
    pub first: String,
    /// Key of the last record.
    pub last: String,
    /// By which limits it was closed.
    pub limits: ShardLimits,
}

/// Writes records into `000000.tar`, `000001.tar`, .. of a folder.
///
/// A record is `KEY.jpg` (or `png`, `webp`, .., by its bytes), `KEY.txt` with its first caption, and `KEY.json` with the fields of
/// img2dataset: `key`, `caption`, `status`, `width`, `height`, and whatever other fields the record has; also `captions` if there is
/// more than one or a weight other than 1, and `source_key`, the record's key where it came from first. `KEY` is six digits for the shard
/// and four or more for the record in it: keys of other sources may hold dots, at which readers of tar files divide names.
///
/// Fields of a record that a reader would take for captions, `captions`, `caption`, `text`, `TEXT` and `weights`, are what
/// [`Options::captions`](crate::Options::captions) left over. They are written as `was_captions` and so on: read back without options,
/// a record has the captions that it had.
///
/// The same records give the same bytes. A shard has another name until it is whole and on the disk: what has the name `NNNNNN.tar` is
/// finished. A second run over the same records asks [`written`](Self::written) how many it can leave out.
///
/// ```
/// use canvas_data::{Caption, Record, ShardLimits, ShardWriter};
/// let folder = tempfile::tempdir()?;
/// let record = |n: usize| Record {
///     key: format!("n{n}"), image: vec![0xff, 0xd8, 0xff], captions: vec![Caption::new("a pear")], fields: Default::default(),
/// };
/// let limits = ShardLimits { records: 2, ..ShardLimits::default() };
/// let mut writer = ShardWriter::create(folder.path(), limits)?;
/// for n in 0..3 {
///     writer.write(&record(n))?; // and then the program is killed
/// }
/// drop(writer);
/// let mut writer = ShardWriter::create(folder.path(), limits)?;
/// assert_eq!(writer.written(), 2);
/// writer.write(&record(2))?;
/// assert_eq!(writer.finish()?.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ShardWriter {
    folder: PathBuf,
    limits: ShardLimits,
    finished: Vec<ShardStats>,
    /// The shard that is being written.
    open: Option<Open>,
    /// The folder, if the system can hold one.
    _held: Option<Held>,
}

struct Open {
    beside: PathBuf,
    archive: tar::Builder<BufWriter<File>>,
    stats: ShardStats,
}

/// Holds a folder, where the system can.
fn hold(folder: &Path) -> Result<Option<Held>, ShardError> {
    if !cfg!(unix) {
        return Ok(None);
    }
    let file = File::open(folder).map_err(io_error(folder))?;
    match Held::new(file) {
        Ok(None) => Err(ShardError::Busy(folder.to_owned())),
        Ok(held) => Ok(held),
        Err(_) => Ok(None), // some network file systems lock files only
    }
}

impl ShardWriter {
    /// Writes into this folder, after the shards that are finished there.
    ///
    /// # Errors
    /// If the folder cannot be made or read, or another writer is at work in it (seen on Unix, where file systems lock folders); if there
    /// is a shard without its counts, with other limits, or behind one that is missing.
    pub fn create(folder: impl Into<PathBuf>, limits: ShardLimits) -> Result<Self, ShardError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let mut writer = Self { _held: hold(&folder)?, folder, limits, finished: Vec::new(), open: None };
        while writer.path(".tar").exists() {
            let path = writer.path("_stats.json");
            let text = fs::read(&path).map_err(io_error(&path))?;
            let stats: ShardStats = serde_json::from_slice(&text)
                .map_err(|error| ShardError::Other { path: path.clone(), why: error.to_string() })?;
            if stats.limits != limits {
                let why = format!("expected shards of {limits:?}, found one of {:?}", stats.limits);
                return Err(ShardError::Other { path, why });
            }
            writer.finished.push(stats);
        }
        writer.check_last()?;
        Ok(writer)
    }

    /// No shard lies behind the one that comes next: it would be written over, or be of another run.
    fn check_last(&self) -> Result<(), ShardError> {
        for entry in fs::read_dir(&self.folder).map_err(io_error(&self.folder))? {
            let path = entry.map_err(io_error(&self.folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name.strip_suffix(".tar").and_then(|digits| digits.parse::<usize>().ok());
            if number.is_some_and(|number| number > self.finished.len() && name == format!("{number:06}.tar"))
            {
                let why = format!("expected {:06}.tar before it, which is not there", self.finished.len());
                return Err(ShardError::Other { path, why });
            }
        }
        Ok(())
    }

    /// A file of the shard that is not finished yet.
    fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{:06}{ending}", self.finished.len()))
    }

    /// How many records are in finished shards, those of earlier runs included.
    pub fn written(&self) -> usize {
        self.finished.iter().map(|stats| stats.count).sum()
    }

    /// Key of the last record in a finished shard, as its source named it: where a run goes on whose records are not all written.
    pub fn last(&self) -> Option<&str> {
        self.finished.last().map(|stats| stats.last.as_str())
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If it cannot be written. The unfinished shard is then given up: what comes next begins it anew, and [`written`](Self::written)
    /// says how many records are not lost. After [`ShardError::Record`] the shard goes on without the record.
    pub fn write(&mut self, record: &Record) -> Result<(), ShardError> {
        let number = self.open.as_ref().map_or(0, |open| open.stats.count);
        let mut members = entry::members(record, &self.key(number))?;
        let mut size = entry::size(&members);
        let full = self.open.as_ref().is_some_and(|open| {
            open.stats.count >= self.limits.records
                || open.stats.bytes.saturating_add(size) > self.limits.bytes
        });
        if full {
            self.close()?;
            members = entry::members(record, &self.key(0))?;
            size = entry::size(&members);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(record)?,
        };
        for (name, bytes) in &members {
            entry::append(&mut open.archive, name, bytes).map_err(io_error(&open.beside))?;
        }
        open.stats.count += 1;
        open.stats.bytes += size;
        open.stats.last.clone_from(&record.key);
        *open.stats.status_dict.entry("success".into()).or_default() += 1;
        self.open = Some(open);
        Ok(())
    }

    fn key(&self, number: usize) -> String {
        format!("{:06}{number:04}", self.finished.len())
    }

    fn begin(&self, record: &Record) -> Result<Open, ShardError> {
        let beside = self.path(".tar.partial");
        let file = File::create(&beside).map_err(io_error(&beside))?;
        let stats = ShardStats {
            count: 0,
            successes: 0,
            failed_to_download: 0,
            failed_to_resize: 0,
            status_dict: BTreeMap::new(),
            bytes: 0,
            first: record.key.clone(),
            last: record.key.clone(),
            limits: self.limits,
        };
        Ok(Open { beside, archive: tar::Builder::new(BufWriter::new(file)), stats })
    }

    /// Gives the shard its name. The counts come first: what has the name has counts.
    fn close(&mut self) -> Result<(), ShardError> {
        let Some(Open { beside, archive, mut stats }) = self.open.take() else { return Ok(()) };
        let sync = || -> io::Result<u64> {
            let mut writer = archive.into_inner()?;
            writer.flush()?;
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok(file.metadata()?.len())
        };
        stats.bytes = sync().map_err(io_error(&beside))?;
        stats.successes = stats.count;
        let json = serde_json::to_vec_pretty(&stats).expect("plain data");
        write_atomically(&self.path("_stats.json"), &json)?;
        let place = self.path(".tar");
        fs::rename(&beside, &place).map_err(io_error(&place))?;
        sync_folder(&self.folder).map_err(io_error(&self.folder))?;
        self.finished.push(stats);
        Ok(())
    }

    /// Finishes the last shard, and says what is known of each, those of earlier runs included.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<Vec<ShardStats>, ShardError> {
        self.close()?;
        Ok(std::mem::take(&mut self.finished))
    }
}
