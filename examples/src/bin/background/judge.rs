//! At which place a picture is, whatever stands there.

use crate::scenes::Scene;
use canvas_examples::discriminant::Discriminant;
use image::{GrayImage, RgbImage};
use nalgebra::DVector;

/// Tells places by the colours and the roughness of what is seen of them.
pub struct Judge(Discriminant);

impl Judge {
    /// Learns from pictures of scenes whose places are known.
    ///
    /// # Panics
    /// If a place is in none.
    pub fn new(scenes: &[Scene], pictures: &[RgbImage], places: usize) -> Self {
        let mut kinds = vec![Vec::new(); places];
        for (scene, picture) in scenes.iter().zip(pictures) {
            kinds[scene.place].push(statistics(picture, &scene.mask));
        }
        Self(Discriminant::new(&kinds))
    }

    /// The place of a picture, by what the mask leaves of it.
    pub fn place(&self, picture: &RgbImage, mask: &GrayImage) -> usize {
        self.0.kind(&statistics(picture, mask))
    }
}

/// Means and deviations of the channels, the share of each of eight colours, and the mean step between neighbours across and down.
fn statistics(picture: &RgbImage, mask: &GrayImage) -> DVector<f64> {
    let value = |x: u32, y: u32| picture.get_pixel(x, y).0.map(|byte| f64::from(byte) / 255.0);
    let seen = |x: u32, y: u32| mask.get_pixel(x, y).0[0] > 127;
    let (mut sums, mut squares, mut colours, mut steps, mut count) =
        ([0.0; 3], [0.0; 3], [0.0; 8], [0.0; 2], 0.0);
    for (x, y) in (1..picture.width()).flat_map(|x| (1..picture.height()).map(move |y| (x, y))) {
        if !(seen(x, y) && seen(x - 1, y) && seen(x, y - 1)) {
            continue;
        }
        let (here, left, above) = (value(x, y), value(x - 1, y), value(x, y - 1));
        let mut colour = 0;
        for channel in 0..3 {
            sums[channel] += here[channel];
            squares[channel] += here[channel] * here[channel];
            colour = 2 * colour + usize::from(here[channel] > 0.5);
            steps[0] += (here[channel] - left[channel]).abs();
            steps[1] += (here[channel] - above[channel]).abs();
        }
        colours[colour] += 1.0;
        count += 1.0;
    }
    let count = f64::max(count, 1.0);
    let means = sums.map(|sum| sum / count);
    let spread = (0..3).map(|channel| (squares[channel] / count - means[channel].powi(2)).max(0.0).sqrt());
    // Shares add up to one: the last would say nothing new.
    let rest = colours[..7].iter().chain(&steps).map(|sum| sum / count);
    DVector::from_iterator(15, means.into_iter().chain(spread).chain(rest))
}
