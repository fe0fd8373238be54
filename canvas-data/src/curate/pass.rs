//! What a pass is, and what it says of an image.

use super::Subject;
use crate::Fault;
use serde_json::Value;
use std::borrow::Cow;

/// Judges images.
///
/// What it says of an image may depend on the image, its captions and fields, and on the [settings](Self::settings): on nothing else, so
/// that neither the number of threads nor an interruption changes what is found.
pub trait Pass: Send + Sync {
    /// What it is called in reports; no two passes of a curation have one name.
    fn name(&self) -> &str;

    /// Everything that its verdicts depend on: thresholds, the identity of a model. When they change, images are judged again.
    fn settings(&self) -> Value;

    /// Keeps an image or drops it, and may note something of it either way.
    ///
    /// # Errors
    /// [`Trouble::Image`] drops the image with the reason of the fault; [`Trouble::Pass`] stops the curation.
    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble>;

    /// Judges several images: for models that are faster so. One answer an image, in order.
    ///
    /// Each answer is the one that [`judge`](Self::judge) gives.
    fn judge_all(&self, subjects: &[&Subject<'_>]) -> Vec<Result<Verdict, Trouble>> {
        subjects.iter().map(|subject| self.judge(subject)).collect()
    }

    /// The second half of a pass that compares images: what it chooses once all are judged. Most passes have none.
    fn whole(&self) -> Option<&dyn Choose> {
        None
    }
}

/// The half of a pass that sees all images at once, by what was noted of them.
pub trait Choose {
    /// Says which images are dropped.
    ///
    /// `noted` yields the images that no pass before this one dropped, and not this one's judgement either, by ascending number.
    ///
    /// # Errors
    /// Stops the curation.
    fn choose(&self, noted: &mut dyn Iterator<Item = Noted>) -> Result<Vec<Chosen>, Trouble>;
}

/// What a pass noted of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Noted {
    /// The image's number in the source.
    pub number: usize,
    /// The note of its [`Verdict`]; null if it has none.
    pub note: Value,
}

/// An image that is dropped when all are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Its number.
    pub number: usize,
    /// Why.
    pub rejection: Rejection,
    /// The number of the image that it resembles, if that is why.
    pub like: Option<usize>,
}

/// Why an image is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of reason: what is counted.
    pub reason: Cow<'static, str>,
    /// What was expected and what was found.
    pub detail: String,
}

impl Rejection {
    /// A reason with its detail.
    pub fn new(reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        Self { reason: fault.reason, detail: fault.detail }
    }
}

/// What a pass says of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Why it is dropped, if it is.
    pub dropped: Option<Rejection>,
    /// What is written down of it: a size, a hash, a score. Null is nothing. Of one type for all images, and lists of one type, so that
    /// readers of tables take it.
    pub note: Value,
}

impl Verdict {
    /// The image stays.
    pub fn keep() -> Self {
        Self { dropped: None, note: Value::Null }
    }

    /// The image goes.
    pub fn drop(reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { dropped: Some(Rejection::new(reason, detail)), note: Value::Null }
    }

    /// The same with a note.
    pub fn noting(self, note: impl Into<Value>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// A judgement that could not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// It is the image's fault: it is dropped.
    #[error(transparent)]
    Image(#[from] Fault),
    /// It is not, as when a model's server is gone: the curation stops, and goes on from there when started again.
    #[error("{0}")]
    Pass(String),
}
