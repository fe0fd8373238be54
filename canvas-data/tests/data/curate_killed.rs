//! Curations that are killed at any moment: the end is the one of an undisturbed run.

use super::curate_common::{Distinct, decode, verdicts};
use super::curate_resume::{source, undisturbed};
use canvas_data::curate::{Curation, Pass, Subject, Trouble, Verdict};
use canvas_data::{InMemory, Record};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::tempdir;

/// Takes its time.
struct Slow;

impl Pass for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn settings(&self) -> Value {
        json!("2 ms")
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        std::thread::sleep(Duration::from_millis(2));
        let verdict =
            if subject.number % 3 == 1 { Verdict::drop("third", "one in three") } else { Verdict::keep() };
        Ok(verdict.noting(subject.number))
    }
}

const FOLDER: &str = "CANVAS_CURATE_TEST_FOLDER";

fn slow_curation() -> (InMemory, Curation<'static>) {
    let classes = (0..60).map(|image| (image % 16) as u8 % 9).collect();
    let passes = Curation::new("none", |record: &Record| decode(record)).threads(2).batch(2).run_length(5);
    (source(60), passes.pass(Slow).pass(Distinct("b", classes)).read_again())
}

/// The process that the next test kills: without a folder it does nothing.
#[test]
fn child_of_the_next_test() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (source, curation) = slow_curation();
        curation.run(&source, Path::new(&folder)).unwrap();
    }
}

#[test]
fn killed_at_any_moment_it_goes_on() {
    let (source, curation) = slow_curation();
    let expected = undisturbed(&curation, &source);
    let folder = tempdir().unwrap();
    let mut kills = 0;
    for wait in (5..).step_by(7) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "curate_killed::child_of_the_next_test"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0);
    assert_eq!(verdicts(&curation.run(&source, folder.path()).unwrap()), expected);
}
