//! WebDataset's tar files.

use super::captions::{Broken, Found, parse_fields};
use super::error::unread;
use super::options::{Format, Options, TextRule};
use super::ranges::{LocalFiles, Ranges};
use super::survey::{Survey, is_image};
use super::tar_index::{self, Index, Member};
use super::{OpenError, Source, patterns, splits};
use crate::{Fault, Record, reason};
use serde_json::Value;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples of tar files: members that lie together and have one name up to its first dot; what follows the dot is the field.
///
/// The image is the field whose name is an image's ending, or the one that [`Options::image`] names. Captions stand in the field
/// `json`, else in the first of `txt`, `caption` and `text` that is there, or in all that [`Options::captions`] names; the whole text of
/// each is one. Other fields of `json`, and `cls`, are fields of the record. Other members are not read.
///
/// Opening reads the headers once (4 KiB at a time, what lies between is skipped), several shards at a time; then each sample is read
/// from its place, by any number of threads. The index takes about 200 bytes of memory for each sample.
///
/// A sample's key is `SHARD.tar:NAME`, where `SHARD.tar` is what the shards' paths do not share.
pub struct Shards {
    ranges: Box<dyn Ranges>,
    options: Options,
    shards: Vec<Vec<Entry>>,
    /// How many samples the shards before have, and those after the last.
    starts: Vec<usize>,
    faults: Vec<Fault>,
}

/// A sample with one image.
struct Entry {
    base: Box<str>,
    members: Vec<Member>,
    /// Which of the members is the image.
    image: usize,
}

/// How many bytes are read at once while the headers of a file on the disk are read: what the system reads anyway.
const LOCAL_READ: usize = 4096;

impl Shards {
    /// Reads the headers of a tar file, of those of a folder, or of those that a pattern names: `train-{000..012}.tar`.
    ///
    /// # Errors
    /// If there is no tar file, or none of them has an image. One that the pattern names and that is not there is a fault.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::of(Survey::of(path)?, options);
        }
        Self::files(patterns::files(path)?, options)
    }

    /// Reads the headers of these tar files, in this order.
    ///
    /// # Errors
    /// If none of them has an image.
    pub fn files(paths: Vec<PathBuf>, options: &Options) -> Result<Self, OpenError> {
        let path = paths.first().cloned().unwrap_or_default();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::ranges(Box::new(LocalFiles::new(paths)), (threads, LOCAL_READ), options)
            .map_err(|found| OpenError::Empty { path, found })
    }

    pub(super) fn of(mut survey: Survey, options: &Options) -> Result<Self, OpenError> {
        survey.take_split(Format::Shards, options)?;
        if survey.tars.is_empty() {
            return Err(OpenError::Empty { path: survey.root.clone(), found: survey.summary() });
        }
        let mut shards = Self::files(survey.paths(&survey.tars), options)?;
        shards.faults.extend(splits::missing(&survey.tars));
        Ok(shards)
    }

    /// Reads the headers of tar files of any kind, by so many threads, so many bytes at once; the error says what there is instead of
    /// images.
    pub(super) fn ranges(
        ranges: Box<dyn Ranges>,
        (threads, ahead): (usize, usize),
        options: &Options,
    ) -> Result<Self, String> {
        let mut source = Self {
            options: options.clone(),
            shards: Vec::new(),
            starts: vec![0],
            faults: Vec::new(),
            ranges,
        };
        for (file, index) in indices(&*source.ranges, threads, ahead).into_iter().enumerate() {
            source.add(file, index);
        }
        if source.len() > 0 {
            return Ok(source);
        }
        let first: Vec<_> = source.faults.iter().take(3).map(ToString::to_string).collect();
        Err(format!(
            "{} tar files, {} faults: {}",
            source.ranges.count(),
            source.faults.len(),
            first.join("; ")
        ))
    }

    fn add(&mut self, file: usize, index: Index) {
        self.faults.extend(index.faults);
        let name = self.ranges.name(file);
        let mut entries = Vec::new();
        for sample in index.samples {
            match image_of(&sample.members, self.options.image.as_deref()) {
                Ok(image) => entries.push(Entry { base: sample.base, members: sample.members, image }),
                Err((reason, detail)) => {
                    self.faults.push(Fault::new(tar_index::key(&name, &sample.base), reason, detail));
                }
            }
        }
        self.starts.push(self.len() + entries.len());
        self.shards.push(entries);
    }

    fn entry(&self, index: usize) -> (usize, &Entry) {
        assert!(index < self.len(), "sample {index} of {}", self.len());
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (shard, &self.shards[shard][index - self.starts[shard]])
    }

    /// The bytes of some members of a sample: by one read if they lie together.
    fn bytes(&self, shard: usize, members: &[&Member]) -> io::Result<Vec<Vec<u8>>> {
        /// Reading as much in between is faster than reading twice.
        const GAP: u64 = 64 << 10;
        let start = members.iter().map(|member| member.bytes.start).min().unwrap_or(0);
        let end = members.iter().map(|member| member.bytes.end).max().unwrap_or(0);
        let wanted: u64 = members.iter().map(|member| member.bytes.end - member.bytes.start).sum();
        if (end - start).saturating_sub(wanted) > GAP {
            return members.iter().map(|member| self.ranges.read(shard, member.bytes.clone())).collect();
        }
        let together = self.ranges.read(shard, start..end)?;
        let part = |bytes: &Range<u64>| {
            together[(bytes.start - start) as usize..(bytes.end - start) as usize].to_vec()
        };
        Ok(members.iter().map(|member| part(&member.bytes)).collect())
    }

    /// Names of the members that may be captions.
    fn text_names(&self) -> Vec<&str> {
        match self.options.captions.is_empty() {
            true => vec!["txt", "caption", "text"],
            false => self.options.captions.iter().map(String::as_str).collect(),
        }
    }

    /// The members that a record is made of: the image, then those of its fields and text.
    fn wanted<'a>(&self, entry: &'a Entry) -> Result<Vec<&'a Member>, Broken> {
        let mut wanted = vec![&entry.members[entry.image]];
        let field = |name: &str| entry.members.iter().find(|member| *member.field == *name);
        wanted.extend(["json", "cls"].into_iter().filter_map(field));
        let texts = self.text_names().into_iter().filter_map(field);
        let most = if self.options.captions.is_empty() { 1 } else { usize::MAX };
        wanted.extend(texts.take(most));
        let limits = std::iter::once((self.options.longest_image, reason::TOO_LARGE))
            .chain(std::iter::repeat((self.options.longest_sidecar, reason::LONG_CAPTION)));
        for (member, (limit, reason)) in wanted.iter().zip(limits) {
            let length = member.bytes.end - member.bytes.start;
            if length > limit {
                return Err((
                    reason,
                    format!("{}: expected at most {limit} bytes, found {length}", member.field),
                ));
            }
        }
        Ok(wanted)
    }
}

/// The index of each file, several at a time.
fn indices(ranges: &dyn Ranges, threads: usize, ahead: usize) -> Vec<Index> {
    let threads = threads.min(ranges.count());
    let next = AtomicUsize::new(0);
    let work = || {
        let files = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let files = files.take_while(|&file| file < ranges.count());
        files.map(|file| (file, Index::read(ranges, file, ahead))).collect::<Vec<_>>()
    };
    let mut indices: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the index does not panic")).collect()
    });
    indices.sort_by_key(|(file, _)| *file);
    indices.into_iter().map(|(_, index)| index).collect()
}

/// Which member is the image.
fn image_of(members: &[Member], named: Option<&str>) -> Result<usize, Broken> {
    let fields = || members.iter().map(|member| &*member.field).collect::<Vec<_>>().join(", ");
    let is_it = |member: &Member| match named {
        Some(name) => *member.field == *name,
        None => is_image(&member.field),
    };
    let mut images = members.iter().enumerate().filter(|(_, member)| is_it(member)).map(|(number, _)| number);
    let image = images.next().ok_or_else(|| {
        let wanted = named.map_or("an image".to_owned(), |name| format!("the field {name}"));
        (reason::NO_IMAGE, format!("expected {wanted}, found the members {}", fields()))
    })?;
    if images.next().is_some() {
        let detail = format!("found the members {}: the option `image` takes one", fields());
        return Err((reason::MALFORMED, format!("more than one image: {detail}")));
    }
    if members[image].bytes.is_empty() {
        return Err((reason::EMPTY, format!("{} has no bytes", members[image].field)));
    }
    Ok(image)
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn key(&self, index: usize) -> String {
        let (shard, entry) = self.entry(index);
        tar_index::key(&self.ranges.name(shard), &entry.base)
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        let key = self.key(index);
        let fault = |(reason, detail)| Fault::new(&key, reason, detail);
        let (shard, entry) = self.entry(index);
        let members = self.wanted(entry).map_err(fault)?;
        let bytes =
            self.bytes(shard, &members).map_err(|error| fault((unread(&error), error.to_string())))?;
        let looked = format!("json, {}", self.text_names().join(", "));
        let mut found = Found { looked, ..Found::default() };
        for (number, (member, bytes)) in members.into_iter().zip(bytes).enumerate() {
            match &*member.field {
                _ if number == 0 => found.image = bytes,
                "json" => found.json = parse_fields(&bytes).map_err(fault)?,
                "cls" => found.rows.push([("cls".to_owned(), class(&bytes))].into_iter().collect()),
                _ => found.texts.push((bytes, TextRule::Whole)),
            }
        }
        self.options.compose(key, found)
    }

    fn blocks(&self) -> Vec<Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0]..pair[1]).filter(|block| !block.is_empty()).collect()
    }

    fn settings(&self) -> String {
        self.options.settings()
    }

    fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

/// A class: its number, or its name.
fn class(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
    text.parse::<i64>().map_or_else(|_| text.into(), Value::from)
}
