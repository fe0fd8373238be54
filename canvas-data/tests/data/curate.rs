//! Curations as a whole: one verdict for each image, numbers that add up, and nothing that depends on how it was run.

use super::curate_common::{Distinct, Table, decode, encoded, record, verdicts};
use canvas_data::curate::{
    Curation, CurationError, Judged, MinSide, Outcome, Pass, Report, Subject, Trouble, Verdict,
};
use canvas_data::{Decode, Fault, InMemory, Record, Source, reason};
use image::{ImageFormat, RgbImage};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Cursor;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use tempfile::tempdir;

/// Images of which some cannot be read, in blocks.
struct Blocks {
    unreadable: Vec<bool>,
    block: usize,
    beside: Vec<Fault>,
}

impl Source for Blocks {
    fn len(&self) -> usize {
        self.unreadable.len()
    }

    fn key(&self, index: usize) -> String {
        format!("image {index}")
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        if self.unreadable[index] {
            return Err(Fault::new(self.key(index), reason::TRUNCATED, "cut"));
        }
        Ok(record(self.key(index), Vec::new()))
    }

    fn blocks(&self) -> Vec<Range<usize>> {
        let length = self.len();
        (0..length).step_by(self.block).map(|start| start..length.min(start + self.block)).collect()
    }

    fn faults(&self) -> &[Fault] {
        &self.beside
    }
}

/// What passes say of 24 images, and how they are run.
#[derive(Clone, Debug)]
struct Case {
    unreadable: Vec<bool>,
    /// Whether a pass compares, and what its table says.
    passes: Vec<(bool, Vec<u8>)>,
    breaks: Vec<bool>,
    block: usize,
    run_length: usize,
    batch: usize,
    threads: usize,
}

const IMAGES: usize = 24;
const NAMES: [&str; 4] = ["first", "second", "third", "fourth"];

fn cases() -> impl Strategy<Value = Case> {
    let says = prop_oneof![5 => Just(0_u8), 1 => 1_u8..4];
    let pass = (any::<bool>(), prop::collection::vec(says, IMAGES), prop::collection::vec(0_u8..10, IMAGES))
        .prop_map(|(compares, says, notes)| (compares, if compares { notes } else { says }));
    (
        prop::collection::vec(prop::bool::weighted(0.1), IMAGES),
        prop::collection::vec(pass, 0..=4),
        prop::collection::vec(any::<bool>(), 4),
        (1_usize..30, 1_usize..30, 1_usize..9, 1_usize..4),
    )
        .prop_map(|(unreadable, passes, breaks, (block, run_length, batch, threads))| Case {
            unreadable,
            passes,
            breaks,
            block,
            run_length,
            batch,
            threads,
        })
}

/// The definition: pass after pass over all images that are left.
fn by_definition(case: &Case) -> Vec<Option<(String, String)>> {
    let fate = |pass: &str, reason: &str| Some((pass.to_owned(), reason.to_owned()));
    let read = |unreadable: &bool| if *unreadable { fate("read", "truncated") } else { None };
    let mut fates: Vec<_> = case.unreadable.iter().map(read).collect();
    for ((compares, says), name) in case.passes.iter().zip(NAMES) {
        let mut seen = Vec::new();
        for (image, &says) in says.iter().enumerate() {
            if fates[image].is_some() {
                continue;
            }
            fates[image] = match (compares, says) {
                (false, 0) => None,
                (false, says) => fate(name, &format!("reason {says}")),
                (true, 9) => fate(name, "refused"),
                (true, says) if seen.contains(&says) => fate(name, "again"),
                (true, says) => {
                    seen.push(says);
                    None
                }
            };
        }
    }
    fates
}

fn run(case: &Case) -> (Outcome, Vec<Judged>) {
    let asked = AtomicUsize::new(0);
    let mut curation =
        Curation::new("none", decode).threads(case.threads).batch(case.batch).run_length(case.run_length);
    for (((compares, says), name), read_again) in case.passes.iter().zip(NAMES).zip(&case.breaks) {
        curation = match compares {
            true => curation.pass(Distinct(name, says.clone())),
            false => curation.pass(Table { name, says: says.clone(), asked: &asked }),
        };
        if *read_again {
            curation = curation.read_again();
        }
    }
    let folder = tempdir().unwrap();
    let source = Blocks { unreadable: case.unreadable.clone(), block: case.block, beside: Vec::new() };
    let outcome = curation.run(&source, folder.path()).unwrap();
    let verdicts = verdicts(&outcome);
    (outcome, verdicts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_image_has_the_verdict_of_the_first_pass_that_drops_it(case in cases()) {
        let (outcome, verdicts) = run(&case);
        let expected = by_definition(&case);
        prop_assert_eq!(verdicts.len(), IMAGES);
        for (image, (judged, expected)) in verdicts.iter().zip(&expected).enumerate() {
            let found = judged.dropped.as_ref().map(|dropped| (dropped.pass.clone(), dropped.reason.clone()));
            prop_assert_eq!((judged.number, &found), (image, expected));
            prop_assert_eq!(outcome.is_kept(image), expected.is_none());
        }
        adds_up(outcome.report(), &expected);
    }

    #[test]
    fn how_it_is_run_changes_no_verdict_and_no_note(case in cases()) {
        let plain = Case { breaks: vec![false; 4], block: IMAGES, run_length: IMAGES, batch: 1, threads: 1, ..case.clone() };
        let ((one, expected), (other, found)) = (run(&plain), run(&case));
        prop_assert_eq!(expected, found);
        prop_assert_eq!(one.report(), other.report());
    }
}

fn adds_up(report: &Report, fates: &[Option<(String, String)>]) {
    let kept = fates.iter().filter(|fate| fate.is_none()).count();
    assert_eq!((report.images, report.kept), (fates.len(), kept));
    let mut seen = report.images;
    for pass in &report.passes {
        assert_eq!((pass.seen, pass.seen - pass.kept), (seen, pass.dropped.values().sum()), "{}", pass.name);
        for (reason, &count) in &pass.dropped {
            let of = fates.iter().flatten().filter(|(by, why)| (by, why) == (&pass.name, reason)).count();
            assert_eq!(of, count, "{}: {reason}", pass.name);
        }
        seen = pass.kept;
    }
    assert_eq!(seen, kept);
}

#[test]
fn the_table_and_its_data_say_the_same() {
    let asked = AtomicUsize::new(0);
    let source = Blocks {
        unreadable: vec![false, true, false, false, false, false],
        block: 4,
        beside: vec![Fault::new("notes.txt", reason::NOT_AN_IMAGE, "text")],
    };
    let curation = Curation::new("none", decode)
        .pass(Table { name: "taste", says: vec![0, 0, 2, 0, 1, 1], asked: &asked })
        .pass(Distinct("once", vec![5, 0, 0, 5, 0, 0]));
    let folder = tempdir().unwrap();
    let outcome = curation.run(&source, folder.path()).unwrap();
    let expected = "\
pass                   in       dropped          kept   kept %
read                    6             1             5    83.33
  truncated                           1
taste                   5             3             2    33.33
  reason 1                            2
  reason 2                            1
once                    2             1             1    16.67
  again                               1
beside these images: not an image 1
1 of 6 images are kept";
    assert_eq!(outcome.report().to_string(), expected);

    let json = std::fs::read(folder.path().join("report.json")).unwrap();
    assert_eq!(&serde_json::from_slice::<Report>(&json).unwrap(), outcome.report());
}

#[test]
fn a_dropped_image_names_the_one_it_resembles_and_carries_its_notes() {
    let asked = AtomicUsize::new(0);
    let source = Blocks { unreadable: vec![false; 3], block: 2, beside: Vec::new() };
    let curation = Curation::new("none", decode).pass(Distinct("once", vec![5, 6, 5])).pass(Table {
        name: "later",
        says: vec![0, 1, 0],
        asked: &asked,
    });
    let outcome =
        curation.run(&source, tempdir().unwrap().path()).map(|outcome| outcome.report().clone()).unwrap();
    assert_eq!(outcome.kept, 1);

    let folder = tempdir().unwrap();
    let lines: Vec<Value> = verdicts(&curation.run(&source, folder.path()).unwrap())
        .iter()
        .map(|judged| serde_json::to_value(judged).unwrap())
        .collect();
    let again = json!({ "pass": "once", "reason": "again", "detail": "seen before", "like": "image 0" });
    let table = json!({ "pass": "later", "reason": "reason 1", "detail": "as the table says" });
    assert_eq!(
        lines,
        [
            json!({ "number": 0, "key": "image 0", "notes": { "once": 5, "later": 0 } }),
            json!({ "number": 1, "key": "image 1", "dropped": table, "notes": { "once": 6, "later": 1 } }),
            json!({ "number": 2, "key": "image 2", "dropped": again, "notes": { "once": 5 } }),
        ]
    );
}

#[test]
fn kept_records_come_with_the_notes_that_are_asked_for() {
    let side = |side| encoded(&RgbImage::new(side, side), ImageFormat::Png);
    let source = InMemory(vec![record("a", side(9)), record("b", side(3)), record("c", side(8))]);
    let folder = tempdir().unwrap();
    let outcome = Curation::new("rgb8", decode).pass(MinSide(8)).run(&source, folder.path()).unwrap();
    let notes = ["shorter side", "no such pass"];
    let kept: Vec<Record> = outcome.kept_records(&source, &notes).unwrap().collect::<Result<_, _>>().unwrap();
    let keys: Vec<_> =
        kept.iter().map(|record| (&*record.key, record.fields["shorter side"].clone())).collect();
    assert_eq!(keys, [("a", json!([9, 9])), ("c", json!([8, 8]))]);
    assert_eq!(kept[0].image, source.0[0].image);
    assert_eq!(kept[0].fields.len(), 1);
}

#[test]
fn a_source_without_images_has_a_report_too() {
    let folder = tempdir().unwrap();
    let outcome =
        Curation::new("rgb8", decode).pass(MinSide(8)).run(&InMemory(vec![]), folder.path()).unwrap();
    assert_eq!((outcome.report().images, outcome.report().kept, verdicts(&outcome).len()), (0, 0, 0));
}

/// A source whose blocks leave an image out.
struct Gap;

impl Source for Gap {
    fn len(&self) -> usize {
        5
    }

    fn key(&self, index: usize) -> String {
        index.to_string()
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        Ok(record(self.key(index), Vec::new()))
    }

    fn blocks(&self) -> Vec<Range<usize>> {
        vec![0..2, 3..5]
    }
}

#[test]
#[should_panic(expected = "blocks [0..2, 3..5] must lie side by side and hold all 5 images")]
fn no_image_is_kept_unseen() {
    let folder = tempdir().unwrap();
    Curation::new("none", decode).run(&Gap, folder.path()).ok();
}

/// Notes the first pixel.
struct Corner;

impl Pass for Corner {
    fn name(&self) -> &str {
        "corner"
    }

    fn settings(&self) -> Value {
        Value::Null
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        Ok(Verdict::keep().noting(subject.picture()?.get_pixel(0, 0).0.to_vec()))
    }
}

#[test]
fn pictures_are_those_of_training() {
    let mut file = Cursor::new(Vec::new());
    image::RgbaImage::new(4, 4).write_to(&mut file, ImageFormat::Png).unwrap();
    let (whole, folder) = (file.into_inner(), tempdir().unwrap());
    let source =
        InMemory(vec![record("clear", whole.clone()), record("cut", whole[..whole.len() - 5].to_vec())]);
    for background in [[255; 3], [9, 8, 7]] {
        let curation = Curation::decoding(Decode { background, ..Decode::default() }).pass(Corner);
        let found = verdicts(&curation.run(&source, folder.path()).unwrap());
        assert_eq!(found[0].notes["corner"], json!(background));
        assert_eq!(found[1].dropped.as_ref().unwrap().reason, reason::TRUNCATED);
    }
}

#[test]
fn two_passes_of_one_name_are_refused() {
    let folder = tempdir().unwrap();
    let curation = Curation::new("rgb8", decode).pass(MinSide(8)).pass(MinSide(9));
    let error = curation.run(&InMemory(vec![]), folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "two passes are named \"shorter side\": each needs a name of its own");
    let curation = Curation::new("rgb8", decode).pass(Distinct("read", vec![]));
    assert!(matches!(curation.run(&InMemory(vec![]), folder.path()), Err(CurationError::SameName(_))));
}
