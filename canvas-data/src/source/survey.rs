//! What a folder holds.

use super::options::{Format, Options};
use super::{OpenError, splits};
use crate::{Fault, reason};
use image::ImageFormat;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Endings of images that no reader here knows: named, where other files are passed over.
const UNREAD: [&str; 12] =
    ["avif", "heic", "heif", "jxl", "jp2", "j2k", "jpx", "svg", "psd", "raw", "dng", "cr2"];

/// Whether files with this ending are read as images.
pub(super) fn is_image(extension: &str) -> bool {
    ImageFormat::from_extension(extension).is_some_and(|format| format.reading_enabled())
}

/// The files of a folder by what they are; paths are relative to it, their parts joined by `/`, in the order of their bytes.
pub(super) struct Survey {
    pub root: PathBuf,
    pub images: Vec<String>,
    /// `.txt`, `.caption` and `.json`.
    pub sidecars: Vec<String>,
    /// `metadata.jsonl` and `metadata.csv`.
    pub metadata: Vec<String>,
    pub tars: Vec<String>,
    pub tables: Vec<String>,
    pub faults: Vec<Fault>,
}

/// Files that tools write beside a data set, and that are about no image; so are `*_stats.json`, counts of img2dataset and of ours.
const NOTES: [&str; 5] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"];

impl Survey {
    /// Walks through a folder and those in it, links included; names that begin with a dot are passed over.
    pub fn of(root: &Path) -> Result<Self, OpenError> {
        std::fs::read_dir(root).map_err(OpenError::io(root))?;
        let mut survey = Self {
            root: root.to_owned(),
            images: Vec::new(),
            sidecars: Vec::new(),
            metadata: Vec::new(),
            tars: Vec::new(),
            tables: Vec::new(),
            faults: Vec::new(),
        };
        let hidden = |entry: &walkdir::DirEntry| {
            entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
        };
        let walk = WalkDir::new(root).follow_links(true).into_iter();
        for entry in walk.filter_entry(|entry| !hidden(entry) && entry.file_name() != "__MACOSX") {
            match entry {
                Ok(entry) if entry.file_type().is_file() => survey.add(entry.path()),
                Ok(_) => {}
                Err(error) => survey.refused(&error),
            }
        }
        for list in survey.lists() {
            list.sort();
        }
        survey.faults.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(survey)
    }

    fn refused(&mut self, error: &walkdir::Error) {
        let name = self.relative(error.path().unwrap_or(Path::new(""))).unwrap_or_else(|name| name);
        let what = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
        self.faults.push(match error.loop_ancestor() {
            Some(ancestor) => {
                let ancestor = self.relative(ancestor).unwrap_or_else(|name| name);
                Fault::new(name, reason::LOOP, format!("leads back to {ancestor:?}, where it is"))
            }
            None => Fault::new(name, reason::UNREADABLE, what),
        });
    }

    /// A path as it is named, or as much of it as can be written.
    fn relative(&self, path: &Path) -> Result<String, String> {
        let parts = path.strip_prefix(&self.root).unwrap_or(path).components();
        let parts: Vec<_> = parts.map(|part| part.as_os_str()).collect();
        let whole: Option<Vec<&str>> = parts.iter().map(|part| part.to_str()).collect();
        match whole {
            Some(parts) => Ok(parts.join("/")),
            None => Err(parts.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")),
        }
    }

    fn add(&mut self, path: &Path) {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if NOTES.contains(&&*file) || file.ends_with("_stats.json") {
            return;
        }
        let named = self.relative(path);
        let list = match &*extension {
            "txt" | "caption" | "json" => &mut self.sidecars,
            "jsonl" | "csv" if file.starts_with("metadata.") => &mut self.metadata,
            "tar" => &mut self.tars,
            "parquet" => &mut self.tables,
            other if is_image(other) => &mut self.images,
            other if UNREAD.contains(&other) || ImageFormat::from_extension(other).is_some() => {
                let detail = format!("files of type {other} are not read");
                let name = named.unwrap_or_else(|name| name);
                return self.faults.push(Fault::new(name, reason::NOT_AN_IMAGE, detail));
            }
            _ => return,
        };
        match named {
            Ok(name) => list.push(name),
            Err(name) => {
                let detail = "the file's name, which would be its key";
                self.faults.push(Fault::new(name, reason::NOT_UTF8, detail));
            }
        }
    }

    fn lists(&mut self) -> [&mut Vec<String>; 5] {
        [&mut self.images, &mut self.sidecars, &mut self.metadata, &mut self.tars, &mut self.tables]
    }

    /// Keeps the part of the data set that the options name, or all of it if it has one part.
    pub fn take_split(&mut self, format: Format, options: &Options) -> Result<(), OpenError> {
        let of = |name: &str| splits::split_of(name, format);
        let names = match format {
            Format::Folder => &self.images,
            Format::Shards => &self.tars,
            Format::Table => &self.tables,
        };
        let mut found = BTreeMap::<_, usize>::new();
        for split in names.iter().filter_map(|name| of(name)) {
            *found.entry(split).or_default() += 1;
        }
        let listed = || {
            let one = |(split, count): (&String, &usize)| format!("{split} ({count} files)");
            found.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        match &options.split {
            None if found.len() > 1 => Err(OpenError::Ambiguous {
                path: self.root.clone(),
                found: format!("the parts {}", listed()),
                decide: "the option `split` takes one".into(),
            }),
            None => Ok(()),
            Some(split) if !found.contains_key(split) => Err(OpenError::Empty {
                path: self.root.clone(),
                found: format!(
                    "no part {split:?}; there is {}",
                    if found.is_empty() { "no part".into() } else { listed() }
                ),
            }),
            Some(split) => {
                // Rows above the parts are about all of them.
                let above: Vec<_> = self.metadata.iter().filter(|name| of(name).is_none()).cloned().collect();
                for list in self.lists() {
                    list.retain(|name| of(name).as_ref() == Some(split));
                }
                self.metadata.extend(above);
                self.faults.retain(|fault| of(&fault.key).is_none_or(|of| of == *split));
                Ok(())
            }
        }
    }

    /// Full paths of some of its files.
    pub fn paths(&self, names: &[String]) -> Vec<PathBuf> {
        names.iter().map(|name| self.root.join(name)).collect()
    }

    /// What there is, for people.
    pub fn summary(&self) -> String {
        let counts = [
            (self.images.len(), "image files"),
            (self.tars.len(), "tar files"),
            (self.tables.len(), "Parquet files"),
            (self.metadata.len(), "metadata files"),
            (self.sidecars.len(), "texts"),
            (self.faults.len(), "that cannot be read"),
        ];
        let some: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if some.is_empty() { "nothing of use".into() } else { some.join(", ") }
    }
}
