use crate::{Flaky, png, record};
use canvas_data::{
    Begun, Buckets, Decode, Fault, Folder, InMemory, Manifest, ManifestError, Options, Record, Source,
    Survey, Surveyed, reason,
};
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Images of many sizes, some of them bad.
fn images(count: u32) -> Vec<Record> {
    let image = |i: u32| match i % 7 {
        3 => png(9 + i % 5, 8)[..40].to_vec(),
        5 => Vec::new(),
        6 => b"<html>".to_vec(),
        _ => png(20 + 13 * (i % 11), 20 + 17 * (i % 6)),
    };
    (0..count).map(|i| record(&format!("folder/{i:04} \"ü\".png"), image(i))).collect()
}

fn survey() -> Survey {
    let buckets = Buckets::list([[32, 32], [48, 32], [32, 48], [64, 24]]).unwrap();
    Survey { threads: NonZeroUsize::new(2).unwrap(), ..Survey::new(buckets) }
}

fn run(survey: &Survey, source: &dyn Source, progress: &Path) -> Surveyed {
    survey.run(source, Some(progress), &mut |_| ()).unwrap()
}

fn undisturbed(source: &dyn Source) -> Manifest {
    survey().run(source, None, &mut |_| ()).unwrap().manifest
}

/// Counts what is read of a source.
struct Counted(InMemory, AtomicUsize);

impl Counted {
    fn new(records: Vec<Record>) -> Self {
        Self(InMemory(records), AtomicUsize::new(0))
    }

    fn count(&self) -> usize {
        self.1.swap(0, Ordering::Relaxed)
    }
}

impl Source for Counted {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, index: usize) -> String {
        self.0.key(index)
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(index)
    }
}

#[test]
fn every_image_is_kept_or_dropped_for_a_reason() {
    let source = InMemory(images(70));
    let manifest = undisturbed(&source);
    let totals = manifest.totals();
    assert_eq!(totals.images, 70);
    assert_eq!(totals.kept.iter().sum::<usize>() + totals.dropped.values().sum::<usize>(), 70);
    for bad in [reason::EMPTY, reason::TRUNCATED, reason::NOT_AN_IMAGE] {
        assert_eq!(totals.dropped[bad], 10, "{manifest}");
    }
    let kept: Vec<usize> = manifest.kept().concat();
    for (index, row) in manifest.rows().iter().enumerate() {
        assert_eq!(row.key, source.key(index));
        assert_eq!(
            kept.iter().filter(|&&i| i == index).count(),
            usize::from(manifest.assignment(index).is_some())
        );
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let source = InMemory(images(60));
    let expected = undisturbed(&source);
    for threads in [1, 3, 16, 100] {
        let survey = Survey { threads: NonZeroUsize::new(threads).unwrap(), ..survey() };
        assert_eq!(survey.run(&source, None, &mut |_| ()).unwrap().manifest, expected);
    }
}

#[test]
fn progress_is_reported_to_the_last_image() {
    let mut seen = Vec::new();
    survey().run(&InMemory(images(20)), None, &mut |done| seen.push(done)).unwrap();
    assert_eq!(seen, (0..=20).collect::<Vec<_>>());
    assert_eq!(undisturbed(&InMemory(Vec::new())).totals().images, 0);
}

#[test]
fn a_finished_survey_reads_no_image_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, source) = (folder.path().join("survey.jsonl"), Counted::new(images(30)));
    let first = run(&survey(), &source, &path);
    assert_eq!((first.begun, source.count()), (Begun::Afresh, 30));
    let bytes = fs::read(&path).unwrap();
    let second = run(&survey(), &source, &path);
    assert_eq!((second.begun, source.count()), (Begun::Resumed(30), 0));
    assert_eq!((second.manifest, fs::read(&path).unwrap()), (first.manifest, bytes));
}

#[test]
fn other_settings_and_other_sources_begin_anew_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.jsonl");
    let records = images(20);
    let others: Vec<Survey> = vec![
        Survey { whole: true, ..survey() },
        Survey { uncaptioned: true, ..survey() },
        Survey { buckets: survey().buckets.enlarge(2.0), ..survey() },
        Survey { buckets: survey().buckets.crop(0.1), ..survey() },
        Survey { buckets: Buckets::square(16).unwrap(), ..survey() },
        Survey { decode: Decode { max_pixels: 500, ..Decode::default() }, ..survey() },
    ];
    let mut hashes = vec![run(&survey(), &InMemory(records.clone()), &path).manifest.settings().to_owned()];
    for other in &others {
        let source = Counted::new(records.clone());
        let found = run(other, &source, &path);
        let expected = found.manifest.settings().to_owned();
        let last = hashes.last().unwrap().clone();
        let kept = folder.path().join(format!("survey.jsonl.{}.old", &last[..8]));
        assert_eq!(found.begun, Begun::Anew { found: last, expected: expected.clone(), kept });
        assert_eq!(source.count(), 20);
        assert_eq!(found.manifest, other.run(&source, None, &mut |_| ()).unwrap().manifest);
        assert!(!hashes.contains(&expected));
        hashes.push(expected);
    }
    // Another key, another length, keys cut elsewhere.
    let mut renamed = records.clone();
    renamed[3].key.push('x');
    for records in [renamed, records[..19].to_vec()] {
        let found = run(others.last().unwrap(), &InMemory(records), &path);
        assert!(matches!(found.begun, Begun::Anew { .. }));
    }
    // More threads are the same survey.
    let again = Survey { threads: NonZeroUsize::new(5).unwrap(), ..others.last().unwrap().clone() };
    assert_eq!(run(&again, &InMemory(records[..19].to_vec()), &path).begun, Begun::Resumed(19));
}

#[test]
fn what_is_put_aside_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.jsonl");
    let (whole, part) = (Counted::new(images(20)), Counted::new(images(12)));
    let expected = run(&survey(), &whole, &path).manifest;
    let bytes = fs::read(&path).unwrap();
    // A shard that cannot be opened for once makes another source of it.
    let Begun::Anew { kept, .. } = run(&survey(), &part, &path).begun else { panic!() };
    assert_eq!(fs::read(&kept).unwrap(), bytes);
    whole.count();
    part.count();
    for _ in 0..2 {
        let found = run(&survey(), &whole, &path);
        assert_eq!((found.begun, found.manifest, whole.count()), (Begun::Resumed(20), expected.clone(), 0));
        assert!(!kept.exists());
        assert_eq!((run(&survey(), &part, &path).begun, part.count()), (Begun::Resumed(12), 0));
    }
}

#[test]
fn other_options_of_a_source_begin_anew() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("survey.jsonl");
    crate::make::files(root.path(), &[("a.png", &png(32, 32)), ("a.json", br#"{"long": "a pear"}"#)]);
    let with = |name: &str| {
        let options = Options { captions: vec![name.into()], ..Options::default() };
        run(&survey(), &Folder::open(root.path(), &options).unwrap(), &path)
    };
    assert_eq!(with("short").manifest.totals().dropped[reason::NO_CAPTION], 1);
    let found = with("long");
    assert!(matches!(found.begun, Begun::Anew { .. }));
    assert_eq!(found.manifest.kept().concat(), [0]);
    assert_eq!(with("long").begun, Begun::Resumed(1));
    let roomy = Options { captions: vec!["long".into()], table_cache: 1, ..Options::default() };
    let source = Folder::open(root.path(), &roomy).unwrap();
    assert_eq!(
        run(&survey(), &source, &path).begun,
        Begun::Resumed(1),
        "what changes no record does not matter"
    );
}

#[test]
fn what_could_not_be_read_is_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.jsonl");
    let source = Flaky::new(InMemory(images(20)), 7);
    let found = run(&survey(), &source, &path).manifest;
    assert_eq!(found.totals().dropped[reason::UNREADABLE], 1);
    assert_eq!((run(&survey(), &source, &path).manifest, source.reads()), (found, 21));
    source.mend();
    let found = run(&survey(), &source, &path);
    assert_eq!((found.begun, source.reads()), (Begun::Resumed(19), 1));
    assert_eq!(found.manifest, undisturbed(&source.images));
}

#[test]
fn progress_cut_at_any_byte_gives_the_same_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.jsonl");
    let source = Counted::new(images(5));
    let expected = run(&survey(), &source, &path).manifest;
    let whole = fs::read(&path).unwrap();
    source.count();
    for length in 0..whole.len() {
        fs::remove_file(&path).unwrap(); // some file systems flush what is overwritten
        fs::write(&path, &whole[..length]).unwrap();
        let found = run(&survey(), &source, &path);
        assert_eq!(found.manifest, expected, "{length} bytes");
        let rows = whole[..length].iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1);
        assert_eq!(lines(&path), 6, "{length} bytes");
        assert_eq!(source.count(), 5 - rows, "{length} bytes");
    }
}

#[test]
fn progress_damaged_in_the_middle_is_used_up_to_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.jsonl");
    let source = Counted::new(images(9));
    let expected = run(&survey(), &source, &path).manifest;
    let whole = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    source.count();
    // A system that crashed leaves zeros; a row may be of an image that is not there, or of another name.
    for bad in [
        &[0; 30][..],
        b"{\"index\":900,\"key\":\"a\",\"dropped\":{\"reason\":\"a\",\"detail\":\"b\"}}\n",
        b"{}\n",
    ] {
        fs::write(&path, [&lines[..4].concat(), bad, &lines[4..].concat()].concat()).unwrap();
        assert_eq!(run(&survey(), &source, &path).manifest, expected);
        assert_eq!(source.count(), 9 - 3);
    }
}

#[test]
fn a_file_that_is_no_progress_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "my notes\n").unwrap();
    let error = survey().run(&InMemory(images(3)), Some(&path), &mut |_| ()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("notes.txt:1: expected a survey's progress, which begins with {\"survey\":")
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "my notes\n");
    // Nor is one whose first line is damaged: what follows may be worth something.
    let damaged = "{\"survey\":1,\"settings\":\0\n{\"index\":0}\n";
    fs::write(&path, damaged).unwrap();
    survey().run(&InMemory(images(3)), Some(&path), &mut |_| ()).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    let nowhere = folder.path().join("none/survey.jsonl");
    let error = survey().run(&InMemory(images(3)), Some(&nowhere), &mut |_| ()).unwrap_err();
    assert!(matches!(error, ManifestError::Io { path, .. } if path == nowhere));
}

#[test]
fn only_a_whole_look_finds_damaged_pixels() {
    let mut damaged = crate::written(&crate::scene(64, 64).into(), image::ImageFormat::Jpeg);
    let place = damaged.len() - 500;
    crate::decode::ones(&mut damaged[place..place + 40]);
    let source = InMemory(vec![record("a", damaged)]);
    assert_eq!(undisturbed(&source).kept().concat(), [0]);
    let whole = Survey { whole: true, ..survey() };
    let manifest = whole.run(&source, None, &mut |_| ()).unwrap().manifest;
    assert_eq!(manifest.totals().dropped[reason::NOT_AN_IMAGE], 1);
}

#[test]
fn captions_are_asked_for() {
    let mut silent = record("a", png(32, 32));
    silent.captions.clear();
    let source = InMemory(vec![silent]);
    assert_eq!(undisturbed(&source).totals().dropped[reason::NO_CAPTION], 1);
    let lenient = Survey { uncaptioned: true, ..survey() };
    assert_eq!(lenient.run(&source, None, &mut |_| ()).unwrap().manifest.kept().concat(), [0]);
}

/// A source that takes its time, so that a kill comes in the middle.
struct Slow(InMemory);

impl Source for Slow {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, index: usize) -> String {
        self.0.key(index)
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        thread::sleep(Duration::from_millis(1));
        self.0.read(index)
    }
}

const PROGRESS: &str = "CANVAS_TEST_SURVEY";
const IMAGES: u32 = 240;

#[test]
#[ignore = "the child process of others"]
fn child() {
    let path = std::env::var_os(PROGRESS).expect("run by another test");
    let surveyed = survey().run(&Slow(InMemory(images(IMAGES))), Some(Path::new(&path)), &mut |_| ());
    if let Err(error) = surveyed {
        eprintln!("{error}");
        std::process::exit(7);
    }
}

/// This test program, told to run nothing but the child.
fn child_process(program: impl AsRef<std::ffi::OsStr>, path: &Path) -> Command {
    let mut command = Command::new(program);
    command.env(PROGRESS, path).stdout(std::process::Stdio::null());
    command
}

const ONLY: [&str; 4] = ["--exact", "survey::child", "--ignored", "--nocapture"];

fn lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

fn spawned(path: &Path) -> Child {
    child_process(std::env::current_exe().unwrap(), path).args(ONLY).spawn().unwrap()
}

#[test]
fn killed_at_random_moments_it_goes_on_to_the_same_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.jsonl");
    let mut kills = 0;
    loop {
        let (before, mut process) = (lines(&path), spawned(&path));
        let after = before + 5 + kills * 7 % 23; // rows, so that each run gets somewhere on any machine
        while lines(&path) < after && process.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_micros(200 + 37 * kills as u64));
        }
        process.kill().unwrap(); // SIGKILL
        if process.wait().unwrap().success() {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 10, "killed {kills} times");
    let source = Counted::new(images(IMAGES));
    let found = run(&survey(), &source, &path);
    assert_eq!((found.begun, source.count()), (Begun::Resumed(IMAGES as usize), 0));
    assert_eq!(found.manifest, undisturbed(&source));
}

#[cfg(unix)]
#[test]
fn a_full_disk_stops_it_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.jsonl");
    // A shell that lets files have 4 kB and no more, in place of a full disk: the same short write, then an error.
    let mut limited = child_process("sh", &path);
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap());
    let output = limited.args(ONLY).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{error}");
    assert!(error.contains("survey.jsonl: "), "names the file: {error}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
    let (source, rows) = (Counted::new(images(IMAGES)), lines(&path) - 1);
    let found = run(&survey(), &source, &path);
    assert_eq!((found.begun, source.count()), (Begun::Resumed(rows), IMAGES as usize - rows));
    assert_eq!(found.manifest, undisturbed(&source));
}
