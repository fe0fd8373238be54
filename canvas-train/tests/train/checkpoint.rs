use canvas_train::{CheckpointError, Checkpoints};
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// Writes a checkpoint of two files whose content tells its number.
fn write(checkpoints: &Checkpoints, images: u64) -> PathBuf {
    checkpoints.write(images, |folder| fill(folder, images)).unwrap()
}

fn fill(folder: &Path, images: u64) -> Result<(), CheckpointError> {
    fs::write(folder.join("model"), vec![images as u8; 37]).unwrap();
    fs::write(folder.join("counters"), images.to_string()).unwrap();
    Ok(())
}

/// Names of everything in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bytes of every file of a folder.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    names(folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

#[test]
fn the_newest_is_used_and_the_oldest_go() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(root.path().join("made"), 2);
    assert!(checkpoints.newest().unwrap().is_none());
    for images in [64, 1_000, 20_000, 300_000] {
        let path = write(&checkpoints, images);
        let newest = checkpoints.newest().unwrap().unwrap();
        assert_eq!((newest.images, &newest.path), (images, &path));
        assert!(newest.passed_over.is_empty());
        assert_eq!(fs::read(path.join("model")).unwrap(), vec![images as u8; 37]);
    }
    assert_eq!(names(&root.path().join("made")), ["000000020000", "000000300000"]);
    write(&Checkpoints::new(root.path().join("made"), 0), 300_001);
    assert_eq!(names(&root.path().join("made")), ["000000300001"], "at least one is kept");
}

type Damage = fn(&Path);

/// What a crash, a full disk or a bad one can leave, and the reason that is given.
const DAMAGES: [(Damage, &str); 8] = [
    (|c| fs::write(c.join("model"), [3; 36]).unwrap(), "model: 36 bytes, expected 37: truncated"),
    (|c| fs::write(c.join("model"), [3; 38]).unwrap(), "model: 38 bytes, expected 37"),
    (|c| flip(&c.join("model"), 20), "model: its checksum differs: damaged"),
    (|c| fs::remove_file(c.join("counters")).unwrap(), "counters: "),
    (|c| fs::remove_file(c.join("checkpoint.json")).unwrap(), "checkpoint.json: "),
    (|c| half(&c.join("checkpoint.json")), "checkpoint.json: EOF"),
    (|c| fs::write(c.join("checkpoint.json"), "").unwrap(), "checkpoint.json: EOF"),
    (|c| fs::remove_dir_all(c).and_then(|()| fs::create_dir(c)).unwrap(), "checkpoint.json: "),
];

fn flip(file: &Path, place: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[place] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn half(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn damaged_ones_are_passed_over_with_the_reason() {
    for (damage, reason) in DAMAGES {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(root.path(), 3);
        let older = write(&checkpoints, 100);
        let newer = write(&checkpoints, 200);
        damage(&newer);

        let newest = checkpoints.newest().unwrap().unwrap();
        assert_eq!((newest.images, newest.path), (100, older.clone()));
        let expected = format!("{}: {reason}", newer.display());
        assert_eq!(newest.passed_over.len(), 1);
        assert!(newest.passed_over[0].starts_with(&expected), "{:?}: {expected}", newest.passed_over);

        // It is written again when the resumed run comes there.
        write(&checkpoints, 200);
        assert_eq!(checkpoints.newest().unwrap().unwrap().images, 200);
        damage(&newer);
        damage(&older);
        let message = checkpoints.newest().unwrap_err().to_string();
        assert!(message.contains("no whole checkpoint"), "{message}");
        for place in [older, newer] {
            assert!(message.contains(&format!("{}: {reason}", place.display())), "{message}");
        }
    }
}

/// Every byte of every file: a flipped bit is found, or (white space of the manifest) changes nothing.
#[test]
fn no_flipped_bit_goes_unseen() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(root.path(), 1);
    let path = write(&checkpoints, 103);
    let mut harmless = 0;
    for name in ["model", "counters", "checkpoint.json"] {
        let good = fs::read(path.join(name)).unwrap();
        for place in 0..good.len() {
            flip(&path.join(name), place);
            match checkpoints.newest() {
                Err(CheckpointError::NoneWhole { .. }) => {}
                Err(other) => panic!("{other}"),
                Ok(found) => {
                    assert_eq!((name, found.unwrap().images), ("checkpoint.json", 103), "byte {place}");
                    assert!(good[place].is_ascii_whitespace(), "byte {place}");
                    harmless += 1;
                }
            }
            fs::write(path.join(name), &good).unwrap();
        }
    }
    assert!(harmless < 100, "{harmless}");
    assert!(checkpoints.newest().unwrap().is_some());
}

/// A run that was killed while it wrote.
#[test]
fn a_left_over_partial_folder_is_no_checkpoint_and_not_in_the_way() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(root.path(), 2);
    let partial = root.path().join(".partial-000000000200");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("model"), [1; 5]).unwrap();
    fs::write(partial.join("stranger"), [1; 5]).unwrap();
    assert!(checkpoints.newest().unwrap().is_none(), "nothing was ever finished");

    write(&checkpoints, 100);
    let newest = checkpoints.newest().unwrap().unwrap();
    assert_eq!(newest.images, 100);
    assert!(newest.passed_over.is_empty());
    let place = write(&checkpoints, 200);
    assert_eq!(names(root.path()), ["000000000100", "000000000200"]);
    assert_eq!(
        names(&place),
        ["checkpoint.json", "counters", "model"],
        "and nothing of the killed one is in it"
    );
}

#[test]
fn other_files_and_folders_are_let_be() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(root.path(), 1);
    fs::create_dir(root.path().join("samples")).unwrap();
    fs::write(root.path().join("000000000900"), "a file").unwrap();
    write(&checkpoints, 100);
    write(&checkpoints, 200);
    assert_eq!(checkpoints.newest().unwrap().unwrap().images, 200);
    assert_eq!(names(root.path()), ["000000000200", "000000000900", "samples"]);
}

/// Regression: damaged ones with larger numbers pushed out the only whole one, the one just written.
#[test]
fn damaged_newer_ones_do_not_push_out_the_one_just_written() {
    let root = tempfile::tempdir().unwrap();
    let keep = Checkpoints::new(root.path(), 9);
    for images in [100, 300, 400] {
        write(&keep, images);
    }
    half(&root.path().join("000000000300/checkpoint.json"));
    half(&root.path().join("000000000400/checkpoint.json"));
    let checkpoints = Checkpoints::new(root.path(), 1);
    assert_eq!(checkpoints.newest().unwrap().unwrap().images, 100);
    write(&checkpoints, 250); // resumed from 100, stopped before it came to 300
    let newest = checkpoints.newest().unwrap().unwrap();
    assert_eq!((newest.images, newest.passed_over.len()), (250, 2));
}

#[test]
fn a_failed_write_leaves_everything_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(root.path(), 1);
    let older = write(&checkpoints, 100);
    let before = content(&older);
    // The disk is full after the first file.
    let error = checkpoints.write(200, |folder| {
        fs::write(folder.join("model"), [2; 37]).unwrap();
        let path = folder.join("average");
        Err(CheckpointError::Io { path, source: Error::from(ErrorKind::StorageFull) })
    });
    let message = error.unwrap_err().to_string();
    assert!(message.contains(".partial-000000000200/average: no storage space"), "{message}");
    assert_eq!(names(root.path()), ["000000000100"]);
    assert_eq!(content(&older), before);
    assert_eq!(checkpoints.newest().unwrap().unwrap().images, 100);
}

/// The real thing, where the system has a device that is always full.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_that_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(root.path(), 1);
    write(&checkpoints, 100);
    let error = checkpoints.write(200, |folder| {
        // Where write_atomically puts its bytes until they are on the disk.
        std::os::unix::fs::symlink("/dev/full", folder.join("model.partial")).unwrap();
        Ok(canvas_core::weights::write_atomically(&folder.join("model"), &[2; 37])?)
    });
    let message = error.unwrap_err().to_string();
    assert!(message.contains("model: No space left on device"), "{message}");
    assert_eq!(names(root.path()), ["000000000100"]);
}

#[test]
fn the_same_state_is_not_written_twice() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(root.path(), 1);
    let path = write(&checkpoints, 100);
    let again = checkpoints.write(100, |_| panic!("must not be called")).unwrap();
    assert_eq!(again, path);
}

/// A folder cannot be made where a file is.
#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let checkpoints = Checkpoints::new(root.path().join("file"), 1);
    let message = checkpoints.write(1, |_| Ok(())).unwrap_err().to_string();
    assert!(message.contains("file/.partial-000000000001"), "{message}");
    assert!(checkpoints.newest().unwrap_err().to_string().contains("file: "));
}
