use canvas_train::Log;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    images: u64,
    loss: f64,
    prompt: String,
}

fn row(images: u64) -> Row {
    // Floats that need all their digits, and letters of more than one byte.
    Row { images, loss: 1.0 / (images as f64 + 3.0), prompt: "rött hjärta".into() }
}

fn written(folder: &Path, rows: u64) -> PathBuf {
    let path = folder.join("log.jsonl");
    let mut log = Log::resume(&path, |_: &Row| true).unwrap();
    (0..rows).for_each(|images| log.push(&row(images)).unwrap());
    path
}

#[test]
fn rows_come_back_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 20);
    assert_eq!(Log::read::<Row>(&path).unwrap(), (0..20).map(row).collect::<Vec<_>>());
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 20);
    assert_eq!(Log::read::<Row>(&folder.path().join("none.jsonl")).unwrap(), []);
}

#[test]
fn a_resumed_log_is_the_uninterrupted_one_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 9);
    let whole = fs::read(&path).unwrap();
    // Stopped after 9 rows, resumed from a checkpoint after 5.
    let mut log = Log::resume(&path, |row: &Row| row.images < 5).unwrap();
    let kept = fs::read(&path).unwrap();
    assert_eq!(kept, whole[..kept.len()]);
    assert_eq!(Log::read::<Row>(&path).unwrap().len(), 5);
    (5..9).for_each(|images| log.push(&row(images)).unwrap());
    assert_eq!(fs::read(&path).unwrap(), whole);
}

/// A crash can cut a row off anywhere, also inside a letter.
#[test]
fn a_row_that_was_cut_off_is_dropped_wherever_the_cut_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 3);
    let whole = fs::read(&path).unwrap();
    let second = whole.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').nth(1).unwrap().0 + 1;
    for cut in second..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        // Also of a run that still writes.
        assert_eq!(Log::read::<Row>(&path).unwrap(), [row(0), row(1)], "cut at {cut}");
        let mut log = Log::resume(&path, |_: &Row| true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole[..second], "cut at {cut}");
        log.push(&row(2)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
    }
}

#[test]
fn what_follows_a_damaged_row_is_dropped_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 4);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(&path, [lines[0], "\0\0\0\n", lines[2]].concat()).unwrap();
    Log::resume(&path, |_: &Row| true).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), lines[0]);
}

#[test]
fn errors_name_the_file_and_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 2);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(b"{\"images\": 2}\n");
    fs::write(&path, &bytes).unwrap();
    let message = Log::read::<Row>(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}:3: missing field `loss`", path.display())), "{message}");
    fs::write(&path, b"\xff\xfe\n").unwrap();
    let message = Log::read::<Row>(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}:1: ", path.display())), "{message}");

    // A folder in its place.
    let message = Log::resume(folder.path(), |_: &Row| true).unwrap_err().to_string();
    assert!(message.contains(&folder.path().display().to_string()), "{message}");
}
