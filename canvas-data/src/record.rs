//! A captioned image as it is stored, and what is said of one that cannot be used.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One of the texts of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// What it says; never empty.
    pub text: String,
    /// How often it is drawn, relative to the others; more than 0.
    pub weight: f64,
}

impl Caption {
    /// A caption of weight 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), weight: 1.0 }
    }
}

/// A captioned image as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which one it is, for people: unique within its source, the same whenever the source is opened.
    pub key: String,
    /// The image file's bytes, not decoded.
    pub image: Vec<u8>,
    /// Its texts; none if it has none.
    pub captions: Vec<Caption>,
    /// Whatever else is known of it: columns of a table, fields of a sidecar.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// An image that is not used, and why: no image leaves a data set without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{key}: {reason}: {detail}")]
pub struct Fault {
    /// Which one, as [`Record::key`]; a file's name if there is not even a record.
    pub key: String,
    /// The kind of fault, one of [`reason`] or a pass's own: what is counted.
    pub reason: Cow<'static, str>,
    /// What was expected and what was found.
    pub detail: String,
}

impl Fault {
    /// Whether another look may not find it: a disk or a network failed, or a file was not there. Surveys and curations take a second
    /// look at such images when they are run again.
    pub fn may_pass(&self) -> bool {
        reason::may_pass(&self.reason)
    }

    /// A fault of an image.
    pub fn new(
        key: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), reason: reason.into(), detail: detail.into() }
    }
}

/// The kinds of faults that reading an image finds.
pub mod reason {
    /// A file, or a part of one, cannot be read.
    pub const UNREADABLE: &str = "unreadable";
    /// There are no bytes.
    pub const EMPTY: &str = "empty";
    /// It ends in the middle.
    pub const TRUNCATED: &str = "truncated";
    /// It is not an image of a known format, or not a valid one.
    pub const NOT_AN_IMAGE: &str = "not an image";
    /// It is an image, of a kind that is not read.
    pub const UNSUPPORTED: &str = "unsupported";
    /// It has more pixels than are decoded.
    pub const TOO_LARGE: &str = "too large";
    /// It has fewer pixels than are wanted.
    pub const TOO_SMALL: &str = "too small";
    /// It is longer, or narrower, than any bucket.
    pub const ASPECT: &str = "aspect ratio";
    /// It moves, or has several pages.
    pub const ANIMATED: &str = "animated";
    /// It is not the one that was looked at before.
    pub const CHANGED: &str = "changed";
    /// There is no caption.
    pub const NO_CAPTION: &str = "no caption";
    /// A caption is longer than is read.
    pub const LONG_CAPTION: &str = "long caption";
    /// A caption is not UTF-8.
    pub const NOT_UTF8: &str = "not utf-8";
    /// Two images of a source have one key.
    pub const SAME_KEY: &str = "same key";
    /// A caption says nothing.
    pub const EMPTY_CAPTION: &str = "empty caption";
    /// A caption has a character of code 0 in it: bytes that are no text.
    pub const NUL: &str = "nul in caption";
    /// A caption's weight is not a number above 0, or there is not one for each.
    pub const WEIGHT: &str = "weight";
    /// A text, a row or a sample has no image.
    pub const NO_IMAGE: &str = "no image";
    /// A file, or a part of one, is not in the format that its name says.
    pub const MALFORMED: &str = "malformed";
    /// A link of folders that leads back to where it is.
    pub const LOOP: &str = "loop of links";
    /// A file that others say should be there is not.
    pub const MISSING: &str = "missing";

    /// Whether another look may not find a fault of this kind.
    pub(crate) fn may_pass(reason: &str) -> bool {
        [UNREADABLE, MISSING].contains(&reason)
    }
}
