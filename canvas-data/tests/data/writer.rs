use crate::make::{all, captions, picture, png, refusal};
use canvas_data::{Caption, Options, Record, ShardError, ShardLimits, ShardWriter, Shards, Source, open};
use image::ImageFormat;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Command;

fn record(number: u8) -> Record {
    let fields = json!({"url": format!("u{number}"), "sha256": "ab", "original_width": 50, "status": "old", "key": "old"});
    Record {
        key: format!("some.where/{number}"),
        image: png(number),
        captions: captions(&[("a pear", 1.0)]),
        fields: fields.as_object().unwrap().clone(),
    }
}

const PAIRS: ShardLimits = ShardLimits { records: 2, bytes: u64::MAX };

/// Names and bytes of everything in a folder.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn write(folder: &Path, numbers: std::ops::Range<u8>) -> ShardWriter {
    let mut writer = ShardWriter::create(folder, PAIRS).unwrap();
    numbers.for_each(|number| writer.write(&record(number)).unwrap());
    writer
}

#[test]
fn what_is_written_is_read_again() {
    let root = tempfile::tempdir().unwrap();
    let (weighted, mut bare) = (captions(&[("a", 1.0), ("two\nlines", 0.5)]), record(2));
    let heavy = Record { captions: vec![Caption { text: "b".into(), weight: 2.0 }], ..record(1) };
    bare.captions.clear();
    bare.fields.clear();
    let jpeg = Record { image: picture(3, ImageFormat::Jpeg), captions: weighted.clone(), ..record(3) };
    let records = [record(0), heavy, bare, jpeg];
    let mut writer = ShardWriter::create(root.path(), ShardLimits::default()).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    let stats = writer.finish().unwrap();
    assert_eq!((stats.len(), stats[0].count, stats[0].successes), (1, 4, 4));
    assert_eq!([&*stats[0].first, &*stats[0].last], ["some.where/0", "some.where/3"]);
    assert_eq!(stats[0].bytes, fs::metadata(root.path().join("000000.tar")).unwrap().len());

    let rules = canvas_data::CaptionRules { required: false, ..Default::default() };
    let source = open(root.path(), &Options { rules, ..Options::default() }).unwrap();
    let read: Vec<_> = all(&*source).into_iter().map(Result::unwrap).collect();
    assert!(source.faults().is_empty());
    for (number, (read, record)) in read.iter().zip(&records).enumerate() {
        assert_eq!((&read.image, &read.captions), (&record.image, &record.captions));
        assert_eq!(read.key, format!("000000.tar:000000000{number}"));
        let expect =
            |name: &str, value: serde_json::Value| assert_eq!(read.fields.get(name), Some(&value), "{name}");
        expect("key", format!("000000000{number}").into());
        expect("status", "success".into());
        expect("source_key", record.key.clone().into());
        expect("width", 5.into());
        expect("height", 4.into());
        for name in ["url", "sha256", "original_width"] {
            assert_eq!(read.fields.get(name), record.fields.get(name));
        }
    }
    assert_eq!(read.len(), 4);

    let again = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(again.path(), ShardLimits::default()).unwrap();
    read.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap();
    let twice = Shards::open(again.path(), &Options::default()).unwrap();
    assert_eq!(twice.read(0).unwrap().fields["source_key"], "some.where/0", "the first source of several");
    let [once, twice] = [&root, &again].map(|folder| content(folder.path()).remove("000000.tar").unwrap());
    assert!(once == twice, "what is read and written again is the same");
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bytes() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(whole.path(), 0..7).finish().unwrap();
    let expected = content(whole.path());
    assert_eq!(expected.len(), 8, "four shards with their counts");
    for stop in 0..8 {
        drop(write(killed.path(), 0..stop)); // with whatever was not flushed
        let names = content(killed.path());
        assert!(
            names.iter().all(|(name, bytes)| name.ends_with(".partial") || expected.get(name) == Some(bytes))
        );
        let mut writer = ShardWriter::create(killed.path(), PAIRS).unwrap();
        let written = writer.written();
        assert_eq!(written, (stop as usize).saturating_sub(1) / 2 * 2);
        assert_eq!(writer.last(), (written > 0).then(|| format!("some.where/{}", written - 1)).as_deref());
        (written as u8..7).for_each(|number| writer.write(&record(number)).unwrap());
        assert_eq!(writer.finish().unwrap().len(), 4);
        assert!(content(killed.path()) == expected, "stopped after {stop}");
        // Finished shards are left alone.
        let before = fs::metadata(killed.path().join("000000.tar")).unwrap().modified().unwrap();
        assert_eq!(ShardWriter::create(killed.path(), PAIRS).unwrap().written(), 7);
        assert_eq!(fs::metadata(killed.path().join("000000.tar")).unwrap().modified().unwrap(), before);
        content(killed.path()).keys().for_each(|name| fs::remove_file(killed.path().join(name)).unwrap());
    }
}

#[test]
fn bytes_close_a_shard_too() {
    let root = tempfile::tempdir().unwrap();
    // A record: three members of a header and a block.
    let limits = ShardLimits { records: 100, bytes: 7 * 1024 };
    let mut writer = ShardWriter::create(root.path(), limits).unwrap();
    (0..5).for_each(|number| writer.write(&record(number)).unwrap());
    let counts: Vec<_> = writer.finish().unwrap().into_iter().map(|stats| stats.count).collect();
    assert_eq!(counts, [2, 2, 1]);
    let tiny = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(tiny.path(), ShardLimits { records: 100, bytes: 1 }).unwrap();
    (0..3).for_each(|number| writer.write(&record(number)).unwrap());
    assert_eq!(
        writer.finish().unwrap().len(),
        3,
        "one that is larger than a shard may be has one of its own"
    );
}

#[test]
fn shards_of_another_run_are_not_continued() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), 0..2).finish().unwrap();
    let other = ShardLimits { records: 3, ..PAIRS };
    let said = refusal(ShardWriter::create(root.path(), other));
    assert!(said.contains("000000_stats.json: expected shards of ShardLimits { records: 3"), "{said}");
    fs::write(root.path().join("000000_stats.json"), "{").unwrap();
    assert!(matches!(ShardWriter::create(root.path(), PAIRS), Err(ShardError::Other { .. })));
    fs::remove_file(root.path().join("000000_stats.json")).unwrap();
    assert!(matches!(ShardWriter::create(root.path(), PAIRS), Err(ShardError::Io { .. })));
    let empty = ShardWriter::create(root.path().join("new"), PAIRS).unwrap();
    assert!(empty.finish().unwrap().is_empty());
}

/// Captions that options left over, and other fields of names that mean something here.
#[test]
fn fields_are_not_taken_for_captions_when_read_again() {
    let fields = json!({
        "captions": ["a", "b"], "caption": "c", "text": "d", "TEXT": "e", "weights": [1, 2], "was_text": "f",
        "source": "a museum",
    });
    let of = |captions: &[Caption]| {
        let (captions, fields) = (captions.to_vec(), fields.as_object().unwrap().clone());
        Record { captions, fields, ..record(0) }
    };
    let one = captions(&[("x", 1.0)]);
    let records = [of(&one), of(&[]), of(&captions(&[("x", 2.0)])), of(&captions(&[("x", 1.0), ("y", 0.5)]))];
    let root = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(root.path(), ShardLimits::default()).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap();

    let rules = canvas_data::CaptionRules { required: false, ..Default::default() };
    let lenient = Options { rules, ..Options::default() };
    for (read, record) in all(&Shards::open(root.path(), &lenient).unwrap()).into_iter().zip(&records) {
        let mut read = read.unwrap();
        assert_eq!(read.captions, record.captions);
        for name in ["key", "status", "width", "height"] {
            read.fields.remove(name).unwrap();
        }
        let expected = json!({
            "was_captions": ["a", "b"], "was_caption": "c", "was_was_text": "d", "was_TEXT": "e",
            "was_weights": [1, 2], "was_text": "f", "source": "a museum", "source_key": "some.where/0",
        });
        assert_eq!(json!(read.fields), expected);
    }
    for (name, expected) in [("caption", one), ("was_captions", captions(&[("a", 1.0), ("b", 1.0)]))] {
        let named = Options { captions: vec![name.into()], ..Options::default() };
        assert_eq!(Shards::open(root.path(), &named).unwrap().read(0).unwrap().captions, expected, "{name}");
    }
}

#[test]
fn no_shard_is_written_over_that_lies_behind_a_gap() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), 0..6).finish().unwrap();
    fs::remove_file(root.path().join("000000.tar")).unwrap();
    let before = content(root.path());
    let said = refusal(ShardWriter::create(root.path(), PAIRS));
    assert!(said.ends_with(".tar: expected 000000.tar before it, which is not there"), "{said}");
    assert!(content(root.path()) == before);
    // What is no shard of ours is in nobody's way.
    for number in 1..3 {
        fs::rename(root.path().join(format!("00000{number}.tar")), root.path().join(format!("{number}.tar")))
            .unwrap();
    }
    assert_eq!(ShardWriter::create(root.path(), PAIRS).unwrap().written(), 0);
}

#[cfg(unix)]
#[test]
fn a_folder_has_one_writer_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let first = write(root.path(), 0..1);
    let second = ShardWriter::create(root.path(), PAIRS);
    assert!(matches!(second, Err(ShardError::Busy(folder)) if folder == root.path()));
    first.finish().unwrap();
    assert_eq!(ShardWriter::create(root.path(), PAIRS).unwrap().written(), 1);
}

#[cfg(target_os = "linux")]
const FOLDER: &str = "CANVAS_TEST_WRITER";

#[cfg(target_os = "linux")]
#[test]
#[ignore = "the child process of the next"]
fn child_with_a_full_disk() {
    let folder = std::env::var_os(FOLDER).expect("run by another test");
    let mut writer = ShardWriter::create(folder, ShardLimits::default()).unwrap();
    writer.write(&record(0)).unwrap();
    let large = Record { image: [png(1), vec![0; 100_000]].concat(), ..record(1) };
    assert!(matches!(writer.write(&large), Err(ShardError::Io { .. })));
    // There is room again, and the program goes on.
    let own = std::process::id().to_string();
    let room = Command::new("prlimit").args(["--pid", &own, "--fsize=unlimited"]).status().unwrap();
    assert!(room.success());
    writer.write(&record(2)).unwrap();
    assert_eq!(writer.finish().unwrap()[0].count, 1);
}

/// A shell that lets files have 4 kB and no more, in place of a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_torn_shard_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 8; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "writer::child_with_a_full_disk", "--ignored"])
        .env(FOLDER, root.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let source = Shards::open(root.path(), &Options::default()).unwrap();
    assert!(source.faults().is_empty(), "{:?}", source.faults());
    assert_eq!((source.len(), &source.read(0).unwrap().fields["source_key"]), (1, &json!("some.where/2")));
}

#[test]
fn what_is_no_image_is_refused_and_the_shard_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(root.path(), PAIRS).unwrap();
    let said = refusal(writer.write(&Record { image: b"text".to_vec(), ..record(0) }));
    assert!(said.starts_with("some.where/0: expected an image of a known format"), "{said}");
    writer.write(&record(1)).unwrap();
    assert_eq!(writer.finish().unwrap()[0].count, 1);
}
