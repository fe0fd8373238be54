//! Parts of a data set, as Hugging Face's names say them.

use super::options::Format;
use crate::{Fault, reason};
use std::collections::{BTreeMap, BTreeSet};

/// Words that name a part, and the part.
const WORDS: [(&str, &str); 10] = [
    ("train", "train"),
    ("training", "train"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("val", "validation"),
    ("dev", "validation"),
    ("test", "test"),
    ("testing", "test"),
    ("eval", "test"),
    ("evaluation", "test"),
];

fn word(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    WORDS.iter().find(|(word, _)| *word == lower).map(|(_, split)| (*split).to_owned())
}

/// The part that a file belongs to, by its path in the data set.
///
/// Of images the first folder says it: an image may well be called `test-12.jpg`. Of tar and Parquet files: `NAME-00000-of-00002`, else
/// a folder of such a name, else a word of the file's name.
pub(super) fn split_of(path: &str, format: Format) -> Option<String> {
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    if format == Format::Folder {
        return word(folders.split('/').next()?);
    }
    let stem = file.split('.').next()?;
    numbered(stem)
        .map(|(name, ..)| word(name).unwrap_or_else(|| name.to_owned()))
        .or_else(|| folders.split('/').find_map(word))
        .or_else(|| stem.split(['-', '_', ' ']).find_map(word))
}

/// `NAME-00000-of-00002`, with or without a fingerprint behind: the name, the number, and how many there are.
pub(super) fn numbered(stem: &str) -> Option<(&str, usize, usize)> {
    let (before, after) = stem.rsplit_once("-of-")?;
    let (name, number) = before.rsplit_once('-')?;
    let count = after.split('-').next()?;
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(count)).then_some(())?;
    Some((name, number.parse().ok()?, count.parse().ok()?))
}

/// Files that the names of others say should be there.
pub(super) fn missing(paths: &[String]) -> Vec<Fault> {
    let mut found = BTreeMap::<(&str, &str, usize), BTreeSet<usize>>::new();
    for path in paths {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some((name, number, count)) = numbered(file.split('.').next().unwrap_or_default()) {
            found.entry((folder, name, count)).or_default().insert(number);
        }
    }
    let mut faults = Vec::new();
    for ((folder, name, count), numbers) in found {
        let lacking = count.saturating_sub(numbers.len());
        if lacking > 0 {
            let first = (0..count).find(|number| !numbers.contains(number)).unwrap_or(0);
            let detail = format!("{lacking} of {count} files, number {first} among them");
            let place = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            faults.push(Fault::new(format!("{place}-*-of-{count:05}"), reason::MISSING, detail));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_part_as_in_hugging_face_data_sets() {
        let table = |path| split_of(path, Format::Table);
        assert_eq!(table("data/train-00000-of-00002.parquet").as_deref(), Some("train"));
        assert_eq!(table("data/train-00000-of-00002-ab12cd.parquet").as_deref(), Some("train"));
        assert_eq!(table("data/odd_one-00000-of-00002.parquet").as_deref(), Some("odd_one"));
        assert_eq!(table("default/valid/0000.parquet").as_deref(), Some("validation"));
        assert_eq!(split_of("cc3m-train-0000.tar", Format::Shards).as_deref(), Some("train"));
        assert_eq!(split_of("00000.tar", Format::Shards), None);
        assert_eq!(table("latest.parquet"), None, "a word, not a part of one");
        assert_eq!(split_of("a/test/x.png", Format::Folder), None);
        assert_eq!(split_of("test-12.png", Format::Folder), None);
        assert_eq!(split_of("test/a/x.png", Format::Folder).as_deref(), Some("test"));
        assert_eq!(numbered("train-00001-of-00012"), Some(("train", 1, 12)));
        assert_eq!(numbered("one-1-of-2"), None);
    }
}
