//! What can be wrong with a scheduler's configuration file.

use std::path::PathBuf;

/// Why a `scheduler_config.json` was not read. Every message names the file or the field.
#[derive(Debug, thiserror::Error)]
pub enum DiffusersError {
    /// The file is not there, or cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not JSON, or not an object.
    #[error("{origin} is not a scheduler configuration: {why}")]
    Syntax {
        /// The file, or "the text".
        origin: String,
        /// What the parser says.
        why: String,
    },
    /// A scheduler class no sampler here covers.
    #[error(
        "{origin}: _class_name is {class:?}, which is not covered{}; covered are {}",
        .nearest.map_or(String::new(), |name| format!(" (did you mean {name}?)")), super::CLASSES.join(", ")
    )]
    Class {
        /// The file, or "the text".
        origin: String,
        /// What it says.
        class: String,
        /// The most similar covered class, if one is similar.
        nearest: Option<&'static str>,
    },
    /// A field with a value that is not honoured.
    #[error("{origin}: {class} field {field:?}: expected {expected}, found {found}")]
    Value {
        /// The file, or "the text".
        origin: String,
        /// The scheduler class.
        class: String,
        /// The field.
        field: String,
        /// What is honoured.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Fields that no class has: a typo, or a newer version of diffusers.
    #[error("{origin}: {class} has no field {}; it has {}", .fields.join(", "), .known.join(", "))]
    UnknownFields {
        /// The file, or "the text".
        origin: String,
        /// The scheduler class.
        class: String,
        /// The fields that are not honoured.
        fields: Vec<String>,
        /// The fields that are.
        known: Vec<&'static str>,
    },
}

/// Why a scheduler cannot make the grid that was asked of it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AskError {
    /// No steps.
    #[error("a run needs at least 1 step")]
    NoSteps,
    /// More steps than the scheduler has.
    #[error("{steps} steps were asked of {class}, which has at most {most}{}", .why)]
    TooManySteps {
        /// The scheduler class.
        class: &'static str,
        /// Steps asked for.
        steps: usize,
        /// What it can.
        most: usize,
        /// Where the limit comes from.
        why: &'static str,
    },
    /// Fewer steps than the scheduler's warm-up takes.
    #[error("{steps} steps were asked of {class}, which needs at least {least}: {why}")]
    TooFewSteps {
        /// The scheduler class.
        class: &'static str,
        /// Steps asked for.
        steps: usize,
        /// What it needs.
        least: usize,
        /// Why.
        why: &'static str,
    },
    /// A training step outside of the table.
    #[error("step {index} of the run is training step {timestep}, and the table has {train} (from 0)")]
    OutOfTable {
        /// Which step of the run.
        index: usize,
        /// The training step.
        timestep: f64,
        /// Training steps in the table.
        train: usize,
    },
    /// The grid has no such levels.
    #[error("{class}: {source}")]
    Grid {
        /// The scheduler class.
        class: &'static str,
        /// What is wrong.
        source: crate::GridSpecError,
    },
    /// The resolution-dependent shift was not given.
    #[error("use_dynamic_shifting is on: ask with `mu` (for a number of tokens: Scheduler::mu)")]
    NoMu,
    /// Something this class cannot be asked.
    #[error("{class} cannot be asked for {what}")]
    Unsupported {
        /// The scheduler class.
        class: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// A list of levels with something wrong in it.
    #[error("{what}: entry {index} is {value}, expected {expected}")]
    Entry {
        /// Which list.
        what: &'static str,
        /// Which entry.
        index: usize,
        /// Its value.
        value: f64,
        /// What is needed there.
        expected: &'static str,
    },
}
