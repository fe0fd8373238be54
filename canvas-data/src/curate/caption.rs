//! Passes over captions. An image has one verdict and may have several captions: it stays if one of them fits.

use super::{Pass, Subject, Trouble, Verdict};
use crate::reason;
use canvas_core::check::ConfigError;
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use whatlang::{Info, Lang};

/// Keeps images that have a caption of so many characters (Unicode scalar values). Notes the counts of all captions.
#[derive(Clone, Debug, PartialEq)]
pub struct Characters(pub RangeInclusive<usize>);

impl Pass for Characters {
    fn name(&self) -> &str {
        "caption characters"
    }

    fn settings(&self) -> Value {
        json!([self.0.start(), self.0.end()])
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        Ok(counted(subject, &self.0, "characters", |text| text.chars().count()))
    }
}

/// Keeps images that have a caption of so many words, parted by white space. Notes the counts of all captions.
///
/// Chinese, Japanese and Thai part no words: their captions count as one or a few. [`Characters`] suits them.
#[derive(Clone, Debug, PartialEq)]
pub struct Words(pub RangeInclusive<usize>);

impl Pass for Words {
    fn name(&self) -> &str {
        "caption words"
    }

    fn settings(&self) -> Value {
        json!([self.0.start(), self.0.end()])
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        Ok(counted(subject, &self.0, "words", |text| text.split_whitespace().count()))
    }
}

fn counted(
    subject: &Subject<'_>,
    range: &RangeInclusive<usize>,
    what: &str,
    count: impl Fn(&str) -> usize,
) -> Verdict {
    let counts: Vec<usize> = subject.record.captions.iter().map(|caption| count(&caption.text)).collect();
    if counts.is_empty() {
        return no_caption();
    }
    let verdict = if counts.iter().any(|count| range.contains(count)) {
        Verdict::keep()
    } else {
        let detail = format!("expected {} to {} {what}, found {counts:?}", range.start(), range.end());
        let long = counts.iter().all(|count| count > range.end());
        Verdict::drop(if long { reason::LONG_CAPTION } else { SHORT }, detail)
    };
    verdict.noting(counts)
}

const SHORT: &str = "short caption";

fn no_caption() -> Verdict {
    Verdict::drop(reason::NO_CAPTION, "expected a caption, found none")
}

/// Drops images whose captions are all, as far as can be told, in other languages than these. Notes `{language, confidence}` of each
/// caption, null where nothing can be told.
///
/// A caption is in another language if none of these is written in its script, or if another language is found with a confidence of at
/// least [`sure`](Self::sure) (0.5 unless said). Captions of a few words are often told wrongly but with little confidence. So what is
/// uncertain stays, and a stricter rule can be made of the notes.
///
/// # Differs from the paper
/// LAION sorted by cld3; this is whatlang's trigrams and alphabets, of 70 languages.
#[derive(Clone, Debug, PartialEq)]
pub struct Language {
    allowed: Vec<Lang>,
    sure: f64,
}

impl Language {
    /// These languages, by ISO 639-3 codes such as `eng`.
    ///
    /// # Errors
    /// Names a code that is not known.
    pub fn only<'a>(codes: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let known = |code: &'a str| {
            Lang::from_code(code).ok_or_else(|| {
                ConfigError::new(format!("language: expected an ISO 639-3 code such as eng, found {code:?}"))
            })
        };
        let allowed = codes.into_iter().map(known).collect::<Result<_, _>>()?;
        Ok(Self { allowed, sure: 0.5 })
    }

    /// The confidence, from 0 to 1, from which another language counts.
    pub fn sure(self, sure: f64) -> Self {
        Self { sure, ..self }
    }
}

impl Language {
    fn may_be_allowed(&self, info: &Info) -> bool {
        let same_script = || info.script().langs().iter().any(|lang| self.allowed.contains(lang));
        self.allowed.contains(&info.lang()) || (info.confidence() < self.sure && same_script())
    }
}

impl Pass for Language {
    fn name(&self) -> &str {
        "caption language"
    }

    fn settings(&self) -> Value {
        let codes: Vec<&str> = self.allowed.iter().map(Lang::code).collect();
        json!({ "allowed": codes, "sure": self.sure })
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        let captions = &subject.record.captions;
        if captions.is_empty() {
            return Ok(no_caption());
        }
        let found: Vec<_> = captions.iter().map(|caption| whatlang::detect(&caption.text)).collect();
        let fits = |info: &Option<Info>| info.as_ref().is_none_or(|info| self.may_be_allowed(info));
        let notes: Vec<Value> = found
            .iter()
            .map(|info| {
                info.as_ref().map_or(
                    Value::Null,
                    |info| json!({ "language": info.lang().code(), "confidence": info.confidence() }),
                )
            })
            .collect();
        let verdict = if found.iter().any(fits) {
            Verdict::keep()
        } else {
            let codes: Vec<&str> = found.iter().flatten().map(|info| info.lang().code()).collect();
            Verdict::drop("language", format!("found {}", codes.join(", ")))
        };
        Ok(verdict.noting(notes))
    }
}
