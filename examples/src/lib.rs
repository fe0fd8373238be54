//! What the example programs share: the emoji data set, progress, plots and reports.

pub mod emoji_set;
pub mod measure;
pub mod plot;
pub mod progress;
pub mod report;
pub mod sheet;
