//! Which of an image's texts is trained with.

use crate::{Caption, Draw};
use rand::RngExt;

/// Draws one of an image's captions, as often as its weight says relative to the others': a function of the draw.
///
/// A weight that is not a number above 0 counts as 0; none is drawn if there is no other.
///
/// # Example
/// ```
/// use canvas_data::{Caption, Draw, draw_caption};
/// let short = Caption { weight: 3.0, ..Caption::new("a boat") };
/// let captions = [short, Caption::new("a red boat on a lake, early in the morning")];
/// let boats = (0..1000).filter(|&number| {
///     draw_caption(&captions, Draw { seed: 7, number }) == Some(&captions[0])
/// });
/// assert!((700..800).contains(&boats.count()));
/// ```
pub fn draw_caption(captions: &[Caption], draw: Draw) -> Option<&Caption> {
    let weight = |caption: &&Caption| caption.weight.is_finite() && caption.weight > 0.0;
    let drawable = || captions.iter().filter(weight);
    let total: f64 = drawable().map(|caption| caption.weight).sum();
    let mut left = draw.generator("caption").random::<f64>() * total;
    let found = drawable().find(|caption| {
        left -= caption.weight;
        left < 0.0
    });
    found.or_else(|| drawable().next_back()) // where rounding went past the end
}
