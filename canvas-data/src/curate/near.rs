//! Images that look the same: written again, resized, a little brighter.

use super::{Choose, Chosen, HashIndex, Noted, Pass, Rejection, Subject, Trouble, Verdict};
use image::{RgbImage, imageops};
use image_hasher::{HashAlg, Hasher, HasherConfig};
use serde_json::{Value, json};
use std::cmp::Reverse;

/// How a picture becomes 64 bits.
///
/// A picture of 144 x 128 pixels and more is first averaged to 72 x 64, eight times the finer of the grids below: four times faster, and
/// the hash differs in a bit here and there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerceptualHash {
    /// dHash: grey (ITU-R BT.709), resized to 9 x 8 by Lanczos-3; a bit says whether a pixel is darker than the one to its right.
    ///
    /// The definition of Python's `imagehash.dhash`, but for the weights of grey (BT.601 there) and for bit order.
    Gradient,
    /// pHash: grey, resized to 16 x 16 by Lanczos-3, discrete cosine transform; a bit says whether one of the 8 x 8 lowest coefficients
    /// is at least their median.
    ///
    /// `imagehash.phash` resizes to 32 x 32 instead and asks for more than the median: hashes are near but not equal.
    Cosine,
}

/// Of images whose perceptual hashes differ in few bits, keeps the largest, and of those of one size the first.
///
/// Going from the largest image to the smallest, an image is kept if none is kept yet within the distance. So no two kept images are that
/// close, and every dropped one is that close to a kept one, the nearest of which is named; nothing is dropped for being near to something
/// that is near to something else. Which images those are does not depend on the order of the source, but for equal sizes.
///
/// A picture of one colour has hash 0 whatever the colour, and drawings on white come close to it: look at what is dropped before trusting
/// a distance on a new kind of images.
///
/// Memory while choosing, for a million images of different hashes and a distance of 4: 48 MB, and 71 MB for a [`HashIndex`].
///
/// # Reference
/// Krawetz, "Kind of Like That", 2013 (dHash), "Looks Like It", 2011 (pHash), hackerfactor.com.
pub struct NearDuplicates {
    hash: PerceptualHash,
    distance: u32,
    hasher: Hasher<[u8; 8]>,
}

/// To which size large pictures are averaged before they are hashed.
const REDUCED: [u32; 2] = [72, 64];

impl NearDuplicates {
    /// Images whose hashes differ in at most `distance` of 64 bits: 0 to 64.
    pub fn new(hash: PerceptualHash, distance: u32) -> Self {
        let config = HasherConfig::with_bytes_type::<[u8; 8]>().hash_size(8, 8);
        let hasher = match hash {
            PerceptualHash::Gradient => config.hash_alg(HashAlg::Gradient).to_hasher(),
            PerceptualHash::Cosine => config.hash_alg(HashAlg::Median).preproc_dct().to_hasher(),
        };
        Self { hash, distance, hasher }
    }

    /// The hash of a picture, 64 bits.
    pub fn hash(&self, picture: &RgbImage) -> u64 {
        let [width, height] = REDUCED;
        let hash = if picture.width() >= 2 * width && picture.height() >= 2 * height {
            self.hasher.hash_image(&imageops::thumbnail(picture, width, height))
        } else {
            self.hasher.hash_image(picture)
        };
        u64::from_le_bytes(hash.as_bytes().try_into().expect("a hash of 8 bytes"))
    }
}

impl Default for NearDuplicates {
    /// dHash, at most 4 bits.
    fn default() -> Self {
        Self::new(PerceptualHash::Gradient, 4)
    }
}

impl Pass for NearDuplicates {
    fn name(&self) -> &str {
        "near duplicates"
    }

    fn settings(&self) -> Value {
        json!({ "hash": format!("{:?}", self.hash), "distance": self.distance })
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        let picture = subject.picture()?;
        let pixels = u64::from(picture.width()) * u64::from(picture.height());
        Ok(Verdict::keep()
            .noting(json!({ "hash": format!("{:016x}", self.hash(picture)), "pixels": pixels })))
    }

    fn whole(&self) -> Option<&dyn Choose> {
        Some(self)
    }
}

/// An image as it is compared: ordered as it is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hashed {
    pixels: Reverse<u64>,
    number: usize,
    hash: u64,
}

impl Choose for NearDuplicates {
    fn choose(&self, noted: &mut dyn Iterator<Item = Noted>) -> Result<Vec<Chosen>, Trouble> {
        let mut images = noted.map(|noted| hashed(&noted)).collect::<Result<Vec<_>, _>>()?;
        images.sort_unstable_by_key(|image| (image.hash, *image));
        // Images of one hash share their fate, but for the best of them.
        let mut best: Vec<Hashed> = images.chunk_by(|a, b| a.hash == b.hash).map(|equal| equal[0]).collect();
        best.sort_unstable();
        let index = HashIndex::new(best.iter().map(|image| image.hash).collect(), self.distance);

        let mut kept = vec![false; best.len()];
        for position in 0..best.len() {
            let mut alone = true;
            index.within(best[position].hash, &mut |other, _| alone &= !kept[other]);
            kept[position] = alone;
        }

        let mut chosen = Vec::new();
        for (position, image) in best.iter().enumerate() {
            let (mut near, mut distance) = (position, 0);
            if !kept[position] {
                (distance, near) = nearest(&index, image.hash, &kept);
                chosen.push(dropped(image.number, distance, best[near].number));
            }
            let first = images.partition_point(|other| other.hash < image.hash);
            let equal = images[first..].iter().take_while(|other| other.hash == image.hash).skip(1);
            chosen.extend(equal.map(|other| dropped(other.number, distance, best[near].number)));
        }
        Ok(chosen)
    }
}

/// Distance and position of the nearest that is kept; of several the best, which comes first.
fn nearest(index: &HashIndex, hash: u64, kept: &[bool]) -> (u32, usize) {
    let mut nearest = (u32::MAX, usize::MAX);
    index.within(hash, &mut |other, distance| {
        if kept[other] {
            nearest = nearest.min((distance, other));
        }
    });
    nearest
}

fn dropped(number: usize, distance: u32, like: usize) -> Chosen {
    let rejection = Rejection::new("near duplicate", format!("{distance} of 64 bits differ"));
    Chosen { number, rejection, like: Some(like) }
}

fn hashed(noted: &Noted) -> Result<Hashed, Trouble> {
    let hash = noted.note["hash"].as_str().and_then(|text| u64::from_str_radix(text, 16).ok());
    let (Some(hash), Some(pixels)) = (hash, noted.note["pixels"].as_u64()) else {
        return Err(Trouble::Pass(format!("expected a note of hash and pixels, found {}", noted.note)));
    };
    Ok(Hashed { pixels: Reverse(pixels), number: noted.number, hash })
}
