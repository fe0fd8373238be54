//! What the tests of curations share: records, verdicts, and passes that do as they are told.

use canvas_data::curate::{
    Choose, Chosen, Judged, Noted, Outcome, Pass, Rejection, Subject, Trouble, Verdict,
};
use canvas_data::{Caption, Fault, Record, reason};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn record(key: impl Into<String>, image: Vec<u8>) -> Record {
    Record { key: key.into(), image, captions: vec![Caption::new("a picture")], fields: Default::default() }
}

pub fn decode(record: &Record) -> Result<RgbImage, Fault> {
    let picture = image::load_from_memory(&record.image);
    let fault = |error: image::ImageError| Fault::new(&record.key, reason::NOT_AN_IMAGE, error.to_string());
    picture.map(|picture| picture.to_rgb8()).map_err(fault)
}

pub fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn verdicts(outcome: &Outcome) -> Vec<Judged> {
    outcome.verdicts().unwrap().collect::<Result<_, _>>().unwrap()
}

/// Says of image `n` what stands at `n`: 0 keeps, anything else drops for that reason.
pub struct Table<'a> {
    pub name: &'static str,
    pub says: Vec<u8>,
    pub asked: &'a AtomicUsize,
}

impl Pass for Table<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn settings(&self) -> Value {
        json!(self.says)
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let says = self.says[subject.number];
        let verdict = if says == 0 {
            Verdict::keep()
        } else {
            Verdict::drop(format!("reason {says}"), "as the table says")
        };
        Ok(verdict.noting(says))
    }
}

/// Of images of which the table says the same, keeps the first; one of which it says 9 it refuses to look at.
pub struct Distinct(pub &'static str, pub Vec<u8>);

impl Pass for Distinct {
    fn name(&self) -> &str {
        self.0
    }

    fn settings(&self) -> Value {
        json!(self.1)
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        match self.1[subject.number] {
            9 => Err(Fault::new(&subject.record.key, "refused", "9").into()),
            says => Ok(Verdict::keep().noting(says)),
        }
    }

    fn whole(&self) -> Option<&dyn Choose> {
        Some(self)
    }
}

impl Choose for Distinct {
    fn choose(&self, noted: &mut dyn Iterator<Item = Noted>) -> Result<Vec<Chosen>, Trouble> {
        let mut first = BTreeMap::new();
        let mut chosen = Vec::new();
        for Noted { number, note } in noted {
            let like = *first.entry(note.as_u64()).or_insert(number);
            if like != number {
                chosen.push(Chosen {
                    number,
                    rejection: Rejection::new("again", "seen before"),
                    like: Some(like),
                });
            }
        }
        Ok(chosen)
    }
}
