//! What a call costs, and how that grows.

use anyhow::Result;
use canvas_examples::plot::{Curve, Mark, Panel, panels};
use canvas_train::PeakAlloc;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

/// Of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// How long it takes.
    pub seconds: f64,
    /// Allocated at the highest moment, beside what there was before.
    pub mib: f64,
}

impl Cost {
    /// Of a call, by the median time of three and the highest memory after a first.
    pub fn of<T>(mut run: impl FnMut() -> T) -> Self {
        drop(run());
        let before = PeakAlloc.current_usage();
        PeakAlloc.reset_peak_usage();
        let mut seconds = [0.0; 3].map(|_: f64| {
            let begun = Instant::now();
            let answer = run();
            let seconds = begun.elapsed().as_secs_f64();
            drop(answer);
            seconds
        });
        seconds.sort_by(f64::total_cmp);
        Self { seconds: seconds[1], mib: mib(PeakAlloc.peak_usage().saturating_sub(before)) }
    }
}

/// Reads one of a cost's figures.
type Figure = fn(&Cost) -> f64;

/// Bytes in MiB.
pub fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// One way of doing something, over its size.
pub struct Series {
    /// What is done, and how.
    pub name: String,
    /// Sizes and what they cost.
    pub costs: Vec<(usize, Cost)>,
}

impl Series {
    /// Measures a size after the other.
    pub fn measure(name: &str, sizes: &[usize], mut of: impl FnMut(usize) -> Cost) -> Self {
        let costs = sizes.iter().map(|&size| {
            let cost = of(size);
            eprintln!("{name}, {size}: {:.4} s, {:.1} MiB", cost.seconds, cost.mib);
            (size, cost)
        });
        Self { name: name.to_owned(), costs: costs.collect() }
    }

    fn power(&self, cost: impl Fn(&Cost) -> f64) -> f64 {
        let [.., (less, before), (more, after)] = &self.costs[..] else { return f64::NAN };
        (cost(after) / cost(before)).ln() / (*more as f64 / *less as f64).ln()
    }
}

/// A table of several series over `size`, and a plot of them in `folder`.
///
/// # Errors
/// If the plot cannot be written.
pub fn section(folder: &Path, file: &str, size: &str, all: &[Series]) -> Result<String> {
    let mut sizes: Vec<usize> = all.iter().flat_map(|series| &series.costs).map(|(size, _)| *size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut page = String::new();
    let kinds: [(&str, Figure); 2] = [("seconds", |cost| cost.seconds), ("MiB", |cost| cost.mib)];
    let columns: String = sizes.iter().map(|size| format!(" {size} |")).collect();
    let rules = "---|".repeat(sizes.len() + 2);
    let mut plots = Vec::new();
    for (kind, value) in kinds {
        write!(page, "\n| {kind}, {size} |{columns} power |\n|{rules}\n")?;
        for series in all {
            write!(page, "| {} |", series.name)?;
            for size in &sizes {
                match series.costs.iter().find(|(found, _)| found == size) {
                    Some((_, cost)) => write!(page, " {} |", digits(value(cost)))?,
                    None => write!(page, " |")?,
                }
            }
            writeln!(page, " {:.2} |", series.power(value))?;
        }
        let curve = |series: &Series| {
            let points = series.costs.iter().map(|(size, cost)| (*size as f64, value(cost)));
            Curve::new(&series.name, points.collect()).shown_as(Mark::Shapes)
        };
        plots.push(Panel {
            title: format!("{kind} over {size}"),
            x_label: size.to_owned(),
            y_label: kind.to_owned(),
            log_x: true,
            log_y: true,
            curves: all.iter().map(curve).collect(),
        });
    }
    panels(folder.join(file), &plots)?;
    write!(page, "\n![time and memory over {size}]({file})\n")?;
    Ok(page)
}

/// Three digits.
fn digits(value: f64) -> String {
    let places = (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0);
    format!("{value:.*}", places as usize)
}
