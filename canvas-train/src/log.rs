//! Logs as JSON lines that a resumed run continues exactly.

use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file of one JSON value a line.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens a log to go on with it: the rows that `keep` accepts stay, up to the first that it does not
    /// (or that was cut off by a crash); the rest is removed.
    ///
    /// # Errors
    /// Names the file.
    pub fn resume<R: DeserializeOwned>(path: &Path, keep: impl Fn(&R) -> bool) -> io::Result<Self> {
        // As bytes: a crash can cut a row off inside a character.
        let old = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(named(path, &error)),
        };
        let fits = |line: &&[u8]| {
            line.ends_with(b"\n") && serde_json::from_slice::<R>(line).is_ok_and(|row| keep(&row))
        };
        let length: usize =
            old.split_inclusive(|&byte| byte == b'\n').take_while(fits).map(<[u8]>::len).sum();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.and_then(|file| file.set_len(length as u64).map(|()| file));
        Ok(Self { path: path.to_owned(), file: file.map_err(|error| named(path, &error))? })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Names the file.
    pub fn push<R: Serialize>(&mut self, row: &R) -> io::Result<()> {
        let mut line = serde_json::to_string(row).map_err(io::Error::other)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|error| named(&self.path, &error))
    }

    /// Puts all rows on the disk: before a checkpoint that says they are there.
    ///
    /// # Errors
    /// Names the file.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| named(&self.path, &error))
    }

    /// All rows of a log; a missing file has none. A last line without its end is not a row yet: it is being written, or a crash
    /// has cut it off, and [`resume`](Self::resume) removes it.
    ///
    /// # Errors
    /// Names the file, and the line that is not such a row.
    pub fn read<R: DeserializeOwned>(path: &Path) -> io::Result<Vec<R>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(named(path, &error)),
        };
        let parse = |(number, line): (usize, &[u8])| {
            serde_json::from_slice(line)
                .map_err(|error| io::Error::other(format!("{}:{}: {error}", path.display(), number + 1)))
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate().map(parse).collect()
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
