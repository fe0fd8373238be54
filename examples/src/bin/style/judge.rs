//! Which of two styles a picture has, whatever it shows.

use canvas_examples::discriminant::Discriminant;
use canvas_examples::measure::PAPER;
use image::RgbImage;
use nalgebra::DVector;

/// Edges of the bins of brightness steps between neighbouring pixels.
const STEPS: [f64; 7] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2];

/// Tells two styles by how brightness runs within shapes: by a few statistics which know nothing of what is shown.
pub struct Judge(Discriminant);

impl Judge {
    /// Learns from pictures of both.
    ///
    /// # Panics
    /// If there are none of one.
    pub fn new(old: &[RgbImage], new: &[RgbImage]) -> Self {
        Self(Discriminant::new(&[old, new].map(|pictures| pictures.iter().map(statistics).collect())))
    }

    /// Whether a picture has the new style.
    pub fn is_new(&self, picture: &RgbImage) -> bool {
        self.0.kind(&statistics(picture)) == 1
    }

    /// The share of pictures that have the new style.
    pub fn share(&self, pictures: &[RgbImage]) -> f64 {
        pictures.iter().filter(|picture| self.is_new(picture)).count() as f64 / pictures.len() as f64
    }
}

/// Shares of the brightness steps by size, mean saturation, and mean and deviation of the brightness, of what is not paper.
fn statistics(picture: &RgbImage) -> DVector<f64> {
    let value = |x: u32, y: u32| picture.get_pixel(x, y).0.map(|byte| f64::from(byte) / 255.0);
    let light = |[r, g, b]: [f64; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let shown = |pixel: [f64; 3]| pixel.iter().any(|v| 1.0 - v > PAPER);
    let (mut bins, mut saturation, mut sums, mut count) = ([0.0; STEPS.len() + 1], 0.0, [0.0; 2], 0.0);
    for (x, y) in (1..picture.width()).flat_map(|x| (1..picture.height()).map(move |y| (x, y))) {
        let (here, left, above) = (value(x, y), value(x - 1, y), value(x, y - 1));
        if ![here, left, above].into_iter().all(shown) {
            continue;
        }
        let step = (light(here) - light(left)).hypot(light(here) - light(above));
        bins[STEPS.iter().filter(|edge| step > **edge).count()] += 1.0;
        let (most, least) = (here.into_iter().fold(0.0, f64::max), here.into_iter().fold(1.0, f64::min));
        saturation += if most > 0.0 { 1.0 - least / most } else { 0.0 };
        sums = [sums[0] + light(here), sums[1] + light(here).powi(2)];
        count += 1.0;
    }
    let count = f64::max(count, 1.0);
    let (mean, square) = (sums[0] / count, sums[1] / count);
    let rest = [saturation / count, mean, (square - mean * mean).max(0.0).sqrt()];
    // Shares add up to one: the last would say nothing new.
    DVector::from_iterator(STEPS.len() + 3, bins[..STEPS.len()].iter().map(|bin| bin / count).chain(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn disc(radius: f64, colour: [f64; 3], shaded: bool) -> RgbImage {
        RgbImage::from_fn(32, 32, |x, y| {
            let (dx, dy) = (f64::from(x) - 15.5, f64::from(y) - 15.5);
            let light = if shaded { 1.0 - (dx + dy) / 60.0 } else { 1.0 };
            let inside = dx.hypot(dy) < radius;
            Rgb(colour.map(|v| if inside { (v * light).min(255.0) as u8 } else { 255 }))
        })
    }

    #[test]
    fn shaded_is_told_from_flat_by_other_shapes_and_colours() {
        let set = |shaded: bool, from: usize| -> Vec<RgbImage> {
            let colours =
                [[200.0, 30.0, 40.0], [30.0, 160.0, 60.0], [40.0, 60.0, 190.0], [190.0, 170.0, 20.0]];
            (from..from + 12).map(|n| disc(6.0 + n as f64 / 3.0, colours[n % 4], shaded)).collect()
        };
        let judge = Judge::new(&set(false, 0), &set(true, 0));
        assert_eq!((judge.share(&set(false, 12)), judge.share(&set(true, 12))), (0.0, 1.0));
        let blank = RgbImage::from_pixel(32, 32, Rgb([255; 3]));
        let _ = judge.is_new(&blank); // says something, whatever it is
    }
}
