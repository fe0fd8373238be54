//! What was found, as a table, a page and a picture.

use anyhow::Result;
use canvas_core::weights::write_atomically;
use canvas_examples::plot::{Curve, Mark, Panel, panels};
use canvas_examples::points::{Pairs, Point};
use serde::Serialize;
use std::path::Path;

/// A run, measured.
#[derive(Debug, Serialize)]
pub struct Found {
    /// How points were paired.
    pub pairs: Pairs,
    /// Of everything.
    pub seed: u64,
    /// Squared 2-Wasserstein distance of what is drawn in one step.
    pub euler: f64,
    /// Of what is drawn along the flow.
    pub adaptive: f64,
    /// How often the network was asked for that.
    pub calls: usize,
    /// Of other points of the moons.
    pub least: f64,
    /// Where drawing began.
    #[serde(skip)]
    pub noise: Vec<Point>,
    /// Where it ended: in one step, and along the flow.
    #[serde(skip)]
    pub drawn: [Vec<Point>; 2],
}

/// Published means and deviations of ten runs: one step, and along the flow.
fn published(pairs: Pairs) -> [&'static str; 2] {
    match pairs {
        Pairs::Random => ["6.232 ± 0.186", "0.120 ± 0.045"],
        Pairs::Shortest => ["0.072 ± 0.025", "0.050 ± 0.040"],
    }
}

/// Means and standard deviations over seeds, beside the published ones.
pub fn table(found: &[Found]) -> String {
    let mut table = String::from(
        "| pairs | runs | one step | published | along the flow | published | calls | moons themselves |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for pairs in [Pairs::Random, Pairs::Shortest] {
        let runs: Vec<&Found> = found.iter().filter(|run| run.pairs == pairs).collect();
        if runs.is_empty() {
            continue;
        }
        let said = |value: fn(&Found) -> f64| {
            let values: Vec<f64> = runs.iter().map(|run| value(run)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
            format!("{mean:.3} ± {:.3}", variance.sqrt())
        };
        let [one, along] = published(pairs);
        table.push_str(&format!(
            "| {pairs} | {} | {} | {one} | {} | {along} | {} | {} |\n",
            runs.len(),
            said(|run| run.euler),
            said(|run| run.adaptive),
            said(|run| run.calls as f64),
            said(|run| run.least),
        ));
    }
    table
}

/// Writes `moons.md`, `moons.png` and `moons.json`.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, found: &[Found], [runs, steps, points, group]: [u64; 4]) -> Result<()> {
    let paired = 256 * group;
    let page = format!(
        "# From eight Gaussians to two moons\n\n\
         `cargo run --release --bin moons -- --runs {runs} --steps {steps} --points {points} --group {group}` writes this page: squared \
         2-Wasserstein distances between {points} points that are drawn and as many of the moons, means and standard deviations over \
         seeds, after {steps} steps of 256 pairs. Optimal transport pairs {paired} points at a time. *Published*: ten runs, 10,000 points, \
         1,024 paired at a time; Cheng and Schwing, \"The Curse of Conditions\", 2025, figure 1. With fewer points chance adds more to \
         each number: some of the noise's eight parts get more than their share. *Calls*: how often Dormand-Prince asks the network, at \
         tolerances of 1e-4. *Moons themselves*: the distance between two clouds of the moons, below which nothing means anything.\n\n{}\n![what is drawn](moons.png)\n",
        table(found)
    );
    write_atomically(&folder.join("moons.md"), page.as_bytes())?;
    write_atomically(&folder.join("moons.json"), &serde_json::to_vec_pretty(found)?)?;
    let firsts = found.iter().filter(|run| run.seed == 0);
    let all: Vec<Panel> = firsts.flat_map(|run| [0, 1].map(|kind| panel(run, kind))).collect();
    panels(folder.join("moons.png"), &all)
}

/// Where points began and ended, and the ways of some.
fn panel(run: &Found, kind: usize) -> Panel {
    const WAYS: usize = 200;
    const DOTS: usize = 2000;
    let pair = |[x, y]: Point| (x, y);
    let dots = |name: &str, points: &[Point]| {
        Curve::new(name, points.iter().take(DOTS).copied().map(pair).collect()).shown_as(Mark::Dots)
    };
    let way =
        |(from, to): (&Point, &Point)| Curve::new("", vec![pair(*from), pair(*to)]).shown_as(Mark::Faint);
    let mut curves: Vec<Curve> = run.noise.iter().zip(&run.drawn[kind]).take(WAYS).map(way).collect();
    curves.push(dots("noise", &run.noise));
    curves.push(dots("drawn", &run.drawn[kind]));
    let how = ["in one step", "along the flow, ends joined"][kind];
    Panel { title: format!("{}: {how}", run.pairs), curves, ..Panel::default() }
}
