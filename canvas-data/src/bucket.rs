//! Sizes in which images are trained, and which of them an image gets.

use crate::{Draw, Fault, reason};
use canvas_core::{ConfigError, check};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::ops::RangeInclusive;

/// Sizes in which images are trained: a batch has one size, and an image is scaled and cropped to the nearest by aspect ratio.
///
/// Sizes are `[width, height]` in pixels, sorted; a bucket's number is its place among them.
///
/// | settings | give |
/// |---|---|
/// | [`filling`](Self::filling)`(1024 * 1024, 64, 0.9, 4.0)`, which is [`sdxl`](Self::sdxl) | the 40 of SDXL's table, and 1344x704, whose upright twin is in the table |
/// | [`largest`](Self::largest)`(512 * 768, 64, 256..=1024)` and 512x512, which is [`novel_ai`](Self::novel_ai) | NovelAI's 19 |
/// | `largest(side * side, 64, least..=most)` | kohya's sd-scripts with `resolution = side`, `min_bucket_reso`, `max_bucket_reso` |
/// | [`list`](Self::list) | whatever is listed |
/// | [`square`](Self::square) | one |
///
/// # Reference
/// Podell et al., 2023, appendix I (arXiv 2307.01952) lists sizes and names no formula; that they are those of 0.9 to 1 times 1024² pixels was
/// found by trying. NovelAI, 2022, "Improvements on Stable Diffusion", aspect ratio bucketing.
///
/// # Example
/// ```
/// use canvas_data::{Buckets, reason};
/// let buckets = Buckets::sdxl();
/// let assignment = buckets.assign("a.jpg", [3000, 2000])?;
/// assert_eq!(buckets.sizes()[assignment.bucket], [1216, 832]);
/// assert_eq!((assignment.resized, assignment.spare()), ([1248, 832], [32, 0])); // a strip is cropped
///
/// assert_eq!(buckets.assign("b.jpg", [300, 200]).unwrap_err().reason, reason::TOO_SMALL);
/// assert_eq!(buckets.clone().enlarge(5.0).assign("b.jpg", [300, 200])?.resized, [1248, 832]);
/// # Ok::<(), canvas_data::Fault>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Buckets {
    sizes: Vec<[u32; 2]>,
    enlarge: f64,
    crop: f64,
}

impl Buckets {
    /// All sizes of multiples of `step` with `fill * area` to `area` pixels and at most `aspect` times as long as narrow.
    ///
    /// # Errors
    /// If there is none, `step` is 0, or `fill` is not within `(0, 1]`.
    pub fn filling(area: u64, step: u32, fill: f64, aspect: f64) -> Result<Self, ConfigError> {
        check::positive(("the buckets' step", step as usize))?;
        if !(fill > 0.0 && fill <= 1.0) {
            return Err(ConfigError::new(format!("buckets fill 0 to 1 of an area, found {fill}")));
        }
        let longest = (area as f64 * aspect).sqrt();
        let fits = |&[w, h]: &[u32; 2]| {
            let (long, short, pixels) = (w.max(h), w.min(h), u64::from(w) * u64::from(h));
            pixels <= area
                && pixels as f64 >= fill * area as f64
                && f64::from(long) <= aspect * f64::from(short)
        };
        let sides = |limit: f64| (step..=limit as u32).step_by(step as usize);
        let heights = |w: u32| sides(area as f64 / f64::from(w)).map(move |h| [w, h]);
        Self::made(sides(longest).flat_map(heights).filter(fits))
    }

    /// For each multiple of `step` within `sides` as width the greatest such height with at most `area` pixels, and the same on its side.
    ///
    /// # Errors
    /// If there is none, or `step` is 0.
    pub fn largest(area: u64, step: u32, sides: RangeInclusive<u32>) -> Result<Self, ConfigError> {
        check::positive(("the buckets' step", step as usize))?;
        let (least, most) = sides.into_inner();
        let multiple = |side: u64| (side / u64::from(step) * u64::from(step)) as u32;
        let widths = (step..=most).step_by(step as usize).filter(|&width| width >= least.max(1));
        let pair = |width| [width, multiple((area / u64::from(width)).min(u64::from(most)))];
        let pairs = widths.map(pair).filter(|size| size[1] >= least.max(1));
        Self::made(pairs.flat_map(|[w, h]| [[w, h], [h, w]]))
    }

    /// The sizes of this list, each once.
    ///
    /// # Errors
    /// If it is empty, or a side is 0.
    pub fn list(sizes: impl IntoIterator<Item = [u32; 2]>) -> Result<Self, ConfigError> {
        Self::made(sizes)
    }

    /// One size: centre or random crops, as before there were buckets.
    ///
    /// # Errors
    /// If the side is 0.
    pub fn square(side: u32) -> Result<Self, ConfigError> {
        Self::made([[side, side]])
    }

    /// SDXL's, of about 1024² pixels.
    pub fn sdxl() -> Self {
        Self::filling(1024 * 1024, 64, 0.9, 4.0).expect("sizes that are not zero")
    }

    /// NovelAI's, of up to 512 x 768 pixels.
    pub fn novel_ai() -> Self {
        let largest = Self::largest(512 * 768, 64, 256..=1024).expect("sizes that are not zero");
        Self::made(largest.sizes.into_iter().chain([[512, 512]])).expect("sizes that are not zero")
    }

    fn made(sizes: impl IntoIterator<Item = [u32; 2]>) -> Result<Self, ConfigError> {
        let mut sizes: Vec<[u32; 2]> = sizes.into_iter().collect();
        if sizes.is_empty() {
            return Err(ConfigError::new("no bucket has the sizes asked for"));
        }
        if let Some([w, h]) = sizes.iter().find(|size| size.contains(&0)) {
            return Err(ConfigError::new(format!("a bucket of {w}x{h} pixels")));
        }
        sizes.sort_unstable();
        sizes.dedup();
        Ok(Self { sizes, enlarge: 1.0, crop: 0.5 })
    }

    /// How many times larger a side may be made; 1 by default: images are never enlarged. What would need more is [`reason::TOO_SMALL`].
    pub fn enlarge(self, most: f64) -> Self {
        Self { enlarge: most, ..self }
    }

    /// Which part of an image may be cropped away, 0 to 1; half by default. What would lose more is [`reason::ASPECT`].
    pub fn crop(self, most: f64) -> Self {
        Self { crop: most, ..self }
    }

    /// The sizes, `[width, height]`, by number.
    pub fn sizes(&self) -> &[[u32; 2]] {
        &self.sizes
    }

    /// Finds an image's bucket: the one of the nearest aspect ratio, `|ln(W/H) - ln(w/h)|`, compared exactly.
    ///
    /// The image is scaled until it covers the bucket, one side exactly and the other rounded to a pixel, and what stands over is cropped.
    /// Of several buckets of the nearest ratio it is the largest that needs no enlargement, or else the smallest.
    ///
    /// # Errors
    /// [`reason::TOO_SMALL`] or [`reason::ASPECT`], as [`enlarge`](Self::enlarge) and [`crop`](Self::crop) say.
    ///
    /// # Panics
    /// If a side is 0.
    pub fn assign(&self, key: &str, size: [u32; 2]) -> Result<Assignment, Fault> {
        let [width, height] = size;
        assert!(width > 0 && height > 0, "an image of {width}x{height} pixels");
        let nearest = (0..self.sizes.len()).min_by(|&a, &b| nearer(size, self.sizes[a], self.sizes[b]));
        let bucket = nearest.expect("there is a bucket");
        let target = self.sizes[bucket];
        let assignment = Assignment { bucket, original: size, resized: covering(size, target), target };
        let (long, short) = apart(size, target);
        let lost = 1.0 - short as f64 / long as f64;
        if lost > self.crop {
            let most = self.crop * 100.0;
            let detail =
                format!("{assignment} loses {:.1} % of it, at most {most:.1} % may be", lost * 100.0);
            return Err(Fault::new(key, reason::ASPECT, detail));
        }
        let scale = (0..2).map(|i| f64::from(target[i]) / f64::from(size[i])).fold(0.0, f64::max);
        if scale > self.enlarge {
            let detail =
                format!("{assignment} enlarges it {scale:.2} times, at most {} are allowed", self.enlarge);
            return Err(Fault::new(key, reason::TOO_SMALL, detail));
        }
        Ok(assignment)
    }
}

/// Which bucket an image gets, and how. Sizes are `[width, height]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The number of its bucket.
    pub bucket: usize,
    /// Its own size, upright.
    pub original: [u32; 2],
    /// Its size after scaling: covers the bucket.
    pub resized: [u32; 2],
    /// Its size after cropping: the bucket's.
    pub target: [u32; 2],
}

impl Assignment {
    /// What is cropped of each side after scaling; 0 of one of them.
    pub fn spare(&self) -> [u32; 2] {
        [0, 1].map(|i| self.resized[i].saturating_sub(self.target[i]))
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [[w, h], [bw, bh]] = [self.original, self.target];
        write!(f, "{w}x{h} to {bw}x{bh}")
    }
}

/// Where a crop lies within what stands over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// In the middle, rounded up and left.
    #[default]
    Centre,
    /// Anywhere, evenly: a function of the draw.
    Random,
}

impl Crop {
    /// The crop's left and top edge, in pixels of the scaled image.
    pub fn place(self, assignment: &Assignment, draw: Draw) -> [u32; 2] {
        let spare = assignment.spare();
        match self {
            Self::Centre => spare.map(|spare| spare / 2),
            Self::Random => {
                let mut generator = draw.generator("crop");
                spare.map(|spare| generator.random_range(0..=spare))
            }
        }
    }
}

/// How many times longer one aspect ratio is than another, as a fraction of at least 1.
fn apart([w, h]: [u32; 2], [bucket_w, bucket_h]: [u32; 2]) -> (u64, u64) {
    let (a, b) = (u64::from(w) * u64::from(bucket_h), u64::from(h) * u64::from(bucket_w));
    (a.max(b), a.min(b))
}

/// Which of two buckets suits an image more. In integers, so that every machine says the same.
fn nearer(size: [u32; 2], a: [u32; 2], b: [u32; 2]) -> Ordering {
    let ([a_long, a_short], [b_long, b_short]) = (apart(size, a).into(), apart(size, b).into());
    let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
    let fits = |bucket: [u32; 2]| bucket[0] <= size[0] && bucket[1] <= size[1];
    let area = |bucket: [u32; 2]| u64::from(bucket[0]) * u64::from(bucket[1]);
    let larger = if fits(a) && fits(b) { area(b).cmp(&area(a)) } else { area(a).cmp(&area(b)) };
    product(a_long, b_short).cmp(&product(b_long, a_short)).then(fits(b).cmp(&fits(a))).then(larger)
}

/// The smallest size of an image's proportions that covers a bucket.
fn covering([w, h]: [u32; 2], [bucket_w, bucket_h]: [u32; 2]) -> [u32; 2] {
    let scaled = |side: u32, to: u32, from: u32| {
        let (twice, from) = (2 * u128::from(side) * u128::from(to), u128::from(from));
        ((twice + from) / (2 * from)) as u32
    };
    if u64::from(w) * u64::from(bucket_h) >= u64::from(h) * u64::from(bucket_w) {
        [scaled(w, bucket_h, h), bucket_h]
    } else {
        [bucket_w, scaled(h, bucket_w, w)]
    }
}
