//! How many images each pass dropped, and why: numbers that add up.

use super::fates::Fates;
use crate::Fault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What became of a source's images. [`Display`](fmt::Display) is a table, serde the same as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Images of the source.
    pub images: usize,
    /// Those that are kept.
    pub kept: usize,
    /// What was found beside the source's images, by reason: files that are none.
    pub beside: BTreeMap<String, usize>,
    /// What each pass did, in order; the first is reading.
    pub passes: Vec<PassReport>,
}

/// What a pass did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassReport {
    /// Its name.
    pub name: String,
    /// Images that no pass before it dropped.
    pub seen: usize,
    /// Images that it dropped, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Images that are left.
    pub kept: usize,
}

impl Report {
    pub(super) fn new(fates: &Fates, names: &[String], faults: &[Fault]) -> Self {
        let mut dropped = vec![BTreeMap::new(); names.len()];
        for (position, reason) in (0..fates.len()).filter_map(|image| fates.of(image)) {
            *dropped[*position].entry(reason.clone()).or_insert(0) += 1;
        }
        let mut seen = fates.len();
        let mut passes = Vec::with_capacity(names.len());
        for (name, dropped) in names.iter().zip(dropped) {
            let kept = seen - dropped.values().sum::<usize>();
            passes.push(PassReport { name: name.clone(), seen, dropped, kept });
            seen = kept;
        }
        let mut beside = BTreeMap::new();
        for fault in faults {
            *beside.entry(fault.reason.to_string()).or_insert(0) += 1;
        }
        Self { images: fates.len(), kept: seen, beside, passes }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons =
            self.passes.iter().flat_map(|pass| pass.dropped.keys().map(|reason| reason.chars().count() + 2));
        let names = self.passes.iter().map(|pass| pass.name.chars().count());
        let width = reasons.chain(names).max().unwrap_or(0).max("pass".len());
        writeln!(f, "{:width$}  {:>12}  {:>12}  {:>12}  {:>7}", "pass", "in", "dropped", "kept", "kept %")?;
        for PassReport { name, seen, dropped, kept } in &self.passes {
            let gone = seen - kept;
            let percent = 100.0 * *kept as f64 / (self.images.max(1)) as f64;
            writeln!(f, "{name:width$}  {seen:>12}  {gone:>12}  {kept:>12}  {percent:>7.2}")?;
            for (reason, count) in dropped {
                writeln!(f, "{:width$}  {:>12}  {count:>12}", format!("  {reason}"), "")?;
            }
        }
        if !self.beside.is_empty() {
            let beside: Vec<String> =
                self.beside.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            writeln!(f, "beside these images: {}", beside.join(", "))?;
        }
        write!(f, "{} of {} images are kept", self.kept, self.images)
    }
}
