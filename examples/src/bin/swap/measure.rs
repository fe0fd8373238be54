//! What is measured of each network, and the table and the picture that are made of it.

use anyhow::Result;
use burn::module::Module as _;
use burn::prelude::*;
use canvas_core::weights::write_atomically;
use canvas_core::{Backbone as _, Denoiser as _, Noise as _, Seeded, TextEncoder as _, macs, mix, seed_for};
use canvas_examples::backbones::AnyBackbone;
use canvas_examples::config::RunConfig;
use canvas_examples::denoiser::{DenoiserTask, LatentSet, draw_options, measured_rows, tokenizer};
use canvas_examples::emoji_set::{Emoji, EmojiSet};
use canvas_examples::measure::retrieval;
use canvas_examples::model::{Painter, process};
use canvas_examples::run::{self, Trained};
use canvas_examples::sheet::{Cell, save_png, sheet};
use canvas_examples::train_loop;
use image::RgbImage;
use serde::Serialize;
use std::path::Path;

/// Steps of the drawings.
const STEPS: usize = 20;
/// Prompts in the picture.
const SHOWN: usize = 10;
/// Noise-to-signal ratios at which losses are measured: those of a straight path at 1/8 to 7/8.
const RATIOS: [f64; 7] = [1.0 / 7.0, 2.0 / 6.0, 3.0 / 5.0, 1.0, 5.0 / 3.0, 6.0 / 2.0, 7.0];

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The network.
    pub title: String,
    /// What it predicts.
    pub prediction: String,
    /// Images trained on.
    pub images: u64,
    /// Mean squared error of the clean estimate on held-out pictures, at the same noise-to-signal ratios for all.
    pub held_out: f64,
    /// The same on trained pictures.
    pub trained: f64,
    /// Nearest trained picture is the right one, in `[0, 1]`.
    pub top1: f64,
    /// Among the five nearest.
    pub top5: f64,
    /// Training steps, images a second; by turns with the others.
    pub images_per_second: f64,
    /// Of the network, without the text encoder, which is the same for all.
    pub parameters: usize,
    /// Multiply-accumulate operations of one forward of one picture.
    pub macs: u64,
}

/// Drawings of all networks, for the picture.
#[derive(Default)]
pub struct Runs {
    shown: Vec<(String, Vec<RgbImage>)>,
}

impl Runs {
    /// Measures a trained network, and keeps some of its drawings.
    ///
    /// # Errors
    /// If its process has no levels.
    pub fn measure(
        &mut self,
        title: &str,
        config: &RunConfig,
        set: &EmojiSet,
        trained: &Trained<AnyBackbone>,
    ) -> Result<Row> {
        let (process, _) = process(&config.prediction)?;
        let data = &trained.data;
        let [_, channels, height, width] = data.trained.dims();
        let painter = Painter {
            model: &trained.model,
            autoencoder: &trained.autoencoder,
            scale: &data.scale,
            process: &process,
            latent: [channels, height, width],
        };
        let rows = measured_rows(set);
        let numbers: Vec<u64> = rows.iter().map(|&row| row as u64).collect();
        let options = draw_options(config, STEPS);
        let drawn = painter.draw(&data.trained_tokens.select(&rows), &data.null, &numbers, &options)?;
        let items: Vec<&Emoji> = set.trained().collect();
        let gallery: Vec<RgbImage> = items.iter().map(|emoji| emoji.picture.clone()).collect();
        if self.shown.is_empty() {
            let real = rows.iter().take(SHOWN).map(|&row| items[row].picture.clone()).collect();
            self.shown.push(("real".to_owned(), real));
        }
        self.shown.push((title.to_owned(), drawn.iter().take(SHOWN).cloned().collect()));
        let answers: Vec<(usize, RgbImage)> = rows.iter().copied().zip(drawn).collect();
        let found = retrieval(&answers, &gallery);

        let some: Vec<usize> = (0..data.trained.dims()[0].min(32)).collect();
        let first = data.trained.clone().narrow(0, 0, some.len());
        let error = |x0: &Tensor<4>, tokens| clean_error(trained, &process, config, x0, tokens);
        let cond = trained.model.text.encode(&data.trained_tokens.select(&[0]));
        let (x, time) = (data.trained.clone().narrow(0, 0, 1), Tensor::full([1], 0.5, &first.device()));
        let (_, macs) = macs::count(|| trained.model.backbone.forward(x, time, &cond));
        Ok(Row {
            title: title.to_owned(),
            prediction: config.prediction.clone(),
            images: config.second.images,
            held_out: error(&data.held_out, &data.held_out_tokens),
            trained: error(&first, &data.trained_tokens.select(&some)),
            top1: found.top1,
            top5: found.top5,
            images_per_second: f64::NAN, // measured when all are trained
            parameters: trained.model.backbone.num_params(),
            macs,
        })
    }
}

/// Mean squared error of the clean estimate at [`RATIOS`], with fixed noise: what predictions of noise and of velocity
/// can be compared by.
fn clean_error(
    trained: &Trained<AnyBackbone>,
    process: &canvas_core::Process,
    config: &RunConfig,
    x0: &Tensor<4>,
    tokens: &canvas_core::Tokens,
) -> f64 {
    let cond = trained.model.text.encode(tokens);
    let numbers: Vec<u64> = (0..x0.dims()[0] as u64).collect();
    let eps = Seeded::new(seed_for(config.seed, "evaluation"), numbers).normal_like(x0);
    let at = |ratio: &f64| {
        let level = [process.schedule.level_at_ratio(*ratio)];
        let noised = mix(x0.clone(), eps.clone(), &level);
        let found = process.denoiser(&trained.model.backbone).denoise(noised, &level, &cond).x0;
        (found - x0.clone()).square().mean().into_scalar::<f64>()
    };
    RATIOS.iter().map(at).sum::<f64>() / RATIOS.len() as f64
}

/// Images a second of all networks' training steps: three rounds by turns, the median of each.
///
/// # Errors
/// If a loss is not finite.
pub fn speeds(out: &Path, entries: &[(&str, RunConfig)], rows: &mut [Row], device: &Device) -> Result<()> {
    eprintln!("measuring speeds");
    let autodiff = device.clone().autodiff();
    let mut found = vec![Vec::new(); rows.len()];
    for _ in 0..3 {
        for ((backbone, config), found) in entries.iter().zip(&mut found) {
            let set = EmojiSet::build(config.which()?, config.side)?;
            let tokenizer = tokenizer(&set)?;
            // Untrained weights take as long.
            let autoencoder = run::new_autoencoder(config, device);
            let data = LatentSet::new(&set, &autoencoder, &tokenizer, device)?;
            let task = DenoiserTask::new(config, &set, &data, &autoencoder, out, &autodiff)?;
            let make = |sizes, device: &_| AnyBackbone::new(backbone, sizes, device);
            let model = run::new_model(config, &tokenizer, make, &autodiff)?;
            found.push(train_loop::speed(model, &task, &config.second)?);
        }
    }
    for (row, mut found) in rows.iter_mut().zip(found) {
        found.sort_by(f64::total_cmp);
        row.images_per_second = found[found.len() / 2];
    }
    Ok(())
}

/// Prints the table and writes it beside the picture.
///
/// # Errors
/// If a file cannot be written.
pub fn report(out: &Path, rows: &[Row], runs: &Runs) -> Result<()> {
    let mut table = String::from(
        "| network | predicts | held-out loss | trained loss | retrieval top-1 / top-5 | images/s | parameters | GMACs |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        table += &format!(
            "| {} | {} | {:.4} | {:.4} | {:.1}% / {:.1}% | {:.0} | {:.2} M | {:.4} |\n",
            row.title,
            row.prediction,
            row.held_out,
            row.trained,
            100.0 * row.top1,
            100.0 * row.top5,
            row.images_per_second,
            row.parameters as f64 / 1e6,
            row.macs as f64 / 1e9
        );
    }
    let images = rows.first().map_or(0, |row| row.images);
    println!("Each trained on {images} images.\n\n{table}");
    write_atomically(&out.join("swap.md"), table.as_bytes())?;
    write_atomically(&out.join("swap.json"), &serde_json::to_vec_pretty(rows)?)?;
    let cells: Vec<Cell> = runs
        .shown
        .iter()
        .flat_map(|(label, pictures)| pictures.iter().map(move |picture| Cell { picture, label }))
        .collect();
    let title = format!("the same prompts and noise after {images} images");
    let picture = sheet(&title, &cells, SHOWN.min(cells.len()), 1)?;
    save_png(out.join("swap.png"), &picture)?;
    println!("{}", out.join("swap.png").display());
    Ok(())
}
