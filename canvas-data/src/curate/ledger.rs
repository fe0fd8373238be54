//! What a curation writes down: files of JSON lines that are whole or count for nothing.

use super::curation::READ;
use crate::disk::{self, Held};
use crate::{Fault, reason};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A curation that stopped. What it has written stays good: it goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum CurationError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process is writing into the folder.
    #[error("{}: another curation is at work here", .0.display())]
    Busy(PathBuf),
    /// A file of this folder was changed while it was needed.
    #[error("{}: was whole a moment ago, and is not", .0.display())]
    Lost(PathBuf),
    /// Two passes have one name, or one has a name that is taken.
    #[error("two passes are named {0:?}: each needs a name of its own")]
    SameName(String),
    /// A pass could not go on.
    #[error("{pass}: {message}")]
    Pass {
        /// Its name.
        pass: String,
        /// What it said.
        message: String,
    },
    /// An image that was read before is another now.
    #[error("the source has changed: {0}")]
    Changed(Fault),
    /// An image that was read before cannot be read now, and perhaps later: a disk or a network fails.
    #[error("could be read before: {0}")]
    Unread(Fault),
    /// The caller asked to stop.
    #[error("stopped when asked to")]
    Stopped,
}

impl CurationError {
    /// Of an image that was read before.
    pub(super) fn reading(fault: Fault) -> Self {
        if fault.may_pass() { Self::Unread(fault) } else { Self::Changed(fault) }
    }
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CurationError {
    let path = path.to_owned();
    |source| CurationError::Io { path, source }
}

/// Why an image was dropped, and by which pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The pass's name; `read` if there was no record to judge.
    pub pass: String,
    /// The kind of reason.
    pub reason: String,
    /// What was expected and what was found.
    pub detail: String,
    /// The key of the image that it resembles, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
}

impl Dropped {
    /// Whether it could not be read, and perhaps can be now.
    pub(super) fn may_pass(&self) -> bool {
        self.pass == READ && reason::may_pass(&self.reason)
    }
}

/// An image and what was said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Its number in the source.
    pub number: usize,
    /// Which one it is, for people.
    pub key: String,
    /// Why it was dropped; kept if nothing is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Dropped>,
    /// What passes noted of it, by their names.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub notes: Map<String, Value>,
}

/// A pass as it was when it judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    pub name: String,
    pub settings: Value,
}

/// The first line of a file: what its verdicts depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Version of this format.
    pub curation: u32,
    /// The numbers of the images it is about, the end not among them.
    pub images: [usize; 2],
    /// Checksum of what came before: of the readings before this one, or of the notes that a pass chose by.
    pub after: String,
    /// Who judged, in order.
    pub passes: Vec<Named>,
}

/// The last line of a file.
#[derive(Serialize, Deserialize)]
struct Seal {
    blake3: String,
}

/// A file that was read whole.
pub(super) struct Ledger {
    pub header: Header,
    pub lines: Vec<Judged>,
    /// Checksum of the file.
    pub seal: String,
}

/// Writes a file, and says its checksum.
pub(super) fn write(path: &Path, header: &Header, lines: &[Judged]) -> Result<String, CurationError> {
    let mut bytes = Vec::new();
    push(&mut bytes, header);
    for line in lines {
        push(&mut bytes, line);
    }
    let seal = blake3::hash(&bytes).to_hex().to_string();
    push(&mut bytes, &json!({ "blake3": seal }));
    replace(path, &bytes)?;
    Ok(seal)
}

/// Writes a file beside its place and renames it.
///
/// Not flushed to the disk: a file of which a power cut leaves a part has a wrong seal, and is written again.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CurationError> {
    disk::replace(path, |beside| fs::write(beside, bytes)).map_err(io_error(path))
}

fn push(bytes: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, line).expect("plain data into memory");
    bytes.push(b'\n');
}

/// Reads a file; none if there is none, or if it is not exactly as it was written.
pub(super) fn read(path: &Path) -> Result<Option<Ledger>, CurationError> {
    match fs::read(path) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

fn parse(bytes: &[u8]) -> Option<Ledger> {
    let body = bytes.strip_suffix(b"\n")?;
    let sealed = body.iter().rposition(|&byte| byte == b'\n')? + 1;
    let Seal { blake3: seal } = from_line(&body[sealed..])?;
    if blake3::hash(&bytes[..sealed]).to_hex().as_str() != seal {
        return None;
    }
    let mut lines = bytes[..sealed - 1].split(|&byte| byte == b'\n');
    let header = from_line(lines.next()?)?;
    let lines = lines.map(from_line).collect::<Option<_>>()?;
    Some(Ledger { header, lines, seal })
}

fn from_line<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

/// Makes a folder and holds it.
pub(super) fn hold(folder: &Path) -> Result<Held, CurationError> {
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    let path = folder.join("lock");
    let held = File::create(&path).and_then(Held::new).map_err(io_error(&path))?;
    held.ok_or_else(|| CurationError::Busy(folder.to_owned()))
}
