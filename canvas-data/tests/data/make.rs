//! What the tests put on the disk, and how they look at what is read.

use canvas_data::{Caption, Fault, Record, Source};
use image::{ImageFormat, RgbImage};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// A picture whose bytes tell its number.
pub fn picture(number: u8, format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(5, 4, |x, y| image::Rgb([number, x as u8, y as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn png(number: u8) -> Vec<u8> {
    picture(number, ImageFormat::Png)
}

/// Writes files, their folders included.
pub fn files(root: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A tar file of these members.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// `count` samples of an image and a text.
pub fn samples(count: u8) -> Vec<u8> {
    let images: Vec<_> = (0..count).map(|n| (format!("s{n}.png"), png(n))).collect();
    let texts: Vec<_> =
        (0..count).map(|n| (format!("s{n}.txt"), format!("number {n}").into_bytes())).collect();
    let members: Vec<(&str, &[u8])> = images
        .iter()
        .zip(&texts)
        .flat_map(|(image, text)| [(image.0.as_str(), &image.1[..]), (text.0.as_str(), &text.1[..])])
        .collect();
    tar(&members)
}

/// Values of a column of a table, `None` for null.
pub enum Column {
    Bytes(Vec<Option<Vec<u8>>>),
    /// Lists of texts, of schema `optional group NAME (LIST) { repeated group list { optional binary element (STRING); } }`.
    Lists(Vec<Vec<Option<&'static str>>>),
    Weights(Vec<Vec<f64>>),
    Numbers(Vec<i64>),
    Doubles(Vec<f64>),
}

pub fn texts(texts: &[&str]) -> Column {
    Column::Bytes(texts.iter().map(|text| Some(text.as_bytes().to_vec())).collect())
}

pub fn snappy() -> Compression {
    Compression::SNAPPY
}

pub fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

pub fn gzip() -> Compression {
    Compression::GZIP(Default::default())
}

/// A Parquet file of these groups of columns, all of them `optional`, in the schema's order.
pub fn table(schema: &str, groups: &[Vec<Column>], compression: Compression) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {schema} }}")).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    for columns in groups {
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            write_column(&mut group, column);
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn write_column(group: &mut SerializedRowGroupWriter<'_, Vec<u8>>, column: &Column) {
    let text = |bytes: &[u8]| ByteArray::from(bytes.to_vec());
    match column {
        Column::Bytes(cells) => {
            let values: Vec<_> = cells.iter().flatten().map(|bytes| text(bytes)).collect();
            // Null is the value, not the struct that it may be in.
            put::<ByteArrayType>(
                group,
                &values,
                |deep| cells.iter().map(|cell| deep - i16::from(cell.is_none())).collect(),
                None,
            );
        }
        Column::Lists(rows) => {
            let values: Vec<_> =
                rows.iter().flatten().flatten().map(|text_| text(text_.as_bytes())).collect();
            let level = |cell: &Option<&str>| if cell.is_some() { 3 } else { 2 };
            let levels = rows.iter().flat_map(|row| match row.is_empty() {
                true => vec![1],
                false => row.iter().map(level).collect(),
            });
            put::<ByteArrayType>(group, &values, |_| levels.collect(), Some(&repeats(rows)));
        }
        Column::Weights(rows) => {
            let values: Vec<f64> = rows.iter().flatten().copied().collect();
            put::<DoubleType>(group, &values, |deep| vec![deep; rows.concat().len()], Some(&repeats(rows)));
        }
        Column::Numbers(values) => put::<Int64Type>(group, values, |deep| vec![deep; values.len()], None),
        Column::Doubles(values) => put::<DoubleType>(group, values, |deep| vec![deep; values.len()], None),
    }
}

fn repeats<T>(rows: &[Vec<T>]) -> Vec<i16> {
    rows.iter().flat_map(|row| (0..row.len().max(1)).map(|place| i16::from(place > 0))).collect()
}

/// Writes the next column; `levels` makes the definition levels of the deepest.
fn put<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: impl FnOnce(i16) -> Vec<i16>,
    repeats: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    let writer = column.typed::<T>();
    let levels = levels(writer.get_descriptor().max_def_level());
    writer.write_batch(values, Some(&levels), repeats).unwrap();
    column.close().unwrap();
}

/// Reads everything.
pub fn all(source: &dyn Source) -> Vec<Result<Record, Fault>> {
    (0..source.len()).map(|index| source.read(index)).collect()
}

/// Keys and first captions of all, where there is one.
pub fn pairs(source: &dyn Source) -> Vec<(String, String)> {
    let text =
        |record: &Record| record.captions.first().map_or(String::new(), |caption| caption.text.clone());
    all(source).into_iter().map(Result::unwrap).map(|record| (record.key.clone(), text(&record))).collect()
}

pub fn captions(captions: &[(&str, f64)]) -> Vec<Caption> {
    captions.iter().map(|(text, weight)| Caption { text: (*text).to_owned(), weight: *weight }).collect()
}

/// Asserts that one of the faults is this one, and says which there are.
#[track_caller]
pub fn has_fault(faults: &[Fault], key: &str, reason: &str, detail: &str) {
    let found = faults
        .iter()
        .any(|fault| fault.key == key && fault.reason == reason && fault.detail.contains(detail));
    assert!(found, "expected {key}: {reason}: ..{detail}.., found {faults:#?}");
}

/// The message of an error.
pub fn refusal<T>(result: Result<T, impl ToString>) -> String {
    result.err().expect("should be refused").to_string()
}

/// A table of images and texts.
pub fn images_table(numbers: &[u8]) -> Vec<u8> {
    let schema = "optional binary image; optional binary text (STRING);";
    let cells = numbers.iter().map(|&number| Some(png(number))).collect();
    let captions = numbers.iter().map(|number| Some(format!("number {number}").into_bytes())).collect();
    table(schema, &[vec![Column::Bytes(cells), Column::Bytes(captions)]], snappy())
}
