//! What was found, as a table, a page and pictures.

use crate::judge::Judge;
use crate::scenes::{Scene, Stock};
use anyhow::Result;
use canvas_core::weights::write_atomically;
use canvas_examples::sheet::{Cell, save_png, sheet};
use image::{Rgb, RgbImage};
use serde::Serialize;
use std::path::Path;

/// Pictures of the tested scenes.
pub struct Drawn {
    /// Drawn from the caption alone.
    pub free: Vec<RgbImage>,
    /// Painted around the thing.
    pub around: Vec<RgbImage>,
    /// The scenes themselves, through the autoencoder.
    pub rebuilt: Vec<RgbImage>,
}

/// Everything a run says.
pub struct Measured<'a> {
    scenes: &'a [Scene],
    drawn: Drawn,
    numbers: Numbers,
}

#[derive(Serialize)]
struct Numbers {
    scenes: usize,
    things: usize,
    free: Found,
    around: Found,
    rebuilt: Found,
}

#[derive(Serialize)]
struct Found {
    /// Share of the pictures whose place is the one that was asked for, by what is seen of it around the thing.
    place: f64,
    /// Mean signal-to-noise ratio within the thing, dB.
    thing: f64,
}

impl<'a> Measured<'a> {
    /// From pictures of the scenes.
    pub fn new(judge: &Judge, scenes: &'a [Scene], drawn: Drawn) -> Self {
        let found = |pictures: &[RgbImage]| {
            let pairs = || scenes.iter().zip(pictures);
            let right = pairs().filter(|(scene, made)| judge.place(made, &scene.mask) == scene.place).count();
            let thing: f64 = pairs().map(|(scene, made)| within(scene, made)).sum();
            Found { place: right as f64 / scenes.len() as f64, thing: thing / scenes.len() as f64 }
        };
        let numbers = Numbers {
            scenes: scenes.len(),
            things: scenes.iter().map(|scene| scene.thing + 1).max().unwrap_or(0),
            free: found(&drawn.free),
            around: found(&drawn.around),
            rebuilt: found(&drawn.rebuilt),
        };
        Self { scenes, drawn, numbers }
    }
}

/// Signal-to-noise ratio of a picture within the scene's thing, dB.
fn within(scene: &Scene, made: &RgbImage) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (x, y, pixel) in made.enumerate_pixels() {
        let share = 1.0 - f64::from(scene.mask.get_pixel(x, y).0[0]) / 255.0;
        let real = scene.picture.get_pixel(x, y);
        let apart = (0..3).map(|c| (f64::from(pixel.0[c]) - f64::from(real.0[c])).powi(2) / 65025.0);
        sum += share * apart.sum::<f64>() / 3.0;
        count += share;
    }
    -10.0 * (sum / f64::max(count, 1e-9)).log10()
}

/// Free, around, and the best there can be.
pub fn table(measured: &Measured) -> String {
    let Numbers { free, around, rebuilt, scenes, things } = &measured.numbers;
    let row = |name: &str, cell: &dyn Fn(&Found) -> String| {
        format!("| {name} | {} | {} | {} |\n", cell(free), cell(around), cell(rebuilt))
    };
    format!(
        "| {scenes} scenes of {things} things that were never shown | from the caption | around the thing | the scene, through the autoencoder |\n\
         |---|---|---|---|\n{}{}",
        row("the place is the one that was asked for", &|found| format!("{:.0}%", 100.0 * found.place)),
        row("the thing, dB", &|found| format!("{:.1}", found.thing)),
    )
}

/// Writes `background.md`, `background.png` and `background.json`.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, measured: &Measured, stock: &Stock) -> Result<()> {
    let places: Vec<&str> = stock.places.iter().map(|place| place.name.as_str()).collect();
    let page = format!(
        "# Backgrounds for cut-outs\n\nTrained on {} things at {} places: {}.\n\n{}\n![painted around things](background.png)\n",
        stock.things.len(),
        places.len(),
        places.join(", "),
        table(measured)
    );
    write_atomically(&folder.join("background.md"), page.as_bytes())?;
    write_atomically(&folder.join("background.json"), &serde_json::to_vec_pretty(&measured.numbers)?)?;
    save_png(folder.join("background.png"), &grid(measured)?)
}

/// A row for a thing: what is given, then for each place what was painted, with the thing itself laid on it.
fn grid(measured: &Measured) -> Result<RgbImage> {
    const SHOWN: usize = 8;
    let scenes = measured.scenes.iter().zip(&measured.drawn.around);
    let given: Vec<RgbImage> = measured.scenes.iter().map(|scene| laid(scene, None)).collect();
    let pasted: Vec<RgbImage> = scenes.map(|(scene, made)| laid(scene, Some(made))).collect();
    let shown = (0..measured.scenes.len()).filter(|row| {
        measured.scenes[*row].thing < 4 * SHOWN && measured.scenes[*row].thing.is_multiple_of(4)
    });
    let cells: Vec<Cell> = shown
        .flat_map(|row| {
            let scene = &measured.scenes[row];
            [
                Cell { picture: &given[row], label: "given" },
                Cell { picture: &measured.drawn.around[row], label: "painted" },
                Cell { picture: &pasted[row], label: &scene.caption },
            ]
        })
        .collect();
    sheet("what is given, what was painted, and the thing laid on it", &cells, 12, 1)
}

/// The scene's thing on a picture, or on grey.
fn laid(scene: &Scene, below: Option<&RgbImage>) -> RgbImage {
    RgbImage::from_fn(scene.picture.width(), scene.picture.height(), |x, y| {
        let share = f64::from(scene.mask.get_pixel(x, y).0[0]) / 255.0;
        let (real, below) =
            (scene.picture.get_pixel(x, y), below.map_or(Rgb([128; 3]), |made| *made.get_pixel(x, y)));
        let mixed = |c: usize| f64::from(real.0[c]) * (1.0 - share) + f64::from(below.0[c]) * share;
        Rgb([0, 1, 2].map(|c| mixed(c).round() as u8))
    })
}
