//! Where captioned images come from.

mod captions;
mod columns;
mod error;
mod folder;
mod groups;
mod memory;
mod metadata;
mod open;
mod options;
mod patterns;
mod ranges;
mod recent;
#[cfg(feature = "object-store")]
mod remote;
mod shards;
mod splits;
mod survey;
mod table;
mod tar_index;

pub use error::OpenError;
pub use folder::Folder;
pub use memory::InMemory;
pub use open::open;
pub(crate) use options::CAPTION_FIELDS;
pub use options::{CaptionRules, Format, Options, TextRule};
pub use patterns::expand;
pub use shards::Shards;
pub use table::Table;
pub(crate) use tar_index::BLOCK;

use crate::{Fault, Record};
use std::ops::Range;

/// Captioned images that can be read in any order, by number.
///
/// Which number an image has depends on the source's content alone: not on the machine, nor on the order in which a folder is listed.
pub trait Source: Send + Sync {
    /// How many there are, whether or not they can be decoded.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which one is number `index`, for people.
    ///
    /// # Panics
    /// If there are not as many.
    fn key(&self, index: usize) -> String;

    /// Reads one.
    ///
    /// # Errors
    /// If it cannot be read, or breaks a rule about captions.
    ///
    /// # Panics
    /// If there are not as many.
    fn read(&self, index: usize) -> Result<Record, Fault>;

    /// Runs of images that lie together, in order and without a gap: files of shards, groups of rows. An order that stays within a few of
    /// them at a time reads each of them once.
    fn blocks(&self) -> Vec<Range<usize>> {
        std::iter::once(0..self.len()).collect()
    }

    /// Everything beside the files that decides what [`read`](Self::read) gives: a hash of the options. Surveys and curations that were
    /// begun with other settings begin anew; a source around another hands its settings on.
    fn settings(&self) -> String {
        String::new()
    }

    /// What was found that is no image of this source, and why: not one of the numbers.
    fn faults(&self) -> &[Fault] {
        &[]
    }
}
