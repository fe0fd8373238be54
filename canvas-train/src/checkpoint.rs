//! Checkpoint folders that are whole or not there.

use canvas_core::weights::{WeightsError, write_atomically};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "checkpoint.json";
const PARTIAL: &str = ".partial-";

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A folder or file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of it could not be written or read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// There are checkpoints, and none is whole.
    #[error("{}: no whole checkpoint{found}", root.display())]
    NoneWhole {
        /// The folder of checkpoints.
        root: PathBuf,
        /// One line for each that is not whole.
        found: String,
    },
    /// The stored state is not that of this program.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    |source| CheckpointError::Io { path, source }
}

/// What a checkpoint folder holds: written last, so a folder without it is not whole.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    images: u64,
    /// File name to (bytes, checksum).
    files: BTreeMap<String, (u64, u64)>,
}

/// A whole checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Images trained on before it was written.
    pub images: u64,
    /// Newer ones that are not whole, with the reason; they were passed over.
    pub passed_over: Vec<String>,
}

/// A folder of checkpoints, one folder each, named by the images trained on.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// In this folder, keeping the newest `keep` (at least 1).
    pub fn new(root: impl Into<PathBuf>, keep: usize) -> Self {
        Self { root: root.into(), keep: keep.max(1) }
    }

    /// Writes a checkpoint: `fill` writes its files into the folder it is given.
    ///
    /// The folder is made beside its place and renamed when it is whole and on the disk. Afterwards the
    /// oldest beyond those to keep are removed.
    ///
    /// # Errors
    /// Names the file. Older checkpoints are as they were, and nothing is left of this one.
    pub fn write(
        &self,
        images: u64,
        fill: impl FnOnce(&Path) -> Result<(), CheckpointError>,
    ) -> Result<PathBuf, CheckpointError> {
        let place = self.root.join(format!("{images:012}"));
        if place.exists() && whole(&place).is_ok() {
            return Ok(place); // the same state was saved before: a run stopped right after it
        }
        let beside = self.root.join(format!("{PARTIAL}{images:012}"));
        let written = self.write_beside(&beside, images, fill).and_then(|()| {
            if place.exists() {
                fs::remove_dir_all(&place).map_err(io_error(&place))?; // not whole
            }
            fs::rename(&beside, &place).map_err(io_error(&place))?;
            sync_folder(&self.root)
        });
        if let Err(error) = written {
            fs::remove_dir_all(&beside).ok();
            return Err(error);
        }
        self.prune(&place);
        Ok(place)
    }

    fn write_beside(
        &self,
        beside: &Path,
        images: u64,
        fill: impl FnOnce(&Path) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        if beside.exists() {
            fs::remove_dir_all(beside).map_err(io_error(beside))?; // of a run that was killed
        }
        fs::create_dir_all(beside).map_err(io_error(beside))?;
        fill(beside)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(beside).map_err(io_error(beside))? {
            let path = entry.map_err(io_error(beside))?.path();
            let bytes = fs::read(&path).map_err(io_error(&path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, (bytes.len() as u64, checksum(&bytes)));
        }
        let manifest = serde_json::to_vec_pretty(&Manifest { images, files }).expect("plain data");
        write_atomically(&beside.join(MANIFEST), &manifest)?;
        sync_folder(beside)
    }

    /// The newest whole checkpoint, or none if there is no checkpoint at all.
    ///
    /// # Errors
    /// If there are checkpoints and none is whole: says of each what is wrong.
    pub fn newest(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        let mut passed_over = Vec::new();
        for path in self.folders()?.into_iter().rev() {
            match whole(&path) {
                Ok(images) => return Ok(Some(Checkpoint { path, images, passed_over })),
                Err(reason) => passed_over.push(format!("{}: {reason}", path.display())),
            }
        }
        if passed_over.is_empty() {
            return Ok(None);
        }
        let found = passed_over.iter().map(|line| format!("\n  {line}")).collect();
        Err(CheckpointError::NoneWhole { root: self.root.clone(), found })
    }

    /// All checkpoint folders, oldest first, whole or not.
    fn folders(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        if !self.root.exists() {
            return Ok(Vec::new());
        }
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(io_error(&self.root))? {
            let path = entry.map_err(io_error(&self.root))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
                folders.push(path);
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// Removes the oldest beyond those to keep. A failure to remove is not a failure to save.
    ///
    /// Folders that count more images than the one just written are damaged ones that a resumed run passed over:
    /// they do not count, or they would push out the only whole one.
    fn prune(&self, newest: &Path) {
        let mut folders = self.folders().unwrap_or_default();
        folders.retain(|folder| folder.as_path() <= newest);
        for old in folders.iter().rev().skip(self.keep) {
            fs::remove_dir_all(old).ok();
        }
    }
}

/// Images of a folder if it is whole, else what is wrong with it.
fn whole(folder: &Path) -> Result<u64, String> {
    let text = fs::read(folder.join(MANIFEST)).map_err(|error| format!("{MANIFEST}: {error}"))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| format!("{MANIFEST}: {error}"))?;
    for (name, (length, sum)) in &manifest.files {
        let bytes = fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if bytes.len() as u64 != *length {
            return Err(format!("{name}: {} bytes, expected {length}: truncated", bytes.len()));
        }
        if checksum(&bytes) != *sum {
            return Err(format!("{name}: its checksum differs: damaged"));
        }
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if name.parse() != Ok(manifest.images) {
        return Err(format!("{MANIFEST}: counts {} images, its folder {name}: damaged", manifest.images));
    }
    Ok(manifest.images)
}

/// FNV-1a over 64-bit words, the rest byte by byte: finds damage, not malice.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| step(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, &byte| step(hash, u64::from(byte)))
}

/// Puts a folder's entries on the disk, where the system can.
fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder))?;
    }
    Ok(())
}
