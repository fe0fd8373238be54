use crate::make::{files, images_table, pairs, png, refusal, samples};
use canvas_data::{Format, Options, expand, open};

fn options() -> Options {
    Options::default()
}

#[test]
fn what_is_there_decides() {
    let root = tempfile::tempdir().unwrap();
    let table = images_table(&[0, 1]);
    files(
        root.path(),
        &[
            ("folder/a.png", &png(0)),
            ("folder/a.txt", b"a"),
            ("tars/00000.tar", &samples(2)),
            ("tars/00001.tar", &samples(1)),
            ("tars/00000.parquet", &table),
            ("tars/00000_stats.json", b"{}"),
            ("hub/README.md", b"#"),
            ("hub/data/train-00000-of-00001.parquet", &table),
            ("rows/a.png", &png(0)),
            ("rows/metadata.parquet", &table),
            ("files/00000/000000000.png", &png(0)),
            ("files/00000/000000000.txt", b"a"),
            ("files/00000.parquet", &table),
            ("capitals/A.TAR", &samples(3)),
            ("capitals/A.Parquet", &table),
            ("TABLES/A.PARQUET", &table),
        ],
    );
    let count =
        |name: &str| open(root.path().join(name), &options()).unwrap_or_else(|error| panic!("{error}")).len();
    let cases = [
        ("folder", 1),
        ("tars", 3),
        ("tars/00001.tar", 1),
        ("tars/{00000..00001}.tar", 3),
        ("tars/00000.parquet", 2),
        ("hub", 2),
        ("rows", 2),
        ("files", 1),
        ("capitals", 3),
        ("TABLES", 2),
    ];
    for (name, expected) in cases {
        assert_eq!(count(name), expected, "{name}");
    }
    let hub = open(root.path().join("hub"), &Options { split: Some("train".into()), ..options() }).unwrap();
    assert_eq!(pairs(&*hub)[1], ("train-00000-of-00001.parquet:1".into(), "number 1".into()));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_until_an_option_decides() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[
            ("a.png", &png(0)),
            ("a.txt", b"a"),
            ("x/0.tar", &samples(2)),
            ("t.parquet", &images_table(&[0, 1, 2])),
        ],
    );
    let said = refusal(open(root.path(), &options()));
    let expected =
        "found 1 image files, 1 tar files, 1 Parquet files, 1 texts: the option `format` takes one";
    assert!(said.ends_with(expected), "{said}");
    for (format, expected) in [(Format::Folder, 1), (Format::Shards, 2), (Format::Table, 3)] {
        let options = Options { format: Some(format), ..options() };
        assert_eq!(open(root.path(), &options).unwrap().len(), expected);
    }
    let said = refusal(open(root.path().join("{t.parquet,x/0.tar}"), &options()));
    assert!(said.contains("a pattern must name files of one format"), "{said}");
}

#[test]
fn what_is_not_read_is_refused_with_what_can_be_done() {
    let root = tempfile::tempdir().unwrap();
    files(
        root.path(),
        &[
            ("a.tar.gz", b""),
            ("a.tgz", b""),
            ("a.arrow", b""),
            ("a.zip", b""),
            ("a.csv", b""),
            ("a.png", b""),
            ("empty/README.md", b""),
        ],
    );
    let said = |name: &str| refusal(open(root.path().join(name), &options()));
    for (name, expected) in [
        ("a.tar.gz", "unpack it"),
        ("a.tgz", "unpack it"),
        ("a.arrow", "to_parquet"),
        ("a.zip", "unpack it"),
        ("a.csv", "open the folder"),
        ("a.png", "neither a folder nor"),
        ("empty", "no image: nothing of use"),
        ("gone", "No such file"),
        ("gone.tar", "No such file"),
        ("{0..2}.tar", "3 tar files, 3 faults"),
        ("{0..2}.jpg", "neither"),
    ] {
        assert!(said(name).contains(expected), "{name}: {}", said(name));
    }
}

#[test]
fn patterns_expand_as_in_a_shell() {
    assert_eq!(expand("a").unwrap(), ["a"]);
    assert_eq!(
        expand("{1..3}x{a,,b}").unwrap(),
        ["1xa", "1x", "1xb", "2xa", "2x", "2xb", "3xa", "3x", "3xb"]
    );
    assert_eq!(expand("{08..10}").unwrap(), ["08", "09", "10"]);
    assert_eq!(expand("{8..010}").unwrap(), ["008", "009", "010"]);
    for wrong in [
        "{",
        "{a}",
        "{a..b}",
        "{a,{b,c}}",
        "{0..{1,2}}",
        "{1..}",
        "{-1..2}",
        "{99999999999999999999..2}",
        "{0..9999999}{0..9}",
        "{0..18446744073709551615}",
    ] {
        assert!(expand(wrong).is_err(), "{wrong}");
    }
}
