//! `metadata.jsonl` and `metadata.csv`: rows about the images of a folder.

use super::captions::parse_fields;
use super::error::unread;
use super::folder::extension;
use crate::{Fault, reason};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// A row about an image.
pub(super) struct Row {
    /// The image's path, relative to the file's folder.
    pub image: String,
    pub fields: Map<String, Value>,
    /// Which row it is, for people.
    pub key: String,
}

/// The rows of a file, and those that are none. `column` names the image's path.
pub(super) fn read(path: &Path, name: &str, column: &str) -> (Vec<Row>, Vec<Fault>) {
    let mut rows = Rows { rows: Vec::new(), faults: Vec::new(), name, column };
    match File::open(path) {
        Ok(file) if extension(name) == "csv" => rows.csv(file),
        Ok(file) => rows.jsonl(file),
        Err(error) => rows.faults.push(Fault::new(name, unread(&error), error.to_string())),
    }
    if rows.rows.is_empty() && rows.faults.is_empty() {
        rows.faults.push(Fault::new(name, reason::EMPTY, "no row"));
    }
    (rows.rows, rows.faults)
}

struct Rows<'a> {
    rows: Vec<Row>,
    faults: Vec<Fault>,
    name: &'a str,
    column: &'a str,
}

impl Rows<'_> {
    fn fault(&mut self, line: u64, reason: &'static str, detail: String) {
        self.faults.push(Fault::new(format!("{}:{line}", self.name), reason, detail));
    }

    fn row(&mut self, line: u64, mut fields: Map<String, Value>) {
        match fields.remove(self.column) {
            Some(Value::String(image)) => match inside(&image) {
                Some(image) => self.rows.push(Row { image, fields, key: format!("{}:{line}", self.name) }),
                None => {
                    let expected = "expected a path inside the folder";
                    self.fault(
                        line,
                        reason::MALFORMED,
                        format!("{}: {expected}, found {image:?}", self.column),
                    );
                }
            },
            _ => {
                let found: Vec<_> = fields.keys().map(String::as_str).collect();
                let detail = format!("expected the field {}, found {}", self.column, found.join(", "));
                self.fault(line, reason::MALFORMED, detail);
            }
        }
    }

    fn jsonl(&mut self, file: File) {
        let mut file = BufReader::new(file);
        let (mut line, mut bytes) = (0, Vec::new());
        loop {
            bytes.clear();
            line += 1;
            match file.read_until(b'\n', &mut bytes) {
                Ok(0) => return,
                Ok(_) if bytes.trim_ascii().is_empty() => {}
                Ok(_) => match parse_fields(bytes.trim_ascii_end()) {
                    Ok(fields) => self.row(line, fields),
                    Err((reason, detail)) => self.fault(line, reason, detail),
                },
                Err(error) => return self.fault(line, reason::UNREADABLE, error.to_string()),
            }
        }
    }

    fn csv(&mut self, file: File) {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(file));
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return self.fault(1, reason::UNREADABLE, error.to_string()),
        };
        let names: Vec<_> = header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let names: Vec<_> = names.iter().map(|name| name.trim_start_matches('\u{feff}')).collect();
        let mut record = csv::ByteRecord::new();
        loop {
            let line = reader.position().line();
            match reader.read_byte_record(&mut record) {
                Ok(false) => return,
                Ok(true) if record.len() != names.len() => {
                    let detail = format!("expected {} cells, found {}", names.len(), record.len());
                    self.fault(line, reason::MALFORMED, detail);
                }
                Ok(true) => match cells(&names, &record) {
                    Ok(fields) => self.row(line, fields),
                    Err(detail) => self.fault(line, reason::NOT_UTF8, detail),
                },
                Err(error) if error.is_io_error() => {
                    return self.fault(line, reason::UNREADABLE, error.to_string());
                }
                Err(error) => self.fault(line, reason::MALFORMED, error.to_string()),
            }
        }
    }
}

/// Cells by their columns' names; an empty one is none.
fn cells(names: &[&str], record: &csv::ByteRecord) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    for (name, cell) in names.iter().zip(record).filter(|(_, cell)| !cell.is_empty()) {
        let text =
            std::str::from_utf8(cell).map_err(|error| format!("{name}: byte {}", error.valid_up_to()))?;
        fields.insert((*name).to_owned(), text.into());
    }
    Ok(fields)
}

/// A path with `/` between its parts, if it stays inside the folder it is relative to: a table from elsewhere must not name
/// whatever file of this machine it likes.
pub(super) fn inside(path: &str) -> Option<String> {
    let path = path.replace('\\', "/");
    let drive = path.as_bytes().get(1) == Some(&b':');
    if path.is_empty() || path.starts_with('/') || path.contains("://") || path.contains('\0') || drive {
        return None;
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}
