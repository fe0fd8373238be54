//! Parquet files.

use super::captions::{Broken, Found};
use super::columns::{Cell, ImageColumns, Leaf, Scalar};
use super::folder::read_within;
use super::groups::{Decoded, Unread, footer};
use super::metadata::inside;
use super::options::{Format, Options};
use super::ranges::{LocalFiles, Ranges};
use super::recent::Recent;
use super::survey::Survey;
use super::{OpenError, Source, patterns, splits};
use crate::{Fault, Record, reason};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The rows of Parquet files.
///
/// The image is a column of bytes, a struct `{bytes, path}` as Hugging Face's `Image` is stored, or a column of paths relative to the
/// folder of the file. Captions stand in columns of texts, or of lists of texts; other columns of texts and numbers, and of lists of
/// them, are fields of the record.
///
/// A row group is decoded whole when a row of it is read, and kept as long as [`Options::table_cache`] has room: an order that stays
/// within few [`blocks`](Source::blocks) decodes each once.
///
/// A row's key is `FILE.parquet:ROW`, rows counted from 0.
pub struct Table {
    files: Vec<TableFile>,
    groups: Vec<Group>,
    options: Options,
    decoded: Recent<Result<Decoded, String>>,
    faults: Vec<Fault>,
}

struct TableFile {
    path: PathBuf,
    name: String,
    image: ImageColumns,
    /// Columns of captions and of fields.
    plain: Vec<Leaf>,
}

/// A row group.
struct Group {
    file: usize,
    number: usize,
    /// Its rows in its file.
    first: usize,
    /// Its rows in all.
    rows: Range<usize>,
}

impl Table {
    /// Reads the footers of a Parquet file, of those of a folder, or of those that a pattern names.
    ///
    /// # Errors
    /// If there is no such file, or none with a row; if a file has no column of images or, where captions are required, of captions.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::of(Survey::of(path)?, options);
        }
        Self::files(patterns::files(path)?, options)
    }

    pub(super) fn of(mut survey: Survey, options: &Options) -> Result<Self, OpenError> {
        survey.take_split(Format::Table, options)?;
        if survey.tables.is_empty() {
            return Err(OpenError::Empty { path: survey.root.clone(), found: survey.summary() });
        }
        let mut table = Self::files(survey.paths(&survey.tables), options)?;
        table.faults.extend(splits::missing(&survey.tables));
        Ok(table)
    }

    /// Reads the footers of these files, in this order.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn files(paths: Vec<PathBuf>, options: &Options) -> Result<Self, OpenError> {
        let mut table = Self {
            files: Vec::new(),
            groups: Vec::new(),
            options: options.clone(),
            decoded: Recent::new(options.table_cache),
            faults: Vec::new(),
        };
        let names = LocalFiles::new(paths.clone());
        for (number, path) in paths.iter().enumerate() {
            table.add(path, names.name(number))?;
        }
        if table.len() == 0 {
            let path = paths.into_iter().next().unwrap_or_default();
            let first: Vec<_> = table.faults.iter().take(3).map(ToString::to_string).collect();
            let found = if first.is_empty() { "no row".to_owned() } else { first.join("; ") };
            return Err(OpenError::Empty { path, found });
        }
        Ok(table)
    }

    fn add(&mut self, path: &Path, name: String) -> Result<(), OpenError> {
        let (columns, groups) = match footer(path) {
            Ok(footer) => footer,
            Err(error) => {
                let (reason, detail) = error.into();
                self.faults.push(Fault::new(name, reason, detail));
                return Ok(());
            }
        };
        let image = columns.image(self.options.image.as_deref());
        let error =
            |expected| OpenError::Columns { path: path.to_owned(), expected, found: columns.names.clone() };
        let image = image.map_err(error)?;
        let captions = self.options.caption_names();
        let there = |name: &&str| columns.plain.iter().any(|leaf| leaf.name == *name);
        let missing = match self.options.captions.is_empty() {
            true => self.options.rules.required && !captions.iter().any(there),
            false => !captions.iter().all(there),
        };
        if missing {
            return Err(error(format!("a column of captions ({})", captions.join(", "))));
        }
        let images: Vec<_> = image.bytes.iter().chain(&image.path).map(|leaf| leaf.column).collect();
        // Bytes that are no image are captions if they are named so, and else nothing that a field can hold.
        let is_used = |leaf: &&Leaf| {
            let fit = !columns.is_bytes(leaf.column) || captions.contains(&leaf.name.as_str());
            fit && !images.contains(&leaf.column)
        };
        let plain = columns.plain.iter().filter(is_used).cloned().collect();
        let mut first = 0;
        for (number, rows) in groups.into_iter().enumerate() {
            let start = self.len();
            self.groups.push(Group { file: self.files.len(), number, first, rows: start..start + rows });
            first += rows;
        }
        self.files.push(TableFile { path: path.to_owned(), name, image, plain });
        Ok(())
    }

    /// The group of a row, and the row's number in it.
    fn place(&self, index: usize) -> (usize, usize) {
        assert!(index < self.len(), "row {index} of {}", self.len());
        let group = self.groups.partition_point(|group| group.rows.end <= index);
        (group, index - self.groups[group].rows.start)
    }

    /// The image's bytes, in the table or in the file that it names; with the path, if there is one.
    fn image(
        &self,
        file: &TableFile,
        row: &Decoded,
        number: usize,
    ) -> Result<(Vec<u8>, Option<String>), Broken> {
        let path = match row.path.as_ref().map(|path| &path[number]) {
            Some(Cell::One(Scalar::Bytes(path))) => Some(String::from_utf8_lossy(path.data()).into_owned()),
            _ => None,
        };
        match (row.bytes.as_ref().map(|bytes| &bytes[number]), &path) {
            (Some(Cell::One(Scalar::Bytes(bytes))), _) => {
                let (length, limit) = (bytes.len() as u64, self.options.longest_image);
                match length {
                    0 => Err((reason::EMPTY, "no bytes".into())),
                    _ if length > limit => {
                        Err((reason::TOO_LARGE, format!("expected at most {limit} bytes, found {length}")))
                    }
                    _ => Ok((bytes.data().to_vec(), path)),
                }
            }
            (_, Some(name)) => {
                let relative = inside(name).ok_or_else(|| {
                    (reason::MALFORMED, format!("expected a path inside the folder, found {name:?}"))
                })?;
                let own = file.path.parent().unwrap_or(Path::new(""));
                let folder = self.options.images.as_deref().unwrap_or(own);
                let bytes =
                    read_within(&folder.join(relative), (self.options.longest_image, reason::TOO_LARGE))?;
                if bytes.is_empty() {
                    Err((reason::EMPTY, format!("{name} has no bytes")))
                } else {
                    Ok((bytes, path))
                }
            }
            _ => Err((reason::EMPTY, "the image is null".into())),
        }
    }
}

impl Source for Table {
    fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.rows.end)
    }

    fn key(&self, index: usize) -> String {
        let (group, row) = self.place(index);
        let group = &self.groups[group];
        format!("{}:{}", self.files[group.file].name, group.first + row)
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        let key = self.key(index);
        let fault = |(reason, detail)| Fault::new(&key, reason, detail);
        let (group, row) = self.place(index);
        let decoded = self.decoded.get(group, || {
            let Group { file, number, .. } = self.groups[group];
            let file = &self.files[file];
            match Decoded::read(&file.path, number, &file.image, &file.plain) {
                Ok(decoded) => {
                    let weight = decoded.weight();
                    Ok((Ok(decoded), weight))
                }
                Err(Unread::Damaged(detail)) => Ok((Err(detail), 1)),
                Err(Unread::System(broken)) => Err(fault(broken)),
            }
        })?;
        let decoded = (*decoded).as_ref().map_err(|error| fault((reason::UNREADABLE, error.clone())))?;
        let file = &self.files[self.groups[group].file];
        let captions = self.options.caption_names();
        let (image, path) = self.image(file, decoded, row).map_err(fault)?;
        let mut fields = decoded.fields(&file.plain, &captions, row).map_err(fault)?;
        if let (Some(path), Some(leaf)) = (path, &file.image.path) {
            let name =
                if file.image.bytes.is_some() { format!("{}.path", leaf.name) } else { leaf.name.clone() };
            fields.entry(name).or_insert(path.into());
        }
        let looked = format!("the columns {}", captions.join(", "));
        self.options.compose(key, Found { image, rows: vec![fields], looked, ..Found::default() })
    }

    fn blocks(&self) -> Vec<Range<usize>> {
        self.groups.iter().map(|group| group.rows.clone()).filter(|rows| !rows.is_empty()).collect()
    }

    fn settings(&self) -> String {
        self.options.settings()
    }

    fn faults(&self) -> &[Fault] {
        &self.faults
    }
}
