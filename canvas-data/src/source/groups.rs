//! The row groups of a Parquet file.

use super::captions::Broken;
use super::columns::{Cell, Columns, ImageColumns, Leaf, Scalar, cells};
use super::error::unread;
use crate::{panic_text, reason};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};
use std::error::Error;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The most rows that a row group may have: one is decoded whole. Writers make a million at most if nobody asks for more.
const MOST_ROWS: i64 = 1 << 24;

/// Why a file cannot be read.
pub(super) enum Unread {
    /// The system says so: it may be otherwise the next time.
    System(Broken),
    /// By what is in it.
    Damaged(String),
}

impl Unread {
    /// What an error says, by whether the system is behind it.
    fn of(error: &(dyn Error + 'static), detail: String) -> Self {
        match of_system(error) {
            Some(error) => Self::System((unread(error), detail)),
            None => Self::Damaged(detail),
        }
    }
}

/// The system's error behind an error. Decoders, too, call theirs errors of reading; only the system gives them a number.
fn of_system<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let own = error.downcast_ref::<io::Error>().filter(|error| error.raw_os_error().is_some());
    own.or_else(|| of_system(error.source()?))
}

impl From<Unread> for Broken {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::System(broken) => broken,
            Unread::Damaged(detail) => (reason::UNREADABLE, detail),
        }
    }
}

/// The columns of a row group.
pub(super) struct Decoded {
    pub bytes: Option<Vec<Cell>>,
    pub path: Option<Vec<Cell>>,
    plain: Vec<Vec<Cell>>,
}

impl Decoded {
    /// Decodes a row group.
    pub fn read(path: &Path, number: usize, image: &ImageColumns, plain: &[Leaf]) -> Result<Self, Unread> {
        guarded(|| {
            let reader = open(path)?;
            let reader =
                reader.get_row_group(number).map_err(|error| Unread::of(&error, error.to_string()))?;
            let read = |leaf: &Leaf| {
                let named = |error| Unread::of(&error, format!("column {}: {error}", leaf.name));
                cells(&*reader, leaf.column).map_err(named)
            };
            Ok(Self {
                bytes: image.bytes.as_ref().map(read).transpose()?,
                path: image.path.as_ref().map(read).transpose()?,
                plain: plain.iter().map(read).collect::<Result<_, _>>()?,
            })
        })
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> u64 {
        let columns = self.bytes.iter().chain(&self.path).chain(&self.plain);
        columns.flatten().map(weight).sum()
    }

    /// A row's captions and fields.
    pub fn fields(
        &self,
        leaves: &[Leaf],
        captions: &[&str],
        number: usize,
    ) -> Result<Map<String, Value>, Broken> {
        let mut fields = Map::new();
        for (leaf, cells) in leaves.iter().zip(&self.plain) {
            let strict = captions.contains(&leaf.name.as_str());
            let value = |scalar: &Scalar| match scalar {
                Scalar::Plain(value) => Ok(value.clone()),
                Scalar::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
                    Ok(text) => Ok(text.into()),
                    Err(error) if strict => {
                        Err((reason::NOT_UTF8, format!("{}: byte {}", leaf.name, error.valid_up_to())))
                    }
                    Err(_) => Ok(String::from_utf8_lossy(bytes.data()).into()),
                },
            };
            let value = match &cells[number] {
                Cell::Null => continue,
                Cell::One(scalar) => value(scalar)?,
                Cell::Many(list) => {
                    let one = |scalar: &Option<Scalar>| scalar.as_ref().map_or(Ok(Value::Null), value);
                    Value::Array(list.iter().map(one).collect::<Result<_, _>>()?)
                }
            };
            fields.insert(leaf.name.clone(), value);
        }
        Ok(fields)
    }
}

fn weight(cell: &Cell) -> u64 {
    let scalar = |scalar: &Scalar| match scalar {
        Scalar::Bytes(bytes) => bytes.len(),
        Scalar::Plain(_) => 0,
    };
    let held = match cell {
        Cell::Null => 0,
        Cell::One(one) => scalar(one),
        Cell::Many(list) => list.iter().map(|one| size_of::<Scalar>() + one.as_ref().map_or(0, scalar)).sum(),
    };
    (size_of::<Cell>() + held) as u64
}

/// Runs what reads a file; a panic is an error.
///
/// The decoders of the crate `parquet` index by numbers of the file in places: of a damaged file some numbers are past the end. Nothing
/// that outlives the call is changed by it, so nothing is left half changed.
fn guarded<T>(read: impl FnOnce() -> Result<T, Unread>) -> Result<T, Unread> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        Err(Unread::Damaged(format!("damaged: the decoder gave up: {}", panic_text(&*panic))))
    })
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, Unread> {
    let file = File::open(path).map_err(|error| Unread::of(&error, error.to_string()))?;
    SerializedFileReader::new(file).map_err(|error| Unread::of(&error, error.to_string()))
}

/// The columns of a file, and the rows of each row group.
pub(super) fn footer(path: &Path) -> Result<(Columns, Vec<usize>), Unread> {
    guarded(|| footer_of(path))
}

fn footer_of(path: &Path) -> Result<(Columns, Vec<usize>), Unread> {
    let reader = open(path)?;
    let metadata = reader.metadata();
    let mut groups = Vec::new();
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let rows = group.num_rows();
        if !(0..=MOST_ROWS).contains(&rows) {
            let detail = format!("row group {number}: expected at most {MOST_ROWS} rows, found {rows}");
            return Err(Unread::Damaged(detail));
        }
        groups.push(rows as usize);
    }
    let (sum, told) = (groups.iter().sum::<usize>(), metadata.file_metadata().num_rows());
    if usize::try_from(told) != Ok(sum) {
        let detail = format!("expected {told} rows, as the file says, found {sum} in its row groups");
        return Err(Unread::Damaged(detail));
    }
    Ok((Columns::of(metadata.file_metadata().schema_descr()), groups))
}
