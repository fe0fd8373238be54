//! Patterns of the segments of a key, and what is written in their place.

use std::collections::BTreeMap;

/// Which part of a key a pattern may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reach {
    Whole,
    Start,
    Anywhere,
}

/// Segments between dots, some of them `{numbers}`.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Text(String),
    Number(String),
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        let number = |part: &str| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned());
        let parts = text.split('.').filter(|_| !text.is_empty());
        Self(parts.map(|part| number(part).map_or(Segment::Text(part.to_owned()), Segment::Number)).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of the numbers, sorted.
    pub fn numbers(&self) -> Vec<&str> {
        let numbers = self.0.iter().filter_map(|part| match part {
            Segment::Number(name) => Some(name.as_str()),
            Segment::Text(_) => None,
        });
        let mut names: Vec<&str> = numbers.collect();
        names.sort_unstable();
        names
    }

    /// Whether a key has these segments within reach.
    pub fn fits(&self, reach: Reach, key: &str) -> bool {
        rewrite(key, reach, self, self).is_some()
    }

    /// The numbers, if these segments begin with the pattern.
    fn at<'a>(&'a self, segments: &[&'a str]) -> Option<BTreeMap<&'a str, &'a str>> {
        let segments = segments.get(..self.0.len())?;
        let mut numbers = BTreeMap::new();
        for (part, segment) in self.0.iter().zip(segments) {
            match part {
                Segment::Text(text) if text == segment => {}
                Segment::Number(name) if segment.bytes().all(|byte| byte.is_ascii_digit()) => {
                    numbers.insert(name.as_str(), *segment);
                }
                _ => return None,
            }
        }
        Some(numbers)
    }

    fn filled<'a>(&'a self, numbers: &BTreeMap<&str, &'a str>) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|part| match part {
            Segment::Text(text) => text.as_str(),
            Segment::Number(name) => numbers[name.as_str()],
        })
    }
}

/// The key with `to` in the place of `from`; none where it is not there.
pub(super) fn rewrite(key: &str, reach: Reach, from: &Pattern, to: &Pattern) -> Option<String> {
    let segments: Vec<&str> = key.split('.').collect();
    let (mut written, mut place, mut found) = (Vec::new(), 0, false);
    while place < segments.len() {
        let here = &segments[place..];
        let allowed = match reach {
            Reach::Whole => from.0.len() == segments.len(),
            Reach::Start => place == 0 && written.is_empty(),
            Reach::Anywhere => true,
        };
        match from.at(here).filter(|_| allowed) {
            Some(numbers) => {
                found = true;
                written.extend(to.filled(&numbers));
                place += from.0.len();
                if reach != Reach::Anywhere {
                    break;
                }
            }
            None => {
                written.push(here[0]);
                place += 1;
            }
        }
    }
    written.extend(&segments[place..]);
    found.then(|| written.join("."))
}
