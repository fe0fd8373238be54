//! What can be wrong with a cache.

use burn::tensor::DType;
use std::io;
use std::path::{Path, PathBuf};

/// A cache could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another [`Cache`](super::Cache) of this one, writes to it.
    #[error("{}: open for writing elsewhere; open it read-only, or wait until the other is done", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a cache of this model.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// It was opened to be read only.
    #[error("{}: was opened read-only", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// A tensor of a type that is not stored.
    #[error("tensor {name}: values of type {dtype:?} are not stored")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        dtype: DType,
    },
}

impl CacheError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}
