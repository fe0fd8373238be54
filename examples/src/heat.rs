//! Heat maps: one row a layer, one column a moment, colour the size.

use crate::sheet::Type;
use anyhow::{Result, ensure};
use image::{Rgb, RgbImage};

const TITLE: Type = Type { size: 19.0, bold: true, colour: [30, 34, 40] };
const WORDS: Type = Type { size: 14.0, bold: false, colour: [50, 55, 62] };
const MARGIN: u32 = 12;
/// Pixels from one row to the next.
const ROW: u32 = 19;
/// Width of the colours' scale.
const SCALE: u32 = 220;
/// From dark blue to yellow, even in lightness: viridis.
const COLOURS: [[f64; 3]; 6] = [
    [68.0, 1.0, 84.0],
    [65.0, 68.0, 135.0],
    [42.0, 120.0, 142.0],
    [34.0, 168.0, 132.0],
    [122.0, 209.0, 81.0],
    [253.0, 231.0, 37.0],
];
/// What is not finite, or not above zero.
const NOTHING: Rgb<u8> = Rgb([226, 229, 233]);

/// Positive numbers by row and column, shown by their logarithm.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    /// The heading.
    pub title: String,
    /// What is below the columns: the first and the last of them.
    pub ends: [String; 2],
    /// Names of the rows, top to bottom.
    pub rows: Vec<String>,
    /// `values[row][column]`.
    pub values: Vec<Vec<f64>>,
}

/// Draws a map so many pixels wide.
///
/// # Errors
/// If it is narrower than 500 pixels or wider than 4,096, or rows have not as many values as each other.
pub fn draw(map: &HeatMap, wide: u32) -> Result<RgbImage> {
    ensure!((500..=4_096).contains(&wide), "a heat map is 500 to 4096 pixels wide, found {wide}");
    let columns = map.values.first().map_or(0, Vec::len);
    ensure!(map.values.len() == map.rows.len(), "{} names of {} rows", map.rows.len(), map.values.len());
    ensure!(map.values.iter().all(|row| row.len() == columns), "rows of different lengths");
    let mut side = 0;
    for name in &map.rows {
        side = side.max(WORDS.width(name)?);
    }
    let left = (MARGIN + side + 8).min(wide / 2);
    let top = MARGIN + TITLE.line() + 4;
    let high = top + ROW * map.rows.len() as u32 + WORDS.line() + 6 + MARGIN;
    let mut page = RgbImage::from_pixel(wide, high, Rgb([255; 3]));
    let range = range(&map.values);
    TITLE.draw(&mut page, &TITLE.cut(&map.title, wide - 3 * MARGIN - SCALE - 160)?, MARGIN, MARGIN / 2)?;
    scale(&mut page, range, wide - MARGIN)?;
    let across = wide - MARGIN - left;
    for (number, (name, values)) in map.rows.iter().zip(&map.values).enumerate() {
        let y = top + ROW * number as u32;
        WORDS.draw(&mut page, &WORDS.cut(name, left - MARGIN - 8)?, MARGIN, y + 2)?;
        for x in 0..across {
            let value = values[(x as usize * columns) / across as usize];
            for down in 0..ROW - 1 {
                page.put_pixel(left + x, y + down, colour(value, range));
            }
        }
    }
    let below = top + ROW * map.rows.len() as u32 + 2;
    WORDS.draw(&mut page, &map.ends[0], left, below)?;
    let end = WORDS.width(&map.ends[1])?;
    WORDS.draw(&mut page, &map.ends[1], wide.saturating_sub(MARGIN + end), below)?;
    Ok(page)
}

/// The colours beside the heading, with the numbers at their ends.
fn scale(page: &mut RgbImage, (low, high): (f64, f64), right: u32) -> Result<()> {
    let words = [low, high].map(|value| format!("{value:.0e}"));
    let end = right - WORDS.width(&words[1])?;
    let left = end - SCALE - 6;
    for x in 0..SCALE {
        let value = low * (high / low).powf(f64::from(x) / f64::from(SCALE - 1));
        for y in 0..12 {
            page.put_pixel(left + x, MARGIN / 2 + 5 + y, colour(value, (low, high)));
        }
    }
    WORDS.draw(page, &words[1], end, MARGIN / 2)?;
    WORDS.draw(page, &words[0], left - 6 - WORDS.width(&words[0])?, MARGIN / 2)
}

/// The smallest and the largest value that can be shown; at least a factor of 10 apart.
fn range(values: &[Vec<f64>]) -> (f64, f64) {
    let shown = values.iter().flatten().filter(|value| value.is_finite() && **value > 0.0);
    let (low, high) = shown.fold((f64::INFINITY, 0.0f64), |(low, high), &v| (low.min(v), high.max(v)));
    match low <= high {
        false => (0.1, 1.0),
        true if high < 10.0 * low => ((low * high).sqrt() / 10f64.sqrt(), (low * high).sqrt() * 10f64.sqrt()),
        true => (low, high),
    }
}

fn colour(value: f64, (low, high): (f64, f64)) -> Rgb<u8> {
    if !(value.is_finite() && value > 0.0) {
        return NOTHING;
    }
    let part = ((value / low).ln() / (high / low).ln()).clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let at = (part as usize).min(COLOURS.len() - 2);
    let between = part - at as f64;
    let mixed = [0, 1, 2].map(|c| COLOURS[at][c] * (1.0 - between) + COLOURS[at + 1][c] * between);
    Rgb(mixed.map(|value| value.round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_dark_the_largest_bright_and_what_is_no_number_grey() {
        let range = range(&[vec![1e-4, f64::NAN, 0.0], vec![f64::INFINITY, 1.0, 1e-2]]);
        assert_eq!(range, (1e-4, 1.0));
        assert_eq!(colour(1e-4, range).0, [68, 1, 84]);
        assert_eq!(colour(1.0, range).0, [253, 231, 37]);
        for none in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(colour(none, range), NOTHING);
        }
    }

    #[test]
    fn odd_maps_are_drawn_or_refused_in_words() {
        let map = |rows: usize, columns: usize| HeatMap {
            rows: (0..rows).map(|row| format!("a layer of a long name, number {row}")).collect(),
            values: vec![vec![0.5; columns]; rows],
            ..HeatMap::default()
        };
        for (rows, columns) in [(1, 1), (3, 2_000), (40, 3), (0, 0)] {
            assert_eq!(draw(&map(rows, columns), 800).unwrap().width(), 800, "{rows} x {columns}");
        }
        let mut ragged = map(2, 3);
        ragged.values[1].pop();
        assert!(draw(&ragged, 800).unwrap_err().to_string().contains("different lengths"));
        assert!(draw(&map(1, 1), 100).unwrap_err().to_string().contains("100"));
    }
}
