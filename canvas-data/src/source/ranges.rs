//! Bytes by range, from wherever they are.

use super::recent::Recent;
use crate::disk::read_at;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that can be read from any place in them, by any thread: those of a disk, or of an object store.
pub trait Ranges: Send + Sync {
    /// How many files there are.
    fn count(&self) -> usize;

    /// Name of a file, for people and for keys; no two have the same.
    ///
    /// # Panics
    /// If there are not as many.
    fn name(&self, file: usize) -> String;

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// If there are not as many.
    fn length(&self, file: usize) -> io::Result<u64>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// What the system says; that the file ends before the range does.
    ///
    /// # Panics
    /// If there are not as many.
    fn read(&self, file: usize, range: Range<u64>) -> io::Result<Vec<u8>>;
}

/// How many files are held open. Systems allow a thousand and more to a process.
const OPEN: u64 = 64;

/// Files of a disk. The ones read last stay open.
pub struct LocalFiles {
    paths: Vec<PathBuf>,
    /// How many parts of each path all have.
    shared: usize,
    open: Recent<File>,
}

impl LocalFiles {
    /// These files, in this order; their names are what of their paths they do not share.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let mut folders = paths.iter().map(|path| path.parent().unwrap_or(Path::new("")));
        let first: Vec<_> = folders.next().into_iter().flat_map(Path::components).collect();
        let shared = folders.fold(first.len(), |shared, folder| {
            folder.components().zip(&first[..shared]).take_while(|(a, b)| a == *b).count()
        });
        Self { paths, shared, open: Recent::new(OPEN) }
    }

    fn open(&self, file: usize) -> io::Result<Arc<File>> {
        self.open.get(file, || Ok((File::open(&self.paths[file])?, 1)))
    }
}

impl Ranges for LocalFiles {
    fn count(&self) -> usize {
        self.paths.len()
    }

    fn name(&self, file: usize) -> String {
        let parts = self.paths[file].components().skip(self.shared);
        parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
    }

    fn length(&self, file: usize) -> io::Result<u64> {
        std::fs::metadata(&self.paths[file]).map(|data| data.len())
    }

    fn read(&self, file: usize, range: Range<u64>) -> io::Result<Vec<u8>> {
        let file = self.open(file)?;
        let mut bytes = vec![0; range_length(&range)?];
        match read_at(&file, &mut bytes, range.start)? {
            read if read < bytes.len() => {
                let error = format!("expected {} bytes, found {read}", bytes.len());
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, error))
            }
            _ => Ok(bytes),
        }
    }
}

/// How many bytes a range has, if a machine can hold them.
pub(super) fn range_length(range: &Range<u64>) -> io::Result<usize> {
    let length = range.end.saturating_sub(range.start);
    usize::try_from(length).map_err(|_| io::Error::other(format!("{length} bytes do not fit in memory")))
}

/// Reads a file from its start, skipping by seeking: what is skipped is not read.
pub(super) struct Window<'a> {
    ranges: &'a dyn Ranges,
    file: usize,
    length: u64,
    position: u64,
    /// Bytes that are here, and where they stand in the file.
    here: Vec<u8>,
    start: u64,
    /// How many bytes are asked for at once.
    ahead: u64,
    /// How many bytes may be read before the next seek.
    budget: u64,
    left: u64,
}

impl<'a> Window<'a> {
    /// A reader that asks for `ahead` bytes at once and refuses to read more than `budget` in one go.
    pub fn new((ranges, file, length): (&'a dyn Ranges, usize, u64), ahead: usize, budget: u64) -> Self {
        let ahead = ahead.max(512) as u64;
        Self { ranges, file, length, position: 0, here: Vec::new(), start: 0, ahead, budget, left: budget }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.length || into.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            return Err(io::Error::other(format!("a header of more than {} bytes", self.budget)));
        }
        let held = self.start..self.start + self.here.len() as u64;
        if !held.contains(&self.position) {
            let end = self.position.saturating_add(self.ahead).min(self.length);
            self.here = self.ranges.read(self.file, self.position..end)?;
            self.start = self.position;
        }
        let here = &self.here[(self.position - self.start) as usize..];
        let count = here.len().min(into.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        into[..count].copy_from_slice(&here[..count]);
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.left = self.budget;
        Ok(self.position)
    }
}
