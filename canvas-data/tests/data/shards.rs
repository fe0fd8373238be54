use crate::make::{all, captions, files, has_fault, pairs, png, refusal, samples, tar};
use canvas_data::{CaptionRules, Options, Record, Shards, Source, reason};
use serde_json::json;
use std::fs;
use std::path::Path;

fn options() -> Options {
    Options::default()
}

/// The source of one shard of these bytes.
fn shard(folder: &Path, bytes: &[u8]) -> Result<Shards, canvas_data::OpenError> {
    files(folder, &[("x.tar", bytes)]);
    Shards::open(folder.join("x.tar"), &options())
}

#[test]
fn members_of_one_name_are_a_sample() {
    let root = tempfile::tempdir().unwrap();
    let json = json!({"caption": "from json", "key": "k", "width": 5}).to_string();
    let members: [(&str, &[u8]); 13] = [
        ("./a/one.PNG", &png(1)),
        ("a/one.json", json.as_bytes()),
        ("a/one.txt", b"from txt"),
        ("a/one.cls", b"7\n"),
        ("a/one.mask.png", &png(9)),
        ("__meta__/x.png", &png(9)),
        ("README", b"no dot"),
        ("two.txt", b"two\nlines\n"),
        ("two.png", &png(2)),
        ("three.webp", &[3; 40]),
        ("three.caption", b"three"),
        ("three.cls", b"pear"),
        ("four.npy", &[0; 2000]),
    ];
    let source = shard(root.path(), &tar(&members)).unwrap();
    assert_eq!(source.len(), 3);
    let expected = [
        Record {
            key: "x.tar:a/one".into(),
            image: png(1),
            captions: captions(&[("from json", 1.0)]),
            fields: json!({"key": "k", "width": 5, "cls": 7}).as_object().unwrap().clone(),
        },
        Record {
            key: "x.tar:two".into(),
            image: png(2),
            captions: captions(&[("two\nlines", 1.0)]),
            fields: Default::default(),
        },
        Record {
            key: "x.tar:three".into(),
            image: vec![3; 40],
            captions: captions(&[("three", 1.0)]),
            fields: json!({"cls": "pear"}).as_object().unwrap().clone(),
        },
    ];
    assert_eq!(all(&source), expected.map(Ok));
    has_fault(source.faults(), "x.tar:four", reason::NO_IMAGE, "found the members npy");
    has_fault(
        source.faults(),
        "x.tar",
        reason::NO_IMAGE,
        "README: a name without a dot, so of no sample; 1 such members",
    );
    assert_eq!(source.faults().len(), 2);
}

#[test]
fn members_without_a_dot_are_named_once() {
    let root = tempfile::tempdir().unwrap();
    let source = shard(
        root.path(),
        &tar(&[("a.png", &png(1)), ("a.txt", b"a"), ("b", &png(2)), ("c/d", &png(3)), (".DS_Store", b"x")]),
    );
    let source = source.unwrap();
    has_fault(
        source.faults(),
        "x.tar",
        reason::NO_IMAGE,
        "b: a name without a dot, so of no sample; 2 such members",
    );
    assert_eq!((source.len(), source.faults().len()), (1, 1), "hidden files are passed over, as in folders");
    let said = refusal(shard(root.path(), &tar(&[("b", &png(2))])));
    assert!(said.contains("1 tar files, 1 faults: x.tar: no image: b: a name without a dot"), "{said}");
}

#[test]
fn all_captions_that_are_named_are_read() {
    let root = tempfile::tempdir().unwrap();
    let bytes = tar(&[
        ("a.png", &png(1)),
        ("a.long.txt", b"a long one"),
        ("a.short.txt", b"short"),
        ("a.txt", b"not named"),
        ("b.png", &png(2)),
        ("b.long.txt", b"only long"),
        ("c.png", &png(3)),
        ("c.txt", b"not named"),
    ]);
    files(root.path(), &[("x.tar", &bytes)]);
    let named = Options { captions: vec!["short.txt".into(), "long.txt".into()], ..options() };
    let source = Shards::open(root.path().join("x.tar"), &named).unwrap();
    assert_eq!(source.read(0).unwrap().captions, captions(&[("short", 1.0), ("a long one", 1.0)]));
    assert_eq!(source.read(1).unwrap().captions, captions(&[("only long", 1.0)]));
    let said = source.read(2).unwrap_err().to_string();
    assert_eq!(said, "x.tar:c: no caption: looked for json, short.txt, long.txt");
}

#[test]
fn a_sample_with_many_images_needs_a_word() {
    let root = tempfile::tempdir().unwrap();
    let bytes = tar(&[
        ("a.png", &png(1)),
        ("a.jpg", &[1; 9]),
        ("a.txt", b"a"),
        ("b.jpg", &[2; 9]),
        ("b.txt", b"b"),
        ("b.mask.png", &png(3)),
    ]);
    let source = shard(root.path(), &bytes).unwrap();
    assert_eq!(pairs(&source), [("x.tar:b".into(), "b".into())]);
    has_fault(source.faults(), "x.tar:a", reason::MALFORMED, "png, jpg, txt: the option `image` takes one");
    let named = |image: &str| {
        let options = Options { image: Some(image.into()), ..options() };
        Shards::open(root.path().join("x.tar"), &options)
    };
    assert_eq!(
        all(&named("jpg").unwrap()).into_iter().map(|read| read.unwrap().image).collect::<Vec<_>>(),
        [[1; 9], [2; 9]]
    );
    let masks = named("mask.png").unwrap();
    assert_eq!((masks.len(), masks.read(0).unwrap().image), (1, png(3)));
    has_fault(masks.faults(), "x.tar:a", reason::NO_IMAGE, "expected the field mask.png");
    assert!(refusal(named("gif")).contains("1 tar files, 2 faults: x.tar:a: no image"));
}

#[test]
fn shards_are_blocks_in_their_order_and_threads_read_them() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[
            ("b/0.tar", &samples(3)),
            ("a/0.tar", &samples(4)),
            ("a/1.tar", &tar(&[])),
            ("a/2.tar", b""),
            ("notes.txt", b""),
        ],
    );
    let source = Shards::open(root.path(), &options()).unwrap();
    assert_eq!(source.blocks(), [0..4, 4..7]);
    assert_eq!(
        [source.key(0), source.key(4)],
        ["a/0.tar:s0", "b/0.tar:s0"],
        "one name in two shards is two keys"
    );
    has_fault(source.faults(), "a/1.tar", reason::EMPTY, "no sample");
    has_fault(source.faults(), "a/2.tar", reason::EMPTY, "no bytes");
    assert_eq!(source.faults().len(), 2);
    let alone = all(&source);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(all(&source), alone)));
        }
    });
    let pattern = root.path().join("{a,b,c}/0.tar");
    let source = Shards::open(&pattern, &options()).unwrap();
    assert_eq!(all(&source), alone);
    has_fault(source.faults(), "c/0.tar", reason::MISSING, "No such file");
    assert!(refusal(Shards::open(root.path().join("{a"), &options())).contains("a { is not closed"));
    assert!(
        refusal(Shards::open(root.path().join("{3..1}"), &options()))
            .contains("expected a last number from 3")
    );
    assert!(
        refusal(Shards::open(root.path().join("{0..99999999}"), &options()))
            .contains("expected a last number")
    );
    assert!(refusal(Shards::open(root.path().join("{x}"), &options())).contains("neither a range"));
}

#[test]
fn a_shard_cut_anywhere_keeps_what_is_before_the_cut_and_names_what_is_not() {
    let root = tempfile::tempdir().unwrap();
    let (whole, count) = (samples(3), 3);
    let expected = all(&shard(root.path(), &whole).unwrap());
    // A sample: two members of a header and a block of bytes each.
    let ends: Vec<usize> = (1..=count).map(|number| number * 4 * 512).collect();
    for cut in (0..whole.len() - 512).filter(|cut| cut % 64 == 0 || cut % 512 < 2) {
        let (source, sure) =
            (shard(root.path(), &whole[..cut]), ends.iter().filter(|&&end| cut > end + 511).count());
        let (read, faults) = match &source {
            Ok(source) => (all(source), source.faults().to_vec()),
            Err(error) => {
                let said = error.to_string();
                assert!(sure == 0 && (cut == 0 || said.contains("truncated")), "cut at {cut}: {said}");
                continue;
            }
        };
        // Where the cut is right behind a sample nobody knows whether it had more members.
        assert!(read.len() == sure, "cut at {cut}: {} samples, sure {sure}, {faults:?}", read.len());
        assert_eq!(read, expected[..read.len()], "cut at {cut}");
        assert!(faults.iter().all(|fault| fault.reason == reason::TRUNCATED), "cut at {cut}: {faults:?}");
        assert!(!faults.is_empty(), "cut at {cut}");
    }
}

#[test]
fn a_damaged_header_ends_a_shard_and_is_named() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = samples(4);
    bytes[8 * 512 + 3] ^= 1; // in the name of the third sample's image
    let source = shard(root.path(), &bytes).unwrap();
    assert_eq!(pairs(&source), [("x.tar:s0".into(), "number 0".into())]);
    // What follows may have been more of the second: it is not read as if it were whole.
    has_fault(source.faults(), "x.tar:s1", reason::MALFORMED, "its last members may be lost");
    let lost = bytes.len() - 8 * 512;
    has_fault(
        source.faults(),
        "x.tar",
        reason::MALFORMED,
        &format!("checksum mismatch at byte 4096: {lost} bytes"),
    );
    assert_eq!(source.faults().len(), 2);
}

#[test]
fn more_behind_the_end_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (samples(2), samples(4));
    let source = shard(root.path(), &[&one[..], &two[..]].concat()).unwrap();
    assert_eq!(pairs(&source), [("x.tar:s0".into(), "number 0".into())]);
    has_fault(
        source.faults(),
        "x.tar",
        reason::MALFORMED,
        "marked as its end at byte 4096, but there is more",
    );
    has_fault(source.faults(), "x.tar:s1", reason::MALFORMED, "its last members may be lost");
    let padded = [&one[..], &[0; 200_704]].concat();
    assert!(shard(root.path(), &padded).unwrap().faults().is_empty());
}

#[test]
fn a_member_larger_than_the_file_costs_no_memory() {
    let root = tempfile::tempdir().unwrap();
    let mut huge = tar::Header::new_gnu();
    huge.set_path("s2.png").unwrap();
    huge.set_size(1 << 62);
    huge.set_cksum();
    let mut bytes = samples(2);
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(huge.as_bytes());
    bytes.extend_from_slice(&[0; 1024]);
    let source = shard(root.path(), &bytes).unwrap();
    assert_eq!(source.len(), 2);
    has_fault(
        source.faults(),
        "x.tar",
        reason::TRUNCATED,
        "s2.png: expected 4611686018427387904 bytes, found 1024",
    );
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let root = tempfile::tempdir().unwrap();
    let long = "d/".repeat(60) + &"n".repeat(150);
    let (image, text) = (format!("{long}.png"), format!("{long}.txt"));
    let gnu = tar(&[(&image, &png(1)), (&text, b"long")]);
    assert_eq!(pairs(&shard(root.path(), &gnu).unwrap()), [(format!("x.tar:{long}"), "long".into())]);

    let mut pax = tar::Builder::new(Vec::new());
    for (name, bytes) in [(&image, png(1)), (&text, b"long".to_vec())] {
        pax.append_pax_extensions([("path", name.as_bytes())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        pax.append(&header, &bytes[..]).unwrap();
    }
    let source = shard(root.path(), &pax.into_inner().unwrap()).unwrap();
    assert_eq!(pairs(&source), [(format!("x.tar:{long}"), "long".into())]);

    let huge = format!("{}.png", "n".repeat(2 << 20));
    let bytes = tar(&[("a.png", &png(1)), ("a.txt", b"a"), ("b.png", &png(2)), (&huge, &png(1))]);
    let source = shard(root.path(), &bytes).unwrap();
    assert_eq!(source.len(), 1);
    has_fault(source.faults(), "x.tar", reason::MALFORMED, "a header of more than 1048576 bytes");
}

#[test]
fn what_is_no_sample_or_one_too_many_is_named() {
    let root = tempfile::tempdir().unwrap();
    let bytes = tar(&[
        ("a.png", &png(1)),
        ("a.txt", b"a"),
        ("b.png", &png(2)),
        ("b.txt", b"b"),
        ("a.json", b"{}"),
        ("c.png", &png(3)),
        ("c.txt", b"c"),
        ("c.TXT", b"c"),
        ("d.png", b""),
        ("d.txt", b"d"),
        ("e.txt", b"e"),
    ]);
    let source = shard(root.path(), &bytes).unwrap();
    assert_eq!(pairs(&source).len(), 2);
    has_fault(source.faults(), "x.tar:a", reason::SAME_KEY, "do not lie together");
    has_fault(source.faults(), "x.tar:c", reason::SAME_KEY, "two members c.txt");
    has_fault(source.faults(), "x.tar:d", reason::EMPTY, "png has no bytes");
    has_fault(source.faults(), "x.tar:e", reason::NO_IMAGE, "found the members txt");
    assert_eq!(source.faults().len(), 4);

    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "a.png", "/etc/passwd").unwrap();
    let said = refusal(shard(root.path(), &link.into_inner().unwrap()));
    assert!(said.contains("a.png is not a file but Symlink"), "{said}");
    let said = refusal(shard(root.path(), b"\x1f\x8b\x08\0 and so on"));
    assert!(said.contains("compressed by gzip: unpack it"), "{said}");
    let said = refusal(shard(root.path(), &[7; 4096]));
    assert!(said.contains("x.tar: malformed"), "{said}");
}

#[test]
fn rules_of_captions_and_lengths_hold_in_shards() {
    let root = tempfile::tempdir().unwrap();
    let long = "x".repeat(70_000);
    let bytes = tar(&[
        ("a.png", &png(1)),
        ("b.png", &png(1)),
        ("b.txt", b"caf\xe9"),
        ("c.png", &png(1)),
        ("c.txt", long.as_bytes()),
        ("d.png", &png(1)),
        ("d.json", b"{\"caption\": 1}"),
        ("e.png", &[1; 3000]),
        ("e.txt", b"e"),
    ]);
    files(root.path(), &[("x.tar", &bytes)]);
    let read = |options: &Options| {
        let source = Shards::open(root.path().join("x.tar"), options).unwrap();
        all(&source)
            .into_iter()
            .map(|read| read.err().map(|fault| fault.reason.into_owned()))
            .collect::<Vec<_>>()
    };
    let some = |reason: &str| Some(reason.to_owned());
    let (utf8, long, malformed) =
        (some(reason::NOT_UTF8), some(reason::LONG_CAPTION), some(reason::MALFORMED));
    let none = some(reason::NO_CAPTION);
    assert_eq!(read(&options()), [none, utf8.clone(), long.clone(), malformed.clone(), None]);
    let rules = CaptionRules { required: false, ..CaptionRules::default() };
    let limited = Options { rules, longest_image: 2999, longest_sidecar: 69_999, ..options() };
    assert_eq!(read(&limited), [None, utf8, long, malformed, some(reason::TOO_LARGE)]);
}

#[test]
fn a_shard_that_shrinks_while_it_is_read_is_a_fault() {
    let root = tempfile::tempdir().unwrap();
    let source = shard(root.path(), &samples(2)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(root.path().join("x.tar")).unwrap();
    file.set_len(2600).unwrap();
    assert!(source.read(0).is_ok());
    assert_eq!(source.read(1).unwrap_err().reason, reason::TRUNCATED);
}
