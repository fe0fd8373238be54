//! What was found, as a table, a page and pictures.

use crate::judge::Judge;
use crate::pictures::{Both, Pictures};
use anyhow::Result;
use canvas_core::weights::write_atomically;
use canvas_examples::measure::{psnr, retrieval};
use canvas_examples::sheet::{Cell, save_png, sheet};
use image::RgbImage;
use serde::Serialize;
use std::path::Path;

/// Drawings of the captions whose new pictures were not trained on.
pub struct Drawn {
    /// By the network as it was.
    pub before: Vec<RgbImage>,
    /// With the changes.
    pub after: Vec<RgbImage>,
}

/// Everything a run says.
pub struct Measured<'a> {
    tested: &'a [Both],
    drawn: Drawn,
    numbers: Numbers,
}

/// Shares of the tested captions, unless something else is said.
#[derive(Serialize)]
struct Numbers {
    trained: usize,
    tested: usize,
    /// Of real pictures that the judge has not seen: how many it takes for the new style, old ones and new ones.
    judged: [f64; 2],
    /// Mean fidelity of the autoencoder to real pictures, dB: old ones and new ones.
    psnr: [f64; 2],
    before: Style,
    after: Style,
}

#[derive(Serialize)]
struct Style {
    /// Taken for the new style.
    new: f64,
    /// Nearer to its caption's new picture than to the old one.
    nearer: f64,
    /// Its caption's picture is the nearest of the old ones.
    old_top1: f64,
    /// Its caption's picture is the nearest of the new ones.
    new_top1: f64,
}

impl<'a> Measured<'a> {
    /// From drawings, and from real old and new pictures of the tested captions that went through the autoencoder.
    pub fn new(judge: &Judge, pictures: &'a Pictures, rebuilt: &[Vec<RgbImage>; 2], drawn: Drawn) -> Self {
        let tested = &pictures.tested;
        let mean_psnr = |rebuilt: &[RgbImage], real: fn(&Both) -> &RgbImage| {
            let sum: f64 = rebuilt.iter().zip(tested).map(|(made, both)| psnr(made, real(both))).sum();
            sum / tested.len() as f64
        };
        // The tested captions come after those that were trained on.
        let first = pictures.trained.len();
        let [old, new]: [Vec<RgbImage>; 2] = [
            pictures.all().map(|both| both.old.clone()).collect(),
            pictures.all().map(|both| both.new.clone()).collect(),
        ];
        let style = |drawn: &[RgbImage]| {
            let answers: Vec<(usize, RgbImage)> =
                drawn.iter().cloned().enumerate().map(|(n, picture)| (first + n, picture)).collect();
            let near = answers.iter().filter(|(n, made)| psnr(made, &new[*n]) > psnr(made, &old[*n])).count();
            Style {
                new: judge.share(drawn),
                nearer: near as f64 / drawn.len() as f64,
                old_top1: retrieval(&answers, &old).top1,
                new_top1: retrieval(&answers, &new).top1,
            }
        };
        let numbers = Numbers {
            trained: first,
            tested: tested.len(),
            judged: [judge.share(&rebuilt[0]), judge.share(&rebuilt[1])],
            psnr: [mean_psnr(&rebuilt[0], |both| &both.old), mean_psnr(&rebuilt[1], |both| &both.new)],
            before: style(&drawn.before),
            after: style(&drawn.after),
        };
        Self { tested, drawn, numbers }
    }
}

/// Before and after.
pub fn table(measured: &Measured) -> String {
    let Numbers { judged, before, after, tested, .. } = &measured.numbers;
    let percent = |share: f64| format!("{:.0}%", 100.0 * share);
    let mut table = format!(
        "| {tested} captions whose new pictures were never shown | network | with the LoRA | real old pictures | real new ones |\n\
         |---|---|---|---|---|\n"
    );
    let mut row = |name: &str, cells: [String; 4]| {
        table.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    };
    let none = String::new;
    row("taken for the new style", [before.new, after.new, judged[0], judged[1]].map(percent));
    row(
        "nearer to the new picture than to the old",
        [percent(before.nearer), percent(after.nearer), none(), none()],
    );
    row(
        "the right one is nearest of the new pictures",
        [percent(before.new_top1), percent(after.new_top1), none(), none()],
    );
    row(
        "the right one is nearest of the old pictures",
        [percent(before.old_top1), percent(after.old_top1), none(), none()],
    );
    table
}

/// Writes `style.md`, `style.png` and `style.json`.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, measured: &Measured) -> Result<()> {
    let Numbers { trained, psnr, .. } = &measured.numbers;
    let page = format!(
        "# A style in a LoRA\n\n{trained} captions showed the style. The autoencoder, which has seen the old pictures only, \
         rebuilds these to {:.1} dB and the new ones to {:.1} dB.\n\n{}\n![before and after](style.png)\n",
        psnr[0],
        psnr[1],
        table(measured)
    );
    write_atomically(&folder.join("style.md"), page.as_bytes())?;
    write_atomically(&folder.join("style.json"), &serde_json::to_vec_pretty(&measured.numbers)?)?;
    save_png(folder.join("style.png"), &grid(measured)?)
}

/// Three captions a row: old picture, new picture, drawn before, drawn after.
fn grid(measured: &Measured) -> Result<RgbImage> {
    const SHOWN: usize = 24;
    let drawn = measured.drawn.before.iter().zip(&measured.drawn.after);
    let rows = measured.tested.iter().zip(drawn).take(SHOWN);
    let cells: Vec<Cell> = rows
        .flat_map(|(both, (before, after))| {
            [
                (&both.old, both.caption.as_str()),
                (&both.new, "never shown"),
                (before, "network"),
                (after, "with the LoRA"),
            ]
        })
        .map(|(picture, label)| Cell { picture, label })
        .collect();
    sheet("old picture, new picture, drawn without and with the LoRA", &cells, 12, 1)
}
