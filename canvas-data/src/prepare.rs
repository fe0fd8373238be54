//! From a stored image to one of its bucket's size.

use crate::{Assignment, Crop, Decode, Decoded, Fault, Record, draw_caption, reason};
use canvas_core::picture::{Axis, Filter, resize};
use canvas_core::{generator, seed_for};
use image::imageops::flip_horizontal_in_place;
use image::{GrayImage, RgbImage};
use rand::{Rng, RngExt};

/// What everything random about an image is a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draw {
    /// The run's seed.
    pub seed: u64,
    /// The image's number in the run. It counts on over the epochs, so that each of them crops, flips and captions anew.
    pub number: u64,
}

impl Draw {
    /// A generator for one purpose: what is drawn for one does not depend on what is drawn for another.
    pub fn generator(self, purpose: &str) -> impl Rng {
        generator(seed_for(self.seed, purpose), self.number, 0)
    }
}

/// How stored images become images of a bucket's size.
///
/// The image is decoded, scaled as Pillow does it, cropped without computing what is cut off, and flipped. Flipping and captions know
/// nothing of each other: where captions say left and right, or images hold writing, leave [`flip`](Self::flip) at 0.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::picture::to_tensor;
/// use canvas_data::{Buckets, Caption, Draw, Prepare, Record};
/// use image::{ImageFormat, RgbImage};
///
/// let mut file = std::io::Cursor::new(Vec::new());
/// RgbImage::new(90, 60).write_to(&mut file, ImageFormat::Png)?;
/// let record = Record {
///     key: "a.png".into(),
///     image: file.into_inner(),
///     captions: vec![Caption::new("night")],
///     fields: Default::default(),
/// };
/// let (buckets, prepare) = (Buckets::list([[48, 32], [32, 48]])?, Prepare::default());
/// let assignment = buckets.assign(&record.key, prepare.decode.size(&record.key, &record.image)?)?;
/// let batch: Vec<_> = (0..4)
///     .map(|number| prepare.prepared(&record, &assignment, Draw { seed: 7, number }))
///     .collect::<Result<_, _>>()?;
/// let images = to_tensor(batch.iter().map(|prepared| &prepared.rgb), &Device::flex());
/// assert_eq!(images.dims(), [4, 3, 32, 48]);
/// assert_eq!(batch[0].size_ids(), [60, 90, 0, 0, 32, 48]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Prepare {
    /// How files are decoded: the same rules with which the images were assigned.
    pub decode: Decode,
    /// How they are scaled; Lanczos by default.
    pub filter: Filter,
    /// Where they are cropped; in the middle by default.
    pub crop: Crop,
    /// How often they are flipped left to right, 0 to 1; 0 by default.
    pub flip: f64,
    /// The caption of an image that has none; without one, by default, that is a fault: [`reason::NO_CAPTION`]. A source and a survey
    /// must let such images through, too: [`CaptionRules::required`](crate::CaptionRules::required) is `false` and
    /// [`Survey::uncaptioned`](crate::Survey::uncaptioned) `true`.
    pub uncaptioned: Option<String>,
}

impl Default for Prepare {
    fn default() -> Self {
        Self {
            decode: Decode::default(),
            filter: Filter::Lanczos,
            crop: Crop::default(),
            flip: 0.0,
            uncaptioned: None,
        }
    }
}

/// An image as it is trained. Sizes are `[width, height]`, places `[left, top]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Its colours, of the bucket's size.
    pub rgb: RgbImage,
    /// How opaque it is, of the same size; none if it is everywhere.
    pub alpha: Option<GrayImage>,
    /// The caption drawn for it.
    pub caption: String,
    /// The size of the stored image, upright.
    pub original: [u32; 2],
    /// Where the crop begins, in pixels of the scaled image; of the flipped one if it was flipped, so that it is true of what is seen.
    pub crop: [u32; 2],
    /// The bucket's size.
    pub target: [u32; 2],
    /// Whether it was flipped left to right.
    pub flipped: bool,
}

impl Prepared {
    /// What SDXL's network is told of sizes, in diffusers' order: original height and width, the crop's top and left, target height
    /// and width.
    ///
    /// # Reference
    /// Podell et al., 2023, section 2.2 (arXiv 2307.01952).
    pub fn size_ids(&self) -> [u32; 6] {
        let ([w, h], [left, top], [target_w, target_h]) = (self.original, self.crop, self.target);
        [h, w, top, left, target_h, target_w]
    }
}

impl Prepare {
    /// Prepares an image: the same record, assignment and draw give the same bytes.
    ///
    /// # Errors
    /// If it cannot be decoded, is not of the size that was assigned ([`reason::CHANGED`]), or has no caption.
    pub fn prepared(&self, record: &Record, assignment: &Assignment, draw: Draw) -> Result<Prepared, Fault> {
        let caption = self.caption(record, draw)?;
        let decoded = self.decode.picture(&record.key, &record.image)?;
        let (original, found) = (assignment.original, <[u32; 2]>::from(decoded.rgb.dimensions()));
        if found != original {
            let ([w, h], [x, y]) = (original, found);
            let detail = format!("{x}x{y} pixels, when assigned it had {w}x{h}");
            return Err(Fault::new(&record.key, reason::CHANGED, detail));
        }
        let flipped = draw.generator("flip").random::<f64>() < self.flip;
        let crop = self.crop.place(assignment, draw);
        let (rgb, alpha) = self.cut(&decoded, assignment, (crop, flipped));
        Ok(Prepared { rgb, alpha, caption, original, crop, target: assignment.target, flipped })
    }

    fn caption(&self, record: &Record, draw: Draw) -> Result<String, Fault> {
        let drawn = draw_caption(&record.captions, draw).map(|caption| caption.text.clone());
        drawn.or_else(|| self.uncaptioned.clone()).ok_or_else(|| {
            let detail = format!("none of {} captions can be drawn", record.captions.len());
            Fault::new(&record.key, reason::NO_CAPTION, detail)
        })
    }

    /// Scales and crops colours and alpha, and flips them.
    fn cut(
        &self,
        decoded: &Decoded,
        assignment: &Assignment,
        (crop, flipped): ([u32; 2], bool),
    ) -> (RgbImage, Option<GrayImage>) {
        let spare = assignment.spare();
        // Counted from the right, as the flipped image is cropped from the left.
        let left = if flipped { spare[0] - crop[0] } else { crop[0] };
        let [wide, tall] = [(0, left), (1, crop[1])].map(|(side, start)| {
            let [from, to, keep] =
                [assignment.original, assignment.resized, assignment.target].map(|size| size[side] as usize);
            Axis { from, to, keep: start as usize..start as usize + keep }
        });
        let scaled = |bytes: &[u8], channels: usize| resize(bytes, channels, (&tall, &wide), self.filter);
        let [width, height] = assignment.target;
        let rgb = RgbImage::from_raw(width, height, scaled(&decoded.rgb, 3));
        let mut rgb = rgb.expect("as many bytes as pixels");
        let mut alpha = decoded.alpha.as_ref().map(|alpha| {
            GrayImage::from_raw(width, height, scaled(alpha, 1)).expect("as many bytes as pixels")
        });
        if flipped {
            flip_horizontal_in_place(&mut rgb);
            alpha.iter_mut().for_each(flip_horizontal_in_place);
        }
        (rgb, alpha)
    }
}
