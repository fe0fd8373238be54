//! What was found, as a table and a page.

use crate::{BATCH, RATIOS};
use anyhow::Result;
use canvas_core::weights::write_atomically;
use serde::Serialize;
use std::path::Path;

/// A prediction, measured.
#[derive(Debug, Serialize)]
pub struct Found {
    /// What the network says.
    pub prediction: &'static str,
    /// How much errors count while it learns.
    pub weighting: &'static str,
    /// Of each run, errors by ratio.
    pub errors: Vec<Vec<f64>>,
}

/// Means over runs; the best of each ratio among predictions with the same weighting is bold.
pub fn table(found: &[Found], size: &[f64]) -> String {
    let ratios = RATIOS.map(|ratio| format!(" {ratio} |")).concat();
    let mut table = format!("| prediction | weighting |{ratios}\n|---|---|{}\n", "---|".repeat(RATIOS.len()));
    let line = |name: &str, weighting: &str, cells: Vec<String>| {
        format!("| {name} | {weighting} | {} |\n", cells.join(" | "))
    };
    table.push_str(&line("the score itself", "", size.iter().map(|size| format!("{size:.3}")).collect()));
    let mean = |found: &Found, place: usize| {
        found.errors.iter().map(|errors| errors[place]).sum::<f64>() / found.errors.len() as f64
    };
    for row in found {
        let cells = (0..RATIOS.len()).map(|place| {
            let same = found.iter().filter(|other| other.weighting == row.weighting);
            let least = same.map(|other| mean(other, place)).fold(f64::INFINITY, f64::min);
            let value = format!("{:.3}", mean(row, place));
            if mean(row, place) == least { format!("**{value}**") } else { value }
        });
        table.push_str(&line(row.prediction, row.weighting, cells.collect()));
    }
    table
}

/// Writes `predictions.md` and `predictions.json`.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, found: &[Found], size: &[f64], [steps, runs]: [u64; 2]) -> Result<()> {
    let page = format!(
        "# What a network should predict, against the exact score\n\n\
         `cargo run --release --bin predictions -- --steps {steps} --runs {runs}` writes this page: one network, the same points of \
         [autoguidance's tree](autoguidance.md), the same noise and the same levels on a flow's path, {steps} steps of {BATCH} \
         points; only what its output means differs, and how much an error counts. Root mean square of `sigma (score - exact score)`, \
         a coordinate, by `sigma / alpha`; the mean of {runs} runs, the least of a column with the same weighting is bold. *Its own*: squared \
         errors of what is predicted, as papers have it. *Noise*: the same for all, as if noise were predicted.\n\n{}",
        table(found, size)
    );
    write_atomically(&folder.join("predictions.md"), page.as_bytes())?;
    Ok(write_atomically(&folder.join("predictions.json"), &serde_json::to_vec_pretty(found)?)?)
}
