use crate::make::{
    Column, all, captions, files, gzip, has_fault, images_table, pairs, png, refusal, snappy, table, texts,
    zstd,
};
use canvas_data::{CaptionRules, Options, Source, Table, reason};
use serde_json::json;
use std::fs;

const BYTES: &str = "optional binary image; optional binary text (STRING);";
const STRUCT: &str = "optional group image { optional binary bytes; optional binary path (STRING); } optional binary text (STRING);";

fn options() -> Options {
    Options::default()
}

fn opened(bytes: &[u8], options: &Options) -> (tempfile::TempDir, Result<Table, canvas_data::OpenError>) {
    let root = tempfile::tempdir().unwrap();
    files(root.path(), &[("t.parquet", bytes)]);
    let table = Table::open(root.path().join("t.parquet"), options);
    (root, table)
}

fn images(numbers: &[u8]) -> Column {
    Column::Bytes(numbers.iter().map(|&number| Some(png(number))).collect())
}

#[test]
fn rows_of_bytes_are_records_whatever_the_compression() {
    for compression in [snappy(), zstd(), gzip()] {
        let groups = [vec![images(&[0, 1]), texts(&["a", "b"])], vec![images(&[2]), texts(&["c"])]];
        let (_root, source) = opened(&table(BYTES, &groups, compression), &options());
        let source = source.unwrap();
        assert_eq!(source.blocks(), [0..2, 2..3]);
        let expected = ["a", "b", "c"].iter().enumerate();
        let expected: Vec<_> =
            expected.map(|(row, text)| (format!("t.parquet:{row}"), (*text).to_owned())).collect();
        assert_eq!(pairs(&source), expected);
        assert_eq!(source.read(2).unwrap().image, png(2));
    }
}

#[test]
fn hugging_face_images_are_bytes_or_paths() {
    let groups = [vec![
        Column::Bytes(vec![Some(png(0)), None, None, Some(vec![])]),
        Column::Bytes(vec![Some(b"a.png".to_vec()), Some(b"sub/b.png".to_vec()), None, None]),
        texts(&["a", "b", "c", "d"]),
    ]];
    let (root, source) = opened(&table(STRUCT, &groups, snappy()), &options());
    files(root.path(), &[("sub/b.png", &png(1))]);
    let source = source.unwrap();
    let [first, second] = [0, 1].map(|row| source.read(row).unwrap());
    assert_eq!((first.image, json!(first.fields)), (png(0), json!({"image.path": "a.png"})));
    assert_eq!(second.image, png(1), "read from the folder of the table");
    assert_eq!(source.read(2).unwrap_err().to_string(), "t.parquet:2: empty: the image is null");
    assert_eq!(source.read(3).unwrap_err().to_string(), "t.parquet:3: empty: no bytes");
}

#[test]
fn paths_stay_in_their_folder() {
    let schema = "optional binary file_name (STRING); optional binary caption (STRING);";
    let groups = [vec![
        texts(&["a.png", "/etc/passwd", "../t.parquet", "gone.png", "b/c.png"]),
        texts(&["a", "b", "c", "d", "e"]),
    ]];
    let (root, source) = opened(&table(schema, &groups, snappy()), &options());
    files(root.path(), &[("a.png", &png(0)), ("b/c.png", b""), ("elsewhere/a.png", &png(7))]);
    let source = source.unwrap();
    assert_eq!(json!(source.read(0).unwrap().fields), json!({"file_name": "a.png"}));
    let reasons: Vec<_> = (1..5).map(|row| source.read(row).unwrap_err().reason.into_owned()).collect();
    assert_eq!(reasons, [reason::MALFORMED, reason::MALFORMED, reason::MISSING, reason::EMPTY]);
    let elsewhere = Options { images: Some(root.path().join("elsewhere")), ..options() };
    let source = Table::open(root.path().join("t.parquet"), &elsewhere).unwrap();
    assert_eq!(source.read(0).unwrap().image, png(7));
}

#[test]
fn several_captions_their_weights_and_other_columns() {
    let schema = "optional binary jpg; \
        optional group captions (LIST) { repeated group list { optional binary element (STRING); } } \
        optional group weights (LIST) { repeated group list { optional double element; } } \
        optional int64 width; optional double score; optional binary url (STRING); optional binary embedding;";
    let groups = [vec![
        images(&[0, 1, 2, 3]),
        Column::Lists(vec![vec![Some("a"), Some("b")], vec![Some("c")], vec![], vec![Some("d"), None]]),
        Column::Weights(vec![vec![1.0, 3.0], vec![0.5, 0.5], vec![1.0], vec![2.0]]),
        Column::Numbers(vec![1, -2, 3, 4]),
        Column::Doubles(vec![0.25, 0.5, f64::NAN, 1.0]),
        Column::Bytes(vec![Some(b"u".to_vec()), Some(b"caf\xe9".to_vec()), None, None]),
        Column::Bytes(vec![Some(vec![1]), None, None, None]),
    ]];
    let named = Options { image: Some("jpg".into()), ..options() };
    let (root, source) = opened(&table(schema, &groups, snappy()), &named);
    let source = source.unwrap();
    let first = source.read(0).unwrap();
    assert_eq!(first.captions, captions(&[("a", 1.0), ("b", 3.0)]));
    assert_eq!(json!(first.fields), json!({"width": 1, "score": 0.25, "url": "u"}));
    assert_eq!(source.read(1).unwrap_err().reason, reason::WEIGHT, "two weights for one caption");
    assert_eq!(source.read(2).unwrap_err().reason, reason::NO_CAPTION);
    assert_eq!(source.read(3).unwrap().captions, captions(&[("d", 2.0)]));
    let both = Options {
        captions: vec!["captions".into(), "url".into()],
        weights: Some("score".into()),
        ..named.clone()
    };
    let source = Table::open(root.path().join("t.parquet"), &both).unwrap();
    let said = source.read(0).unwrap_err().to_string();
    assert_eq!(said, "t.parquet:0: weight: score: expected 3 numbers, one for each caption, found 1");
    assert_eq!(source.read(1).unwrap_err().to_string(), "t.parquet:1: not utf-8: url: byte 3");
    assert!(
        refusal(Table::open(root.path().join("t.parquet"), &options())).contains("not embedding and jpg")
    );
}

#[test]
fn captions_of_rows_keep_the_rules() {
    let cells = vec![
        None,
        Some(b"".to_vec()),
        Some(b"caf\xe9".to_vec()),
        Some(b"a\0".to_vec()),
        Some(vec![b'x'; 70_000]),
    ];
    let bytes = table(BYTES, &[vec![images(&[0, 1, 2, 3, 4]), Column::Bytes(cells)]], zstd());
    let (_root, source) = opened(&bytes, &options());
    let reasons: Vec<_> =
        all(&source.unwrap()).into_iter().map(|read| read.unwrap_err().reason.into_owned()).collect();
    let expected =
        [reason::NO_CAPTION, reason::EMPTY_CAPTION, reason::NOT_UTF8, reason::NUL, reason::LONG_CAPTION];
    assert_eq!(reasons, expected);
}

#[test]
fn other_columns_are_refused_with_those_that_are_there() {
    let one = || texts(&["x"]);
    let refused = |schema: &str, columns: Vec<Column>, options: &Options| {
        refusal(opened(&table(schema, &[columns], snappy()), options).1)
    };
    let laion = refused(
        "optional binary URL (STRING); optional binary TEXT (STRING);",
        vec![one(), one()],
        &options(),
    );
    assert!(laion.contains("URL holds addresses: download the images with img2dataset"), "{laion}");
    assert!(laion.ends_with("found the columns URL, TEXT"), "{laion}");
    let none = refused("optional binary picture (STRING);", vec![one()], &options());
    assert!(none.contains("expected a column of bytes, of {bytes, path}, or of paths (file_name,"), "{none}");
    let text = refused(
        "optional binary image; optional binary words (STRING);",
        vec![images(&[0]), one()],
        &options(),
    );
    assert!(
        text.contains(
            "expected a column of captions (captions, caption, text, TEXT), found the columns image, words"
        ),
        "{text}"
    );
    let named = Options { image: Some("img".into()), ..options() };
    let said = refused(BYTES, vec![images(&[0]), one()], &named);
    assert!(said.contains("expected a column img of bytes, of {bytes, path} or of paths"), "{said}");
    let named = Options { captions: vec!["text".into(), "gone".into()], ..options() };
    assert!(refused(BYTES, vec![images(&[0]), one()], &named).contains("captions (text, gone)"));

    let rules = CaptionRules { required: false, ..CaptionRules::default() };
    let (_root, source) = opened(
        &table("optional binary image;", &[vec![images(&[0])]], snappy()),
        &Options { rules, ..options() },
    );
    assert!(source.unwrap().read(0).unwrap().captions.is_empty(), "training without text");
}

#[test]
fn files_that_others_name_and_are_not_there_are_faults() {
    let root = tempfile::tempdir().unwrap();
    let bytes = table(BYTES, &[vec![images(&[0]), texts(&["a"])]], snappy());
    files(
        root.path(),
        &[
            ("data/train-00000-of-00003.parquet", &bytes),
            ("data/train-00002-of-00003.parquet", &bytes),
            ("data/test-00000-of-00001.parquet", b"PAR1 and no more"),
        ],
    );
    assert!(
        refusal(Table::open(root.path(), &options())).contains("the parts test (1 files), train (2 files)")
    );
    let part = |split: &str| Table::open(root.path(), &Options { split: Some(split.into()), ..options() });
    let train = part("train").unwrap();
    assert_eq!(train.key(1), "train-00002-of-00003.parquet:0");
    has_fault(train.faults(), "data/train-*-of-00003", reason::MISSING, "1 of 3 files, number 1 among them");
    assert!(refusal(part("test")).contains("unreadable"));
}

#[test]
fn a_damaged_group_is_a_fault_of_its_rows_and_the_others_are_read() {
    let groups: Vec<_> = (0..3).map(|n| vec![images(&[n]), texts(&["a"])]).collect();
    let mut bytes = table(BYTES, &groups, zstd());
    let second =
        bytes.windows(4).enumerate().filter(|(_, mark)| *mark == [0x28, 0xb5, 0x2f, 0xfd]).map(|(at, _)| at);
    let second: Vec<_> = second.collect();
    let at = second[second.len() / 2];
    bytes[at..at + 4].fill(0);
    let (_root, source) = opened(&bytes, &options());
    let read = all(&source.unwrap());
    assert_eq!(read.len(), 3);
    let faults: Vec<_> = read.iter().filter_map(|read| read.as_ref().err()).collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].reason, reason::UNREADABLE);
}

#[test]
fn a_small_cache_answers_the_same_from_many_threads() {
    let groups: Vec<_> = (0..4).map(|n| vec![images(&[n, n + 10]), texts(&["a", "b"])]).collect();
    let (_root, source) = opened(&table(BYTES, &groups, snappy()), &Options { table_cache: 0, ..options() });
    let source = source.unwrap();
    let alone = all(&source);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (source, alone) = (&source, &alone);
            scope.spawn(move || {
                (0..64)
                    .map(|n| (n * (2 * thread + 1)) % 8)
                    .for_each(|n| assert_eq!(source.read(n), alone[n]));
            });
        }
    });
}

#[test]
fn a_table_that_was_gone_for_a_moment_is_read_again() {
    let (root, source) = opened(&images_table(&[0, 1]), &options());
    let (source, [here, away]) = (source.unwrap(), ["t.parquet", "away"].map(|name| root.path().join(name)));
    fs::rename(&here, &away).unwrap();
    assert_eq!(source.read(0).unwrap_err().reason, reason::MISSING);
    fs::rename(&away, &here).unwrap();
    assert_eq!(source.read(0).unwrap().image, png(0));
    let both = Table::open(root.path().join("{t,u}.parquet"), &options()).unwrap();
    has_fault(both.faults(), "u.parquet", reason::MISSING, "No such file");
}

#[test]
fn digits_behind_the_point_stay_there() {
    let schema = "optional binary image; optional binary text (STRING); \
        optional int64 score (DECIMAL(9, 2)); optional int64 count (DECIMAL(9, 0)); optional binary wide (DECIMAL(30, 2));";
    let groups = [vec![
        images(&[0, 1]),
        texts(&["a", "b"]),
        Column::Numbers(vec![487, -5]),
        Column::Numbers(vec![3, 4]),
        texts(&["\u{1}", "\u{2}"]),
    ]];
    let (_root, source) = opened(&table(schema, &groups, snappy()), &options());
    let fields: Vec<_> = all(&source.unwrap()).into_iter().map(|read| json!(read.unwrap().fields)).collect();
    assert_eq!(fields, [json!({"score": 4.87, "count": 3}), json!({"score": -0.05, "count": 4})]);
}
