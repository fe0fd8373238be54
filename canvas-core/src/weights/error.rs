//! What can be wrong with a weight file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Why a weight file was not read or written. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a whole safetensors file.
    #[error("{}: not a whole safetensors file ({message}); it may be truncated", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        message: String,
    },
    /// Not a file of tensors as PyTorch saves them, or one that asks for more.
    #[error("{}: not a readable PyTorch file: {message}", path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// What it asks for, or what the reader found.
        message: String,
    },
    /// One tensor is not what the file, or its index, says.
    #[error("{}: {key}: expected {expected}, found {found}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// An index of shards that is no index, or that its shards contradict.
    #[error("{}: not a usable index of shards: {message}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Key or shard, what the index says and what was found.
        message: String,
    },
    /// A directory without weights, or with several sets of them.
    #[error("{}: expected one of {expected:?}, found {found:?}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// File names that were looked for.
        expected: Vec<String>,
        /// Those that are there, or all files where none of them is.
        found: Vec<String>,
    },
    /// A parameter that would be written under a key which is not read as that parameter again.
    #[error("{}: {name} would be written as {key}, which is read as {back}: the rules do not lead back", path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// Its key by the rules.
        key: String,
        /// What becomes of that key.
        back: String,
    },
    /// The file's keys or shapes are not the module's.
    #[error("{}: does not fit this model ({used} of {expected} parameters fit){report}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Parameters that fit.
        used: usize,
        /// Parameters of the module.
        expected: usize,
        /// Every key that does not.
        report: Box<Report>,
    },
}

/// Every disagreement between a file and a module; for published weights also what became of every other key.
///
/// Shown as text it lists the disagreements; [`Report::every_key`] lists all.
#[derive(Debug, Default)]
pub struct Report {
    /// Parameters the file lacks: name, shape, and the nearest unused key of the file.
    pub missing: Vec<(String, Vec<usize>, Option<String>)>,
    /// Keys no parameter takes: name after renaming, shape, and the nearest missing parameter.
    pub unexpected: Vec<(String, Vec<usize>, Option<String>)>,
    /// Shapes that differ: name, expected, found.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Keys whose type is not a float of 16, 32 or 64 bits: name and type.
    pub types: Vec<(String, String)>,
    /// Keys taken under their own name, but for the layout's `weight` and `bias` of norms.
    pub used: Vec<String>,
    /// Keys taken under another name: key and parameter.
    pub renamed: Vec<(String, String)>,
    /// Keys split into several parameters: key and parameters.
    pub split: Vec<(String, Vec<String>)>,
    /// Keys that saving by the same rules would write otherwise: key and what would be written. Empty where the
    /// rules can be undone; not an error, since a file may use names of an older version.
    pub one_way: Vec<(String, String)>,
    /// Keys left out on purpose: key and the caller's reason.
    pub ignored: Vec<(String, String)>,
    /// Said after a name: the parameter it stands for, or the shard it is in.
    pub(super) notes: BTreeMap<String, String>,
    /// The same for keys left over.
    pub(super) unexpected_notes: BTreeMap<String, String>,
}

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.shapes.is_empty()
            && self.types.is_empty()
    }

    /// One line for every key of the file and every parameter it lacks: used, renamed, split, ignored and why, or
    /// wrong.
    pub fn every_key(&self) -> String {
        let used = self.used.iter().map(|key| format!("\n  used {key}"));
        let renamed = self.renamed.iter().map(|(key, name)| format!("\n  renamed {key} to {name}"));
        let split =
            self.split.iter().map(|(key, names)| format!("\n  split {key} into {}", names.join(", ")));
        let ignored = self.ignored.iter().map(|(key, reason)| format!("\n  ignored {key}: {reason}"));
        let one_way = self.one_way.iter().map(|(key, other)| format!("\n  {key} would be saved as {other}"));
        let lines = used.chain(renamed).chain(split).chain(ignored).chain(one_way);
        lines.chain([self.to_string()]).collect()
    }

    /// The keys of the file that were taken or ignored.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let renamed = self.renamed.iter().map(|entry| &entry.0);
        let split = self.split.iter().map(|entry| &entry.0);
        let ignored = self.ignored.iter().map(|entry| &entry.0);
        self.used.iter().chain(renamed).chain(split).chain(ignored).map(String::as_str)
    }

    /// This report and that on another part of the file.
    pub(super) fn beside(mut self, other: Self) -> Self {
        self.missing.extend(other.missing);
        self.unexpected.extend(other.unexpected);
        self.shapes.extend(other.shapes);
        self.types.extend(other.types);
        self.used.extend(other.used);
        self.renamed.extend(other.renamed);
        self.split.extend(other.split);
        self.one_way.extend(other.one_way);
        self.ignored.extend(other.ignored);
        self.notes.extend(other.notes);
        self.unexpected_notes.extend(other.unexpected_notes);
        self
    }

    /// The report on a part of a file, in whole keys.
    pub(super) fn whole(mut self, prefix: &str) -> Self {
        let whole = |key: &mut String| key.insert_str(0, prefix);
        for (key, _, nearest) in self.missing.iter_mut().chain(&mut self.unexpected) {
            whole(key);
            nearest.as_mut().map(whole);
        }
        self.shapes.iter_mut().for_each(|entry| whole(&mut entry.0));
        self.types.iter_mut().for_each(|entry| whole(&mut entry.0));
        self.used.iter_mut().for_each(whole);
        self.renamed.iter_mut().for_each(|entry| whole(&mut entry.0));
        self.split.iter_mut().for_each(|entry| whole(&mut entry.0));
        self.ignored.iter_mut().for_each(|entry| whole(&mut entry.0));
        self.one_way.iter_mut().for_each(|(key, other)| [key, other].into_iter().for_each(whole));
        let notes = |notes: &mut BTreeMap<String, String>| {
            *notes = std::mem::take(notes)
                .into_iter()
                .map(|(key, note)| (format!("{prefix}{key}"), note))
                .collect();
        };
        notes(&mut self.notes);
        notes(&mut self.unexpected_notes);
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |note: Option<&String>| note.map_or(String::new(), |note| format!(" ({note})"));
        let note = |name: &String| text(self.notes.get(name));
        let near = |near: &Option<String>| near.as_ref().map_or(String::new(), |n| format!("; nearest: {n}"));
        for (name, shape, nearest) in &self.missing {
            write!(f, "\n  missing {name}{} {shape:?}{}", note(name), near(nearest))?;
        }
        for (name, shape, nearest) in &self.unexpected {
            write!(
                f,
                "\n  unexpected {name}{} {shape:?}{}",
                text(self.unexpected_notes.get(name)),
                near(nearest)
            )?;
        }
        for (name, expected, found) in &self.shapes {
            write!(f, "\n  {name}{}: expected shape {expected:?}, found {found:?}", note(name))?;
        }
        for (name, found) in &self.types {
            write!(f, "\n  {name}{}: expected f16, bf16, f32 or f64, found {found}", note(name))?;
        }
        Ok(())
    }
}

/// Fills in, for each missing name, the most similar unexpected one, and the other way round.
pub(super) fn suggest(report: &mut Report) {
    let nearest = |name: &str, others: &[String]| {
        let score = |other: &String| strsim::jaro_winkler(name, other);
        let best = others.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
        (score(best) > 0.7).then(|| best.clone())
    };
    let missing: Vec<String> = report.missing.iter().map(|entry| entry.0.clone()).collect();
    let unexpected: Vec<String> = report.unexpected.iter().map(|entry| entry.0.clone()).collect();
    report.missing.iter_mut().for_each(|entry| entry.2 = nearest(&entry.0, &unexpected));
    report.unexpected.iter_mut().for_each(|entry| entry.2 = nearest(&entry.0, &missing));
}
