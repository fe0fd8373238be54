//! Passes by a number: a model's score, a column of the table, how well caption and picture agree.

use super::{Pass, Subject, Trouble, Verdict};
use crate::{Fault, reason};
use image::RgbImage;
use serde_json::{Value, json};
use std::fmt;

/// Which numbers stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This and more.
    AtLeast(f64),
    /// This and less.
    AtMost(f64),
    /// The first, the second, and what is between.
    Within(f64, f64),
}

impl Bound {
    /// Whether a number stays. Not a number does not.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Within(least, most) => (least..=most).contains(&value),
        }
    }

    fn verdict(self, value: f64) -> Verdict {
        let reason = match self {
            _ if self.holds(value) => return Verdict::keep().noting(value),
            _ if value.is_nan() => "not a number",
            Self::Within(least, _) if value < least => "too low",
            Self::AtLeast(_) => "too low",
            Self::AtMost(_) | Self::Within(..) => "too high",
        };
        Verdict::drop(reason, format!("expected {self}, found {value}")).noting(value)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::Within(least, most) => write!(f, "from {least} to {most}"),
        }
    }
}

fn bound_settings(bound: Bound) -> Value {
    json!(bound.to_string())
}

/// Gives pictures a number: how beautiful, how unsafe, how likely watermarked.
pub trait Score: Send + Sync {
    /// What is scored, by which model and weights: what the numbers depend on.
    fn name(&self) -> &str;

    /// One number for each picture, of which there is at least one. Called from several threads.
    ///
    /// # Errors
    /// If the model cannot go on; the curation stops.
    fn score(&self, pictures: &[&RgbImage]) -> Result<Vec<f64>, Trouble>;
}

/// Keeps images whose score is within a bound, and notes the score of all.
///
/// # Example
/// ```
/// use canvas_data::curate::{Bound, Score, Scored, Trouble};
/// struct Redness;
/// impl Score for Redness {
///     fn name(&self) -> &str {
///         "redness"
///     }
///     fn score(&self, pictures: &[&image::RgbImage]) -> Result<Vec<f64>, Trouble> {
///         Ok(pictures.iter().map(|picture| f64::from(picture.get_pixel(0, 0).0[0])).collect())
///     }
/// }
/// let pass = Scored::new(Redness, Bound::AtMost(200.0));
/// ```
#[derive(Clone, Debug)]
pub struct Scored<S> {
    score: S,
    bound: Bound,
}

impl<S: Score> Scored<S> {
    /// By this scorer, whose name the pass has.
    pub fn new(score: S, bound: Bound) -> Self {
        Self { score, bound }
    }
}

impl<S: Score> Pass for Scored<S> {
    fn name(&self) -> &str {
        self.score.name()
    }

    fn settings(&self) -> Value {
        bound_settings(self.bound)
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        self.judge_all(&[subject]).remove(0)
    }

    fn judge_all(&self, subjects: &[&Subject<'_>]) -> Vec<Result<Verdict, Trouble>> {
        let scores = of_pictures(subjects, self.name(), |pictures| self.score.score(pictures));
        scores.into_iter().map(|score| Ok(self.bound.verdict(score?))).collect()
    }
}

/// Asks a model about the subjects whose pictures can be decoded; one answer a subject, in order.
pub(super) fn of_pictures<T>(
    subjects: &[&Subject<'_>],
    name: &str,
    ask: impl FnOnce(&[&RgbImage]) -> Result<Vec<T>, Trouble>,
) -> Vec<Result<T, Trouble>> {
    let pictures: Vec<Result<&RgbImage, Fault>> = subjects.iter().map(|subject| subject.picture()).collect();
    let decoded: Vec<&RgbImage> = pictures.iter().flatten().copied().collect();
    let answers = if decoded.is_empty() { Ok(Vec::new()) } else { ask(&decoded) };
    let mut answers = match answers {
        Ok(answers) => {
            let (expected, found) = (decoded.len(), answers.len());
            assert_eq!(found, expected, "{name}: answers ({found}) must be as many as pictures ({expected})");
            answers.into_iter()
        }
        Err(trouble) => return subjects.iter().map(|_| Err(trouble.clone())).collect(),
    };
    pictures.into_iter().map(|picture| Ok(picture.map(|_| answers.next().expect("counted above"))?)).collect()
}

/// Keeps images one of whose fields is a number within a bound, and notes it: a score that another program wrote, such as LAION's
/// `punsafe`, `pwatermark`, `AESTHETIC_SCORE` and `similarity`.
///
/// An image without the field is dropped, unless it is told to [keep](Self::keep_unknown) it. Text that is a number counts as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    field: String,
    bound: Bound,
    keep_unknown: bool,
}

impl Field {
    /// By the field of this name, which the pass has too.
    pub fn new(field: impl Into<String>, bound: Bound) -> Self {
        Self { field: field.into(), bound, keep_unknown: false }
    }

    /// Keeps images that have no such field, or null in it.
    pub fn keep_unknown(self) -> Self {
        Self { keep_unknown: true, ..self }
    }
}

impl Pass for Field {
    fn name(&self) -> &str {
        &self.field
    }

    fn settings(&self) -> Value {
        json!({ "bound": self.bound.to_string(), "keep unknown": self.keep_unknown })
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        let value = subject.record.fields.get(&self.field).unwrap_or(&Value::Null);
        let number = match value {
            Value::Null if self.keep_unknown => return Ok(Verdict::keep()),
            Value::Null => {
                return Ok(Verdict::drop("no such field", format!("expected a field {:?}", self.field)));
            }
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        Ok(match number {
            Some(number) => self.bound.verdict(number),
            None => Verdict::drop("not a number", format!("expected {}, found {value}", self.bound)),
        })
    }
}

/// Says how well pictures and texts agree: the cosine of CLIP's two embeddings.
pub trait ImageText: Send + Sync {
    /// The model and its weights: what the numbers depend on.
    fn name(&self) -> &str;

    /// One number for each pair, of which there is at least one. Called from several threads.
    ///
    /// # Errors
    /// If the model cannot go on; the curation stops.
    fn similarity(&self, pairs: &[(&RgbImage, &str)]) -> Result<Vec<f64>, Trouble>;
}

/// Keeps images that agree with one of their captions, and notes the numbers of all captions.
///
/// # Reference
/// Schuhmann et al., "LAION-400M", 2021, <https://arxiv.org/abs/2111.02114>: cosine of CLIP ViT-B/32 of at least 0.3.
#[derive(Clone, Debug)]
pub struct Alignment<M> {
    model: M,
    bound: Bound,
}

impl<M: ImageText> Alignment<M> {
    /// By this model, whose name the pass has.
    pub fn new(model: M, bound: Bound) -> Self {
        Self { model, bound }
    }

    fn verdict(&self, subject: &Subject<'_>, numbers: &[f64]) -> Verdict {
        if subject.record.captions.is_empty() {
            return Verdict::drop(reason::NO_CAPTION, "expected a caption, found none");
        }
        let fits = |number: &f64| self.bound.holds(*number);
        let verdict = if numbers.iter().any(fits) {
            Verdict::keep()
        } else {
            Verdict::drop("caption of something else", format!("expected {}, found {numbers:?}", self.bound))
        };
        verdict.noting(numbers)
    }
}

impl<M: ImageText> Pass for Alignment<M> {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn settings(&self) -> Value {
        bound_settings(self.bound)
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        self.judge_all(&[subject]).remove(0)
    }

    fn judge_all(&self, subjects: &[&Subject<'_>]) -> Vec<Result<Verdict, Trouble>> {
        let texts = |subject: &Subject<'_>| subject.record.captions.len();
        let numbers = of_pictures(subjects, self.name(), |pictures| {
            let decoded = subjects.iter().filter(|subject| subject.picture().is_ok());
            let pairs: Vec<(&RgbImage, &str)> = decoded
                .clone()
                .zip(pictures)
                .flat_map(|(subject, picture)| {
                    subject.record.captions.iter().map(|caption| (*picture, caption.text.as_str()))
                })
                .collect();
            let numbers = if pairs.is_empty() { Vec::new() } else { self.model.similarity(&pairs)? };
            let (expected, found) = (pairs.len(), numbers.len());
            assert_eq!(
                found,
                expected,
                "{}: answers ({found}) must be as many as pairs ({expected})",
                self.name()
            );
            let mut numbers = numbers.into_iter();
            Ok(decoded.map(|subject| numbers.by_ref().take(texts(subject)).collect::<Vec<f64>>()).collect())
        });
        numbers
            .into_iter()
            .zip(subjects)
            .map(|(numbers, subject)| Ok(self.verdict(subject, &numbers?)))
            .collect()
    }
}
