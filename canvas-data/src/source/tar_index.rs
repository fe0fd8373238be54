//! Where the members of a tar file are.

use super::captions::Broken;
use super::error::unread;
use super::ranges::{Ranges, Window};
use crate::{Fault, reason};
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Size of what a tar file is made of.
pub(crate) const BLOCK: u64 = 512;
/// The longest header: a member's name can be long, but no file system has one of a megabyte.
const HEADER: u64 = 1 << 20;

/// A file in a tar file.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// What follows the first dot of its name, in small letters.
    pub field: Arc<str>,
    /// Its bytes in the tar file.
    pub bytes: Range<u64>,
}

/// Members of one name that lie together.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Their name up to the first dot.
    pub base: Box<str>,
    pub members: Vec<Member>,
}

/// What a tar file holds.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub samples: Vec<Sample>,
    pub faults: Vec<Fault>,
}

impl Index {
    /// Walks over the headers of a tar file; what lies between them is not read.
    pub fn read(ranges: &dyn Ranges, file: usize, ahead: usize) -> Self {
        let mut walk = Walk { name: ranges.name(file), ..Walk::default() };
        let unreadable = |error: io::Error| (unread(&error), error.to_string());
        match ranges.length(file) {
            Err(error) => walk.fault(unreadable(error)),
            Ok(0) => walk.fault((reason::EMPTY, "no bytes".into())),
            Ok(length) => match ranges.read(file, 0..length.min(4)) {
                Err(error) => walk.fault(unreadable(error)),
                Ok(start) => match compressed(&start) {
                    Some(how) => walk.fault((
                        reason::MALFORMED,
                        format!("compressed by {how}: unpack it, parts of it cannot be read"),
                    )),
                    None => walk.members((ranges, file, length), ahead),
                },
            },
        }
        if let Some((first, count)) = walk.undotted.take() {
            let detail = format!("{first}: a name without a dot, so of no sample; {count} such members");
            walk.fault((reason::NO_IMAGE, detail));
        }
        Self { samples: walk.samples, faults: walk.faults }
    }
}

fn compressed(start: &[u8]) -> Option<&'static str> {
    let marks: [(&[u8], _); 4] =
        [(b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zX", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];
    marks.into_iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, how)| how)
}

#[derive(Default)]
struct Walk {
    name: String,
    samples: Vec<Sample>,
    faults: Vec<Fault>,
    /// The sample that may have more members.
    open: Option<Sample>,
    /// Names of fields: few, so held once.
    fields: HashSet<Arc<str>>,
    /// Bases of whole samples.
    seen: HashSet<Box<str>>,
    /// The first member whose name has no dot, and how many there are.
    undotted: Option<(String, usize)>,
    /// Where the last member ends, its padding included.
    end: u64,
}

impl Walk {
    fn fault(&mut self, (reason, detail): Broken) {
        self.faults.push(Fault::new(&self.name, reason, detail));
    }

    fn members(&mut self, place: (&dyn Ranges, usize, u64), ahead: usize) {
        let length = place.2;
        let mut archive = tar::Archive::new(Window::new(place, ahead, HEADER));
        let entries = match archive.entries_with_seek() {
            Ok(entries) => entries,
            Err(error) => return self.fault((reason::UNREADABLE, error.to_string())),
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    let kind = entry.header().entry_type();
                    let sparse = kind.is_gnu_sparse().then(|| entry.header().entry_size().ok()).flatten();
                    let (start, size) = (entry.raw_file_position(), sparse.unwrap_or(entry.size()));
                    let bytes = start..start.saturating_add(size);
                    self.end = bytes.end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
                    let path = entry.path_bytes().into_owned();
                    if bytes.end > length {
                        return self.cut(&path, bytes, length);
                    }
                    self.member(&path, kind, bytes);
                }
                Err(error) => return self.broken(&error, length),
            }
        }
        self.finish(place);
    }

    fn member(&mut self, path: &[u8], kind: tar::EntryType, bytes: Range<u64>) {
        if kind.is_dir() || kind.is_pax_global_extensions() {
            return;
        }
        let Ok(path) = std::str::from_utf8(path) else {
            let name = String::from_utf8_lossy(path);
            return self.fault((reason::NOT_UTF8, format!("the name of the member {name}")));
        };
        let path = path.strip_prefix("./").unwrap_or(path);
        if !kind.is_file() && !kind.is_contiguous() {
            return self.fault((
                reason::MALFORMED,
                format!("{path} is not a file but {kind:?}: links are not followed"),
            ));
        }
        let start = path.rfind('/').map_or(0, |slash| slash + 1);
        let first = path.split('/').next().unwrap_or_default();
        if first.len() > 3 && first.starts_with("__") && first.ends_with("__") {
            return; // notes of the writer, which webdataset skips too
        }
        // As webdataset divides names: at the first dot, but not at one that begins the name.
        let Some(dot) = path[start..].find('.').map(|dot| dot + start) else {
            self.undotted.get_or_insert_with(|| (path.to_owned(), 0)).1 += 1;
            return;
        };
        if dot == start {
            return;
        }
        let (base, field) = (&path[..dot], path[dot + 1..].to_lowercase());
        if self.open.as_ref().is_none_or(|open| *open.base != *base) {
            self.close();
            self.open = Some(Sample { base: base.into(), members: Vec::new() });
        }
        let open = self.open.as_mut().expect("just made");
        let field = self.fields.get(field.as_str()).cloned().unwrap_or_else(|| field.into());
        self.fields.insert(field.clone());
        open.members.push(Member { field, bytes });
    }

    /// The sample so far is whole.
    fn close(&mut self) {
        let Some(sample) = self.open.take() else { return };
        let mut fields = HashSet::new();
        let twice = sample.members.iter().find(|member| !fields.insert(&member.field));
        let fault = if let Some(member) = twice {
            Some((reason::SAME_KEY, format!("two members {}.{}", sample.base, member.field)))
        } else if self.seen.contains(&sample.base) {
            Some((reason::SAME_KEY, "its members do not lie together, or there are two of it".to_owned()))
        } else {
            None
        };
        match fault {
            Some((reason, detail)) => self.faults.push(Fault::new(self.key(&sample.base), reason, detail)),
            None => {
                self.seen.insert(sample.base.clone());
                self.samples.push(sample);
            }
        }
    }

    fn key(&self, base: &str) -> String {
        key(&self.name, base)
    }

    /// The sample so far may lack members: what could be the rest of it cannot be read.
    fn lose(&mut self, reason: &'static str, detail: &str) {
        if let Some(sample) = self.open.take() {
            self.faults.push(Fault::new(self.key(&sample.base), reason, detail.to_owned()));
        }
    }

    fn cut(&mut self, path: &[u8], bytes: Range<u64>, length: u64) {
        let path = String::from_utf8_lossy(path).into_owned();
        let detail = format!(
            "{path}: expected {} bytes, found {}: the file ends, what should follow is lost",
            bytes.end - bytes.start,
            length.saturating_sub(bytes.start)
        );
        let base = path.strip_prefix("./").unwrap_or(&path);
        let same = self
            .open
            .as_ref()
            .is_some_and(|open| base.strip_prefix(&*open.base).is_some_and(|rest| rest.starts_with('.')));
        match same {
            true => self.lose(reason::TRUNCATED, &detail),
            false => {
                self.close();
                self.fault((reason::TRUNCATED, detail));
            }
        }
    }

    /// A header cannot be read: nobody knows where the next would be.
    fn broken(&mut self, error: &io::Error, length: u64) {
        let rest = length.saturating_sub(self.end);
        let reason = if rest < BLOCK { reason::TRUNCATED } else { reason::MALFORMED };
        let detail = format!("{error} at byte {}: {rest} bytes from there on are lost", self.end);
        self.lose(reason, &format!("its last members may be lost: {detail}"));
        self.fault((reason, detail));
    }

    /// Nothing comes behind the last member that was found, which the file should say.
    fn finish(&mut self, (ranges, file, length): (&dyn Ranges, usize, u64)) {
        let found = if self.end.saturating_add(BLOCK) > length {
            // The end is marked by two blocks of zeros; one is enough for most.
            Err((
                reason::TRUNCATED,
                format!("the file ends at byte {length} without a mark: what should follow is lost"),
            ))
        } else if !length.is_multiple_of(BLOCK) {
            let detail =
                format!("the file ends at byte {length}, within a block: what should follow is lost");
            Err((reason::TRUNCATED, detail))
        } else {
            behind(ranges, file, self.end..length)
        };
        if let Err((reason, detail)) = found {
            self.lose(reason, &format!("its last members may be lost: {detail}"));
            self.fault((reason, detail));
        }
        self.close();
        if self.samples.is_empty() && self.faults.is_empty() && self.undotted.is_none() {
            self.fault((reason::EMPTY, "no sample".into()));
        }
    }
}

/// There should be zeros behind the end of a tar file: a second tar file, or the rest of a damaged one, would be lost in silence.
fn behind(ranges: &dyn Ranges, file: usize, rest: Range<u64>) -> Result<(), Broken> {
    const PIECE: u64 = 64 << 10;
    let mut start = rest.start;
    while start < rest.end {
        let end = rest.end.min(start + PIECE);
        let bytes = ranges.read(file, start..end).map_err(|error| (unread(&error), error.to_string()))?;
        if bytes.iter().any(|&byte| byte != 0) {
            let lost = rest.end - rest.start;
            let detail = format!(
                "marked as its end at byte {}, but there is more: {lost} bytes from there on are lost",
                rest.start
            );
            return Err((reason::MALFORMED, detail));
        }
        start = end;
    }
    Ok(())
}

/// Key of a sample.
pub(super) fn key(shard: &str, base: &str) -> String {
    format!("{shard}:{base}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes that count how often they are asked for.
    struct Counted(Vec<u8>, AtomicUsize);

    impl Ranges for Counted {
        fn count(&self) -> usize {
            1
        }

        fn name(&self, _file: usize) -> String {
            "x.tar".into()
        }

        fn length(&self, _file: usize) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read(&self, _file: usize, range: Range<u64>) -> io::Result<Vec<u8>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(self.0[range.start as usize..range.end as usize].to_vec())
        }
    }

    #[test]
    fn headers_are_read_many_at_a_time_and_large_members_are_skipped() {
        let mut archive = tar::Builder::new(Vec::new());
        for (number, size) in std::iter::repeat_n(600, 100).chain([3 << 20, 10]).enumerate() {
            let mut header = tar::Header::new_gnu();
            header.set_size(size as u64);
            archive.append_data(&mut header, format!("{number}.jpg"), &vec![0; size][..]).unwrap();
        }
        let bytes = Counted(archive.into_inner().unwrap(), AtomicUsize::new(0));
        let index = Index::read(&bytes, 0, 1 << 20);
        assert_eq!((index.samples.len(), index.faults.len()), (102, 0));
        assert_eq!(
            bytes.1.into_inner(),
            4,
            "what the file is; all until the large member; what is behind it; its end"
        );
    }
}
