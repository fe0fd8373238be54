use canvas_data::{Part, Place, Shard, Stream};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// Buckets of these sizes; each image is in one.
fn buckets(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut next = 0..;
    sizes.iter().map(|&size| next.by_ref().take(size).collect()).collect()
}

fn plain(seed: u64, group: usize, sizes: &[usize]) -> Stream {
    Stream::new(seed, group, vec![Part::new(buckets(sizes))])
}

fn places(stream: &Stream, numbers: std::ops::Range<u64>) -> Vec<Place> {
    let mut cursor = stream.cursor();
    numbers.map(|number| cursor.at(number)).collect()
}

/// How often each image came.
fn counts(places: &[Place]) -> HashMap<(usize, usize), u64> {
    let mut counts = HashMap::new();
    places.iter().for_each(|place| *counts.entry((place.source, place.index)).or_insert(0) += 1);
    counts
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0usize..40, 1..8)
        .prop_filter("an image", |sizes| sizes.iter().sum::<usize>() > 0)
}

/// `sizes` in blocks of `block` images, dealt to the buckets in turn, so that each block has some of each.
fn scattered(sizes: &[usize]) -> Vec<Vec<usize>> {
    let total: usize = sizes.iter().sum();
    let mut found = vec![Vec::new(); sizes.len()];
    let mut given = vec![0; sizes.len()];
    for image in 0..total {
        // The bucket that lags most behind its share.
        let lag =
            |&bucket: &usize| (image + 1) as f64 * sizes[bucket] as f64 / total as f64 - given[bucket] as f64;
        let open = (0..sizes.len()).filter(|&bucket| given[bucket] < sizes[bucket]);
        let bucket = open.max_by(|a, b| lag(a).total_cmp(&lag(b))).unwrap();
        given[bucket] += 1;
        found[bucket].push(image);
    }
    found
}

fn blocks(total: usize, length: usize) -> Vec<std::ops::Range<usize>> {
    (0..total.div_ceil(length)).map(|block| block * length..((block + 1) * length).min(total)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_group_is_of_one_bucket_and_images_are_of_theirs(seed: u64, sizes in sizes(), group in 1usize..9) {
        let stream = plain(seed, group, &sizes);
        let found = places(&stream, 0..(group * 60) as u64);
        let of = buckets(&sizes);
        for run in found.chunks(group) {
            prop_assert!(run.iter().all(|place| place.bucket == run[0].bucket), "{run:?}");
            prop_assert!(run.iter().all(|place| of[place.bucket].contains(&place.index)), "{run:?}");
        }
    }

    /// In the first E epochs each image comes E times +-1, in a bucket below a group +-ceil(group / size).
    #[test]
    fn no_image_is_lost(seed: u64, sizes in sizes(), group in 1usize..9, windows: bool, epochs in 1u64..12) {
        let part = Part::new(scattered(&sizes));
        let total = sizes.iter().sum();
        let part = if windows { part.windows(&blocks(total, 5), 3) } else { part };
        let stream = Stream::new(seed, group, vec![part]);
        let counts = counts(&places(&stream, 0..stream.epoch_start(epochs)));
        for (bucket, images) in scattered(&sizes).iter().enumerate() {
            let slack = group.div_ceil(images.len().max(1)) as u64;
            for &image in images {
                let count = counts.get(&(0, image)).copied().unwrap_or(0);
                prop_assert!(count.abs_diff(epochs) <= slack, "image {image} of bucket {bucket}: {count} times");
            }
        }
    }

    #[test]
    fn weights_repeat(seed: u64, group in 1usize..5, weight in prop::sample::select(vec![0.25, 1.0, 3.0, 2.5])) {
        let parts = vec![Part::new(buckets(&[30, 9])), Part::new(buckets(&[20])).weight(weight)];
        let stream = Stream::new(seed, group, parts);
        prop_assert_eq!(stream.per_epoch(), 39.0 + 20.0 * weight);
        let counts = counts(&places(&stream, 0..stream.epoch_start(8)));
        for (source, images, times) in [(0, 39, 8.0), (1, 20, 8.0 * weight)] {
            for image in 0..images {
                let count = counts.get(&(source, image)).copied().unwrap_or(0) as f64;
                prop_assert!((count - times).abs() <= 1.0, "{source} {image}: {count}, expected {times}");
            }
        }
    }

    #[test]
    fn a_lookup_does_not_depend_on_what_was_looked_up(seed: u64, sizes in sizes(), group in 1usize..9, windows: bool) {
        let part = Part::new(scattered(&sizes));
        let part = if windows { part.windows(&blocks(sizes.iter().sum(), 4), 2) } else { part };
        let stream = Stream::new(seed, group, vec![part]);
        let whole = places(&stream, 0..200);
        let mut cursor = stream.cursor();
        for step in [1, 7, 77, 101] {
            for number in (0..200).map(|i| i * step % 200) {
                prop_assert_eq!(cursor.at(number as u64), whole[number]);
            }
        }
        for far in [1u64 << 20, 1_000_000_000_000, 1 << 53] {
            let here = places(&stream, far..far + 20);
            let alone: Vec<_> = (far..far + 20).map(|number| stream.at(number)).collect();
            prop_assert_eq!(here, alone);
        }
    }

    /// The devices' shares of each step are together the batch of one device, whatever the batch.
    #[test]
    fn shares_are_the_stream(seed: u64, sizes in sizes(), start in 0u64..50, of in 1usize..5, each in 1usize..4) {
        let stream = plain(seed, 12, &sizes);
        let mut shares: Vec<_> = (0..of).map(|rank| stream.shard(Shard::new(rank, of), start)).collect();
        for step in 0..5 {
            let mut batch: Vec<_> = shares.iter_mut().flat_map(|share| share.take(each)).collect();
            batch.sort_by_key(|(number, _)| *number);
            let begin = start + (step * of * each) as u64;
            let numbers: Vec<u64> = batch.iter().map(|(number, _)| *number).collect();
            prop_assert_eq!(numbers, (begin..begin + (of * each) as u64).collect::<Vec<_>>());
            prop_assert!(batch.iter().all(|(number, place)| stream.at(*number) == *place));
        }
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let stream = plain(7, 1, &[50]);
    let epochs: HashSet<Vec<usize>> = (0..20)
        .map(|epoch| places(&stream, epoch * 50..(epoch + 1) * 50).iter().map(|place| place.index).collect())
        .collect();
    assert_eq!(epochs.len(), 20);
    assert_ne!(places(&plain(8, 1, &[50]), 0..50), places(&stream, 0..50));
}

/// Buckets of the same size are shuffled by different keys, and so are the same images in another part.
#[test]
fn buckets_have_orders_of_their_own() {
    let same = vec![(0..30).collect::<Vec<usize>>(); 2];
    let stream = Stream::new(7, 30, vec![Part::new(same.clone()), Part::new(same)]);
    let mut groups = HashMap::new();
    for group in 0..8 {
        let group = places(&stream, group * 30..(group + 1) * 30);
        let order: Vec<usize> = group.iter().map(|place| place.index).collect();
        groups.entry((group[0].source, group[0].bucket)).or_insert(order);
    }
    assert_eq!(groups.values().collect::<HashSet<_>>().len(), 4);
}

/// How the caller lists a bucket says nothing.
#[test]
fn the_order_of_the_lists_does_not_matter() {
    let reversed = buckets(&[20, 5]).into_iter().map(|images| images.into_iter().rev().collect()).collect();
    let other = Stream::new(7, 4, vec![Part::new(reversed)]);
    assert_eq!(places(&other, 0..100), places(&plain(7, 4, &[20, 5]), 0..100));
}

/// At no moment has a bucket had many more or fewer turns than its share: 64 groups are a round.
#[test]
fn turns_are_taken_in_proportion() {
    let sizes = [10_000, 3_000, 700, 50, 3];
    let total: usize = sizes.iter().sum();
    let stream = plain(3, 4, &sizes);
    let mut turns = vec![0u64; sizes.len()];
    let mut cursor = stream.cursor();
    for group in 0..20_000u64 {
        turns[cursor.at(group * 4).bucket] += 1;
        for (bucket, &size) in sizes.iter().enumerate() {
            let share = (group + 1) as f64 * size as f64 / total as f64;
            let off = turns[bucket] as f64 - share;
            assert!(
                off.abs() < 2.0 + 64.0 * (size as f64 / total as f64).sqrt(),
                "bucket {bucket} at {group}: {off}"
            );
        }
    }
}

/// Small buckets of one size do not all come at once.
#[test]
fn rare_turns_are_spread() {
    let mut sizes = vec![2; 40];
    sizes.push(4000);
    let stream = plain(1, 8, &sizes); // each small one has a group in four epochs
    for epoch in 0..8 {
        let found = places(&stream, stream.epoch_start(epoch)..stream.epoch_start(epoch + 1));
        let small: HashSet<usize> =
            found.iter().map(|place| place.bucket).filter(|&bucket| bucket < 40).collect();
        assert!((2..=22).contains(&small.len()), "epoch {epoch}: {} of 40", small.len());
    }
}

/// Blocks between the first and the last image of each that comes in an epoch, counted at each image.
fn most_open(stream: &Stream, numbers: std::ops::Range<u64>, block: usize) -> usize {
    let found = places(stream, numbers);
    let (mut first, mut last) = (HashMap::new(), HashMap::new());
    for (number, place) in found.iter().enumerate() {
        first.entry(place.index / block).or_insert(number);
        last.insert(place.index / block, number);
    }
    let open = |number: usize| {
        first.iter().filter(|(block, first)| **first <= number && last[*block] >= number).count()
    };
    (0..found.len()).map(open).max().unwrap()
}

/// One bucket: no more blocks are open than two windows have. Several: they go through the blocks at one pace.
#[test]
fn windows_keep_few_blocks_open() {
    let (block, width) = (200, 3);
    for (sizes, most) in [(vec![12_000], width + 1), (vec![7000, 4000, 1000], 3 * width)] {
        let part = Part::new(scattered(&sizes)).windows(&blocks(12_000, block), width);
        let stream = Stream::new(5, 8, vec![part]);
        let open = most_open(&stream, 0..stream.epoch_start(1), block);
        assert!((width..=most).contains(&open), "{sizes:?}: {open} open");
        let without = Stream::new(5, 8, vec![Part::new(scattered(&sizes))]);
        assert_eq!(most_open(&without, 0..without.epoch_start(1), block), 60);
    }
}

/// Within a window images are shuffled, and windows differ from epoch to epoch.
#[test]
fn windows_are_shuffled() {
    let part = Part::new(buckets(&[120])).windows(&blocks(120, 10), 4);
    let stream = Stream::new(5, 1, vec![part]);
    let epochs: Vec<Vec<usize>> = (0..6)
        .map(|epoch| places(&stream, epoch * 120..(epoch + 1) * 120).iter().map(|p| p.index).collect())
        .collect();
    let opened: HashSet<Vec<usize>> = epochs
        .iter()
        .map(|images| {
            let mut opened: Vec<usize> = images[..40].iter().map(|image| image / 10).collect();
            assert!(opened.windows(2).filter(|two| two[0] != two[1]).count() > 15, "one block after another");
            opened.sort_unstable();
            opened.dedup();
            assert_eq!(opened.len(), 4);
            opened
        })
        .collect();
    assert!(opened.len() > 4, "{opened:?}");
}

/// A run is resumed by a later build: the order must not change with it. The numbers are those of a second implementation
/// of the formulas.
#[test]
fn the_order_is_a_constant_of_its_seed() {
    let index = |stream: &Stream, start: u64| -> Vec<usize> {
        places(stream, start..start + 8).iter().map(|place| place.index).collect()
    };
    let stream = plain(7, 2, &[10, 5]);
    assert_eq!(index(&stream, 6), [6, 0, 11, 12, 10, 13, 14, 13]);
    assert_eq!(index(&stream, 1_000_000_000_000), [10, 12, 14, 10, 7, 6, 6, 0]);
    let windows = Stream::new(7, 2, vec![Part::new(buckets(&[10, 5])).windows(&blocks(15, 4), 2)]);
    assert_eq!(index(&windows, 6), [7, 1, 14, 10, 12, 11, 13, 12]);
}

#[test]
fn one_image_is_a_stream_and_none_is_not() {
    assert!(places(&plain(3, 4, &[0, 1]), 5..25).iter().all(|place| place.index == 0 && place.bucket == 1));
    let empty = std::panic::catch_unwind(|| plain(3, 4, &[0, 0])).unwrap_err();
    assert_eq!(*empty.downcast::<&str>().unwrap(), "a stream needs at least one image");
    let outside = std::panic::catch_unwind(|| {
        Stream::new(3, 4, vec![Part::new(buckets(&[10])).windows(&blocks(5, 5), 1)]);
    });
    assert_eq!(*outside.unwrap_err().downcast::<String>().unwrap(), "images 0..=9 and blocks of 0..5");
    let weight = std::panic::catch_unwind(|| Part::new(buckets(&[10])).weight(0.0)).unwrap_err();
    assert_eq!(*weight.downcast::<String>().unwrap(), "a part's weight is 0: from 1/65536 to 65536");
}
