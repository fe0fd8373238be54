//! Renaming rules between published keys and ours, applied both ways.

use std::collections::BTreeMap;

/// An ordered list of renaming rules from published keys to ours, and of keys to leave out.
///
/// Keys are split at their dots. A rule names whole segments, `{i}` (any name in braces) standing for a number,
/// which appears on both sides. Loading applies every rule in order, saving every rule backwards in reverse
/// order, so a rule sees what those before it made: write the general ones first and the particular ones on
/// their results. Two rules whose results look alike cannot be told apart on the way back; loading lists keys that
/// saving would write otherwise as [`Report::one_way`](super::Report::one_way). Names on our side end as PyTorch's: `weight` and `bias` of norms, not `gamma` and `beta`.
///
/// # Example
/// ```
/// use canvas_core::weights::Rules;
///
/// let rules = Rules::new()
///     .prefix("unet", "")
///     .segments("down_blocks.{i}.resnets.{j}", "down.{i}.stages.{j}.res")
///     .exact("conv_in.bias", "input.shift")
///     .ignore("position_ids", "a buffer of 0, 1, 2, ...");
/// assert_eq!(rules.ours("unet.down_blocks.1.resnets.0.norm1.weight"), "down.1.stages.0.res.norm1.weight");
/// assert_eq!(rules.published("down.1.stages.0.res.norm1.weight"), "unet.down_blocks.1.resnets.0.norm1.weight");
/// assert_eq!(rules.ignored("text.position_ids"), Some("a buffer of 0, 1, 2, ..."));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Rules {
    renames: Vec<Rename>,
    ignores: Vec<(Reach, Pattern, String)>,
}

#[derive(Clone, Debug)]
struct Rename {
    reach: Reach,
    published: Pattern,
    ours: Pattern,
}

/// Which part of a key a pattern may be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reach {
    Whole,
    Start,
    Anywhere,
}

#[derive(Clone, Debug)]
struct Pattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Text(String),
    Number(String),
}

impl Rules {
    /// No rule: keys are our names already.
    pub fn new() -> Self {
        Self::default()
    }

    /// Renames one key.
    ///
    /// # Panics
    /// If a side is empty, or the two do not hold the same `{numbers}`.
    pub fn exact(self, published: &str, ours: &str) -> Self {
        self.rename(Reach::Whole, published, ours)
    }

    /// Renames the first segments of every key that has them; empty for none: `("unet", "")` takes `unet.` away,
    /// and saving puts it back.
    ///
    /// # Panics
    /// If both sides are empty, or do not hold the same `{numbers}`.
    pub fn prefix(self, published: &str, ours: &str) -> Self {
        self.rename(Reach::Start, published, ours)
    }

    /// Renames segments wherever they follow each other in a key, as often as they do.
    ///
    /// # Panics
    /// If a side is empty, or the two do not hold the same `{numbers}`.
    pub fn segments(self, published: &str, ours: &str) -> Self {
        self.rename(Reach::Anywhere, published, ours)
    }

    /// Leaves out every published key with these segments anywhere, for a reason that the report gives.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn ignore(self, published: &str, reason: &str) -> Self {
        self.leave_out(Reach::Anywhere, published, reason)
    }

    /// Leaves out every published key that begins with these segments, for a reason that the report gives.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn ignore_prefix(self, published: &str, reason: &str) -> Self {
        self.leave_out(Reach::Start, published, reason)
    }

    /// Our name of a published key.
    pub fn ours(&self, key: &str) -> String {
        self.renames
            .iter()
            .fold(key.to_owned(), |key, rule| rewrite(&key, rule.reach, &rule.published, &rule.ours))
    }

    /// The published key of our name.
    pub fn published(&self, name: &str) -> String {
        let rules = self.renames.iter().rev();
        rules.fold(name.to_owned(), |name, rule| rewrite(&name, rule.reach, &rule.ours, &rule.published))
    }

    /// Why a published key is left out, if it is.
    pub fn ignored(&self, key: &str) -> Option<&str> {
        let segments: Vec<&str> = key.split('.').collect();
        let fits = |reach: Reach, pattern: &Pattern| {
            let last = if reach == Reach::Start { 0 } else { segments.len() };
            (0..=last).any(|place| pattern.at(&segments[place..]).is_some())
        };
        let found = self.ignores.iter().find(|(reach, pattern, _)| fits(*reach, pattern));
        found.map(|(_, _, reason)| reason.as_str())
    }

    fn rename(mut self, reach: Reach, published: &str, ours: &str) -> Self {
        let rule = Rename { reach, published: Pattern::new(published), ours: Pattern::new(ours) };
        let empty = [&rule.published, &rule.ours].iter().filter(|side| side.0.is_empty()).count();
        let allowed = usize::from(reach == Reach::Start);
        assert!(empty <= allowed, "a rule from {published:?} to {ours:?} cannot be undone: a side is empty");
        let numbers = |pattern: &Pattern| {
            let mut numbers: Vec<_> =
                pattern.0.iter().filter(|part| matches!(part, Segment::Number(_))).cloned().collect();
            numbers.sort();
            numbers
        };
        let (left, right) = (numbers(&rule.published), numbers(&rule.ours));
        assert!(left == right, "a rule from {published:?} to {ours:?} cannot be undone: its numbers differ");
        assert!(left.windows(2).all(|pair| pair[0] != pair[1]), "{published:?} holds a number twice");
        self.renames.push(rule);
        self
    }

    fn leave_out(mut self, reach: Reach, published: &str, reason: &str) -> Self {
        assert!(!published.is_empty(), "a rule that ignores every key ({reason})");
        self.ignores.push((reach, Pattern::new(published), reason.to_owned()));
        self
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let number = |part: &str| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned());
        let parts = text.split('.').filter(|_| !text.is_empty());
        Self(parts.map(|part| number(part).map_or(Segment::Text(part.to_owned()), Segment::Number)).collect())
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

fn rewrite(key: &str, reach: Reach, from: &Pattern, to: &Pattern) -> String {
    let segments: Vec<&str> = key.split('.').collect();
    let (mut written, mut place) = (Vec::new(), 0);
    while place < segments.len() {
        let here = &segments[place..];
        let allowed = match reach {
            Reach::Whole => from.0.len() == segments.len(),
            Reach::Start => place == 0 && written.is_empty(),
            Reach::Anywhere => true,
        };
        match from.at(here).filter(|_| allowed) {
            Some(numbers) => {
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
    written.join(".")
}
