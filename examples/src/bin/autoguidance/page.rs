//! What was found, as tables, a page and a picture.

use crate::measure::{Drawn, Errors, SIGMAS};
use anyhow::Result;
use canvas_core::weights::write_atomically;
use canvas_examples::points::Point;
use canvas_examples::sheet::{Cell, save_png, sheet};
use canvas_examples::tree::{BRANCHES, Classes, Tree};
use image::{Rgb, RgbImage};
use rayon::prelude::*;
use std::path::Path;

/// Errors by noise.
pub fn errors(found: &[Errors]) -> String {
    let levels = SIGMAS.map(|sigma| format!(" sigma {sigma} |")).concat();
    let mut table = format!("| score of |{levels}\n|---|{}\n", "---|".repeat(SIGMAS.len()));
    for row in found {
        let errors: String = row.errors.iter().map(|error| format!(" {error:.3} |")).collect();
        table.push_str(&format!("| {} |{errors}\n", row.name));
    }
    table
}

/// What was drawn, measured.
pub fn points(drawn: &[Drawn]) -> String {
    let mut table = format!(
        "| drawn with | scale | log-likelihood | outside | branches of {BRANCHES} | variation |\n|---|---|---|---|---|---|\n"
    );
    for Drawn { name, scale, likelihood, outside, branches, variation, .. } in drawn {
        let scale = if scale.is_nan() { String::new() } else { scale.to_string() };
        let outside = 100.0 * outside;
        table.push_str(&format!(
            "| {name} | {scale} | {likelihood:.3} | {outside:.2} % | {branches} | {variation:.3} |\n"
        ));
    }
    table
}

/// Writes `autoguidance.md`, `autoguidance.png` and `autoguidance.json`.
///
/// # Errors
/// Names the file.
pub fn write(
    folder: &Path,
    found: &[Errors],
    drawn: &[Drawn],
    [steps, batch, count]: [u64; 3],
) -> Result<()> {
    let page = format!(
        "# Guiding a network with a bad version of itself\n\n\
         `cargo run --release --bin autoguidance -- --steps {steps} --batch {batch} --points {count}` writes this page: the toy of \
         Karras et al., 2024, figure 1, <https://arxiv.org/abs/2406.02507>. Its tree of Gaussians has a density and a score that are \
         known exactly at every noise, which the paper trains on and which here also measures.\n\n\
         ## How wrong the scores are\n\n\
         Root mean square of `sigma (score - exact score)`, a coordinate, over points with that noise. The guides are half as wide \
         (32) and were trained for an eighth of the steps.\n\n{}\n\
         ## What is drawn\n\n\
         {count} points, 32 steps of Heun's method, as published. *Log-likelihood*: the mean of the exact one, in nats. *Outside*: \
         points where the density is lower than at all but one in a hundred true points. *Branches*: those that have at least half \
         of the points they should. *Variation*: the total variation distance between the points' branches and the exact shares.\n\n{}\n\
         ![what is drawn](autoguidance.png)\n",
        errors(found),
        points(drawn)
    );
    write_atomically(&folder.join("autoguidance.md"), page.as_bytes())?;
    let numbers = serde_json::json!({ "errors": found, "drawn": drawn });
    write_atomically(&folder.join("autoguidance.json"), &serde_json::to_vec_pretty(&numbers)?)?;
    picture(&folder.join("autoguidance.png"), drawn)
}

/// As figure 1 of the paper: true points, and what is drawn without guidance, by CFG and by autoguidance at its strengths.
fn picture(path: &Path, drawn: &[Drawn]) -> Result<()> {
    let shown = [
        ("true points", f64::NAN, "true points"),
        ("no guidance", f64::NAN, "no guidance"),
        ("CFG", 4.0, "CFG, scale 4"),
        ("autoguidance", 3.0, "autoguidance, scale 3"),
    ];
    let ground = ground();
    let made = shown.map(|(name, scale, label)| {
        let mut panel = ground.clone();
        let wanted = |drawn: &&Drawn| drawn.name == name && (scale.is_nan() || drawn.scale == scale);
        drawn.iter().find(wanted).into_iter().for_each(|drawn| put(&mut panel, &drawn.points));
        (panel, label)
    });
    let cells = made.each_ref().map(|(picture, label)| Cell { picture, label });
    save_png(path, &sheet("", &cells, 2, 1)?)
}

/// Pixels of a panel's side, and what of the plane it shows; as published.
const SIDE: u32 = 400;
const CENTRE: Point = [0.30, 0.30];
const HALF: f64 = 1.2;
/// The published outline: where the log-density is so much below its greatest value.
const OUTLINE: f64 = 2.12 * 2.12;

/// The half of the tree that is drawn in one colour, the other in grey.
fn ground() -> RgbImage {
    let [half, whole] = [Classes::A, Classes::Both].map(|classes| {
        let tree = Tree::new(classes);
        let place = |pixel: u32| {
            let [x, y] = [pixel % SIDE, pixel / SIDE].map(|at| (f64::from(at) + 0.5) / f64::from(SIDE));
            [CENTRE[0] + HALF * (2.0 * x - 1.0), CENTRE[1] - HALF * (2.0 * y - 1.0)]
        };
        let logs: Vec<f64> =
            (0..SIDE * SIDE).into_par_iter().map(|pixel| tree.known(place(pixel), 0.0).log_density).collect();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        logs.into_iter().map(|log| log > most - OUTLINE).collect::<Vec<bool>>()
    });
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let pixel = (y * SIDE + x) as usize;
        Rgb(match (half[pixel], whole[pixel]) {
            (true, _) => [255, 204, 153],
            (false, true) => [225, 225, 225],
            _ => [255; 3],
        })
    })
}

/// Darkens the pixels around each point.
fn put(panel: &mut RgbImage, points: &[Point]) {
    const INK: f64 = 0.45;
    for point in points {
        let x = (point[0] - CENTRE[0]) / HALF * 0.5 + 0.5;
        let y = 0.5 - (point[1] - CENTRE[1]) / HALF * 0.5;
        let [x, y] = [x, y].map(|at| (at * f64::from(SIDE)).floor());
        for (dx, dy) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)] {
            let ink = if (dx, dy) == (0.0, 0.0) { INK } else { 0.4 * INK };
            let (x, y) = (x + dx, y + dy);
            let inside = |at: f64| (0.0..f64::from(SIDE)).contains(&at);
            if inside(x) && inside(y) {
                let pixel = panel.get_pixel_mut(x as u32, y as u32);
                pixel.0 = pixel.0.map(|value| (f64::from(value) * (1.0 - ink)) as u8);
            }
        }
    }
}
