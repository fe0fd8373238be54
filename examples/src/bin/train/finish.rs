//! What is shown of a run: drawings beside the real images, and one page.

use crate::Config;
use crate::task::{Group, Trained};
use anyhow::{Context, Result};
use burn::prelude::*;
use canvas_data::Manifest;
use canvas_examples::autoencoder::reconstruct;
use canvas_examples::model::{Network, TextToImage};
use canvas_examples::report::{self, Report, Section};
use canvas_examples::run::Folder;
use canvas_examples::run_report;
use canvas_examples::sheet::{Pair, pairs, save_png};
use image::RgbImage;

/// Rows of a sheet.
const ROWS: usize = 8;
/// Drawings of each caption.
const DRAWINGS: u64 = 3;
/// Steps of a drawing.
const STEPS: usize = 20;

/// The sheets, and what they show.
const SHEETS: [(&str, &str); 2] = [
    (
        "samples.png",
        "Captions that were trained on: the real image, the same through the autoencoder, and drawings",
    ),
    (
        "held-out.png",
        "Captions of images that were held out: the real image, the same through the autoencoder, and drawings",
    ),
];

/// Draws captions that were trained on and captions that were held out.
///
/// # Errors
/// If an image cannot be read any more, or a file cannot be written.
pub fn draw<B: Network>(
    folder: &Folder,
    trained: &Trained,
    model: &TextToImage<B>,
    device: &Device,
) -> Result<()> {
    let held_out = trained.images.held_out();
    let chosen = [trained.images.some_trained(ROWS), held_out[..held_out.len().min(ROWS)].to_vec()];
    for ((name, _), indices) in SHEETS.iter().zip(chosen) {
        let groups = trained.groups(&indices)?;
        let drawn =
            groups.iter().map(|group| rows(trained, model, group, device)).collect::<Result<Vec<_>>>()?;
        let drawn: Vec<Vec<RgbImage>> = drawn.concat();
        let real = groups.iter().flat_map(|group| group.captions.iter().zip(&group.real));
        let rows: Vec<Pair> =
            real.zip(&drawn).map(|((label, real), drawn)| Pair { label, real, drawn }).collect();
        let title = format!("real; through the autoencoder; {DRAWINGS} drawings of {STEPS} steps");
        let zoom = (128 / trained.config.side).max(1);
        save_png(folder.0.join(name), &pairs(&title, &rows, zoom)?)?;
    }
    Ok(())
}

/// For each image of a group: itself through the autoencoder, and drawings of its caption.
fn rows<B: Network>(
    trained: &Trained,
    model: &TextToImage<B>,
    group: &Group,
    device: &Device,
) -> Result<Vec<Vec<RgbImage>>> {
    let real: Vec<&RgbImage> = group.real.iter().collect();
    let mut rows: Vec<Vec<RgbImage>> =
        reconstruct(trained.autoencoder, &real, device).into_iter().map(|picture| vec![picture]).collect();
    let count = rows.len();
    for turn in 0..DRAWINGS {
        let drawn = trained.draw(model, (group, count), turn * count as u64, STEPS)?;
        rows.iter_mut().zip(drawn).for_each(|(row, picture)| row.push(picture));
    }
    Ok(rows)
}

/// Writes `report.html` from what the files of a run say, also of one that still trains.
///
/// # Errors
/// Names the file that cannot be read or written.
pub fn write_report(folder: &Folder, config: &Config) -> Result<()> {
    let mut sections = vec![Section::Text(format!(
        "A latent diffusion model trained from scratch on {}: an autoencoder, then a {} with a text encoder ({} prediction).",
        config.data.path().display(),
        config.run.backbone,
        config.run.prediction
    ))];
    for (name, caption) in SHEETS {
        let path = folder.0.join(name);
        if path.exists() {
            let png = std::fs::read(&path).with_context(|| path.display().to_string())?;
            sections.push(Section::Picture { caption: caption.into(), png });
        }
    }
    if sections.len() == 1 {
        sections.push(Section::Text("The run has not ended: this is what its files say so far.".into()));
    }
    sections.extend(run_report::stage(&folder.denoiser(), "denoiser")?);
    sections.extend(run_report::stage(&folder.autoencoder(), "autoencoder")?);
    sections.push(Section::Heading("Data".into()));
    let path = folder.0.join("manifest.jsonl");
    if path.exists() {
        sections.push(data(&Manifest::read(&path)?));
    }
    sections.extend(run_report::processes(&folder.0)?);
    sections.push(Section::Heading("Configuration".into()));
    sections.push(Section::Code(serde_json::to_string_pretty(config)?));
    let report = Report {
        title: "canvas: a model of your images".into(),
        subtitle: format!("{}, seed {}", config.run.backbone, config.run.seed),
        sections,
    };
    report::write(folder.0.join("report.html"), &report)
}

/// What became of the images.
fn data(manifest: &Manifest) -> Section {
    let totals = manifest.totals();
    let mut rows = vec![vec!["images".into(), totals.images.to_string()]];
    for ([width, height], kept) in manifest.buckets().iter().zip(&totals.kept) {
        rows.push(vec![format!("kept, as {width}x{height}"), kept.to_string()]);
    }
    rows.extend(
        totals.dropped.iter().map(|(reason, count)| vec![format!("dropped: {reason}"), count.to_string()]),
    );
    let caption = "manifest.jsonl has a line for each image".into();
    Section::Table { caption, head: Vec::new(), rows }
}
