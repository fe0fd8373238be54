//! Which image comes when: a function of the seed and the image's number in the run.
//!
//! # Draws by purpose
//! What is drawn for an image is keyed by the same number: crop, flip, choice of caption, noise. Each purpose has a seed
//! of its own, `seed_for(seed, "crop")`, and each image a generator of its own, `generator(seed_for(seed, "crop"), number,
//! 0)` of canvas-core. So an image's crop does not depend on which thread cut it, on how many draws its flip took, nor on
//! what else is in its batch.
//!
//! # Cost
//! A stream holds its images' numbers (8 bytes each) and, with windows, 8 bytes for each block of each bucket: nothing
//! grows with the length of a run. Of 10 million images in 40 buckets, a cursor finds one in 1.5 microseconds, in windows
//! of 8 of 2000 blocks in 1.8, from the first and from image 10^12 alike (most of it is the permutation: 1.2). Without a
//! cursor's memory it is some microseconds, with windows 1.4 milliseconds: all blocks of an epoch are shuffled.
//! `cargo run --release --example stream_speed`.

mod cursor;
mod key;
mod lane;
mod permutation;
mod turns;

pub use cursor::Cursor;
pub use permutation::Permutation;

use canvas_core::seed_for;
use key::derive;
use lane::{Lane, Windows};
use std::ops::Range;
use std::sync::Arc;
use turns::Turns;

/// Groups in a round, on average: long enough that turns look shuffled, short enough that a round is quickly laid out.
const ROUND: usize = 64;
/// Weights count in these.
const UNIT: f64 = 65_536.0;

/// Where an image of a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which of the stream's parts.
    pub source: usize,
    /// Which bucket of that part.
    pub bucket: usize,
    /// Number of the image in its source.
    pub index: usize,
}

/// The images of one source, in buckets, and how a stream takes them.
#[derive(Clone, Debug)]
pub struct Part {
    buckets: Vec<Vec<usize>>,
    weight: f64,
    windows: Option<(Vec<Range<usize>>, usize)>,
}

impl Part {
    /// All buckets of a source: each lists numbers of images. Their order does not matter; a number that is listed twice
    /// comes twice as often.
    pub fn new(buckets: Vec<Vec<usize>>) -> Self {
        Self { buckets, weight: 1.0, windows: None }
    }

    /// How often its images come in an epoch: 1 unless said otherwise, counted in 65536ths.
    ///
    /// # Panics
    /// If it is not at least 1/65536, or above 65536.
    pub fn weight(self, weight: f64) -> Self {
        assert!((1.0 / UNIT..=UNIT).contains(&weight), "a part's weight is {weight}: from 1/65536 to 65536");
        Self { weight, ..self }
    }

    /// Stays within `width` [blocks](crate::Source::blocks) at a time, for what is read from shards or groups of rows.
    ///
    /// Each epoch shuffles the blocks anew, goes through `width` of them at a time, and shuffles the images within.
    /// All buckets go through the blocks in the same order at the same pace, and no image is lost. Wider is better
    /// shuffled; narrower keeps fewer blocks open.
    ///
    /// A source with one bucket has `width` blocks open, between the first and the last image that is taken of each, and
    /// at the border of two windows one more. With more buckets, whose borders do not fall together, it is up to three
    /// times as many: 12 buckets in windows of 16 of 400 blocks had 47 open, and a reader that keeps the 32 used last
    /// opened each 1.04 times in an epoch (with 16 it opened each 17 times: a reader keeps two windows open or more).
    /// A window with fewer images than a round of 64 groups is wider than it says, as buckets keep pace only from round
    /// to round; and a bucket with less than a group in a window collects one from several.
    ///
    /// # Panics
    /// If `width` is 0, or [`Stream::new`] finds an image before the first block or after the last.
    pub fn windows(self, blocks: &[Range<usize>], width: usize) -> Self {
        assert!(width > 0, "a window is at least one block wide");
        Self { windows: Some((blocks.to_vec(), width)), ..self }
    }

    fn quota(&self, bucket: &[usize]) -> u64 {
        (self.weight * UNIT).round() as u64 * bucket.len() as u64
    }

    /// The lanes of its buckets that have images, with their quotas.
    fn lanes(self, key: u64, source: usize) -> Vec<(Lane, u64)> {
        let mut lanes = Vec::new();
        for (bucket, images) in self.buckets.iter().enumerate().filter(|(_, images)| !images.is_empty()) {
            let mut images = images.clone();
            images.sort_unstable();
            let windows = self.windows.as_ref().map(|(blocks, width)| {
                check(blocks, &images);
                Windows::new(derive(key, &[1, source as u64]), blocks, *width, &images)
            });
            let quota = self.quota(&images);
            let key = derive(key, &[2, source as u64, bucket as u64]);
            lanes.push((Lane { key, source, bucket, images, windows }, quota));
        }
        lanes
    }
}

fn check(blocks: &[Range<usize>], images: &[usize]) {
    let (first, last) = (images[0], images[images.len() - 1]);
    let covered = blocks.first().map_or(0, |block| block.start)..blocks.last().map_or(0, |block| block.end);
    assert!(
        covered.contains(&first) && covered.contains(&last),
        "images {first}..={last} and blocks of {covered:?}"
    );
    let gap = blocks.windows(2).find(|two| two[0].end != two[1].start);
    assert!(gap.is_none(), "blocks do not lie side by side: {gap:?}");
}

/// An endless order over the images of one or more sources, in groups of one bucket.
///
/// Image `n` of the run is a function of (seed, parts, `n`) and of nothing else: the batch's size, the number of threads
/// and devices, and where a run was resumed do not enter.
///
/// - Images `n G .. (n + 1) G` are of one bucket, so any batch that divides the group `G` holds images of one size.
/// - Each bucket has an endless order of its own, each epoch of it a new permutation: no image is lost, however small
///   its bucket. In the first `E` epochs of the stream, an image of a bucket of at least `G` images comes `E` times,
///   give or take one; one of a smaller bucket of `n_b` images, give or take `ceil(G / n_b)`, which no order in groups
///   can better: a group of 8 from a bucket of 2 shows each image four times.
/// - The buckets take turns in proportion to their images times their part's weight, in shuffled rounds of about 64
///   groups (more with more buckets; an epoch, if that is shorter): none lags behind its share by more than a round.
///
/// A group that spans two epochs of its bucket may hold an image twice.
///
/// It is cheap to clone.
///
/// # Example
/// ```
/// use canvas_data::{Part, Stream};
/// let wide = vec![0, 2, 3, 5, 6, 7];
/// let tall = vec![1, 4];
/// let stream = Stream::new(7, 2, vec![Part::new(vec![wide, tall])]);
/// let (third, fourth) = (stream.at(2), stream.at(3));
/// assert_eq!(third.bucket, fourth.bucket); // a group is of one bucket
/// assert!(stream.at(1_000_000_000_000).index < 8); // any number, at once
/// ```
#[derive(Clone, Debug)]
pub struct Stream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    group: usize,
    lanes: Vec<Lane>,
    turns: Turns,
    per_epoch: f64,
    rounds: u64,
}

impl Stream {
    /// An order over all images of `parts` in runs of `group` from one bucket.
    ///
    /// `group` is the largest batch, over all devices: batches that divide it can be changed in the middle of a run.
    ///
    /// # Panics
    /// If `group` is 0 or there is no image.
    pub fn new(seed: u64, group: usize, parts: Vec<Part>) -> Self {
        assert!(group > 0, "a group holds at least one image");
        let key = seed_for(seed, "stream");
        let lanes = parts.into_iter().enumerate().flat_map(|(source, part)| part.lanes(key, source));
        let (lanes, quotas): (Vec<_>, Vec<_>) = lanes.unzip();
        assert!(!lanes.is_empty(), "a stream needs at least one image");
        let per_epoch = quotas.iter().map(|&quota| quota as f64).sum::<f64>() / UNIT;
        // An epoch is a whole number of rounds, so that counts are even at its end.
        let rounds = (per_epoch / (group * ROUND.max(lanes.len())) as f64).round().max(1.0) as u64;
        let turns = Turns::new(derive(key, &[0]), quotas, group as u64 * rounds * UNIT as u64);
        Self(Arc::new(Inner { group, lanes, turns, per_epoch, rounds }))
    }

    /// Images that come in a run from one bucket.
    pub fn group(&self) -> usize {
        self.0.group
    }

    /// Buckets that have images, over all parts.
    pub fn buckets(&self) -> usize {
        self.0.lanes.len()
    }

    /// Images in an epoch: of each part, as many as it has, times its weight.
    pub fn per_epoch(&self) -> f64 {
        self.0.per_epoch
    }

    /// The number of the run's image with which an epoch begins.
    ///
    /// An epoch ends between two groups, so it is longer or shorter than [`per_epoch`](Self::per_epoch) by less than a
    /// group for each bucket, and makes up for it later.
    pub fn epoch_start(&self, epoch: u64) -> u64 {
        self.0.turns.before(epoch * self.0.rounds) * self.0.group as u64
    }

    /// The image at a number of the run. For many, in whatever order, a [`cursor`](Self::cursor) is faster.
    pub fn at(&self, number: u64) -> Place {
        self.cursor().at(number)
    }

    /// Something that looks images up and remembers what neighbours share.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.clone())
    }

    /// The images of one of `of` devices, from number `start` on, without end: see [`Shard`].
    ///
    /// # Example
    /// ```
    /// use canvas_data::{Part, Shard, Stream};
    /// let stream = Stream::new(7, 4, vec![Part::new(vec![(0..100).collect()])]);
    /// let second = stream.shard(Shard::new(1, 2), 40);
    /// let numbers: Vec<u64> = second.map(|(number, _)| number).take(3).collect();
    /// assert_eq!(numbers, [41, 43, 45]);
    /// ```
    pub fn shard(&self, shard: Shard, start: u64) -> impl Iterator<Item = (u64, Place)> + use<> {
        let mut cursor = self.cursor();
        shard.numbers(start).map(move |number| (number, cursor.at(number)))
    }
}

/// One device's share of a run: every `of`-th image, from the `rank`-th.
///
/// Whatever a batch's size, the shares of all devices at a step are together the batch that one device would take, and
/// each image keeps its number, so its crop and noise are the same on whichever device it falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    rank: usize,
    of: usize,
}

impl Shard {
    /// All images.
    pub const WHOLE: Self = Self { rank: 0, of: 1 };

    /// The share of device `rank`, from 0, of `of`.
    ///
    /// # Panics
    /// If `rank` is not below `of`.
    pub fn new(rank: usize, of: usize) -> Self {
        assert!(rank < of, "rank {rank} of {of} devices");
        Self { rank, of }
    }

    /// Which device.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Of how many.
    pub fn of(&self) -> usize {
        self.of
    }

    /// Numbers of its images from `start` on, without end.
    pub fn numbers(self, start: u64) -> impl Iterator<Item = u64> {
        (start + self.rank as u64..).step_by(self.of)
    }
}
