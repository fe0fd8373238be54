//! What a survey has seen so far, in a file that may be cut off at any byte.

use super::Begun;
use crate::manifest::{Fate, ManifestError, Row, io_error};
use crate::{Source, disk, reason};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// The version of what follows.
    survey: u32,
    settings: String,
    images: usize,
}

/// How every such file begins, whatever its settings.
const START: &[u8] = b"{\"survey\":";

impl Head {
    pub(super) fn new(settings: String, images: usize) -> Self {
        Self { survey: 1, settings, images }
    }
}

/// Any other line: an image, in the order in which they were looked at.
#[derive(Serialize, Deserialize)]
struct Line {
    index: usize,
    #[serde(flatten)]
    row: Row,
}

/// What a survey has seen so far.
pub(super) struct Progress {
    /// The images, those not yet looked at empty.
    pub rows: Vec<Option<Row>>,
    pub begun: Begun,
    file: Option<(PathBuf, File)>,
}

/// The settings of a file if they are not these; none if there is no file, or not even its first line whole.
fn other_settings(path: &Path, head: &Head) -> Result<Option<String>, ManifestError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    };
    let mut lines = Lines { file: BufReader::new(file), line: Vec::new() };
    let first = lines.next().map_err(io_error(path))?;
    let cut = !first.ends_with(b"\n") && (first.starts_with(START) || START.starts_with(first));
    match serde_json::from_slice::<Head>(first) {
        _ if cut => Ok(None),
        Ok(found) if found == *head => Ok(None),
        Ok(found) => Ok(Some(found.settings)),
        Err(_) => {
            let message = "expected a survey's progress, which begins with {\"survey\":".to_owned();
            Err(ManifestError::Content { path: path.to_owned(), line: 1, message })
        }
    }
}

/// Renames a file of other settings, and takes back the one of these that was renamed before; says what it is called now.
fn put_aside(path: &Path, found: &str, head: &Head) -> Result<PathBuf, ManifestError> {
    let aside =
        |settings: &str| disk::beside(path, &format!(".{}.old", settings.get(..8).unwrap_or("other")));
    let (kept, own) = (aside(found), aside(&head.settings));
    fs::rename(path, &kept).map_err(io_error(path))?;
    if other_settings(&own, head).is_ok_and(|other| other.is_none()) && own.exists() {
        fs::rename(&own, path).map_err(io_error(&own))?;
    }
    Ok(kept)
}

impl Progress {
    /// Opens a file to go on with it, or begins one: what was cut off is removed, what is of other settings put aside. Without a path
    /// nothing is kept.
    pub(super) fn open(path: Option<&Path>, head: &Head, source: &dyn Source) -> Result<Self, ManifestError> {
        let mut progress = Self { rows: vec![None; head.images], begun: Begun::Afresh, file: None };
        let Some(path) = path else { return Ok(progress) };
        let other = other_settings(path, head)?;
        let put = other.map(|found| Ok((put_aside(path, &found, head)?, found))).transpose()?;
        let options = OpenOptions::new().create(true).read(true).append(true).open(path);
        let file = options.map_err(io_error(path))?;
        let (good, whole) = progress.read(path, &file, (head, source))?;
        if good < whole {
            file.set_len(good).map_err(io_error(path))?;
        }
        progress.file = Some((path.to_owned(), file));
        if good == 0 {
            progress.append(head)?;
            if let Some((kept, found)) = put {
                progress.begun = Begun::Anew { found, expected: head.settings.clone(), kept };
            }
        }
        Ok(progress)
    }

    /// Reads the rows up to the first that was cut off; says how many bytes they have, and the file.
    fn read(
        &mut self,
        path: &Path,
        file: &File,
        (head, source): (&Head, &dyn Source),
    ) -> Result<(u64, u64), ManifestError> {
        let whole = file.metadata().map_err(io_error(path))?.len();
        let mut lines = Lines { file: BufReader::new(file), line: Vec::new() };
        let first = lines.next().map_err(io_error(path))?;
        let length = first.len() as u64;
        if !first.ends_with(b"\n") {
            return Ok((0, whole));
        }
        let mut good = length;
        loop {
            let line = lines.next().map_err(io_error(path))?;
            let parsed = serde_json::from_slice::<Line>(line).ok().filter(|_| line.ends_with(b"\n"));
            let Some(Line { index, row }) = parsed else { break };
            if index >= head.images || source.key(index) != row.key {
                break;
            }
            good += line.len() as u64;
            self.rows[index] = Some(row);
        }
        self.begun = Begun::Resumed(self.rows.iter().flatten().count());
        Ok((good, whole))
    }

    /// Adds an image that was looked at. One that could not be read is not written down, so that it is looked at again.
    pub(super) fn push(&mut self, index: usize, row: Row) -> Result<(), ManifestError> {
        let line = Line { index, row };
        if !matches!(&line.row.fate, Fate::Dropped { reason, .. } if reason::may_pass(reason)) {
            self.append(&line)?;
        }
        self.rows[index] = Some(line.row);
        Ok(())
    }

    fn append(&mut self, value: &impl Serialize) -> Result<(), ManifestError> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(value).expect("plain data");
        line.push(b'\n');
        file.write_all(&line).map_err(io_error(path))
    }
}

/// Lines with their ends, the last perhaps without.
struct Lines<R> {
    file: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        self.file.read_until(b'\n', &mut self.line)?;
        Ok(&self.line)
    }
}
