//! Why a source cannot be opened.

use crate::reason;
use std::io;
use std::path::{Path, PathBuf};

/// What is there cannot be opened as a source of images.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no image.
    #[error("{}: no image: {found}", path.display())]
    Empty {
        /// The file, folder or pattern.
        path: PathBuf,
        /// What there is instead.
        found: String,
    },
    /// It could be read in more than one way.
    #[error("{}: found {found}: {decide}", path.display())]
    Ambiguous {
        /// The file or folder.
        path: PathBuf,
        /// What there is.
        found: String,
        /// The option that decides.
        decide: String,
    },
    /// It is of a kind that is not read.
    #[error("{}: {why}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is, and what can be done.
        why: String,
    },
    /// A table has other columns.
    #[error("{}: expected {expected}, found the columns {}", path.display(), found.join(", "))]
    Columns {
        /// The file.
        path: PathBuf,
        /// Which columns are understood.
        expected: String,
        /// The columns there are.
        found: Vec<String>,
    },
    /// A pattern of names is not one.
    #[error("{pattern}: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The kind of fault that an error of the system is.
pub(super) fn unread(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => reason::MISSING,
        // A file that was longer when it was looked at has been written over.
        io::ErrorKind::UnexpectedEof => reason::TRUNCATED,
        _ => reason::UNREADABLE,
    }
}

impl OpenError {
    /// Of a path that the system refuses.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}
