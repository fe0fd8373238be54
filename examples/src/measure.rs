//! Numbers for pictures on the host: retrieval, composition and PSNR.
//!
//! Every function is pure and reads [`RgbImage`]s whose values count as v / 255, in [0, 1].

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use image::RgbImage;
use serde::{Deserialize, Serialize};

/// The blur before pictures are compared: one pixel at 32 x 32, in proportion at other sides.
pub const BLUR_SIGMA_PER_SIDE: f64 = 1.0 / 32.0;

/// A pixel that is farther than this from white may belong to a shape.
///
/// Distance is that of the channel farthest from 255, over 255. Twemoji's white shapes are (230, 231, 232), a
/// distance of 0.098, and paper is 0: the limit lies half-way.
pub const PAPER: f64 = 0.05;

/// A shape is right only when its mask overlaps the real one at least this much.
///
/// Among Twemoji's heart, circle and square, two different shapes overlap by 0.80 at most (circle and square
/// are the nearest) and two colours of one shape by 0.98 at least, at 32 x 32.
pub const MIN_IOU: f64 = 0.85;

/// How often the nearest picture of a gallery is the right one, see [`retrieval`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Share of the generated pictures whose right answer is the nearest, in [0, 1].
    pub top1: f64,
    /// Share of the generated pictures whose right answer is among the five nearest, in [0, 1].
    pub top5: f64,
    /// What guessing gives for `top1`: 1 / gallery.
    pub chance_top1: f64,
    /// What guessing gives for `top5`: min(5, gallery) / gallery.
    pub chance_top5: f64,
    /// Number of generated pictures.
    pub n: usize,
    /// Number of pictures in the gallery.
    pub gallery: usize,
    /// For each generated picture, how many gallery pictures are nearer than the right one; 0 is best.
    pub ranks: Vec<usize>,
}

/// Ranks the right gallery picture of each generated one.
///
/// `generated` holds (place of the right answer in `gallery`, picture). Both sides are blurred by a Gaussian
/// of sigma = side x [`BLUR_SIGMA_PER_SIDE`] and compared by the mean over pixels and channels of the squared
/// difference. The rank of the right answer is the number of pictures **strictly** nearer; so identical
/// pictures under two captions (flags of islands, for instance) do not count against each other.
///
/// # Panics
///
/// When the pictures differ in size or a place is outside the gallery.
pub fn retrieval(generated: &[(usize, RgbImage)], gallery: &[RgbImage]) -> Retrieval {
    for picture in gallery {
        assert_same_size("gallery", picture, "first of the gallery", &gallery[0]);
    }
    let blurred: Vec<Vec<f32>> = gallery.iter().map(blur).collect();
    let ranks: Vec<usize> = generated
        .iter()
        .map(|(right, picture)| {
            assert!(
                *right < gallery.len(),
                "right answer {right} is outside the gallery of {}",
                gallery.len()
            );
            assert_same_size("generated", picture, "gallery", &gallery[*right]);
            let picture = blur(picture);
            let distance = mean_square(&picture, &blurred[*right]);
            blurred.iter().filter(|other| mean_square(&picture, other) < distance).count()
        })
        .collect();
    let share =
        |limit: usize| ranks.iter().filter(|rank| **rank < limit).count() as f64 / ranks.len().max(1) as f64;
    let size = gallery.len().max(1) as f64;
    Retrieval {
        top1: share(1),
        top5: share(5),
        chance_top1: 1.0 / size,
        chance_top5: 5f64.min(size) / size,
        n: ranks.len(),
        gallery: gallery.len(),
        ranks,
    }
}

/// Peak signal-to-noise ratio in dB: 10 log10(1 / mean squared difference); infinite for equal pictures.
///
/// # Panics
///
/// When the pictures differ in size.
pub fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_same_size("a", a, "b", b);
    -10.0 * mean_square(&unit(a), &unit(b)).log10()
}

/// A real picture of a colour and a shape, for [`Judge::new`].
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Name of the colour.
    pub colour: &'a str,
    /// Name of the shape.
    pub shape: &'a str,
    /// The picture, on white.
    pub picture: &'a RgbImage,
}

/// Whether a generated picture has the colour and the shape that were asked for, see [`Judge::composition`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Composition {
    /// The nearest colour is the one asked for.
    pub colour_right: bool,
    /// The best overlapping shape is the one asked for and overlaps the real picture by [`MIN_IOU`] or more.
    pub shape_right: bool,
    /// Intersection over union of the generated and the real foreground, in [0, 1].
    pub iou: f64,
    /// The nearest colour; none for an empty picture.
    pub colour: Option<String>,
    /// The best overlapping shape; none for an empty picture.
    pub shape: Option<String>,
}

/// Tells colours and shapes, from real pictures of them.
///
/// Foreground: pixels farther from white than [`PAPER`], and of these the ones farther than half of their
/// median distance, so that an edge belongs to a black shape and to a white one from the same coverage on.
///
/// Colour of a picture: the median of each channel over its foreground (a mean would mix in edges and
/// speckles). Palette: the mean of these colours over the real pictures of a name; the answer is the nearest
/// in CIELAB (D65, CIE 1976 distance).
///
/// Shape: intersection over union of the foreground with the shapes' masks; a shape's mask holds the pixels
/// that are foreground in more than half of its real pictures.
#[derive(Clone, Debug)]
pub struct Judge {
    palette: Vec<(String, [f64; 3])>,
    shapes: Vec<(String, Vec<bool>)>,
    size: (u32, u32),
}

impl Judge {
    /// Learns the palette and the masks from real pictures, in the order in which names first occur.
    ///
    /// # Errors
    ///
    /// No pictures, or one without foreground.
    ///
    /// # Panics
    ///
    /// When the pictures differ in size.
    pub fn new(references: &[Reference]) -> Result<Self> {
        let Some(first) = references.first() else {
            bail!("no real pictures to learn colours and shapes from")
        };
        let mut colours: Vec<(String, Vec<[f64; 3]>)> = Vec::new();
        let mut masks: Vec<(String, Vec<Vec<bool>>)> = Vec::new();
        for Reference { colour, shape, picture } in references {
            assert_same_size("real", picture, "first real", first.picture);
            let mask = foreground(picture);
            let value = dominant(picture, &mask)
                .with_context(|| format!("the real picture of {colour} {shape} is blank"))?;
            entry(&mut colours, colour).push(value);
            entry(&mut masks, shape).push(mask);
        }
        let palette = colours.into_iter().map(|(name, values)| (name, lab(mean(&values)))).collect();
        let shapes = masks.into_iter().map(|(name, masks)| (name, majority(&masks))).collect();
        Ok(Self { palette, shapes, size: first.picture.dimensions() })
    }

    /// Compares a generated picture with the real one of `colour` and `shape`.
    ///
    /// # Errors
    ///
    /// A colour or a shape that no real picture had; says which there are.
    ///
    /// # Panics
    ///
    /// When the pictures differ in size from each other or from the real ones.
    pub fn composition(
        &self,
        generated: &RgbImage,
        real: &RgbImage,
        colour: &str,
        shape: &str,
    ) -> Result<Composition> {
        known("colour", colour, &self.palette)?;
        known("shape", shape, &self.shapes)?;
        assert_same_size("generated", generated, "real", real);
        assert_eq!(generated.dimensions(), self.size, "sizes of the generated and of the learnt pictures");
        let mask = foreground(generated);
        let iou = overlap(&mask, &foreground(real));
        let found = dominant(generated, &mask);
        let nearest = found.map(|value| self.nearest_colour(value).to_owned());
        let best = found.map(|_| self.best_shape(&mask).to_owned());
        Ok(Composition {
            colour_right: nearest.as_deref() == Some(colour),
            shape_right: best.as_deref() == Some(shape) && iou >= MIN_IOU,
            iou,
            colour: nearest,
            shape: best,
        })
    }

    fn nearest_colour(&self, value: [f64; 3]) -> &str {
        let value = lab(value);
        let distance = |other: &[f64; 3]| (0..3).map(|i| (value[i] - other[i]).powi(2)).sum::<f64>();
        let nearest = self.palette.iter().min_by(|a, b| distance(&a.1).total_cmp(&distance(&b.1)));
        nearest.map_or("", |(name, _)| name)
    }

    fn best_shape(&self, mask: &[bool]) -> &str {
        let best = self.shapes.iter().max_by(|a, b| overlap(mask, &a.1).total_cmp(&overlap(mask, &b.1)));
        best.map_or("", |(name, _)| name)
    }
}

/// The list that belongs to `name`; a new one at the end when there is none.
fn entry<'a, T>(lists: &'a mut Vec<(String, Vec<T>)>, name: &str) -> &'a mut Vec<T> {
    let place = lists.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
        lists.push((name.to_owned(), Vec::new()));
        lists.len() - 1
    });
    &mut lists[place].1
}

fn known<T>(what: &str, name: &str, entries: &[(String, T)]) -> Result<()> {
    if entries.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let names: BTreeSet<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    bail!("unknown {what} {name:?}: known are {}", Vec::from_iter(names).join(", "))
}

/// The foreground of a picture on white, row by row; see [`Judge`].
fn foreground(picture: &RgbImage) -> Vec<bool> {
    let distances: Vec<u8> = picture.pixels().map(|p| 255 - p.0.into_iter().min().unwrap_or(255)).collect();
    let paper = (PAPER * 255.0) as u8;
    let shape = distances.iter().copied().filter(|distance| *distance > paper);
    let limit = median(shape).map_or(255, |middle| paper.max(middle / 2));
    distances.into_iter().map(|distance| distance > limit).collect()
}

/// The median of each channel over the mask; none when the mask is empty.
fn dominant(picture: &RgbImage, mask: &[bool]) -> Option<[f64; 3]> {
    let channel = |c: usize| {
        let inside = picture.pixels().zip(mask).filter(|(_, inside)| **inside);
        median(inside.map(|(pixel, _)| pixel.0[c])).map(|value| f64::from(value) / 255.0)
    };
    Some([channel(0)?, channel(1)?, channel(2)?])
}

/// The upper median; none of nothing.
fn median(values: impl Iterator<Item = u8>) -> Option<u8> {
    let mut values: Vec<u8> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn mean(values: &[[f64; 3]]) -> [f64; 3] {
    [0, 1, 2].map(|c| values.iter().map(|value| value[c]).sum::<f64>() / values.len() as f64)
}

/// True where more than half of the masks are.
fn majority(masks: &[Vec<bool>]) -> Vec<bool> {
    let pixels = masks.first().map_or(0, Vec::len);
    (0..pixels).map(|i| 2 * masks.iter().filter(|mask| mask[i]).count() > masks.len()).collect()
}

/// Intersection over union; 0 when both are empty.
fn overlap(a: &[bool], b: &[bool]) -> f64 {
    let count = |both: fn(bool, bool) -> bool| a.iter().zip(b).filter(|(a, b)| both(**a, **b)).count();
    count(|a, b| a && b) as f64 / count(|a, b| a || b).max(1) as f64
}

/// sRGB in [0, 1] to CIELAB under D65 (IEC 61966-2-1, then CIE 15).
fn lab(rgb: [f64; 3]) -> [f64; 3] {
    let [r, g, b] = rgb.map(|v| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) });
    let xyz = [
        (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047,
        0.2126729 * r + 0.7151522 * g + 0.0721750 * b,
        (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883,
    ];
    let delta = 6.0f64 / 29.0;
    let [x, y, z] =
        xyz.map(|t| if t > delta.powi(3) { t.cbrt() } else { t / (3.0 * delta * delta) + 4.0 / 29.0 });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

fn unit(picture: &RgbImage) -> Vec<f32> {
    picture.as_raw().iter().map(|value| f32::from(*value) / 255.0).collect()
}

fn mean_square(a: &[f32], b: &[f32]) -> f64 {
    // Summed in f32 over short runs, so that the compiler can use wide registers, and in f64 between them.
    let runs = a.chunks(256).zip(b.chunks(256));
    let sum: f64 =
        runs.map(|(a, b)| f64::from(a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>())).sum();
    sum / a.len().max(1) as f64
}

/// A Gaussian of sigma = side x [`BLUR_SIGMA_PER_SIDE`], cut at 3 sigma; pixels outside repeat the border.
fn blur(picture: &RgbImage) -> Vec<f32> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let kernel = gaussian(width as f64 * BLUR_SIGMA_PER_SIDE);
    let across = filter(&unit(picture), &kernel, |i, shift| {
        let (y, x) = (i / width, i % width);
        y * width + shifted(x, shift, width)
    });
    filter(&across, &kernel, |i, shift| {
        let (y, x) = (i / width, i % width);
        shifted(y, shift, height) * width + x
    })
}

/// Weights that sum to one, at -reach ..= reach.
fn gaussian(sigma: f64) -> Vec<f32> {
    let reach = (3.0 * sigma).ceil() as i32;
    let weight = |x: i32| (-0.5 * (f64::from(x) / sigma).powi(2)).exp();
    let sum: f64 = (-reach..=reach).map(weight).sum();
    (-reach..=reach).map(|x| (weight(x) / sum) as f32).collect()
}

/// Convolves RGB pixels; `neighbour` gives the pixel at a shift from another.
fn filter(values: &[f32], kernel: &[f32], neighbour: impl Fn(usize, isize) -> usize) -> Vec<f32> {
    let reach = (kernel.len() / 2) as isize;
    let mut out = vec![0.0; values.len()];
    for (i, pixel) in out.chunks_exact_mut(3).enumerate() {
        for (weight, shift) in kernel.iter().zip(-reach..) {
            let from = 3 * neighbour(i, shift);
            for (sum, value) in pixel.iter_mut().zip(&values[from..from + 3]) {
                *sum += weight * value;
            }
        }
    }
    out
}

fn shifted(place: usize, shift: isize, size: usize) -> usize {
    place.saturating_add_signed(shift).min(size - 1)
}

fn assert_same_size(name: &str, a: &RgbImage, other: &str, b: &RgbImage) {
    assert_eq!(a.dimensions(), b.dimensions(), "sizes of the {name} and of the {other} picture");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emoji_set::{Emoji, EmojiSet, Which};
    use image::{Rgb, imageops};

    const WHITE: Rgb<u8> = Rgb([255; 3]);

    /// A plain shape on white.
    fn drawn(colour: [u8; 3], inside: impl Fn(u32, u32) -> bool) -> RgbImage {
        RgbImage::from_fn(32, 32, |x, y| if inside(x, y) { Rgb(colour) } else { WHITE })
    }

    fn boxed(colour: [u8; 3], from: u32, to: u32) -> RgbImage {
        drawn(colour, |x, y| (from..to).contains(&x) && (from..to).contains(&y))
    }

    fn gallery() -> Vec<RgbImage> {
        (0..8).map(|i| boxed([i * 30, 200 - i * 25, 90], 4, 28)).collect()
    }

    #[test]
    fn retrieval_finds_the_right_picture() {
        let gallery = gallery();
        let same: Vec<_> = gallery.iter().cloned().enumerate().collect();
        let found = retrieval(&same, &gallery);
        assert_eq!((found.top1, found.top5, found.n, found.gallery), (1.0, 1.0, 8, 8));
        assert_eq!((found.chance_top1, found.chance_top5), (1.0 / 8.0, 5.0 / 8.0));
        assert_eq!(found.ranks, [0; 8]);
    }

    #[test]
    fn retrieval_counts_the_wrong_ones() {
        let gallery = gallery();
        // Colours run along a line, so the wrong end is last and the neighbour is second.
        let wrong = [(0, gallery[7].clone()), (1, gallery[0].clone()), (2, gallery[2].clone())];
        let found = retrieval(&wrong, &gallery);
        assert_eq!(found.ranks, [7, 1, 0]);
        assert_eq!((found.top1, found.top5), (1.0 / 3.0, 2.0 / 3.0));
    }

    #[test]
    fn retrieval_does_not_count_copies() {
        let mut gallery = gallery();
        gallery.push(gallery[3].clone());
        let found = retrieval(&[(3, gallery[8].clone()), (8, gallery[3].clone())], &gallery);
        assert_eq!(found.ranks, [0, 0]);
        let nothing = retrieval(&[], &[]);
        assert_eq!((nothing.top1, nothing.n, nothing.gallery), (0.0, 0, 0));
    }

    #[test]
    fn a_blur_forgives_a_shift_by_a_pixel() {
        // Thin stripes: without the blur the shifted picture is the worst match, nearer to plain grey.
        let stripes = |shift: u32| drawn([0, 0, 0], move |x, _| (x + shift).is_multiple_of(2));
        let gallery = [stripes(0), RgbImage::from_pixel(32, 32, Rgb([90; 3]))];
        let plain = |a: &RgbImage, b: &RgbImage| mean_square(&unit(a), &unit(b));
        assert!(plain(&stripes(1), &gallery[0]) > plain(&stripes(1), &gallery[1]));
        assert_eq!(retrieval(&[(0, stripes(1))], &gallery).ranks, [0]);
    }

    #[test]
    #[should_panic(expected = "outside the gallery of 1")]
    fn retrieval_refuses_a_place_outside() {
        let picture = boxed([0; 3], 4, 28);
        retrieval(&[(1, picture.clone())], &[picture]);
    }

    #[test]
    fn blur_keeps_a_plain_picture_and_the_mean() {
        let plain = RgbImage::from_pixel(32, 32, Rgb([10, 120, 250]));
        let error = mean_square(&blur(&plain), &unit(&plain));
        assert!(error < 1e-12, "{error}");
        let spot = drawn([0, 0, 0], |x, y| (x, y) == (16, 16));
        let lost = |values: &[f32]| values.iter().map(|v| f64::from(1.0 - v)).sum::<f64>();
        assert!((lost(&blur(&spot)) - lost(&unit(&spot))).abs() < 1e-3);
        // The spot keeps the square of the middle weight of a Gaussian of one pixel.
        let middle = 1.0 - f64::from(blur(&spot)[3 * (16 * 32 + 16)]);
        assert!((middle - 0.1594).abs() < 2e-3, "{middle}");
    }

    #[test]
    fn psnr_follows_its_formula() {
        let (black, white) = (RgbImage::new(4, 4), RgbImage::from_pixel(4, 4, WHITE));
        assert_eq!(psnr(&black, &white), 0.0);
        assert_eq!(psnr(&black, &black), f64::INFINITY);
        let grey = RgbImage::from_pixel(4, 4, Rgb([51; 3]));
        assert!((psnr(&black, &grey) - 13.9794).abs() < 1e-3);
    }

    #[test]
    fn lab_agrees_with_published_values() {
        for (rgb, expected) in [
            ([1.0, 1.0, 1.0], [100.0, 0.0, 0.0]),
            ([1.0, 0.0, 0.0], [53.24, 80.09, 67.20]),
            ([0.0, 0.0, 1.0], [32.30, 79.19, -107.86]),
        ] {
            let found = lab(rgb);
            assert!((0..3).all(|i| (found[i] - expected[i]).abs() < 0.02), "{found:?} {expected:?}");
        }
    }

    fn combined(set: &EmojiSet) -> Vec<(&Emoji, &str, &str)> {
        set.items.iter().filter_map(|e| e.combination().map(|(colour, shape)| (e, colour, shape))).collect()
    }

    fn judge(set: &EmojiSet) -> Judge {
        let references: Vec<_> = combined(set)
            .iter()
            .map(|(e, colour, shape)| Reference { colour, shape, picture: &e.picture })
            .collect();
        Judge::new(&references).unwrap()
    }

    /// Every real combination scored as every other: right exactly where the colour, and the shape, agree.
    #[test]
    fn real_pictures_are_right_only_as_themselves() {
        for side in [24, 32, 64] {
            let set = EmojiSet::build(Which::Simple, side).unwrap();
            let (judge, all) = (judge(&set), combined(&set));
            assert_eq!(all.len(), 30);
            let (mut same, mut different) = (1f64, 0f64);
            for (asked, colour, shape) in &all {
                for (shown, other_colour, other_shape) in &all {
                    let found = judge.composition(&shown.picture, &asked.picture, colour, shape).unwrap();
                    let names = format!("{} as {}: {found:?}", shown.caption, asked.caption);
                    assert_eq!(found.colour_right, colour == other_colour, "{names}");
                    assert_eq!(found.shape_right, shape == other_shape, "{names}");
                    let (iou, equal) = (found.iou, shape == other_shape);
                    (same, different) =
                        if equal { (same.min(iou), different) } else { (same, different.max(iou)) };
                }
            }
            println!("side {side}: same shape at least {same:.4}, other shapes at most {different:.4}");
            assert!(same > MIN_IOU + 0.1 && different < MIN_IOU - 0.03, "{same} {different}");
        }
    }

    #[test]
    fn noise_and_blur_do_not_hide_a_shape() {
        let set = EmojiSet::build(Which::Simple, 32).unwrap();
        let judge = judge(&set);
        for (emoji, colour, shape) in combined(&set) {
            let mut noisy = imageops::blur(&emoji.picture, 0.7);
            for (i, value) in noisy.iter_mut().enumerate() {
                *value = value.saturating_add_signed((i * 7919 % 13) as i8 - 6);
            }
            let found = judge.composition(&noisy, &emoji.picture, colour, shape).unwrap();
            assert!(found.colour_right && found.shape_right, "{}: {found:?}", emoji.caption);
        }
    }

    #[test]
    fn other_pictures_are_wrong() {
        let set = EmojiSet::build(Which::Simple, 32).unwrap();
        let judge = judge(&set);
        let real = &set.find("orange heart").unwrap().picture;
        let score = |picture: &RgbImage| judge.composition(picture, real, "orange", "heart").unwrap();

        let blank = score(&RgbImage::from_pixel(32, 32, WHITE));
        assert!(!blank.colour_right && !blank.shape_right && blank.iou == 0.0 && blank.colour.is_none());
        // Right colour, but an eighth of the area: no shape though it is the best of the three.
        let small = score(&boxed([244, 144, 12], 12, 20));
        assert!(small.colour_right && !small.shape_right && small.iou < 0.2, "{small:?}");
        let full = score(&RgbImage::from_pixel(32, 32, Rgb([244, 144, 12])));
        assert!(full.colour_right && !full.shape_right, "{full:?}");
        assert_eq!(full.shape.as_deref(), Some("square"));
    }

    #[test]
    fn unknown_names_are_errors() {
        let set = EmojiSet::build(Which::Simple, 32).unwrap();
        let picture = &set.items[0].picture;
        let error = judge(&set).composition(picture, picture, "mauve", "heart").unwrap_err().to_string();
        assert!(error.contains("unknown colour \"mauve\"") && error.contains("light blue"), "{error}");
        let error = judge(&set).composition(picture, picture, "red", "cube").unwrap_err().to_string();
        assert!(error.contains("circle, heart, square"), "{error}");
        assert!(Judge::new(&[]).is_err());
        let blank = RgbImage::from_pixel(8, 8, WHITE);
        assert!(Judge::new(&[Reference { colour: "red", shape: "heart", picture: &blank }]).is_err());
    }
}
