//! Damaged files: 256 cases for each property, or as many as `PROPTEST_CASES` says. 15,000 of each were run once (docs/data.md).

use crate::make::{Column, all, files, images_table, png, samples, snappy, table, texts, zstd};
use canvas_data::{Folder, OpenError, Options, Shards, Source, Table};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

/// A way in which a file is damaged; places are fractions of its length.
#[derive(Clone, Debug)]
enum Damage {
    Flip(f64, u8),
    Cut(f64),
    /// A piece of it stands again elsewhere.
    Splice(f64, usize, f64),
    Zeros(f64, usize),
    Insert(f64, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (0.0..1.0, 0_u8..8).prop_map(|(place, bit)| Damage::Flip(place, bit)),
        1 => (0.0..1.0).prop_map(Damage::Cut),
        2 => (0.0..1.0, 1_usize..2000, 0.0..1.0).prop_map(|(from, length, to)| Damage::Splice(from, length, to)),
        1 => (0.0..1.0, 1_usize..600).prop_map(|(place, length)| Damage::Zeros(place, length)),
        1 => (0.0..1.0, prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(place, bytes)| Damage::Insert(place, bytes)),
    ]
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let at = |place: f64| (place * bytes.len() as f64) as usize;
        match damage {
            _ if bytes.is_empty() => {}
            Damage::Flip(place, bit) => {
                let at = at(*place);
                bytes[at] ^= 1 << bit;
            }
            Damage::Cut(place) => bytes.truncate(at(*place)),
            Damage::Splice(from, length, to) => {
                let (from, to) = (at(*from), at(*to));
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                let end = (to + piece.len()).min(bytes.len());
                bytes.splice(to..end, piece);
            }
            Damage::Zeros(place, length) => {
                let (start, end) = (at(*place), (at(*place) + length).min(bytes.len()));
                bytes[start..end].fill(0);
            }
            Damage::Insert(place, more) => {
                let at = at(*place);
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
    bytes
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec(damage(), 1..5)
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Opens and reads everything that a damaged file still has; the source, if there is one, and how many of its reads failed.
fn survives<S: Source>(
    name: &str,
    bytes: &[u8],
    open: impl Fn(&Path) -> Result<S, OpenError>,
) -> Option<(S, usize)> {
    let root = tempfile::tempdir().unwrap();
    files(root.path(), &[(name, bytes)]);
    match open(&root.path().join(name)) {
        Ok(source) => {
            // A footer may promise millions of rows.
            let most = source.len().min(64);
            let failed = (0..most).filter(|&index| source.read(index).is_err()).count();
            let blocks: usize = source.blocks().iter().map(ExactSizeIterator::len).sum();
            assert_eq!(blocks, source.len());
            Some((source, failed))
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

const SAMPLES: u8 = 5;
static TAR: LazyLock<Vec<u8>> = LazyLock::new(|| samples(SAMPLES));
static TABLES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let lists = "optional group image { optional binary bytes; optional binary path (STRING); } \
        optional group captions (LIST) { repeated group list { optional binary element (STRING); } } optional int64 n;";
    let group = |n: u8| {
        vec![
            Column::Bytes(vec![Some(png(n)), None, Some(png(n + 1))]),
            texts(&["a.png", "b.png", "c.png"]),
            Column::Lists(vec![vec![Some("a"), None], vec![], vec![Some("b")]]),
            Column::Numbers(vec![1, 2, 3]),
        ]
    };
    let groups = [group(0), group(3)];
    [images_table(&[0, 1, 2]), table(lists, &groups, zstd()), table(lists, &groups, snappy())]
});

fn shards(path: &Path) -> Result<Shards, OpenError> {
    Shards::open(path, &Options::default())
}

fn open_table(path: &Path) -> Result<Table, OpenError> {
    Table::open(path, &Options::default())
}

const ROWS: &str = "{\"file_name\": \"a.png\", \"text\": \"a pear\"}\n{\"file_name\": \"b.png\", \"captions\": [\"x\", {\"text\": \"y\", \
    \"weight\": 2}]}\n{\"file_name\": \"c.png\", \"text\": null, \"n\": [1, {\"m\": 1e300}]}\n";
const CELLS: &str = "file_name,text,n\na.png,\"a pear,\nripe\",1\nb.png,\"\"\"\",2\nc.png,,3\n";
const JSON: &str =
    r#"{"captions": ["a", {"text": "b", "weight": 0.5}], "weights": [1, 2], "deep": [[[{"x": null}]]]}"#;

/// How many images a tar file has that ends as one should: zeros written over members and a cut behind them can make one that nobody
/// can tell from a shorter one.
fn whole(bytes: &[u8]) -> Option<usize> {
    let (mut images, mut end) = (BTreeSet::new(), 0);
    for entry in tar::Archive::new(bytes).entries().ok()? {
        let entry = entry.ok()?;
        end = (entry.raw_file_position() + entry.size()).next_multiple_of(512) as usize;
        images.extend(entry.path().ok()?.to_str()?.strip_suffix(".png").map(str::to_owned));
    }
    let rest = bytes.get(end..)?;
    let marked = bytes.len().is_multiple_of(512) && rest.len() >= 512 && rest.iter().all(|&byte| byte == 0);
    marked.then_some(images.len())
}

/// The images are whole, whatever is said about them: none may be lost.
fn about_three_images(name: &str, bytes: &[u8]) {
    let root = tempfile::tempdir().unwrap();
    files(root.path(), &[("a.png", &png(0)), ("b.png", &png(1)), ("c.png", &png(2)), (name, bytes)]);
    let source = Folder::open(root.path(), &Options::default()).unwrap();
    assert_eq!(source.len(), 3);
    for record in all(&source).into_iter().flatten() {
        assert!(!record.captions.is_empty());
        assert!(record.captions.iter().all(|caption| !caption.text.is_empty() && caption.weight > 0.0));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn damaged_tar_files_lose_nothing_in_silence(damages in damages()) {
        let bytes = damaged(&TAR, &damages);
        if let Some((source, _)) = survives("x.tar", &bytes, shards) {
            let lost = source.len() < usize::from(SAMPLES) && whole(&bytes) != Some(source.len());
            prop_assert!(!lost || !source.faults().is_empty(), "{} samples, no fault", source.len());
        }
    }

    #[test]
    fn random_bytes_are_no_tar_file(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(survives("x.tar", &bytes, shards).is_none());
    }

    #[test]
    fn damaged_tables_never_panic(which in 0_usize..3, damages in damages()) {
        survives("x.parquet", &damaged(&TABLES[which], &damages), open_table);
    }

    #[test]
    fn one_wrong_bit_of_a_table_hides_no_row(which in 0_usize..3, place in 0.0..1.0, bit in 0_u8..8) {
        let rows = open_rows(which);
        let bytes = damaged(&TABLES[which], &[Damage::Flip(place, bit)]);
        if let Some((source, _)) = survives("x.parquet", &bytes, open_table) {
            prop_assert_eq!(source.len(), rows);
        }
    }

    #[test]
    fn random_bytes_are_no_table(bytes in prop::collection::vec(any::<u8>(), 0..300), marked in any::<bool>()) {
        let marked = if marked { [b"PAR1", &bytes[..], b"PAR1"].concat() } else { bytes };
        prop_assert!(survives("x.parquet", &marked, open_table).is_none());
    }

    #[test]
    fn damaged_rows_and_texts_lose_no_image(which in 0_usize..3, damages in damages()) {
        let (name, whole) = [("metadata.jsonl", ROWS), ("metadata.csv", CELLS), ("b.json", JSON)][which];
        about_three_images(name, &damaged(whole.as_bytes(), &damages));
    }

    #[test]
    fn random_rows_and_texts_lose_no_image(which in 0_usize..4, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        about_three_images(["metadata.jsonl", "metadata.csv", "b.json", "b.txt"][which], &bytes);
    }
}

fn open_rows(which: usize) -> usize {
    [3, 6, 6][which]
}
