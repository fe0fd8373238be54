//! Passes over the file's header, and whether the rest of it can be decoded.

use super::{Pass, Subject, Trouble, Verdict};
use crate::reason;
use serde_json::{Value, json};

/// Drops images whose shorter side has fewer pixels than this. Reads the header alone, and notes `[width, height]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinSide(pub u32);

impl Pass for MinSide {
    fn name(&self) -> &str {
        "shorter side"
    }

    fn settings(&self) -> Value {
        json!(self.0)
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        let (width, height) = subject.size()?;
        let verdict = if width.min(height) >= self.0 {
            Verdict::keep()
        } else {
            let detail = format!("expected a side of {} pixels, found {width} x {height}", self.0);
            Verdict::drop(reason::TOO_SMALL, detail)
        };
        Ok(verdict.noting(json!([width, height])))
    }
}

/// Drops images of more pixels than this, before anything decodes them. Reads the header alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxPixels(pub u64);

impl Pass for MaxPixels {
    fn name(&self) -> &str {
        "pixels"
    }

    fn settings(&self) -> Value {
        json!(self.0)
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        let (width, height) = subject.size()?;
        if u64::from(width) * u64::from(height) <= self.0 {
            return Ok(Verdict::keep());
        }
        let detail = format!("expected at most {} pixels, found {width} x {height}", self.0);
        Ok(Verdict::drop(reason::TOO_LARGE, detail))
    }
}

/// Drops images whose longer side is more than this times the shorter one. Reads the header alone, and notes the ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxAspect(pub f64);

impl Pass for MaxAspect {
    fn name(&self) -> &str {
        "aspect ratio"
    }

    fn settings(&self) -> Value {
        json!(self.0)
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        let (width, height) = subject.size()?;
        let ratio = f64::from(width.max(height)) / f64::from(width.min(height));
        let verdict = if ratio <= self.0 {
            Verdict::keep()
        } else {
            Verdict::drop(
                reason::ASPECT,
                format!("expected at most {} : 1, found {width} x {height}", self.0),
            )
        };
        Ok(verdict.noting(ratio))
    }
}

/// Drops images that the curation's decoder refuses, for its reason.
///
/// Passes that look at pictures do so too; this one says it under its own name, before they run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decodes;

impl Pass for Decodes {
    fn name(&self) -> &str {
        "decodes"
    }

    fn settings(&self) -> Value {
        Value::Null
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        subject.picture()?;
        Ok(Verdict::keep())
    }
}
