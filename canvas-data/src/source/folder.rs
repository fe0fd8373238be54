//! A folder of images with texts beside them.

use super::captions::{Broken, Found, parse_fields};
use super::error::unread;
use super::metadata::{self, Row};
use super::options::{Format, Options};
use super::survey::Survey;
use super::{OpenError, Source, splits};
use crate::{Fault, Record, reason};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The image files of a folder and of those in it, in the order of their paths' bytes.
///
/// An image's captions and fields stand in rows of a `metadata.jsonl` or `metadata.csv` in its folder or in one around it, as Hugging
/// Face's `imagefolder` reads them; else in `NAME.json`, an object, beside `NAME.jpg`; else in `NAME.txt` or `NAME.caption`, read as
/// [`TextRule`](crate::TextRule) says. Several rows of one image are several captions. Links are followed; names that begin with a dot
/// are passed over, and so are files that are neither images nor texts.
///
/// An image's key is its path in the folder, with `/` between the parts.
///
/// ```
/// use canvas_data::{Folder, Options, Source, reason};
/// let folder = tempfile::tempdir()?;
/// for (name, content) in [("b.png", "bytes"), ("a.jpg", "bytes"), ("a.txt", "a pear\none pear\n")] {
///     std::fs::write(folder.path().join(name), content)?;
/// }
/// let source = Folder::open(folder.path(), &Options::default())?;
/// assert_eq!([source.key(0), source.key(1)], ["a.jpg", "b.png"]);
/// assert_eq!(source.read(0)?.captions[1].text, "one pear");
/// assert_eq!(source.read(1).unwrap_err().reason, reason::NO_CAPTION);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Folder {
    root: PathBuf,
    options: Options,
    images: Vec<String>,
    /// Texts beside images: their paths, by the same with the ending in small letters.
    sidecars: BTreeMap<String, String>,
    rows: Vec<Row>,
    /// Rows of an image.
    about: HashMap<usize, Vec<usize>>,
    /// Whether there is any file of rows, for the message.
    tabled: bool,
    faults: Vec<Fault>,
}

impl Folder {
    /// Walks through a folder.
    ///
    /// # Errors
    /// If the folder cannot be read, has no image, or has several parts (`train`, `test`) and no option takes one.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        Self::of(Survey::of(path.as_ref())?, options)
    }

    pub(super) fn of(mut survey: Survey, options: &Options) -> Result<Self, OpenError> {
        survey.take_split(Format::Folder, options)?;
        if survey.images.is_empty() {
            return Err(OpenError::Empty { path: survey.root.clone(), found: survey.summary() });
        }
        let mut folder = Self {
            root: survey.root,
            options: options.clone(),
            images: survey.images,
            sidecars: BTreeMap::new(),
            rows: Vec::new(),
            about: HashMap::new(),
            tabled: !survey.metadata.is_empty(),
            faults: survey.faults,
        };
        // Small letters last in the order of bytes, and first here.
        for name in survey.sidecars.into_iter().rev() {
            folder.add_sidecar(name);
        }
        for name in &survey.metadata {
            folder.add_rows(name);
        }
        folder.find_orphans();
        Ok(folder)
    }

    fn add_sidecar(&mut self, name: String) {
        let small = format!("{}.{}", stem(&name), extension(&name));
        match self.sidecars.entry(small) {
            Entry::Vacant(free) => drop(free.insert(name)),
            Entry::Occupied(taken) => {
                let detail =
                    format!("{} is read instead: their endings differ by capitals alone", taken.get());
                self.faults.push(Fault::new(name, reason::SAME_KEY, detail));
            }
        }
    }

    fn add_rows(&mut self, name: &str) {
        let column = self.options.image.as_deref().unwrap_or("file_name");
        let (rows, faults) = metadata::read(&self.root.join(name), name, column);
        self.faults.extend(faults);
        let folder = name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        for row in rows {
            let image = format!("{folder}{}", row.image);
            match self.images.binary_search(&image) {
                Ok(number) => {
                    self.about.entry(number).or_default().push(self.rows.len());
                    self.rows.push(row);
                }
                Err(_) if self.elsewhere(&image) => {}
                Err(_) => {
                    let detail = format!("{column}: {image} is not there, or is no image that is read");
                    self.faults.push(Fault::new(row.key, reason::NO_IMAGE, detail));
                }
            }
        }
    }

    /// Whether an image is of a part that is not taken.
    fn elsewhere(&self, image: &str) -> bool {
        let part = splits::split_of(image, Format::Folder);
        self.options.split.is_some() && part.is_some() && part != self.options.split
    }

    /// Texts that are about no image.
    fn find_orphans(&mut self) {
        let stems: BTreeSet<_> = self.images.iter().map(|image| stem(image)).collect();
        let orphans = self.sidecars.values().filter(|name| !stems.contains(stem(name)));
        let fault =
            |name: &String| Fault::new(name, reason::NO_IMAGE, format!("there is no image {}.*", stem(name)));
        self.faults.extend(orphans.map(fault));
    }

    /// The bytes of a file beside the image, if there is one.
    fn sidecar(&self, index: usize, extension: &str) -> Result<Option<Vec<u8>>, Fault> {
        let small = format!("{}.{extension}", stem(&self.images[index]));
        let Some(name) = self.sidecars.get(&small) else { return Ok(None) };
        let limit = (self.options.longest_sidecar, reason::LONG_CAPTION);
        let bytes = read_within(&self.root.join(name), limit);
        bytes
            .map(Some)
            .map_err(|(reason, detail)| Fault::new(&self.images[index], reason, format!("{name}: {detail}")))
    }
}

/// A path without what follows the last dot of its file's name.
pub(super) fn stem(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem)
}

/// What follows the last dot of a path, in small letters.
pub(super) fn extension(path: &str) -> String {
    path.rsplit_once('.').map_or("", |(_, extension)| extension).to_lowercase()
}

/// A file's bytes, unless it is longer than the limit, for which there is a reason.
pub(super) fn read_within(path: &Path, (limit, reason): (u64, &'static str)) -> Result<Vec<u8>, Broken> {
    let refused = |error: std::io::Error| match unread(&error) {
        reason::MISSING => (reason::MISSING, format!("{} is not there", path.display())),
        reason => (reason, error.to_string()),
    };
    let length = fs::metadata(path).map_err(refused)?.len();
    if length > limit {
        return Err((reason, format!("expected at most {limit} bytes, found {length}")));
    }
    fs::read(path).map_err(refused)
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn key(&self, index: usize) -> String {
        self.images[index].clone()
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        let key = &self.images[index];
        let fault = |(reason, detail)| Fault::new(key, reason, detail);
        let limit = (self.options.longest_image, reason::TOO_LARGE);
        let image = read_within(&self.root.join(key), limit).map_err(fault)?;
        if image.is_empty() {
            return Err(Fault::new(key, reason::EMPTY, "no bytes"));
        }
        let rows = self.about.get(&index).into_iter().flatten().map(|&row| self.rows[row].fields.clone());
        let json = match self.sidecar(index, "json")? {
            Some(json) => parse_fields(&json).map_err(fault)?,
            None => serde_json::Map::new(),
        };
        let text = match self.sidecar(index, "txt")? {
            None => self.sidecar(index, "caption")?,
            text => text,
        };
        let row = if self.tabled { "a row, " } else { "" };
        let found = Found {
            image,
            rows: rows.collect(),
            json,
            texts: text.map(|text| (text, self.options.text)).into_iter().collect(),
            looked: format!("{row}{0}.json, {0}.txt, {0}.caption", stem(key)),
        };
        self.options.compose(key.clone(), found)
    }

    fn settings(&self) -> String {
        self.options.settings()
    }

    fn faults(&self) -> &[Fault] {
        &self.faults
    }
}
