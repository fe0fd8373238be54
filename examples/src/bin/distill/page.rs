//! What was found, as a page and a picture.

use crate::toy::Drawn;
use anyhow::Result;
use canvas_core::weights::write_atomically;
use canvas_examples::plot::{Curve, Mark, Panel, panels};
use std::path::Path;

/// A method, and what its students drew.
pub struct Row {
    pub name: &'static str,
    pub drawn: Vec<Drawn>,
}

/// What else the page says.
pub struct Facts {
    pub command: String,
    pub points: usize,
    pub least: f64,
    /// How bent the teacher's ways are.
    pub bend: f64,
}

/// Distances by steps.
pub fn table(rows: &[Row]) -> String {
    let mut counts: Vec<usize> = rows.iter().flat_map(|row| &row.drawn).map(|drawn| drawn.steps).collect();
    counts.sort_unstable();
    counts.dedup();
    let heads: String = counts.iter().map(|steps| format!(" {steps} |")).collect();
    let mut table = format!("| steps |{heads}\n|---|{}\n", "---|".repeat(counts.len()));
    for row in rows {
        let cell = |steps: &usize| {
            let found = row.drawn.iter().find(|drawn| drawn.steps == *steps);
            found.map_or(" |".to_owned(), |drawn| format!(" {:.3} |", drawn.distance))
        };
        table.push_str(&format!("| {} |{}\n", row.name, counts.iter().map(cell).collect::<String>()));
    }
    table
}

/// Writes `distill.md` and `distill.png`.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, rows: &[Row], facts: &Facts) -> Result<()> {
    let Facts { command, points, least, bend } = facts;
    let page = format!(
        "`{command}` writes this: squared 2-Wasserstein distances between {points} points that are drawn and as many of the moons, by the \
         number of steps. Two clouds of the moons themselves are {least:.3} apart; the teacher's ways have a bend of {bend:.2}.\n\n{}\n\
         ![what is drawn](distill.png)\n",
        table(rows)
    );
    write_atomically(&folder.join("distill.md"), page.as_bytes())?;
    let all: Vec<Panel> = rows.iter().flat_map(shown).collect();
    panels(folder.join("distill.png"), &all)
}

/// The fewest steps, and the most up to four.
fn shown(row: &Row) -> [Panel; 2] {
    let few: Vec<&Drawn> = row.drawn.iter().filter(|drawn| drawn.steps <= 4).collect();
    let least = few.iter().min_by_key(|drawn| drawn.steps).expect("a method draws in up to four steps");
    let most = few.iter().max_by_key(|drawn| drawn.steps).expect("a method draws in up to four steps");
    [least, most].map(|drawn| {
        let points = drawn.points.iter().map(|&[x, y]| (x, y)).collect();
        let plural = if drawn.steps == 1 { "step" } else { "steps" };
        Panel {
            title: format!("{}: {} {plural}, {:.3}", row.name, drawn.steps, drawn.distance),
            curves: vec![Curve::new("", points).shown_as(Mark::Dots)],
            ..Panel::default()
        }
    })
}
