//! After training: sheets of drawings, measurements, plots and the report.

use crate::autoencoder::{AutoencoderRow, reconstruct};
use crate::config::RunConfig;
use crate::denoiser::{DenoiserRow, draw_options, measured_rows};
use crate::emoji_report::write_report;
use crate::emoji_set::{Emoji, EmojiSet};
use crate::measure::{Judge, Reference, Retrieval, retrieval};
use crate::model::{Network, Painter, process};
use crate::plot::{Curve, Mark, Panel, panels};
use crate::run::{Folder, Speed, Trained};
use crate::sheet::{Cell, Pair, pairs, save_png, sheet};
use crate::train_loop::{Row, rows};
use anyhow::{Context, Result};
use burn::prelude::*;
use canvas_train::Log;
use image::RgbImage;
use serde::{Deserialize, Serialize};

/// Steps of the drawings that are shown and measured.
const STEPS: usize = 20;
/// Drawings of each held-out prompt that composition is measured on.
const DRAWINGS: usize = 8;

/// What a run measured, also in `results.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Nearest trained picture to a drawing of a trained prompt.
    pub retrieval: Retrieval,
    /// The same for pictures that only went through the autoencoder: the most that drawings can reach.
    pub ceiling: Retrieval,
    /// Drawings of held-out prompts.
    pub composition: CompositionResults,
    /// Images per second of each stage.
    pub speed: Speed,
}

/// Shares of the drawings of held-out prompts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompositionResults {
    /// Drawings judged.
    pub drawings: usize,
    /// Dominant colour right.
    pub colour: f64,
    /// Shape right.
    pub shape: f64,
    /// Both right.
    pub both: f64,
    /// For each caption: (caption, colour right, shape right, drawings).
    pub each: Vec<(String, usize, usize, usize)>,
}

impl Results {
    /// Those of a run that has ended.
    ///
    /// # Errors
    /// Names the file.
    pub fn read(folder: &Folder) -> Result<Option<Self>> {
        let path = folder.0.join("results.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).map(Some).with_context(|| path.display().to_string())
    }
}

/// Draws, measures and reports.
///
/// # Errors
/// If a file cannot be read or written.
pub fn finish<B: Network>(
    folder: &Folder,
    config: &RunConfig,
    set: &EmojiSet,
    trained: &Trained<B>,
    device: &Device,
) -> Result<Results> {
    eprintln!("drawing and measuring");
    let (process, _) = process(&config.prediction)?;
    let [_, channels, height, width] = trained.data.trained.dims();
    let painter = Painter {
        model: &trained.model,
        autoencoder: &trained.autoencoder,
        scale: &trained.data.scale,
        process: &process,
        latent: [channels, height, width],
    };
    let (retrieval, ceiling) = measure_trained(folder, config, set, trained, &painter, device)?;
    let composition = measure_held_out(folder, config, set, trained, &painter)?;
    let results = Results { retrieval, ceiling, composition, speed: trained.speed };
    let text = serde_json::to_vec_pretty(&results)?;
    canvas_core::weights::write_atomically(&folder.0.join("results.json"), &text)?;
    plot(folder)?;
    write_report(folder, config, set, Some(&results))?;
    print(folder, &results);
    Ok(results)
}

fn zoom(config: &RunConfig) -> u32 {
    (128 / config.side).max(1)
}

/// Draws trained prompts, saves the sheet, and looks which trained picture each drawing is nearest to.
fn measure_trained<B: Network>(
    folder: &Folder,
    config: &RunConfig,
    set: &EmojiSet,
    trained: &Trained<B>,
    painter: &Painter<'_, B>,
    device: &Device,
) -> Result<(Retrieval, Retrieval)> {
    let items: Vec<&Emoji> = set.trained().collect();
    let gallery: Vec<RgbImage> = items.iter().map(|emoji| emoji.picture.clone()).collect();
    let rows = measured_rows(set);

    let numbers: Vec<u64> = rows.iter().map(|&row| row as u64).collect();
    let tokens = trained.data.trained_tokens.select(&rows);
    let drawn = painter.draw(&tokens, &trained.data.null, &numbers, &draw_options(config, STEPS))?;
    let cells: Vec<Cell> =
        drawn.iter().zip(&rows).map(|(picture, &row)| Cell { picture, label: &items[row].caption }).collect();
    save_png(
        folder.0.join("samples.png"),
        &sheet("drawn for prompts it was trained on", &cells, 8, zoom(config))?,
    )?;

    let real: Vec<&RgbImage> = rows.iter().map(|&row| &items[row].picture).collect();
    let rebuilt = reconstruct(&trained.autoencoder, &real, device);
    let paired = |pictures: Vec<RgbImage>| rows.iter().copied().zip(pictures).collect::<Vec<_>>();
    Ok((retrieval(&paired(drawn), &gallery), retrieval(&paired(rebuilt), &gallery)))
}

/// Draws held-out prompts, saves them beside the real pictures, and judges colour and shape.
fn measure_held_out<B: Network>(
    folder: &Folder,
    config: &RunConfig,
    set: &EmojiSet,
    trained: &Trained<B>,
    painter: &Painter<'_, B>,
) -> Result<CompositionResults> {
    let references: Vec<Reference> = set
        .items
        .iter()
        .filter_map(|emoji| {
            let (colour, shape) = emoji.combination()?;
            Some(Reference { colour, shape, picture: &emoji.picture })
        })
        .collect();
    let judge = Judge::new(&references)?;
    let items: Vec<&Emoji> = set.held_out().collect();
    let rows: Vec<usize> = (0..items.len()).flat_map(|row| [row; DRAWINGS]).collect();
    let numbers: Vec<u64> = (0..rows.len() as u64).map(|number| 1_000_000 + number).collect();
    let tokens = trained.data.held_out_tokens.select(&rows);
    let drawn = painter.draw(&tokens, &trained.data.null, &numbers, &draw_options(config, STEPS))?;

    let mut each = Vec::new();
    let mut both = 0;
    for (emoji, drawn) in items.iter().zip(drawn.chunks(DRAWINGS)) {
        let (colour, shape) = emoji.combination().context("held-out captions are a colour and a shape")?;
        let verdicts = drawn
            .iter()
            .map(|picture| judge.composition(picture, &emoji.picture, colour, shape))
            .collect::<Result<Vec<_>>>()?;
        let colours = verdicts.iter().filter(|verdict| verdict.colour_right).count();
        let shapes = verdicts.iter().filter(|verdict| verdict.shape_right).count();
        both += verdicts.iter().filter(|verdict| verdict.colour_right && verdict.shape_right).count();
        each.push((emoji.caption.clone(), colours, shapes, verdicts.len()));
    }
    let lines: Vec<Pair> = items
        .iter()
        .zip(drawn.chunks(DRAWINGS))
        .map(|(emoji, drawn)| Pair { label: &emoji.caption, real: &emoji.picture, drawn })
        .collect();
    let picture = pairs("drawn for combinations it never saw", &lines, zoom(config))?;
    save_png(folder.0.join("held-out.png"), &picture)?;

    let share = |count: usize| count as f64 / drawn.len().max(1) as f64;
    Ok(CompositionResults {
        drawings: drawn.len(),
        colour: share(each.iter().map(|row| row.1).sum()),
        shape: share(each.iter().map(|row| row.2).sum()),
        both: share(both),
        each,
    })
}

/// Loss curves of both stages into `loss.png`.
fn plot(folder: &Folder) -> Result<()> {
    let train = |rows: &[Row]| {
        Curve::new("train, each step", rows.iter().map(|r| (r.images as f64, r.loss)).collect())
    };
    let denoiser = train(&rows(&folder.denoiser())?);
    let evaluated: Vec<DenoiserRow> = Log::read(&folder.denoiser().join("evaluation.jsonl"))?;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    let curve = |name: &str, pick: fn(&DenoiserRow) -> &Vec<f64>| {
        Curve::new(name, evaluated.iter().map(|row| (row.images as f64, mean(pick(row)))).collect())
    };
    let losses = vec![
        denoiser.clone().shown_as(Mark::Faint),
        denoiser.smoothed("train, smoothed", 0.98),
        curve("trained pictures, fixed levels and noise", |row| &row.trained),
        curve("held-out pictures, fixed levels and noise", |row| &row.held_out),
    ];

    let share = |name: &str, place: usize| {
        let point = |row: &DenoiserRow| Some((row.images as f64, 100.0 * row.retrieval?[place]));
        Curve::new(name, evaluated.iter().filter_map(point).collect())
    };
    let retrieved = vec![share("top-1", 0), share("top-5", 1)];

    let last = evaluated.last();
    let by_level = |name: &str, pick: fn(&DenoiserRow) -> &Vec<f64>| {
        let points = last.map(|row| row.times.iter().copied().zip(pick(row).iter().copied()).collect());
        Curve::new(name, points.unwrap_or_default()).shown_as(Mark::Bars)
    };
    let levels = vec![
        by_level("trained pictures", |row| &row.trained),
        by_level("held-out pictures", |row| &row.held_out),
    ];

    let autoencoder = train(&rows(&folder.autoencoder())?);
    let quality: Vec<AutoencoderRow> = Log::read(&folder.autoencoder().join("evaluation.jsonl"))?;
    let autoencoder =
        vec![autoencoder.clone().shown_as(Mark::Faint), autoencoder.smoothed("train, smoothed", 0.98)];
    let quality = vec![
        Curve::new("trained pictures", quality.iter().map(|r| (r.images as f64, r.trained_psnr)).collect()),
        Curve::new("held-out pictures", quality.iter().map(|r| (r.images as f64, r.held_out_psnr)).collect()),
    ];
    let panel = |title: &str, x: &str, y: &str, log_y: bool, curves: Vec<Curve>| Panel {
        title: title.into(),
        x_label: x.into(),
        y_label: y.into(),
        log_x: false,
        log_y,
        curves,
    };
    panels(
        folder.0.join("loss.png"),
        &[
            panel("denoiser loss", "images", "mean squared error", true, losses),
            panel("retrieval by drawings of 10 steps", "images", "%", false, retrieved),
            panel(
                "denoiser loss by noise level, at the end",
                "time (0 data, 1 noise)",
                "loss",
                false,
                levels,
            ),
            panel("autoencoder loss", "images", "mean absolute error + pull", true, autoencoder),
            panel("autoencoder quality", "images", "PSNR, dB", false, quality),
        ],
    )
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

fn print(folder: &Folder, results: &Results) {
    let (found, ceiling, composed) = (&results.retrieval, &results.ceiling, &results.composition);
    println!(
        "retrieval: top-1 {}, top-5 {} (chance {}, {}; autoencoder's ceiling {}, {})",
        percent(found.top1),
        percent(found.top5),
        percent(found.chance_top1),
        percent(found.chance_top5),
        percent(ceiling.top1),
        percent(ceiling.top5)
    );
    println!(
        "composition: colour {}, shape {}, both {}",
        percent(composed.colour),
        percent(composed.shape),
        percent(composed.both)
    );
    println!("report: {}", folder.0.join("report.html").display());
}
