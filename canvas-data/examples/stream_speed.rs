//! What looking up an image costs, and how many blocks an order in windows keeps open.
//!
//! `cargo run --release --example stream_speed`

use canvas_data::{Part, Stream};
use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::time::Instant;

const IMAGES: usize = 10_000_000;
const GROUP: usize = 32;

/// Images in buckets of unequal sizes, scattered over the source as different pictures are.
fn buckets(images: usize, count: usize) -> Vec<Vec<usize>> {
    let mut buckets = vec![Vec::new(); count];
    for image in 0..images {
        let mixed = (image as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        let even = mixed as f64 / (1u64 << 53) as f64;
        buckets[((even * even) * count as f64) as usize].push(image);
    }
    buckets
}

fn lookups(name: &str, stream: &Stream) {
    for start in [0, 1_000_000_000_000] {
        let mut cursor = stream.cursor();
        black_box(cursor.at(start));
        let begun = Instant::now();
        for number in start..start + 300_000 {
            black_box(cursor.at(number));
        }
        let each = begun.elapsed() / 300_000;
        let begun = Instant::now();
        for jump in 0..20 {
            black_box(stream.at(start + jump * 7_777_777));
        }
        let alone = begun.elapsed() / 20;
        println!("{name}, from image {start}: {each:?} one after another, {alone:?} alone");
    }
}

/// Blocks read once or more in an epoch by a reader that keeps the last `keep` open, and the most between first and last use.
fn open(name: &str, stream: &Stream, block: usize, blocks: usize) {
    let end = stream.epoch_start(1);
    let mut cursor = stream.cursor();
    let order: Vec<usize> = (0..end).map(|number| cursor.at(number).index / block).collect();
    let (mut first, mut last) = (HashMap::new(), HashMap::new());
    for (number, block) in order.iter().enumerate() {
        first.entry(block).or_insert(number);
        last.insert(block, number);
    }
    let mut change = vec![0i64; order.len() + 1];
    first.values().for_each(|&number| change[number] += 1);
    last.values().for_each(|&number| change[number + 1] -= 1);
    let most = change.iter().scan(0, |open, change| {
        *open += change;
        Some(*open)
    });
    let opened = [8, 16, 32, 64].map(|keep| {
        let (mut held, mut queue, mut opened) = (HashSet::new(), Vec::new(), 0);
        for block in &order {
            if held.insert(block) {
                opened += 1;
            } else {
                queue.retain(|other| other != &block);
            }
            queue.push(block);
            if queue.len() > keep {
                held.remove(queue.remove(0));
            }
        }
        format!("{keep} open: {:.2}", f64::from(opened) / blocks as f64)
    });
    println!(
        "{name}: at most {} blocks between first and last use; times each is opened with {}",
        most.max().unwrap_or(0),
        opened.join(", ")
    );
}

fn main() {
    for count in [1, 40] {
        let stream = Stream::new(7, GROUP, vec![Part::new(buckets(IMAGES, count))]);
        lookups(&format!("{count} buckets of {IMAGES} images"), &stream);
    }
    let blocks: Vec<_> = (0..IMAGES / 5000).map(|block| block * 5000..(block + 1) * 5000).collect();
    let part = Part::new(buckets(IMAGES, 40)).windows(&blocks, 8);
    lookups("40 buckets in windows of 8 of 2000 blocks", &Stream::new(7, GROUP, vec![part]));
    let (images, block) = (400_000, 1000);
    let blocks: Vec<_> = (0..images / block).map(|index| index * block..(index + 1) * block).collect();
    for (count, width) in [(1, 4), (1, 16), (12, 4), (12, 16), (40, 16)] {
        let part = Part::new(buckets(images, count)).windows(&blocks, width);
        let stream = Stream::new(7, GROUP, vec![part]);
        open(
            &format!("{count} buckets, windows of {width} of {} blocks", blocks.len()),
            &stream,
            block,
            blocks.len(),
        );
    }
}
