//! Curations that are broken off, damaged or changed: the end is the one of an undisturbed run.

use super::Flaky;
use super::curate_common::{Distinct, Table, decode, record, verdicts};
use canvas_data::InMemory;
use canvas_data::curate::{
    Choose, Chosen, Curation, CurationError, Judged, Noted, Pass, Subject, Trouble, Verdict,
};
use serde_json::Value;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::tempdir;

pub fn source(images: usize) -> InMemory {
    InMemory((0..images).map(|image| record(format!("k{image}"), vec![image as u8])).collect())
}

/// Four passes, two readings, runs of three images.
fn four<'a>(asked: &'a [AtomicUsize; 2], images: usize) -> Curation<'a> {
    let says = |bad: usize| (0..images).map(|image| u8::from(image % 7 == bad)).collect();
    let class = |classes: usize| (0..images).map(|image| (image * 5 % classes) as u8).collect();
    Curation::new("none", decode)
        .threads(2)
        .run_length(3)
        .pass(Table { name: "a", says: says(2), asked: &asked[0] })
        .pass(Distinct("b", class(8)))
        .read_again()
        .pass(Table { name: "c", says: says(4), asked: &asked[1] })
        .pass(Distinct("d", class(5)))
}

fn counts(asked: &[AtomicUsize; 2]) -> [usize; 2] {
    asked.each_ref().map(|asked| asked.swap(0, Ordering::Relaxed))
}

pub fn undisturbed(curation: &Curation<'_>, source: &InMemory) -> Vec<Judged> {
    let folder = tempdir().unwrap();
    verdicts(&curation.run(source, folder.path()).unwrap())
}

#[test]
fn broken_off_after_any_run_it_ends_the_same_and_judges_nothing_twice() {
    let asked = Default::default();
    let (source, curation) = (source(20), four(&asked, 20));
    let expected = undisturbed(&curation, &source);
    let once = counts(&asked);

    for runs in 1.. {
        let folder = tempdir().unwrap();
        let mut left = runs;
        let first = curation.run_watched(&source, folder.path(), &mut |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Ok(outcome) = first {
            assert_eq!((runs, verdicts(&outcome)), (15, expected)); // seven runs in each reading
            break;
        }
        assert!(matches!(first, Err(CurationError::Stopped)));
        assert_eq!(verdicts(&curation.run(&source, folder.path()).unwrap()), expected);
        assert_eq!(counts(&asked), once, "broken off after {runs}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files
}

#[test]
fn a_file_cut_at_any_byte_or_damaged_counts_for_nothing() {
    let asked = Default::default();
    let (source, curation) = (source(3), four(&asked, 3).run_length(2).threads(1));
    let folder = tempdir().unwrap();
    let expected = verdicts(&curation.run(&source, folder.path()).unwrap());
    let files = files(folder.path());
    let names: Vec<_> =
        files.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_owned()).collect();
    assert_eq!(
        names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
        [
            "reading-0/000000000000.jsonl",
            "reading-0/000000000002.jsonl",
            "reading-0/choice-002.jsonl",
            "reading-1/000000000000.jsonl",
            "reading-1/000000000002.jsonl",
            "reading-1/choice-004.jsonl",
        ]
    );
    for path in files {
        let whole = fs::read(&path).unwrap();
        let cut = (0..whole.len()).map(|at| whole[..at].to_vec());
        let flipped = (0..whole.len()).step_by(7).map(|at| {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            damaged
        });
        for (number, damaged) in cut.chain(flipped).enumerate() {
            fs::write(&path, &damaged).unwrap();
            assert_eq!(
                verdicts(&curation.run(&source, folder.path()).unwrap()),
                expected,
                "{path:?}: {number}"
            );
            assert_eq!(fs::read(&path).unwrap(), whole, "{path:?}: {number}");
        }
    }
}

#[test]
fn a_changed_pass_and_those_after_it_judge_again_and_none_before() {
    let asked: [AtomicUsize; 2] = Default::default();
    let (source, folder) = (source(12), tempdir().unwrap());
    let both = |a: u8, b: u8| {
        let says = |bad: u8| (0..12).map(|image| u8::from(image == bad)).collect();
        Curation::new("none", decode)
            .run_length(5)
            .pass(Table { name: "a", says: says(a), asked: &asked[0] })
            .pass(Table { name: "b", says: says(b), asked: &asked[1] })
    };
    let run = |curation: &Curation<'_>| {
        let found = verdicts(&curation.run(&source, folder.path()).unwrap());
        let judged = counts(&asked);
        assert_eq!(found, undisturbed(curation, &source));
        counts(&asked);
        judged
    };
    assert_eq!(run(&both(3, 4)), [12, 11]);
    assert_eq!(run(&both(3, 4)), [0, 0]);
    assert_eq!(run(&both(3, 5)), [0, 11]); // of the first pass, its one is known
    assert_eq!(run(&both(6, 5)), [12, 11]);
    // One more pass at the end: nothing before it.
    assert_eq!(run(&both(6, 5).pass(Distinct("c", vec![1; 12]))), [0, 0]);
    // One less: what it dropped is back.
    assert_eq!(run(&both(6, 5)), [0, 0]);
    // Another order is another curation from the first difference on.
    let says = |bad: u8| (0..12).map(|image| u8::from(image == bad)).collect();
    let turned = Curation::new("none", decode)
        .run_length(5)
        .pass(Table { name: "b", says: says(5), asked: &asked[1] })
        .pass(Table { name: "a", says: says(6), asked: &asked[0] });
    assert_eq!(run(&turned), [11, 12]);
    // Another decoder is another everything.
    let other = Curation::new("other", decode)
        .run_length(5)
        .pass(Table { name: "b", says: says(5), asked: &asked[1] })
        .pass(Table { name: "a", says: says(6), asked: &asked[0] });
    assert_eq!(run(&other), [11, 12]);
}

#[test]
fn when_a_pass_that_compares_has_changed_the_next_reading_is_done_again() {
    let asked: [AtomicUsize; 2] = Default::default();
    let (source, folder) = (source(6), tempdir().unwrap());
    let of = |classes: [u8; 6]| {
        Curation::new("none", decode)
            .pass(Table { name: "a", says: vec![0; 6], asked: &asked[0] })
            .pass(Distinct("b", classes.to_vec()))
            .read_again()
            .pass(Table { name: "c", says: vec![0; 6], asked: &asked[1] })
    };
    for (classes, judged) in [([0, 1, 2, 3, 4, 4], [6, 5]), ([0, 1, 1, 1, 2, 2], [0, 3])] {
        assert_eq!(of(classes).run(&source, folder.path()).unwrap().report().kept, judged[1]);
        assert_eq!(counts(&asked), judged);
    }
}

/// Counts how often it chooses; drops nothing.
struct Chooser<'a>(&'a AtomicUsize);

impl Pass for Chooser<'_> {
    fn name(&self) -> &str {
        "chooser"
    }

    fn settings(&self) -> Value {
        Value::Null
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        Ok(Verdict::keep().noting(subject.number))
    }

    fn whole(&self) -> Option<&dyn Choose> {
        Some(self)
    }
}

impl Choose for Chooser<'_> {
    fn choose(&self, noted: &mut dyn Iterator<Item = Noted>) -> Result<Vec<Chosen>, Trouble> {
        self.0.fetch_add(noted.count(), Ordering::Relaxed);
        Ok(Vec::new())
    }
}

#[test]
fn a_pass_chooses_again_only_if_it_is_shown_something_else() {
    let asked: [AtomicUsize; 2] = Default::default();
    let (source, folder) = (source(6), tempdir().unwrap());
    let of = |first: [u8; 6], last: [u8; 6]| {
        Curation::new("none", decode)
            .pass(Table { name: "a", says: first.to_vec(), asked: &asked[0] })
            .pass(Chooser(&asked[1]))
            .pass(Table { name: "c", says: last.to_vec(), asked: &asked[0] })
    };
    let none = [0; 6];
    for (first, last, shown) in [
        (none, none, 6),
        (none, [0, 1, 0, 0, 0, 0], 0), // a later pass
        ([0, 0, 0, 0, 0, 1], none, 5),
        ([0, 0, 0, 0, 0, 2], none, 0), // the same images for another reason
    ] {
        of(first, last).run(&source, folder.path()).unwrap();
        assert_eq!(counts(&asked)[1], shown, "{first:?}, {last:?}");
    }
}

#[test]
fn a_source_that_grew_judges_what_is_new() {
    let asked: [AtomicUsize; 2] = Default::default();
    let curation = |images: usize| {
        let says = vec![0; 9];
        let pass = Table { name: "a", says, asked: &asked[0] };
        Curation::new("none", decode).run_length(3).pass(pass).pass(Distinct("b", vec![0; images]))
    };
    let folder = tempdir().unwrap();
    let fixed = |asked| {
        let pass = Table { name: "a", says: vec![0; 9], asked };
        Curation::new("none", decode).run_length(3).pass(pass)
    };
    fixed(&asked[0]).run(&source(6), folder.path()).unwrap();
    assert_eq!(counts(&asked), [6, 0]);
    fixed(&asked[0]).run(&source(9), folder.path()).unwrap();
    assert_eq!(counts(&asked), [3, 0]);
    // Other images under the same numbers are other images.
    let mut other = source(9);
    other.0[4].key = "another".into();
    let outcome = fixed(&asked[0]).run(&other, folder.path()).unwrap();
    assert_eq!(counts(&asked), [3, 0]);
    assert_eq!(verdicts(&outcome)[4].key, "another");
    // With one that compares, all are compared anew.
    assert_eq!(curation(9).run(&other, folder.path()).unwrap().report().kept, 1);
}

/// Fails, and not for an image's sake, until it is mended.
struct Server<'a>(&'a AtomicUsize);

impl Pass for Server<'_> {
    fn name(&self) -> &str {
        "server"
    }

    fn settings(&self) -> Value {
        Value::Null
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        if subject.number == self.0.load(Ordering::Relaxed) {
            return Err(Trouble::Pass("connection refused".into()));
        }
        Ok(Verdict::keep())
    }
}

#[test]
fn a_pass_in_trouble_stops_the_run_and_drops_nothing() {
    let (source, folder) = (source(10), tempdir().unwrap());
    let broken = AtomicUsize::new(7);
    let curation = Curation::new("none", decode).run_length(4).threads(3).batch(1).pass(Server(&broken));
    let error = curation.run(&source, folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "server: connection refused");
    assert_eq!(files(folder.path()).len(), 1, "the run before it is whole");

    broken.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(curation.run(&source, folder.path()).unwrap().report().kept, 10);
}

#[test]
fn what_could_not_be_read_is_read_again() {
    let asked = Default::default();
    let (flaky, curation) = (Flaky::new(source(20), 3), four(&asked, 20));
    let folder = tempdir().unwrap();
    let outcome = curation.run(&flaky, folder.path()).unwrap();
    assert_eq!(outcome.report().passes[0].dropped["unreadable"], 1);
    counts(&asked);
    flaky.reads();
    let again = curation.run(&flaky, folder.path()).unwrap();
    assert_eq!((verdicts(&again), flaky.reads(), counts(&asked)), (verdicts(&outcome), 1, [0, 0]));
    flaky.mend();
    let mended = verdicts(&curation.run(&flaky, folder.path()).unwrap());
    assert_eq!(counts(&asked)[0], 1, "the first passes see the one that is new");
    assert_eq!(mended, undisturbed(&curation, &flaky.images));
    flaky.reads();
    assert_eq!((verdicts(&curation.run(&flaky, folder.path()).unwrap()), flaky.reads()), (mended, 0));
}

#[test]
fn a_disk_that_fails_later_is_no_change_of_the_source() {
    let asked = Default::default();
    let (flaky, curation) = (Flaky::new(source(20), 3), four(&asked, 20));
    flaky.good_for.store(1, Ordering::Relaxed);
    let folder = tempdir().unwrap();
    let error = curation.run(&flaky, folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "could be read before: k3: unreadable: Input/output error");
    flaky.mend();
    let found = verdicts(&curation.run(&flaky, folder.path()).unwrap());
    assert_eq!(found, undisturbed(&curation, &flaky.images));
}

#[test]
fn other_settings_of_a_source_are_another_everything() {
    let asked: [AtomicUsize; 2] = Default::default();
    let pass = || Table { name: "a", says: vec![0; 6], asked: &asked[0] };
    let (mut flaky, folder) = (Flaky::new(source(6), usize::MAX), tempdir().unwrap());
    for (settings, judged) in [("short", 6), ("short", 0), ("long", 6)] {
        flaky.settings = settings;
        Curation::new("none", decode).pass(pass()).run(&flaky, folder.path()).unwrap();
        assert_eq!(counts(&asked), [judged, 0], "{settings}");
    }
}

#[test]
fn a_folder_has_one_curation_at_a_time() {
    let (source, folder) = (source(4), tempdir().unwrap());
    let curation = Curation::new("none", decode);
    let mut second = None;
    let outcome = curation.run_watched(&source, folder.path(), &mut |_| {
        second = Some(curation.run(&source, folder.path()).map(|_| ()));
        ControlFlow::Continue(())
    });
    assert!(matches!(second, Some(Err(CurationError::Busy(at))) if at == folder.path()));
    assert_eq!(outcome.unwrap().report().kept, 4);
}

#[test]
fn an_outcome_whose_files_are_gone_says_so() {
    let (source, folder) = (source(4), tempdir().unwrap());
    let curation = Curation::new("none", decode).pass(Distinct("b", vec![0; 4]));
    let outcome = curation.run(&source, folder.path()).unwrap();
    for name in ["choice-001.jsonl", "000000000000.jsonl"] {
        let path = folder.path().join("reading-0").join(name);
        fs::remove_file(&path).unwrap();
        let found: Result<Vec<Judged>, _> = outcome.verdicts().unwrap().collect();
        assert!(matches!(found, Err(CurationError::Lost(at)) if at == path));
    }
}
