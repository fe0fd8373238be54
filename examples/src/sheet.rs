//! Contact sheets: many small pictures with their prompts in one picture.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

/// One picture of a [`sheet`] and the words below it.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The picture; those of one sheet may differ in size.
    pub picture: &'a RgbImage,
    /// What stands below it: two lines at most, the rest is cut off with an ellipsis.
    pub label: &'a str,
}

/// One row of [`pairs`]: a prompt, its real picture and what was drawn for it.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The prompt.
    pub label: &'a str,
    /// The picture that the prompt belongs to.
    pub real: &'a RgbImage,
    /// What a model drew for the prompt; rows may differ in number.
    pub drawn: &'a [RgbImage],
}

const MARGIN: u32 = 14;
const GAP: u32 = 12;
/// Narrower cells would leave no room for words.
const NARROWEST: u32 = 76;
/// The frame of a picture lies this far outside of it.
const FRAME: u32 = 1;
const FRAME_COLOUR: Rgb<u8> = Rgb([216, 220, 226]);
/// A side beyond this is a mistake in the zoom; it would ask for gigabytes.
const LARGEST: u64 = 16_384;

const TITLE: Type = Type { size: 22.0, bold: true, colour: [30, 34, 40] };
const HEADING: Type = Type { size: 17.0, bold: true, colour: [90, 96, 105] };
const LABEL: Type = Type { size: 15.0, bold: false, colour: [50, 55, 62] };

/// Lays out `cells` row by row in `columns`, each picture enlarged `zoom` times by repeating its pixels.
///
/// Pixels are repeated and not smoothed, so that the sheet shows what was drawn and no more.
///
/// # Errors
///
/// `columns` or `zoom` is zero, or the sheet would have a side beyond 16,384 pixels.
pub fn sheet(title: &str, cells: &[Cell], columns: usize, zoom: u32) -> Result<RgbImage> {
    ensure!(columns > 0, "a sheet needs at least one column, found columns = 0");
    let columns = columns.min(cells.len()).max(1);
    let (widest, high) = largest(cells.iter().map(|cell| cell.picture), zoom)?;
    let wide = widest.max(NARROWEST);
    let labels: Vec<_> = cells.iter().map(|cell| wrap(cell.label, wide, 2, &LABEL)).collect::<Result<_>>()?;
    let lines = labels.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let words = if lines > 0 { 4 + lines * LABEL.line() } else { 0 };
    let (step_x, step_y) = (u64::from(wide + GAP), u64::from(high) + u64::from(words + GAP));
    let rows = cells.len().div_ceil(columns) as u64;
    let (mut page, top) = page(title, columns as u64 * step_x, rows * step_y)?;
    for (place, (cell, label)) in cells.iter().zip(&labels).enumerate() {
        // The size was checked by `page`, so that every place fits.
        let x = MARGIN + (place % columns) as u32 * step_x as u32;
        let y = top + (place / columns) as u32 * step_y as u32;
        put(&mut page, cell.picture, zoom, (x, y), (wide, high));
        for (line, text) in label.iter().enumerate() {
            let left = x + (wide.saturating_sub(LABEL.width(text)?)) / 2;
            LABEL.draw(&mut page, text, left, y + high + 4 + line as u32 * LABEL.line())?;
        }
    }
    Ok(page)
}

/// Lays out one row per prompt: the prompt, the real picture, and beside it what was drawn for it.
///
/// # Errors
///
/// `zoom` is zero, or the sheet would have a side beyond 16,384 pixels.
pub fn pairs(title: &str, rows: &[Pair], zoom: u32) -> Result<RgbImage> {
    let pictures = rows.iter().flat_map(|row| row.drawn.iter().chain([row.real]));
    let (widest, tallest) = largest(pictures, zoom)?;
    let (wide, high) = (widest.max(NARROWEST), tallest.max(2 * LABEL.line()));
    let labels: Vec<_> = rows.iter().map(|row| wrap(row.label, 150, 2, &LABEL)).collect::<Result<_>>()?;
    let mut words = 0;
    for text in labels.iter().flatten() {
        words = words.max(LABEL.width(text)?);
    }
    let drawn = rows.iter().map(|row| row.drawn.len()).max().unwrap_or(0);
    let (step_x, step_y) = (u64::from(wide + GAP), u64::from(high) + u64::from(GAP));
    let content = (drawn as u64 + 1) * step_x + u64::from(words + 2 * GAP);
    let head = HEADING.line() + 4;
    let (mut page, top) = page(title, content, u64::from(head) + rows.len() as u64 * step_y)?;
    let real_x = MARGIN + words + if words > 0 { GAP } else { 0 };
    // A wider gap sets the real pictures apart from the drawn ones.
    let drawn_x = real_x + wide + 2 * GAP;
    for (text, x, shown) in [("real", real_x, !rows.is_empty()), ("drawn", drawn_x, drawn > 0)] {
        if shown {
            HEADING.draw(&mut page, text, x, top)?;
        }
    }
    for (place, (row, label)) in rows.iter().zip(&labels).enumerate() {
        let y = top + head + place as u32 * step_y as u32;
        let first = y + (high - label.len() as u32 * LABEL.line()) / 2;
        for (line, text) in label.iter().enumerate() {
            LABEL.draw(&mut page, text, MARGIN, first + line as u32 * LABEL.line())?;
        }
        put(&mut page, row.real, zoom, (real_x, y), (wide, high));
        for (n, picture) in row.drawn.iter().enumerate() {
            put(&mut page, picture, zoom, (drawn_x + n as u32 * step_x as u32, y), (wide, high));
        }
    }
    Ok(page)
}

/// The bytes of `picture` as a PNG file.
///
/// # Errors
///
/// The picture has no pixels.
pub fn png_bytes(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let (w, h) = picture.dimensions();
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .with_context(|| format!("could not encode a picture of {w}x{h} pixels as PNG"))?;
    Ok(bytes.into_inner())
}

/// Saves `picture` as a PNG file, whole or not at all.
///
/// # Errors
///
/// The picture has no pixels or the file cannot be written; the error names the file.
pub fn save_png(path: impl AsRef<Path>, picture: &RgbImage) -> Result<()> {
    let path = path.as_ref();
    let bytes = png_bytes(picture).with_context(|| format!("could not write {}", path.display()))?;
    Ok(canvas_core::weights::write_atomically(path, &bytes)?)
}

/// The width and height that hold every picture once enlarged.
fn largest<'a>(pictures: impl Iterator<Item = &'a RgbImage>, zoom: u32) -> Result<(u32, u32)> {
    ensure!(zoom > 0, "pictures can be enlarged 1, 2, 3... times, found zoom = 0");
    let (w, h) = pictures.fold((0, 0), |(w, h), picture| (w.max(picture.width()), h.max(picture.height())));
    let side = u64::from(w.max(h)) * u64::from(zoom);
    ensure!(
        side <= LARGEST,
        "pictures of {w}x{h} pixels enlarged {zoom} times have a side beyond {LARGEST} pixels"
    );
    Ok((w * zoom, h * zoom))
}

/// A white page with a title and room for the content, and the height at which the content starts.
fn page(title: &str, wide: u64, high: u64) -> Result<(RgbImage, u32)> {
    // Few narrow columns still leave the title some room.
    let across = wide.saturating_sub(u64::from(GAP)).max(220);
    let (w, h) = (across + u64::from(2 * MARGIN), high + u64::from(2 * MARGIN));
    if w > LARGEST || h > LARGEST - 4 * u64::from(TITLE.line()) {
        bail!("a sheet of {w}x{h} pixels has a side beyond {LARGEST}: fewer pictures or a smaller zoom fit");
    }
    let lines = wrap(title, across as u32, 3, &TITLE)?;
    let words = if lines.is_empty() { 0 } else { lines.len() as u32 * TITLE.line() + 8 };
    let mut page = RgbImage::from_pixel(w as u32, h as u32 + words, Rgb([255; 3]));
    for (n, line) in lines.iter().enumerate() {
        TITLE.draw(&mut page, line, MARGIN, MARGIN + n as u32 * TITLE.line())?;
    }
    Ok((page, MARGIN + words))
}

/// Puts an enlarged and framed picture into the middle of the place that starts at `(x, y)`.
fn put(page: &mut RgbImage, picture: &RgbImage, zoom: u32, (x, y): (u32, u32), (wide, high): (u32, u32)) {
    let (w, h) = (picture.width() * zoom, picture.height() * zoom);
    if w == 0 || h == 0 {
        return;
    }
    let (x, y) = (x + (wide - w) / 2, y + (high - h) / 2);
    let frame = RgbImage::from_pixel(w + 2 * FRAME, h + 2 * FRAME, FRAME_COLOUR);
    imageops::replace(page, &frame, i64::from(x - FRAME), i64::from(y - FRAME));
    let large = imageops::resize(picture, w, h, FilterType::Nearest);
    imageops::replace(page, &large, i64::from(x), i64::from(y));
}

/// Breaks `text` between words into lines no wider than `wide`; what does not fit into `lines` is cut off.
fn wrap(text: &str, wide: u32, lines: usize, face: &Type) -> Result<Vec<String>> {
    let mut done: Vec<String> = Vec::new();
    let mut words = text.split_whitespace().peekable();
    while words.peek().is_some() && done.len() < lines {
        let mut line = String::new();
        if done.len() + 1 == lines {
            // The last line takes all that is left and is cut to the width.
            line = words.by_ref().collect::<Vec<_>>().join(" ");
        }
        while let Some(word) = words.peek() {
            let longer = if line.is_empty() { (*word).to_owned() } else { format!("{line} {word}") };
            if !line.is_empty() && face.width(&longer)? > wide {
                break;
            }
            line = longer;
            words.next();
        }
        done.push(face.cut(&line, wide)?);
    }
    Ok(done)
}

/// A size, weight and colour of the one typeface: DejaVu Sans, which travels inside the program.
pub(crate) struct Type {
    pub(crate) size: f64,
    pub(crate) bold: bool,
    pub(crate) colour: [u8; 3],
}

/// Text is drawn this much larger and scaled down: else letters sit on whole pixels and look uneven.
const FINE: u32 = 4;

impl Type {
    /// The height of a line.
    pub(crate) const fn line(&self) -> u32 {
        (self.size * 1.1) as u32 + 1
    }

    /// The width of `text` in pixels.
    pub(crate) fn width(&self, text: &str) -> Result<u32> {
        let ((left, _), (right, _)) = self.font()?.layout_box(text).map_err(|e| anyhow!("no font: {e}"))?;
        Ok(right.abs_diff(left).div_ceil(FINE))
    }

    /// Draws `text` with the upper left corner of its line at `(x, y)`; what lies outside the page is lost.
    pub(crate) fn draw(&self, page: &mut RgbImage, text: &str, x: u32, y: u32) -> Result<()> {
        let (w, h) = (self.width(text)? + 4, self.line() + 4);
        let mut ink = vec![0.0_f32; (w * h) as usize];
        // plotters puts the base line half the size below the place it is told to draw at.
        let base = (FINE as f64 * self.size * 0.82) as i32 - (FINE as f64 * self.size / 2.0) as i32;
        let drawn = self.font()?.draw(text, (0, base), |px, py, share| {
            let (px, py) = (px.div_euclid(FINE as i32), py.div_euclid(FINE as i32));
            if (0..w as i32).contains(&px) && (0..h as i32).contains(&py) {
                ink[(py as u32 * w + px as u32) as usize] += share.clamp(0.0, 1.0) / (FINE * FINE) as f32;
            }
            Ok::<(), std::convert::Infallible>(())
        });
        drawn.map_err(|e| anyhow!("could not draw text: {e}"))??;
        for (place, share) in (0_u32..).zip(ink) {
            let Some(pixel) = page.get_pixel_mut_checked(x + place % w, y + place / w) else { continue };
            for (value, ink) in pixel.0.iter_mut().zip(self.colour) {
                let share = share.min(1.0);
                *value = (f32::from(*value) * (1.0 - share) + f32::from(ink) * share).round() as u8;
            }
        }
        Ok(())
    }

    /// `text` itself where it fits into `wide`, else its beginning and an ellipsis.
    pub(crate) fn cut(&self, text: &str, wide: u32) -> Result<String> {
        let mut kept = text.to_owned();
        let mut shown = kept.clone();
        while self.width(&shown)? > wide && kept.pop().is_some() {
            shown = format!("{}\u{2026}", kept.trim_end());
        }
        Ok(shown)
    }

    fn font(&self) -> Result<FontDesc<'static>> {
        register_fonts()?;
        let style = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        Ok(FontDesc::new(FontFamily::SansSerif, self.size * f64::from(FINE), style))
    }
}

/// Makes DejaVu Sans known to plotters as "sans-serif", once; no font of the system is looked at.
pub(crate) fn register_fonts() -> Result<()> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular()).is_ok()
            && register_font("sans-serif", FontStyle::Bold, dejavu::sans::bold()).is_ok()
    });
    ensure!(*known, "the built-in font DejaVu Sans could not be read");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn red(w: u32, h: u32) -> RgbImage {
        RgbImage::from_pixel(w, h, Rgb([220, 30, 40]))
    }

    /// How many pixels of the rows `from..to` are not white.
    fn ink(page: &RgbImage, from: u32, to: u32) -> usize {
        page.enumerate_pixels().filter(|(_, y, p)| (from..to).contains(y) && p.0 != [255; 3]).count()
    }

    #[test]
    fn size_follows_from_cells() {
        let picture = red(32, 32);
        let cells = [Cell { picture: &picture, label: "red square" }; 5];
        let page = sheet("Five", &cells, 3, 3).unwrap();
        assert_eq!(page.width(), 2 * MARGIN + 3 * 96 + 2 * GAP);
        let row = 96 + 4 + LABEL.line() + GAP;
        assert_eq!(page.height(), 2 * MARGIN + TITLE.line() + 8 + 2 * row);
        // The first picture begins below the title, unchanged but for its size.
        assert_eq!(page.get_pixel(MARGIN, MARGIN + TITLE.line() + 8).0, [220, 30, 40]);
    }

    #[test]
    fn labels_and_titles_leave_ink() {
        let picture = red(32, 32);
        let below = MARGIN + 96 + 2;
        let plain = sheet("", &[Cell { picture: &picture, label: "" }], 1, 3).unwrap();
        assert_eq!(ink(&plain, 0, MARGIN - 1) + ink(&plain, below, plain.height()), 0);
        let named = sheet("", &[Cell { picture: &picture, label: "red heart" }], 1, 3).unwrap();
        assert!(ink(&named, below, named.height()) > 100);
        let titled = sheet("A title", &[Cell { picture: &picture, label: "" }], 1, 3).unwrap();
        assert!(ink(&titled, 0, MARGIN + TITLE.line()) > 100);
    }

    #[test]
    fn long_labels_are_cut_to_two_lines() {
        let wide = 96;
        let lines = wrap("smiling cat face with heart-shaped eyes and more", wide, 2, &LABEL).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].ends_with('\u{2026}'), "{lines:?}");
        for line in wrap(&"x".repeat(500), wide, 2, &LABEL).unwrap() {
            assert!(LABEL.width(&line).unwrap() <= wide);
        }
        assert_eq!(wrap("red heart", wide, 2, &LABEL).unwrap(), ["red heart"]);
        assert!(wrap(" \n ", wide, 2, &LABEL).unwrap().is_empty());
        // No width at all: nothing to show, and no endless loop.
        assert!(wrap("a", 0, 2, &LABEL).is_ok());
    }

    #[test]
    fn odd_input_is_an_error_or_an_empty_sheet() {
        let picture = red(1_000, 2);
        let cells = [Cell { picture: &picture, label: "" }; 2];
        assert!(sheet("", &cells, 0, 1).unwrap_err().to_string().contains("column"));
        assert!(sheet("", &cells, 1, 0).unwrap_err().to_string().contains("zoom"));
        assert!(sheet("", &cells, 1, 5_000_000).unwrap_err().to_string().contains("1000x2"));
        assert!(sheet("", &cells, 2, 15).unwrap_err().to_string().contains("16384"));
        assert!(sheet("nothing", &[], 4, 3).unwrap().width() > 200);
        assert!(pairs("nothing", &[], 3).unwrap().width() > 200);
        let none = RgbImage::new(0, 0);
        assert!(sheet("", &[Cell { picture: &none, label: "no pixels" }], 1, 3).is_ok());
        assert!(png_bytes(&none).is_err());
    }

    #[test]
    fn pairs_show_the_real_one_first() {
        let (real, drawn) = (red(32, 32), [RgbImage::from_pixel(32, 32, Rgb([0, 0, 200])), red(16, 16)]);
        let row = Pair { label: "orange heart", real: &real, drawn: &drawn };
        let page = pairs("Held out", &[row, Pair { drawn: &drawn[..1], ..row }], 3).unwrap();
        let words = LABEL.width("orange heart").unwrap();
        assert_eq!(page.width(), 2 * MARGIN + words + GAP + 3 * 96 + 3 * GAP);
        let y = MARGIN + TITLE.line() + 8 + HEADING.line() + 4;
        assert_eq!(page.get_pixel(MARGIN + words + GAP, y).0, [220, 30, 40]);
        assert_eq!(page.get_pixel(MARGIN + words + GAP + 96 + 2 * GAP, y).0, [0, 0, 200]);
        assert!(ink(&page, y - HEADING.line() - 4, y - 2) > 50);
    }

    #[test]
    fn saved_whole_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.png");
        save_png(&path, &red(5, 7)).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8(), red(5, 7));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = format!("{:#}", save_png(folder.path().join("no/samples.png"), &red(1, 1)).unwrap_err());
        assert!(error.contains("no/samples.png"), "{error}");
    }
}
