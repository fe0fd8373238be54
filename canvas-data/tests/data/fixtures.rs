//! Files that Python wrote: `tools/webdataset_round_trip.py` made them.

use crate::make::all;
use canvas_data::{Options, open};
use serde_json::{Value, json};
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What `expected.json` says of a file: captions, fields and the image's length and hash, in order.
fn expected(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(all[name].take()).unwrap()
}

/// FNV-1a of 64 bits, as in `tools/formula.py`.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn compare(name: &str) {
    let source = open(fixture(name), &Options::default()).unwrap();
    let read = all(&*source).into_iter().map(Result::unwrap).map(|record| {
        json!({
            "key": record.key,
            "captions": record.captions.iter().map(|caption| json!([caption.text, caption.weight])).collect::<Vec<_>>(),
            "fields": record.fields,
            "bytes": record.image.len(),
            "fnv1a": format!("{:016x}", fnv1a(&record.image)),
        })
    });
    assert_eq!(read.collect::<Vec<_>>(), expected(name));
    assert!(source.faults().is_empty(), "{:?}", source.faults());
}

#[test]
fn a_shard_of_pythons_webdataset_is_read() {
    compare("webdataset.tar");
}

#[test]
fn a_table_of_bytes_by_pyarrow_is_read() {
    compare("bytes.parquet");
}

#[test]
fn a_table_of_hugging_faces_datasets_is_read() {
    compare("hugging-face.parquet");
}
