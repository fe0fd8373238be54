use crate::make::{all, captions, files, has_fault, pairs, picture, png, refusal};
use canvas_data::{CaptionRules, Folder, Options, Source, TextRule, reason};
use image::ImageFormat;
use serde_json::json;
use std::fs;

fn options() -> Options {
    Options::default()
}

fn without_captions() -> Options {
    Options { rules: CaptionRules { required: false, ..CaptionRules::default() }, ..options() }
}

#[test]
fn images_come_in_the_order_of_their_paths_bytes() {
    let root = tempfile::tempdir().unwrap();
    let jpeg = picture(1, ImageFormat::Jpeg);
    files(
        root.path(),
        &[
            ("b/1.png", &png(0)),
            ("a.png", &png(1)),
            ("a/2.JPG", &jpeg),
            ("B.webp", &picture(2, ImageFormat::WebP)),
            ("a/deep/er.jpeg", &jpeg),
            (".hidden.png", &png(3)),
            (".git/x.png", &png(3)),
            ("notes.pdf", b"not an image, nor about one"),
            ("new.avif", b"?"),
            ("old.tga", b"?"),
        ],
    );
    let source = Folder::open(root.path(), &without_captions()).unwrap();
    let keys: Vec<_> = (0..source.len()).map(|index| source.key(index)).collect();
    assert_eq!(keys, ["B.webp", "a.png", "a/2.JPG", "a/deep/er.jpeg", "b/1.png"]);
    assert_eq!(source.read(2).unwrap().image, jpeg);
    assert_eq!(source.blocks(), vec![0..5; 1]);
    has_fault(source.faults(), "new.avif", reason::NOT_AN_IMAGE, "avif");
    has_fault(source.faults(), "old.tga", reason::NOT_AN_IMAGE, "tga");
    assert_eq!(source.faults().len(), 2);
}

#[test]
fn a_text_beside_an_image_is_read_by_rule() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[
            ("a.png", &png(0)),
            ("a.txt", "\u{feff}a pear\r\n\r\n  two pears \n".as_bytes()),
            ("b.c.png", &png(1)),
            ("b.c.caption", b"only this"),
        ],
    );
    let read = |text| {
        let source = Folder::open(root.path(), &Options { text, ..options() }).unwrap();
        [0, 1].map(|index| source.read(index).unwrap().captions)
    };
    let only = captions(&[("only this", 1.0)]);
    assert_eq!(read(TextRule::Lines), [captions(&[("a pear", 1.0), ("two pears", 1.0)]), only.clone()]);
    assert_eq!(read(TextRule::FirstLine), [captions(&[("a pear", 1.0)]), only.clone()]);
    assert_eq!(read(TextRule::Whole), [captions(&[("a pear\r\n\r\n  two pears", 1.0)]), only]);
}

#[test]
fn json_beside_an_image_has_captions_weights_and_fields() {
    let root = tempfile::tempdir().unwrap();
    let cases = [
        (json!({"caption": "a", "n": 1}), captions(&[("a", 1.0)]), json!({"n": 1})),
        (json!({"captions": ["a", "b"], "caption": "a"}), captions(&[("a", 1.0), ("b", 1.0)]), json!({})),
        (
            json!({"captions": [{"text": "a", "weight": 3}, {"text": "b"}, null]}),
            captions(&[("a", 3.0), ("b", 1.0)]),
            json!({}),
        ),
        (
            json!({"captions": ["a", "b"], "weights": [0.5, 2]}),
            captions(&[("a", 0.5), ("b", 2.0)]),
            json!({}),
        ),
        (json!({"text": "a", "url": "u"}), captions(&[("a", 1.0)]), json!({"url": "u"})),
        (json!({"n": [1, {"m": null}]}), captions(&[("from the text", 1.0)]), json!({"n": [1, {"m": null}]})),
    ];
    for (number, (json, ..)) in cases.iter().enumerate() {
        let base = format!("{number}");
        files(
            root.path(),
            &[
                (&format!("{base}.png"), &png(number as u8)),
                (&format!("{base}.json"), json.to_string().as_bytes()),
                (&format!("{base}.txt"), b"from the text"),
            ],
        );
    }
    let source = Folder::open(root.path(), &options()).unwrap();
    for (number, (json, captions, fields)) in cases.into_iter().enumerate() {
        let record = source.read(number).unwrap();
        assert_eq!(record.captions, captions, "{json}");
        assert_eq!(serde_json::Value::Object(record.fields), fields, "{json}");
    }
    let named = Options { captions: vec!["url".into()], ..options() };
    assert_eq!(Folder::open(root.path(), &named).unwrap().read(4).unwrap().captions, captions(&[("u", 1.0)]));
}

#[test]
fn an_empty_caption_hides_no_other_where_none_is_required() {
    let root = tempfile::tempdir().unwrap();
    let rows = "{\"file_name\": \"a.png\", \"text\": \"\"}\n{\"file_name\": \"d.png\", \"text\": \" \"}\n";
    files(
        root.path(),
        &[
            ("metadata.jsonl", rows.as_bytes()),
            ("a.png", &png(0)),
            ("a.txt", b"a pear"),
            ("b.png", &png(1)),
            ("b.json", br#"{"caption": "", "text": "from the next field"}"#),
            ("c.png", &png(2)),
            ("c.json", br#"{"captions": ["", "c"], "weights": [1, 2]}"#),
            ("d.png", &png(3)),
        ],
    );
    let source = Folder::open(root.path(), &without_captions()).unwrap();
    let found: Vec<_> = all(&source).into_iter().map(|read| read.unwrap().captions).collect();
    let one = |text: &str, weight| captions(&[(text, weight)]);
    assert_eq!(found, [one("a pear", 1.0), one("from the next field", 1.0), one("c", 2.0), vec![]]);
    let strict = Folder::open(root.path(), &options()).unwrap();
    assert!(all(&strict).into_iter().all(|read| read.unwrap_err().reason == reason::EMPTY_CAPTION));
}

#[test]
fn endings_may_be_of_capitals() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[
            ("cat.JPG", &picture(0, ImageFormat::Jpeg)),
            ("cat.TXT", b"a cat"),
            ("dog.png", &png(1)),
            ("dog.Json", br#"{"caption": "a dog"}"#),
            ("sub/fox.png", &png(2)),
            ("sub/metadata.CSV", b"file_name,text\nfox.png,a fox\n"),
        ],
    );
    let source = Folder::open(root.path(), &options()).unwrap();
    let expected = [("cat.JPG", "a cat"), ("dog.png", "a dog"), ("sub/fox.png", "a fox")];
    assert_eq!(pairs(&source), expected.map(|(key, text)| (key.to_owned(), text.to_owned())));
    assert!(source.faults().is_empty(), "{:?}", source.faults());
    if cfg!(target_os = "linux") {
        files(root.path(), &[("cat.txt", b"the same cat")]);
        let source = Folder::open(root.path(), &options()).unwrap();
        assert_eq!(source.read(0).unwrap().captions[0].text, "the same cat");
        has_fault(source.faults(), "cat.TXT", reason::SAME_KEY, "cat.txt is read instead");
    }
}

#[test]
fn a_caption_that_breaks_a_rule_is_a_fault_with_its_reason() {
    let root = tempfile::tempdir().unwrap();
    let long = "x".repeat(65_537);
    let edge = "x".repeat(65_536);
    let cases: [(&str, &[u8], &str, &str); 14] = [
        ("txt", b"", reason::EMPTY_CAPTION, "caption 1 of 1"),
        ("txt", b" \n\t\n", reason::EMPTY_CAPTION, "caption 1 of 1"),
        ("txt", long.as_bytes(), reason::LONG_CAPTION, "at most 65536 bytes, found 65537"),
        ("txt", b"caf\xe9", reason::NOT_UTF8, "byte 3"),
        ("txt", b"a\0b", reason::NUL, "at byte 1"),
        ("json", br#"{"captions": ["a", ""]}"#, reason::EMPTY_CAPTION, "caption 2 of 2"),
        ("json", br#"{"captions": [{"text": "a", "weight": 0}]}"#, reason::WEIGHT, "found 0"),
        ("json", br#"{"captions": [{"text": "a", "weight": "x"}]}"#, reason::WEIGHT, r#"found "x""#),
        ("json", br#"{"captions": ["a"], "weights": [1, 2]}"#, reason::WEIGHT, "expected 1 numbers"),
        ("json", br#"{"caption": 3}"#, reason::MALFORMED, "caption: expected a text"),
        ("json", br#"{"caption": {"en": "a"}}"#, reason::MALFORMED, "an object without such fields"),
        ("json", br#"["a"]"#, reason::MALFORMED, "expected a JSON object"),
        ("json", br#"{"caption": "a"#, reason::MALFORMED, "EOF"),
        ("json", b"{\"caption\": \"caf\xe9\"}", reason::NOT_UTF8, "byte 16"),
    ];
    for (number, (extension, bytes, ..)) in cases.iter().enumerate() {
        files(
            root.path(),
            &[
                (&format!("{number:02}.png"), &png(number as u8)),
                (&format!("{number:02}.{extension}"), bytes),
            ],
        );
    }
    files(root.path(), &[("20.png", &png(20)), ("21.png", &png(21)), ("21.txt", edge.as_bytes())]);
    let source = Folder::open(root.path(), &options()).unwrap();
    for (number, (_, bytes, reason, detail)) in cases.into_iter().enumerate() {
        let fault = source.read(number).unwrap_err();
        let said = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert_eq!((fault.key, &*fault.reason), (format!("{number:02}.png"), reason), "{said}");
        assert!(fault.detail.contains(detail), "{said}: {}", fault.detail);
    }
    let none = source.read(14).unwrap_err();
    assert_eq!(none.to_string(), "20.png: no caption: looked for 20.json, 20.txt, 20.caption");
    assert_eq!(source.read(15).unwrap().captions[0].text, edge, "as long as may be");

    let source = Folder::open(root.path(), &without_captions()).unwrap();
    assert!(source.read(14).unwrap().captions.is_empty());
    assert!(source.read(0).unwrap().captions.is_empty(), "an empty caption is none");
    assert_eq!(source.read(5).unwrap().captions, captions(&[("a", 1.0)]));
    assert_eq!(
        source.read(2).unwrap_err().reason,
        reason::LONG_CAPTION,
        "none is needed, but this one is wrong"
    );
}

#[test]
fn rows_of_a_metadata_file_are_about_images_of_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let rows = concat!(
        r#"{"file_name": "a.png", "text": "a pear", "artist": "me"}"#,
        "\n\n",
        r#"{"file_name": "./sub\\b.png", "text": "a plum"}"#,
        "\r\n",
        r#"{"file_name": "a.png", "text": "one pear", "artist": "you", "year": 9}"#,
        "\n",
        r#"{"file_name": "gone.png", "text": "x"}"#,
        "\n",
        r#"{"file_name": "../../etc/passwd.png", "text": "x"}"#,
        "\n",
        r#"{"file_name": "file:///etc/passwd.png", "text": "x"}"#,
        "\n",
        r#"{"name": "a.png"}"#,
        "\n",
        r#"{"file_name": "a.png", "te"#,
        "\n",
    );
    files(
        root.path(),
        &[
            ("a.png", &png(0)),
            ("a.txt", b"not this"),
            ("c.png", &png(2)),
            ("sub/b.png", &png(1)),
            ("d.png", &png(3)),
            ("d.txt", b"beside"),
            ("metadata.jsonl", rows.as_bytes()),
        ],
    );
    let source = Folder::open(root.path(), &options()).unwrap();
    let first = source.read(0).unwrap();
    assert_eq!(first.captions, captions(&[("a pear", 1.0), ("one pear", 1.0)]));
    assert_eq!(json!(first.fields), json!({"artist": "me", "year": 9}));
    assert_eq!(source.read(3).unwrap().captions, captions(&[("a plum", 1.0)]));
    assert_eq!(source.read(2).unwrap().captions, captions(&[("beside", 1.0)]));
    let none = source.read(1).unwrap_err();
    assert_eq!((&*none.reason, none.detail.contains("a row")), (reason::NO_CAPTION, true), "{none}");
    has_fault(source.faults(), "metadata.jsonl:5", reason::NO_IMAGE, "gone.png");
    has_fault(source.faults(), "metadata.jsonl:6", reason::MALFORMED, "inside the folder");
    has_fault(source.faults(), "metadata.jsonl:7", reason::MALFORMED, "inside the folder");
    has_fault(
        source.faults(),
        "metadata.jsonl:8",
        reason::MALFORMED,
        "expected the field file_name, found name",
    );
    has_fault(source.faults(), "metadata.jsonl:9", reason::MALFORMED, "EOF");
    assert_eq!(source.faults().len(), 5);
}

#[test]
fn a_csv_file_of_rows_is_read_and_its_faults_are_named() {
    let root = tempfile::tempdir().unwrap();
    let rows = b"\xef\xbb\xbffile_name,prompt,n\na.png,\"a pear, \"\"ripe\"\"\ngreen\",1\nb.png,,2\nc.png,one\nd.png,caf\xe9,3\nx.png,y,4\n";
    files(
        root.path(),
        &[
            ("a.png", &png(0)),
            ("b.png", &png(1)),
            ("c.png", &png(2)),
            ("d.png", &png(3)),
            ("metadata.csv", rows),
        ],
    );
    let source =
        Folder::open(root.path(), &Options { captions: vec!["prompt".into()], ..options() }).unwrap();
    let first = source.read(0).unwrap();
    assert_eq!(first.captions, captions(&[("a pear, \"ripe\"\ngreen", 1.0)]));
    assert_eq!(json!(first.fields), json!({"n": "1"}));
    for index in 1..4 {
        assert_eq!(source.read(index).unwrap_err().reason, reason::NO_CAPTION, "{index}");
    }
    has_fault(source.faults(), "metadata.csv:5", reason::MALFORMED, "expected 3 cells, found 2");
    has_fault(source.faults(), "metadata.csv:6", reason::NOT_UTF8, "prompt: byte 3");
    has_fault(source.faults(), "metadata.csv:7", reason::NO_IMAGE, "x.png");
    assert_eq!(source.faults().len(), 3);
}

#[test]
fn what_has_no_image_is_named() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[
            ("a.png", &png(0)),
            ("a.txt", b"a"),
            ("b.txt", b"b"),
            ("sub/c.json", b"{}"),
            ("metadata.jsonl", b""),
            ("dataset_info.json", b"{}"),
            ("00000_stats.json", b"{}"),
        ],
    );
    let source = Folder::open(root.path(), &options()).unwrap();
    has_fault(source.faults(), "b.txt", reason::NO_IMAGE, "b.*");
    has_fault(source.faults(), "sub/c.json", reason::NO_IMAGE, "sub/c.*");
    has_fault(source.faults(), "metadata.jsonl", reason::EMPTY, "no row");
    assert_eq!(source.faults().len(), 3);
}

#[test]
fn images_that_cannot_be_read_are_faults_of_theirs() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[("a.png", b""), ("b.png", &png(0)), ("c.png", &[0; 2000]), ("d.png", &png(0)), ("d.txt", b"12345")],
    );
    let limits = Options { longest_image: 1999, longest_sidecar: 4, ..without_captions() };
    let source = Folder::open(root.path(), &limits).unwrap();
    fs::remove_file(root.path().join("b.png")).unwrap();
    let faults: Vec<_> = all(&source).into_iter().map(|read| read.unwrap_err().reason.into_owned()).collect();
    assert_eq!(faults, [reason::EMPTY, reason::MISSING, reason::TOO_LARGE, reason::LONG_CAPTION]);
}

#[test]
fn nothing_of_use_is_refused() {
    let root = tempfile::tempdir().unwrap();
    assert!(refusal(Folder::open(root.path().join("none"), &options())).contains("none: No such file"));
    assert!(refusal(Folder::open(root.path(), &options())).ends_with("no image: nothing of use"));
    files(root.path(), &[("a.txt", b"a")]);
    assert!(refusal(Folder::open(root.path(), &options())).ends_with("no image: 1 texts"));
}

#[test]
fn parts_are_taken_by_option() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[
            ("train/a.png", &png(0)),
            ("train/metadata.jsonl", br#"{"file_name": "a.png", "text": "a"}"#),
            ("test/b.png", &png(1)),
            ("test/b.txt", b"b"),
        ],
    );
    let said = refusal(Folder::open(root.path(), &options()));
    assert!(
        said.ends_with("found the parts test (1 files), train (1 files): the option `split` takes one"),
        "{said}"
    );
    let part = |split: &str| Folder::open(root.path(), &Options { split: Some(split.into()), ..options() });
    assert_eq!(pairs(&part("train").unwrap()), [("train/a.png".into(), "a".into())]);
    assert_eq!(pairs(&part("test").unwrap()), [("test/b.png".into(), "b".into())]);
    files(root.path(), &[("metadata.jsonl", b"{\"file_name\": \"test/b.png\", \"text\": \"from above\"}")]);
    assert_eq!(pairs(&part("test").unwrap()), [("test/b.png".into(), "from above".into())]);
    assert!(part("train").unwrap().faults().is_empty(), "a row about another part");
    assert!(refusal(part("dev")).contains(r#"no part "dev"; there is test (1 files), train (1 files)"#));
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_loops_are_named() {
    use std::os::unix::{ffi::OsStrExt, fs::symlink};
    let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    files(root.path(), &[("a/x.png", &png(0)), ("a/x.txt", b"x")]);
    files(elsewhere.path(), &[("y.png", &png(1)), ("y.txt", b"y")]);
    symlink(elsewhere.path(), root.path().join("linked")).unwrap();
    symlink(root.path(), root.path().join("a/back")).unwrap();
    symlink(root.path().join("nowhere"), root.path().join("z.png")).unwrap();
    fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.png")), png(2)).unwrap();
    let source = Folder::open(root.path(), &options()).unwrap();
    let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    assert_eq!(pairs(&source), [pair("a/x.png", "x"), pair("linked/y.png", "y")]);
    has_fault(source.faults(), "a/back", reason::LOOP, "leads back");
    has_fault(source.faults(), "z.png", reason::UNREADABLE, "No such file");
    has_fault(source.faults(), "caf\u{fffd}.png", reason::NOT_UTF8, "name");
    assert_eq!(source.faults().len(), 3);
}
