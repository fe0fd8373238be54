//! What was left out of a run, and why.

use super::LoadError;
use crate::{Fault, Place, disk};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Faults of a reason that are kept in memory.
const EXAMPLES: usize = 3;

/// What a run does about an image that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OnFault {
    /// Leaves it out, counts and names it; stops if more than a part of the last images were left out.
    Skip {
        /// The part that may be left out, from 0 to 1.
        at_most: f64,
        /// Of how many images, delivered or left out; at least 1.
        window: u64,
    },
    /// Stops at the first.
    Refuse,
}

/// A line of a file of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRow {
    /// Number of the image in the run.
    pub number: u64,
    /// Which of the stream's parts it is of.
    pub source: usize,
    /// Its number in that source.
    pub index: usize,
    /// What is wrong with it.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What a loader has left out so far, by reason. Its text names the first few of each.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    images: u64,
    counts: BTreeMap<Cow<'static, str>, (u64, Vec<Fault>)>,
}

impl Faults {
    /// Images so far, delivered or left out.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// How many were left out.
    pub fn total(&self) -> u64 {
        self.counts.values().map(|(count, _)| count).sum()
    }

    /// How often each reason was found, and the first few of it.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, u64, &[Fault])> {
        self.counts.iter().map(|(reason, (count, examples))| (&**reason, *count, &**examples))
    }

    fn add(&mut self, fault: &Fault) {
        let (count, examples) = self.counts.entry(fault.reason.clone()).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(fault.clone());
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} images left out", self.total(), self.images)?;
        for (reason, count, examples) in self.reasons() {
            let keys: Vec<&str> = examples.iter().map(|fault| &*fault.key).collect();
            let more = if count > EXAMPLES as u64 { ", ..." } else { "" };
            write!(f, "\n  {count} {reason}: {}{more}", keys.join(", "))?;
        }
        Ok(())
    }
}

/// Counts faults, writes them down, and says when there are too many.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) faults: Faults,
    rule: OnFault,
    /// Which images of those so far were left out, within the window.
    recent: VecDeque<u64>,
    log: Option<FaultLog>,
}

impl Watch {
    pub(super) fn new(rule: OnFault, log: Option<FaultLog>) -> Self {
        if let OnFault::Skip { at_most, window } = rule {
            assert!(window > 0, "images are left out of a window of at least one, not 0");
            assert!(
                (0.0..=1.0).contains(&at_most),
                "the part that may be left out is {at_most}: from 0 to 1"
            );
        }
        Self { faults: Faults::default(), rule, recent: VecDeque::new(), log }
    }

    /// An image was delivered.
    pub(super) fn delivered(&mut self) {
        self.faults.images += 1;
    }

    /// An image cannot be used.
    pub(super) fn left_out(&mut self, number: u64, place: Place, fault: &Fault) -> Result<(), LoadError> {
        self.faults.images += 1;
        self.faults.add(fault);
        if let Some(log) = &mut self.log {
            let (source, index) = (place.source, place.index);
            log.push(&FaultRow { number, source, index, fault: fault.clone() })?;
        }
        let OnFault::Skip { at_most, window } = self.rule else {
            return Err(LoadError::Refused { number, fault: fault.clone() });
        };
        self.recent.push_back(self.faults.images);
        while self.recent.front().is_some_and(|&image| image + window <= self.faults.images) {
            self.recent.pop_front();
        }
        if self.recent.len() as f64 > at_most * window as f64 {
            let (found, last, faults) = (self.recent.len(), fault.clone(), self.faults.to_string());
            return Err(LoadError::TooMany { found, window, at_most, last, faults });
        }
        Ok(())
    }
}

/// How every row begins.
const START: &[u8] = b"{\"number\":";

/// A file of faults as JSON lines.
#[derive(Debug)]
pub(super) struct FaultLog {
    path: PathBuf,
    file: File,
}

impl FaultLog {
    /// Goes on with a file: rows of images before `start` stay, the rest is removed, so that what a resumed run finds
    /// again does not stand there twice. A file of something else is left as it is.
    pub(super) fn open(path: &Path, start: u64) -> Result<Self, LoadError> {
        let named = |source| LoadError::Io { path: path.to_owned(), source };
        let old = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(named(error)),
        };
        // As bytes: a crash can cut a row off inside a character.
        let row =
            |line: &[u8]| serde_json::from_slice::<FaultRow>(line).ok().filter(|_| line.ends_with(b"\n"));
        let lines = old.split_inclusive(|&byte| byte == b'\n');
        let first = lines.clone().next().unwrap_or_default();
        let cut = !first.ends_with(b"\n") && (first.starts_with(START) || START.starts_with(first));
        if !cut && row(first).is_none() {
            let found = String::from_utf8_lossy(&first[..first.len().min(40)]).trim_end().to_owned();
            return Err(LoadError::Content { path: path.to_owned(), found });
        }
        let stay = lines.filter(|line| row(line).is_some_and(|row| row.number < start));
        let stay: Vec<u8> = stay.flatten().copied().collect();
        if stay.len() < old.len() {
            disk::replace(path, |beside| fs::write(beside, &stay)).map_err(named)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(named)?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn push(&mut self, row: &FaultRow) -> Result<(), LoadError> {
        let mut line = serde_json::to_string(row).expect("plain data");
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|source| LoadError::Io { path: self.path.clone(), source })
    }
}
