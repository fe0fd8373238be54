//! Plots as PNG files: losses over images, losses by noise level, errors over calls.
//!
//! Everything is drawn at twice its size and scaled down, which smooths lines and letters alike. Numbers that
//! cannot be shown (NaN, infinite, not positive on a logarithmic axis) are left out, and never an error: a
//! plot of a run that went wrong is worth more than none.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use image::imageops;
use image::{Rgb, RgbImage};
use plotters::prelude::*;

use crate::sheet::{Type, register_fonts, save_png};
use axis::{Axis, span};

mod axis;
mod shape;

/// How the points of a [`Curve`] are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// A line, with dots where the points are few.
    #[default]
    Line,
    /// A thin pale line in the colour of the next curve: the raw values behind a smoothed line.
    Faint,
    /// A bar per point; several such curves stand side by side.
    Bars,
    /// A line whose points, and whose place in the legend, have a shape that no curve nearby has.
    Shapes,
    /// Small dots, and no line.
    Dots,
}

/// Points to show together under one name.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// What the legend says; an empty name is not listed there.
    pub name: String,
    /// The points as (x, y), in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// How they are shown.
    pub mark: Mark,
}

impl Curve {
    /// A line through `points`.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, mark: Mark::Line }
    }

    /// The same points shown as `mark`.
    #[must_use]
    pub fn shown_as(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// The running mean of this curve under another name: a point weighs `1 - keep`, the mean so far `keep`.
    ///
    /// The mean is freed of its start (Kingma and Ba 2015, section 3), so that the first points are not
    /// pulled towards zero. Points that are not finite are left out.
    #[must_use]
    pub fn smoothed(&self, name: impl Into<String>, keep: f64) -> Self {
        let (mut sum, mut weight) = (0.0, 0.0);
        let finite = self.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let points = finite.map(|&(x, y)| {
            sum = keep * sum + (1.0 - keep) * y;
            weight = keep * weight + (1.0 - keep);
            (x, if weight > 0.0 { sum / weight } else { y })
        });
        Self::new(name, points.collect())
    }
}

/// One plot: its axes and its curves.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// The heading (left out when empty).
    pub title: String,
    /// What the horizontal axis shows, with its unit.
    pub x_label: String,
    /// What the vertical axis shows, with its unit.
    pub y_label: String,
    /// Whether the horizontal axis is logarithmic; values that are not positive are then left out.
    pub log_x: bool,
    /// Whether the vertical axis is logarithmic; values that are not positive are then left out.
    pub log_y: bool,
    /// What is shown; later curves lie over earlier ones.
    pub curves: Vec<Curve>,
}

/// Saves one plot of `size` pixels (width, height) as a PNG file; 1200 x 500 suits a page.
///
/// # Errors
///
/// A side of `size` is below 200 or beyond 4,096 pixels, or the file cannot be written; the latter error
/// names the file.
pub fn line_plot(path: impl AsRef<Path>, panel: &Panel, size: (u32, u32)) -> Result<()> {
    save_png(path, &render(panel, size)?)
}

/// Saves several plots in one PNG file 1,280 pixels wide: two in a row, of an odd number the first one alone.
///
/// # Errors
///
/// There are more than 40 plots or none, or the file cannot be written; that error names the file.
pub fn panels(path: impl AsRef<Path>, panels: &[Panel]) -> Result<()> {
    save_png(path, &page(panels)?)
}

/// The picture that [`panels`] saves.
///
/// # Errors
///
/// There are more than 40 plots or none.
pub fn page(panels: &[Panel]) -> Result<RgbImage> {
    const WIDE: u32 = 1280;
    const HIGH: u32 = 420;
    const MOST: usize = 40;
    ensure!(
        (1..=MOST).contains(&panels.len()),
        "1 to {MOST} plots fit into one picture, found {}",
        panels.len()
    );
    let alone = panels.len() % 2;
    let rows = panels.len().div_ceil(2) as u32;
    let mut page = RgbImage::from_pixel(WIDE, rows * HIGH, Rgb([255; 3]));
    for (n, panel) in panels.iter().enumerate() {
        let place = (n + alone) as u32;
        let (x, wide) = if n < alone { (0, WIDE) } else { (place % 2 * (WIDE / 2), WIDE / 2) };
        let place = if n < alone { 0 } else { place / 2 };
        imageops::replace(&mut page, &render(panel, (wide, HIGH))?, i64::from(x), i64::from(place * HIGH));
    }
    Ok(page)
}

/// How much larger a plot is drawn before it is scaled down.
const SCALE: u32 = 2;
const MARGIN: u32 = 12 * SCALE;
const INK: [u8; 3] = [50, 55, 62];
const TITLE: Type = Type { size: 21.0 * SCALE as f64, bold: true, colour: [30, 34, 40] };
const WORDS: Type = Type { size: 16.0 * SCALE as f64, bold: false, colour: INK };
/// Apart in hue and in lightness, and all dark enough on white.
const COLOURS: [[u8; 3]; 10] = [
    [31, 110, 180],
    [228, 112, 10],
    [40, 140, 70],
    [200, 40, 50],
    [125, 85, 180],
    [130, 80, 65],
    [215, 95, 165],
    [100, 100, 105],
    [145, 145, 20],
    [15, 155, 175],
];
/// A line of fewer points than this shows each of them.
const FEW: usize = 40;
/// Far more points than a plot has pixels across only cost time.
const COLUMNS: usize = 2_000;

type Points = Vec<(f64, f64)>;
type Chart<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<Axis, Axis>>;

fn render(panel: &Panel, (wide, high): (u32, u32)) -> Result<RgbImage> {
    let sides = 200..=4_096;
    if !sides.contains(&wide) || !sides.contains(&high) {
        return Err(anyhow!("a plot has sides of 200 to 4096 pixels, found {wide}x{high}"));
    }
    let mut page = RgbImage::from_pixel(wide * SCALE, high * SCALE, Rgb([255; 3]));
    let points: Vec<Points> = panel.curves.iter().map(|curve| shown(curve, panel)).collect();
    let top = heading(&mut page, panel, &points)?.min(high * SCALE / 2);
    let mut plot = RgbImage::from_pixel(wide * SCALE, high * SCALE - top, Rgb([255; 3]));
    draw(&mut plot, panel, &points)?;
    if points.iter().all(Vec::is_empty) {
        let (text, (w, h)) = ("no data", plot.dimensions());
        WORDS.draw(&mut plot, text, (w - WORDS.width(text)?) / 2, h / 2 - WORDS.line())?;
    }
    imageops::replace(&mut page, &plot, 0, i64::from(top));
    Ok(imageops::thumbnail(&page, wide, high))
}

/// Draws the title and, below it and so never over the data, the legend; returns the height they take.
fn heading(page: &mut RgbImage, panel: &Panel, points: &[Points]) -> Result<u32> {
    let (mut x, mut y) = (MARGIN, MARGIN / 2);
    let right = page.width() - MARGIN;
    if !panel.title.is_empty() {
        TITLE.draw(page, &TITLE.cut(&panel.title, right - MARGIN)?, MARGIN, y)?;
        y += TITLE.line() + 3 * SCALE;
    }
    let (swatch, gap) = (22 * SCALE, 7 * SCALE);
    let mut any = false;
    for (n, curve) in panel.curves.iter().enumerate().filter(|(_, curve)| !curve.name.is_empty()) {
        let name =
            if points[n].is_empty() { format!("{} (no data)", curve.name) } else { curve.name.clone() };
        let name = WORDS.cut(&name, right - MARGIN - swatch - gap)?;
        let wide = swatch + gap + WORDS.width(&name)?;
        if x > MARGIN && x + wide > right {
            (x, y) = (MARGIN, y + WORDS.line());
        }
        let patch = swatch_of(&panel.curves, n, swatch)?;
        let down = (WORDS.line() - patch.height().min(WORDS.line())) / 2;
        imageops::replace(page, &patch, i64::from(x), i64::from(y + down));
        WORDS.draw(page, &name, x + swatch + gap, y)?;
        x += wide + 3 * gap;
        any = true;
    }
    Ok(if any { y + WORDS.line() } else { y })
}

/// What stands before a curve's name in the legend.
fn swatch_of(curves: &[Curve], n: usize, wide: u32) -> Result<RgbImage> {
    let ink = Rgb(colour(curves, n));
    let thick = if curves[n].mark == Mark::Bars { 11 * SCALE } else { 3 * SCALE };
    if curves[n].mark != Mark::Shapes {
        return Ok(RgbImage::from_pixel(wide, thick, ink));
    }
    let size = (wide, 14 * SCALE);
    let mut patch = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
    imageops::replace(
        &mut patch,
        &RgbImage::from_pixel(wide, thick, ink),
        0,
        i64::from((size.1 - thick) / 2),
    );
    let area = BitMapBackend::with_buffer(&mut patch, size).into_drawing_area();
    shape::draw(&area, (wide as i32 / 2, size.1 as i32 / 2), n, ink.0).map_err(plain)?;
    drop(area);
    Ok(patch)
}

/// Draws the axes and the curves over the whole of `plot`.
fn draw(plot: &mut RgbImage, panel: &Panel, points: &[Points]) -> Result<()> {
    register_fonts()?;
    let (x, y) = axes(panel, points, plot.width() / (130 * SCALE));
    let (floor, mut side) = (y.range.start, 0);
    for (_, label) in &y.ticks {
        side = side.max(WORDS.width(label)?);
    }
    let words = ("sans-serif", WORDS.size).into_font().color(&RGBColor(INK[0], INK[1], INK[2]));
    let size = plot.dimensions();
    let area = BitMapBackend::with_buffer(plot, size).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(MARGIN)
        // Half of the last number reaches beyond its mark.
        .margin_right(2 * MARGIN)
        .x_label_area_size(WORDS.line() * 2 + 16 * SCALE)
        .y_label_area_size(side + WORDS.line() + 18 * SCALE)
        .build_cartesian_2d(x, y)
        .map_err(plain)?;
    chart
        .configure_mesh()
        .bold_line_style(RGBColor(226, 229, 233).stroke_width(SCALE))
        .axis_style(RGBColor(120, 126, 135).stroke_width(SCALE))
        .label_style(words.clone())
        .axis_desc_style(words)
        // plotters places letters a little high, and those below touch the axis.
        .y_label_offset(3 * SCALE as i32)
        .set_tick_mark_size(LabelAreaPosition::Bottom, 9 * SCALE as i32)
        .set_tick_mark_size(LabelAreaPosition::Left, 6 * SCALE as i32)
        .x_desc(&panel.x_label)
        .y_desc(&panel.y_label)
        .draw()
        .map_err(plain)?;
    draw_bars(&mut chart, panel, points, floor)?;
    for (n, (curve, points)) in panel.curves.iter().zip(points).enumerate() {
        if curve.mark != Mark::Bars {
            draw_line(&mut chart, points, curve.mark, colour(&panel.curves, n))?;
        }
    }
    for (n, points) in points.iter().enumerate().filter(|(n, _)| panel.curves[*n].mark == Mark::Shapes) {
        for point in points {
            let at = chart.backend_coord(point);
            shape::draw(&area, at, n, colour(&panel.curves, n)).map_err(plain)?;
        }
    }
    Ok(())
}

/// Draws a curve that is a line, and its points where they are few.
fn draw_line(chart: &mut Chart, points: &Points, mark: Mark, [r, g, b]: [u8; 3]) -> Result<()> {
    let colour = RGBColor(r, g, b);
    if mark == Mark::Dots {
        let dot = |&at: &(f64, f64)| Circle::new(at, SCALE as i32, colour.filled());
        chart.draw_series(points.iter().map(dot)).map_err(plain)?;
        return Ok(());
    }
    let full = mark != Mark::Faint;
    let wide = if full { 2 * SCALE } else { SCALE };
    let thin = thinned(points);
    // Each piece by itself: where a wide line turns sharply, plotters draws its corner far beyond the point.
    let piece = |ends: &[(f64, f64)]| PathElement::new(ends.to_vec(), colour.stroke_width(wide));
    chart.draw_series(thin.windows(2).map(piece)).map_err(plain)?;
    let few = points.len() == 1 || (full && points.len() <= FEW);
    let radius = if few { 3 * SCALE } else { SCALE };
    if mark != Mark::Shapes && (few || full) {
        let dot = |&at: &(f64, f64)| Circle::new(at, radius as i32, colour.filled());
        chart.draw_series(thin.iter().map(dot)).map_err(plain)?;
    }
    Ok(())
}

/// Draws the curves that are bars, side by side and all of one width.
fn draw_bars(chart: &mut Chart, panel: &Panel, points: &[Points], floor: f64) -> Result<()> {
    let bars: Vec<usize> = (0..points.len()).filter(|&n| panel.curves[n].mark == Mark::Bars).collect();
    let wide = 0.8 * bar_step(panel, points) / bars.len().max(1) as f64;
    for (place, &n) in bars.iter().enumerate() {
        let [r, g, b] = colour(&panel.curves, n);
        let left = wide * (place as f64 - bars.len() as f64 / 2.0);
        let base = if panel.log_y { floor } else { 0.0 };
        let bar = |&(x, y): &(f64, f64)| {
            Rectangle::new([(x + left, base), (x + left + wide, y)], RGBColor(r, g, b).filled())
        };
        chart.draw_series(points[n].iter().map(bar)).map_err(plain)?;
    }
    Ok(())
}

/// The smallest distance between two places that have bars.
fn bar_step(panel: &Panel, points: &[Points]) -> f64 {
    let bars = panel.curves.iter().zip(points).filter(|(curve, _)| curve.mark == Mark::Bars);
    let mut places: Vec<f64> = bars.flat_map(|(_, points)| points.iter().map(|point| point.0)).collect();
    places.sort_by(f64::total_cmp);
    let steps = places.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0.0);
    steps.min_by(f64::total_cmp).unwrap_or(1.0)
}

/// The two axes, the horizontal one with about `count` marks.
fn axes(panel: &Panel, points: &[Points], count: u32) -> (Axis, Axis) {
    let mut x = span(points.iter().flatten().map(|point| point.0), 0.1);
    let mut y = span(points.iter().flatten().map(|point| point.1), if panel.log_y { 0.0 } else { 0.1 });
    if !panel.curves.iter().any(|curve| curve.mark == Mark::Bars) {
        // Images are counted from zero, also where the first one plotted is the hundredth.
        if panel.log_x {
            x = x.start - 0.04 * (x.end - x.start)..x.end + 0.04 * (x.end - x.start);
        } else if x.start > 0.0 && x.start < 0.25 * x.end {
            x.start = 0.0;
        }
    } else {
        let half = bar_step(panel, points) / 2.0;
        x = x.start - half..x.end + half;
        if !panel.log_y {
            y = y.start.min(0.0)..y.end.max(0.0);
        }
    }
    // Some air above and below, but losses do not go below zero and so the axis does not either.
    let air = 0.06 * (y.end - y.start);
    let start = if !panel.log_y && y.start >= 0.0 { (y.start - air).max(0.0) } else { y.start - air };
    let y = start..y.end + air;
    let x = if panel.log_x { Axis::logarithmic(x) } else { Axis::linear(x, f64::from(count)) };
    (x, if panel.log_y { Axis::logarithmic(y) } else { Axis::linear(y, 6.0) })
}

/// The points of a curve that can be shown, as logarithms along the axes that are logarithmic.
fn shown(curve: &Curve, panel: &Panel) -> Points {
    // Beyond this the width of a range could overflow.
    let fits = |value: f64| value.abs() < 1e100;
    let scale = |value: f64, log: bool| if log { value.log10() } else { value };
    let points = curve.points.iter().map(|&(x, y)| (scale(x, panel.log_x), scale(y, panel.log_y)));
    points.filter(|&(x, y)| fits(x) && fits(y)).collect()
}

/// The lowest and highest point of each of many stretches: the outline stays, the number of points does not.
fn thinned(points: &[(f64, f64)]) -> Points {
    if points.len() <= 2 * COLUMNS {
        return points.to_vec();
    }
    let outline = |stretch: &[(f64, f64)]| {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (stretch.iter().min_by(by_height), stretch.iter().max_by(by_height));
        let mut ends: Points = low.into_iter().chain(high).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends
    };
    points.chunks(points.len().div_ceil(COLUMNS)).flat_map(outline).collect()
}

/// The colour of curve `n`: its own, or for a faint curve a pale one of the curve that follows.
fn colour(curves: &[Curve], n: usize) -> [u8; 3] {
    let before = curves[..n].iter().filter(|curve| curve.mark != Mark::Faint).count();
    let full = COLOURS[before % COLOURS.len()];
    if curves[n].mark == Mark::Faint { full.map(|value| 255 - (255 - value) / 3) } else { full }
}

/// The errors of plotters borrow from the picture; their words are what is needed.
fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("could not draw a plot: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dark(picture: &RgbImage) -> usize {
        picture.pixels().filter(|p| p.0.iter().any(|v| *v < 200)).count()
    }

    fn panel(log_y: bool, points: Vec<(f64, f64)>) -> Panel {
        let curves = vec![Curve::new("loss", points)];
        let (title, x_label, y_label) = ("Loss".into(), "images".into(), "loss".into());
        Panel { title, x_label, y_label, log_x: false, log_y, curves }
    }

    #[test]
    fn odd_data_is_drawn_all_the_same() {
        let data = [
            vec![],
            vec![(f64::NAN, 1.0), (1.0, f64::NAN), (f64::INFINITY, f64::NEG_INFINITY)],
            vec![(0.0, 0.0)],
            vec![(3.0, 0.25)],
            vec![(0.0, 2.0), (10.0, 2.0)],
            vec![(5.0, 1.0), (5.0, 2.0)],
            vec![(0.0, -1.0), (1.0, 0.0), (2.0, 1.0)],
            vec![(0.0, 1e-300), (1e300, 1e300), (1.0, f64::MAX), (2.0, f64::MIN_POSITIVE)],
            vec![(0.0, 1e99), (1.0, -1e99), (-1e99, 0.0)],
            vec![(1e15, 1.0), (1e15 + 1.0, 1.0 + 1e-15)],
            vec![(0.0, 1e-12), (1e-12, 2e-12)],
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.png");
        for points in data {
            for mark in [Mark::Line, Mark::Faint, Mark::Bars, Mark::Shapes, Mark::Dots] {
                for (log_x, log_y) in [(false, false), (false, true), (true, true)] {
                    let mut panel = Panel { log_x, ..panel(log_y, points.clone()) };
                    panel.curves[0].mark = mark;
                    line_plot(&path, &panel, (400, 300)).unwrap();
                    let picture = image::open(&path).unwrap().to_rgb8();
                    assert_eq!(picture.dimensions(), (400, 300));
                    assert!(dark(&picture) > 200, "{points:?} {mark:?} {log_y}");
                }
            }
        }
    }

    #[test]
    fn sizes_and_counts_out_of_bounds_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.png");
        assert!(line_plot(&path, &Panel::default(), (10, 300)).unwrap_err().to_string().contains("10x300"));
        assert!(panels(&path, &[]).is_err());
        assert!(!path.exists());
        let error = line_plot(folder.path().join("no/plot.png"), &Panel::default(), (300, 300)).unwrap_err();
        assert!(format!("{error:#}").contains("no/plot.png"));
        for (count, high) in [(1, 420), (2, 420), (3, 840)] {
            panels(&path, &vec![Panel::default(); count]).unwrap();
            assert_eq!(image::open(&path).unwrap().to_rgb8().dimensions(), (1280, high));
        }
    }

    #[test]
    fn marks_are_round_numbers() {
        let labels = |axis: Axis| axis.ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(labels(Axis::linear(0.0..1.0, 5.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(zero));
        assert_eq!(labels(Axis::linear(0.0..60_000.0, 3.0)), ["0", "20k", "40k", "60k"]);
        assert_eq!(labels(Axis::linear(-1.0..1.0, 2.0)), ["-1", "0", "1"]);
        assert_eq!(labels(Axis::logarithmic(-1.1..1.1)), ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(labels(Axis::logarithmic(-5.5..0.2)), ["1e-5", "0.0001", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(
            labels(Axis::logarithmic(-0.75..-0.4)),
            ["0.20", "0.25", "0.30", "0.35"].map(String::from)
        );
    }

    /// Zero is written without decimals.
    fn zero(label: &str) -> String {
        if label == "0.0" { "0".into() } else { label.into() }
    }

    #[test]
    fn many_points_keep_their_outline() {
        let mut points: Points = (0..100_000).map(|n| (f64::from(n), 0.0)).collect();
        points[54_321].1 = 9.0;
        let thin = thinned(&points);
        assert!(thin.len() <= 2 * COLUMNS);
        assert!(thin.contains(&(54_321.0, 9.0)));
        assert!(thin.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn the_running_mean_starts_at_the_first_point() {
        let raw = Curve::new("raw", vec![(0.0, 4.0), (1.0, f64::NAN), (2.0, 4.0), (3.0, 0.0)]);
        let smooth = raw.smoothed("smooth", 0.9);
        assert_eq!(smooth.points.len(), 3);
        assert!((smooth.points[0].1 - 4.0).abs() < 1e-9 && (smooth.points[1].1 - 4.0).abs() < 1e-9);
        assert!(smooth.points[2].1 < 4.0);
        assert_eq!(raw.smoothed("all", 1.0).points.len(), 3);
    }
}
