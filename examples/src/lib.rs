//! What the example programs share: the emoji data set, progress, plots and reports.
