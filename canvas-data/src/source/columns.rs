//! The columns of a Parquet file: which there are, and their values.

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::RowGroupReader;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use serde_json::Value;
use std::collections::BTreeMap;

/// Rows that are decoded at a time.
const BATCH: usize = 1024;

/// A value of a column that is not null.
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    /// Bytes, or a text whose bytes may not be UTF-8.
    Bytes(ByteArray),
    Plain(Value),
}

/// What a row has in a column.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    One(Scalar),
    Many(Vec<Option<Scalar>>),
}

/// A column of values or of lists of values.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Its number in the file.
    pub column: usize,
    /// Its name, without the parts that only say that it is a list.
    pub name: String,
    /// Whether its values are texts, whatever the bytes.
    pub text: bool,
}

/// Where the image is.
#[derive(Clone, Debug)]
pub(super) struct ImageColumns {
    pub bytes: Option<Leaf>,
    pub path: Option<Leaf>,
}

/// The columns of a file.
pub(super) struct Columns {
    /// Their full names, for people.
    pub names: Vec<String>,
    /// By name; a struct of bytes and a path has both.
    images: BTreeMap<String, ImageColumns>,
    /// Columns of texts, bytes and numbers, and of lists of them.
    pub plain: Vec<Leaf>,
    /// Which of those are bytes.
    bytes: Vec<usize>,
}

/// Columns of paths when none is named, the surest first.
const PATHS: [&str; 6] = ["file_name", "image", "image_path", "path", "file_path", "filepath"];

impl Columns {
    pub fn of(schema: &SchemaDescriptor) -> Self {
        let mut columns =
            Self { names: Vec::new(), images: BTreeMap::new(), plain: Vec::new(), bytes: Vec::new() };
        let mut leaves = BTreeMap::<&str, usize>::new();
        for column in schema.columns() {
            *leaves.entry(column.path().parts().first().map_or("", String::as_str)).or_default() += 1;
        }
        for (number, column) in schema.columns().iter().enumerate() {
            columns.names.push(column.path().string());
            let parts = column.path().parts();
            let Some(name) = parts.first() else { continue };
            let leaf = Leaf { column: number, name: name.clone(), text: is_text(column) };
            columns.add(column, leaf, leaves[name.as_str()] == 1);
        }
        columns
    }

    fn add(&mut self, column: &ColumnDescriptor, leaf: Leaf, alone: bool) {
        let parts: Vec<_> = column.path().parts().iter().map(String::as_str).collect();
        let is_bytes =
            column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0 && !is_decimal(column);
        let image = |bytes: &Leaf| ImageColumns { bytes: Some(bytes.clone()), path: None };
        match parts[..] {
            [name, "bytes"] if is_bytes => {
                let held = self.images.entry(name.to_owned()).or_insert_with(|| image(&leaf));
                held.bytes = Some(leaf);
            }
            [name, "path"] if is_bytes && leaf.text => {
                let fresh = ImageColumns { bytes: None, path: None };
                self.images.entry(name.to_owned()).or_insert(fresh).path = Some(leaf);
            }
            [name] if is_bytes && !leaf.text => {
                self.images.insert(name.to_owned(), image(&leaf));
                self.bytes.push(leaf.column);
                self.plain.push(leaf);
            }
            [_] | [_, _] | [_, _, _] if alone && is_plain(column) => self.plain.push(leaf),
            _ => {}
        }
    }

    /// Whether a column is of bytes that need not be a text.
    pub fn is_bytes(&self, column: usize) -> bool {
        self.bytes.contains(&column)
    }

    /// Where the image is, or what was expected instead of the columns that there are.
    pub fn image(&self, named: Option<&str>) -> Result<ImageColumns, String> {
        let path = |name: &str| {
            let leaf = self.plain.iter().find(|leaf| leaf.name == name && leaf.text);
            leaf.map(|leaf| ImageColumns { bytes: None, path: Some(leaf.clone()) })
        };
        if let Some(name) = named {
            let held = self.images.get(name).cloned().or_else(|| path(name));
            return held.ok_or_else(|| format!("a column {name} of bytes, of {{bytes, path}} or of paths"));
        }
        // A struct of a path alone is no more an image than a path is.
        let images: Vec<_> = self.images.iter().filter(|(_, image)| image.bytes.is_some()).collect();
        match images[..] {
            [(_, image)] => Ok(image.clone()),
            [_, ..] => self.images.get("image").filter(|image| image.bytes.is_some()).cloned().ok_or_else(|| {
                let names: Vec<_> = images.iter().map(|(name, _)| name.as_str()).collect();
                format!("one column of bytes, not {}: the option `image` takes one", names.join(" and "))
            }),
            [] => PATHS.into_iter().find_map(path).ok_or_else(|| {
                let expected = format!("a column of bytes, of {{bytes, path}}, or of paths ({})", PATHS.join(", "));
                match self.plain.iter().find(|leaf| leaf.name.eq_ignore_ascii_case("url")) {
                    Some(leaf) => format!(
                        "{expected}; {} holds addresses: download the images with img2dataset, and open what it writes",
                        leaf.name
                    ),
                    None => expected,
                }
            }),
        }
    }
}

fn is_text(column: &ColumnDescriptor) -> bool {
    let logical = matches!(
        column.logical_type_ref(),
        Some(LogicalType::String | LogicalType::Json | LogicalType::Enum)
    );
    let converted =
        matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM);
    column.physical_type() == Type::BYTE_ARRAY && (logical || converted)
}

/// Whether the values are numbers with digits behind the point, stored as integers or bytes.
fn is_decimal(column: &ColumnDescriptor) -> bool {
    column.converted_type() == ConvertedType::DECIMAL
}

/// Whether the values are texts or numbers, or lists of them.
fn is_plain(column: &ColumnDescriptor) -> bool {
    let kind = match column.physical_type() {
        Type::BOOLEAN | Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE => true,
        Type::BYTE_ARRAY => is_text(column),
        Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY => false,
    };
    let depth = column.path().parts().len();
    kind && column.max_rep_level() <= 1 && (depth == 1 || column.max_rep_level() == 1)
}

/// The cells of a column of a row group, one for each row.
pub(super) fn cells(group: &dyn RowGroupReader, column: usize) -> Result<Vec<Cell>, ParquetError> {
    let descriptor = group.metadata().schema_descr().column(column);
    let levels = Levels {
        rows: usize::try_from(group.metadata().num_rows()).unwrap_or(0),
        most: descriptor.max_def_level(),
        list: (descriptor.max_rep_level() > 0).then(|| element_level(&descriptor)),
    };
    let unsigned = |kind: ConvertedType| {
        matches!(
            kind,
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
        )
    };
    let unsigned = unsigned(descriptor.converted_type());
    let plain = Scalar::Plain;
    let decimal = is_decimal(&descriptor) && descriptor.type_scale() != 0;
    let scaled = |value: i64| plain((value as f64 / 10_f64.powi(descriptor.type_scale())).into());
    match group.get_column_reader(column)? {
        ColumnReader::BoolColumnReader(reader) => levels.read(reader, |value| plain(value.into())),
        ColumnReader::Int32ColumnReader(reader) if decimal => {
            levels.read(reader, |value| scaled(value.into()))
        }
        ColumnReader::Int64ColumnReader(reader) if decimal => levels.read(reader, scaled),
        ColumnReader::Int32ColumnReader(reader) if unsigned => {
            levels.read(reader, |value| plain(value.cast_unsigned().into()))
        }
        ColumnReader::Int64ColumnReader(reader) if unsigned => {
            levels.read(reader, |value| plain(value.cast_unsigned().into()))
        }
        ColumnReader::Int32ColumnReader(reader) => levels.read(reader, |value| plain(value.into())),
        ColumnReader::Int64ColumnReader(reader) => levels.read(reader, |value| plain(value.into())),
        ColumnReader::FloatColumnReader(reader) => levels.read(reader, |value| plain(value.into())),
        ColumnReader::DoubleColumnReader(reader) => levels.read(reader, |value| plain(value.into())),
        ColumnReader::ByteArrayColumnReader(reader) => levels.read(reader, Scalar::Bytes),
        _ => {
            Err(ParquetError::General(format!("column {} is of a type that is not read", descriptor.path())))
        }
    }
}

/// From which definition level on a list has an element, null or not.
fn element_level(column: &ColumnDescriptor) -> i16 {
    // The element itself may be null, which is one level more; so is nothing else below the list.
    column.max_def_level() - i16::from(column.self_type().is_optional())
}

/// How a column's levels are understood.
struct Levels {
    rows: usize,
    /// The definition level of a value.
    most: i16,
    /// Of a list, that of an element.
    list: Option<i16>,
}

impl Levels {
    fn read<T: DataType>(
        &self,
        mut reader: ColumnReaderImpl<T>,
        scalar: impl Fn(T::T) -> Scalar,
    ) -> Result<Vec<Cell>, ParquetError> {
        let mut cells = Vec::new();
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        while cells.len() < self.rows {
            definitions.clear();
            repetitions.clear();
            values.clear();
            let wanted = BATCH.min(self.rows - cells.len());
            let (read, _, count) =
                reader.read_records(wanted, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
            if read == 0 {
                break;
            }
            let mut values = std::mem::take(&mut values).into_iter().map(&scalar);
            for place in 0..count {
                let level = definitions.get(place).copied().unwrap_or(self.most);
                let value = if level == self.most { values.next() } else { None };
                let Some(element) = self.list else {
                    cells.push(value.map_or(Cell::Null, Cell::One));
                    continue;
                };
                if repetitions.get(place) == Some(&0) || cells.is_empty() {
                    cells.push(Cell::Many(Vec::new()));
                }
                if let (Some(Cell::Many(list)), true) = (cells.last_mut(), level >= element) {
                    list.push(value);
                }
            }
        }
        match cells.len() == self.rows {
            true => Ok(cells),
            false => {
                let found = cells.len();
                Err(ParquetError::General(format!("expected {} rows in a column, found {found}", self.rows)))
            }
        }
    }
}
