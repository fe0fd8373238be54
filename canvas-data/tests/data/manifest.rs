use crate::{png, record};
use canvas_data::{Buckets, Fault, InMemory, Manifest, ManifestError, Record, Source, Survey, reason};
use std::fs;
use std::path::Path;

/// Images in memory, and one file beside them that is none.
struct Faulty(InMemory, Vec<Fault>);

impl Source for Faulty {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, index: usize) -> String {
        self.0.key(index)
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        self.0.read(index)
    }

    fn faults(&self) -> &[Fault] {
        &self.1
    }
}

fn source() -> Faulty {
    let sizes = [[64, 64], [80, 60], [60, 80], [10, 10], [500, 9], [64, 65], [11, 10]];
    let records = sizes.iter().enumerate().map(|(i, &[w, h])| record(&format!("{i}.png"), png(w, h)));
    let fault = Fault::new("notes.txt", reason::NOT_AN_IMAGE, "a text");
    Faulty(InMemory(records.collect()), vec![fault])
}

fn manifest() -> Manifest {
    let buckets = Buckets::list([[32, 32], [40, 30], [30, 40]]).unwrap();
    Survey::new(buckets).run(&source(), None, &mut |_| ()).unwrap().manifest
}

fn content(path: &Path) -> (usize, String) {
    match Manifest::read(path).unwrap_err() {
        ManifestError::Content { path: named, line, message } if named == path => (line, message),
        other => panic!("{other}"),
    }
}

#[test]
fn a_manifest_lists_its_images_by_bucket_and_reason() {
    let manifest = manifest();
    assert_eq!(manifest.kept(), [vec![2], vec![0, 5], vec![1]]);
    assert_eq!(manifest.assignment(5).unwrap().resized, [32, 33]); // 32.5 rounds up
    assert_eq!(manifest.assignment(3), None);
    let dropped: Vec<_> = manifest.dropped().map(|(index, fault)| (index, fault.key, fault.reason)).collect();
    let expected =
        [(3, "3.png", reason::TOO_SMALL), (4, "4.png", reason::ASPECT), (6, "6.png", reason::TOO_SMALL)];
    assert_eq!(dropped, expected.map(|(index, key, reason)| (index, key.to_owned(), reason.into())));
    assert_eq!(manifest.faults(), source().faults());
}

#[test]
fn its_table_adds_up() {
    let expected = "\
7 images: 4 kept, 3 dropped
  30x40                        1
  32x32                        2
  40x30                        1
dropped
  aspect ratio                 1  4.png: 500x9 to 40x30 loses 97.6 % of it, at most 50.0 % may be
  too small                    2  3.png: 10x10 to 32x32 enlarges it 3.20 times, at most 1 are allowed
faults of the source beside its images
  not an image                 1  notes.txt: a text";
    assert_eq!(manifest().to_string(), expected);
}

#[test]
fn it_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.jsonl");
    manifest().write(&path).unwrap();
    assert_eq!(Manifest::read(&path).unwrap(), manifest());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(
        lines[1],
        r#"{"key":"0.png","kept":{"bucket":1,"original":[64,64],"resized":[32,32],"target":[32,32]}}"#
    );
    assert!(lines[4].starts_with(r#"{"key":"3.png","dropped":{"reason":"too small","detail":"#));
}

#[test]
fn a_cut_or_changed_file_is_refused_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.jsonl");
    manifest().write(&path).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for length in 0..whole.len() - 1 {
        fs::remove_file(&path).unwrap(); // some file systems flush what is overwritten
        fs::write(&path, &whole[..length]).unwrap();
        let (line, _) = content(&path);
        assert!(line <= 9, "{length}");
    }
    fs::write(&path, &whole[..whole.trim_end().rfind('\n').unwrap()]).unwrap();
    let missing = "expected 7 images, 4 kept, found 6, 4 kept: cut or changed";
    assert_eq!(content(&path), (8, missing.to_owned()));
    let changed = |from: &str, to: &str| {
        assert!(whole.contains(from));
        fs::write(&path, whole.replacen(from, to, 1)).unwrap();
        content(&path)
    };
    let other = "bucket 2 is not of [32, 32] pixels, or is not covered by [32, 32]";
    assert_eq!(changed("\"bucket\":1", "\"bucket\":2"), (2, other.to_owned()));
    assert_eq!(changed("\"bucket\":1", "\"bucket\":77").0, 2);
    assert_eq!(changed("\"resized\":[32,32]", "\"resized\":[31,32]").0, 2);
    assert_eq!(changed("\"kept\":{", "\"held\":{").0, 2);
    assert_eq!(
        changed("\"manifest\":1", "\"manifest\":2"),
        (1, "expected a manifest of version 1, found 2".into())
    );
    fs::write(&path, format!("{whole}{}\n", whole.lines().last().unwrap())).unwrap();
    assert_eq!(content(&path).0, 10);
}

#[test]
fn a_full_disk_leaves_the_old_one_whole() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.jsonl");
    manifest().write(&path).unwrap();
    let old = fs::read(&path).unwrap();
    // The place beside it is a device without room.
    #[cfg(unix)]
    std::os::unix::fs::symlink("/dev/full", folder.path().join("manifest.jsonl.partial")).unwrap();
    let error = manifest().write(&path).unwrap_err().to_string();
    assert!(error.contains("manifest.jsonl: No space left on device"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), old);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
    manifest().write(&path).unwrap();
    let nowhere = folder.path().join("none/manifest.jsonl");
    assert!(matches!(manifest().write(&nowhere), Err(ManifestError::Io { path, .. }) if path == nowhere));
    assert!(matches!(Manifest::read(&nowhere), Err(ManifestError::Io { path, .. }) if path == nowhere));
}

#[test]
fn it_knows_its_source() {
    let mut source = source().0;
    manifest().check(&source).unwrap();
    source.0[2].key = "other.png".into();
    let error = manifest().check(&source).unwrap_err().to_string();
    assert_eq!(
        error,
        "the manifest is not of this source: image 2 is `2.png` there and `other.png` in the source"
    );
    source.0.pop();
    let error = manifest().check(&source).unwrap_err().to_string();
    assert_eq!(error, "the manifest is not of this source: it lists 7 images, the source has 6");
}
