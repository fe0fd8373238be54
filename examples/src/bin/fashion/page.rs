//! What was found, as tables, a page and pictures.

use crate::denoiser::Which;
use crate::measure::{Amount, Found};
use anyhow::Result;
use burn::prelude::*;
use canvas_core::picture;
use canvas_core::weights::write_atomically;
use canvas_examples::idx::{Fashion, NAMES};
use canvas_examples::sheet::{Pair, pairs, save_png};
use clap::ValueEnum;
use image::RgbImage;
use std::path::Path;

/// Drawings of each class on the sheet.
const SHOWN: usize = 10;

/// A run, for the page.
pub struct Run {
    /// Which network.
    pub backbone: Which,
    /// Its parameters.
    pub parameters: usize,
    /// Images it was trained on.
    pub images: u64,
    /// What was drawn.
    pub amount: Amount,
}

/// How a backbone is called by `--backbone`.
pub fn name(which: Which) -> String {
    which.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Accuracies and distances.
pub fn table(found: &Found) -> String {
    let mut table =
        String::from("| pictures | how many | seen as what they are | distance |\n|---|---|---|---|\n");
    for row in &found.rows {
        let right =
            if row.accuracy.is_nan() { String::new() } else { format!("{:.1} %", 100.0 * row.accuracy) };
        table.push_str(&format!("| {} | {} | {right} | {:.2} |\n", row.name, row.count, row.distance));
    }
    table
}

/// Which classes are seen as themselves.
fn classes(found: &Found) -> String {
    let mut table = format!("| pictures | {} |\n|---|{}\n", NAMES.join(" | "), "---|".repeat(NAMES.len()));
    for row in found.rows.iter().filter(|row| !row.of_classes.is_empty()) {
        let shares: String =
            row.of_classes.iter().map(|share| format!(" {:.0} % |", 100.0 * share)).collect();
        table.push_str(&format!("| {} |{shares}\n", row.name));
    }
    table
}

/// Writes `fashion.md`, a sheet for each guidance, and the numbers.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, run: &Run, found: &Found, data: &Fashion) -> Result<()> {
    let Run { backbone, parameters, images, amount } = run;
    let (name, Amount { drawn, steps, .. }) = (name(*backbone), amount);
    let page = format!(
        "## {name}\n\n\
         `cargo run --release --bin fashion -- --data FOLDER --backbone {name} --images {images} --drawn {drawn} --steps {steps}` writes \
         this: {parameters} parameters, {images} training pictures seen, repeats counted; {drawn} pictures drawn in {steps} steps of \
         DPM-Solver++(2M).\n\n{}\n{}\n",
        table(found),
        classes(found)
    );
    write_atomically(&folder.join("fashion.md"), page.as_bytes())?;
    write_atomically(&folder.join("found.json"), &serde_json::to_vec_pretty(&found.rows)?)?;
    for (scale, pictures) in &found.pictures {
        sheet(&folder.join(format!("{name}-guidance-{scale}.png")), pictures, data, *scale)?;
    }
    Ok(())
}

/// A row a class: a test picture of it, and the first drawings.
fn sheet(path: &Path, pictures: &Tensor<4>, data: &Fashion, scale: f64) -> Result<()> {
    let count = pictures.dims()[0].min(SHOWN * NAMES.len());
    let drawn = grey(pictures.clone().narrow(0, 0, count));
    let test = data.test.tensor(&pictures.device());
    let mut rows: Vec<(RgbImage, Vec<RgbImage>)> = Vec::new();
    for class in 0..NAMES.len() {
        let real = data.test.labels.iter().position(|&label| label == class);
        let real = real.map(|row| grey(test.clone().narrow(0, row, 1)).remove(0)).unwrap_or_default();
        rows.push((real, drawn.iter().skip(class).step_by(NAMES.len()).cloned().collect()));
    }
    let of = |(label, (real, drawn))| Pair { label, real, drawn };
    let rows: Vec<Pair> =
        NAMES.into_iter().zip(rows.iter().map(|(real, drawn)| (real, &drawn[..]))).map(of).collect();
    save_png(path, &pairs(&format!("guidance {scale}"), &rows, 2)?)
}

/// One channel to pictures of three.
fn grey(x: Tensor<4>) -> Vec<RgbImage> {
    let [batch, _, height, width] = x.dims();
    picture::from_tensor(x.expand([batch, 3, height, width]))
}
