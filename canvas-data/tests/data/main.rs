//! From stored images to batches, through the public interface.

mod bucket;
mod cache;
mod cache_damage;
mod cache_kill;
mod caption;
mod curate;
mod curate_common;
mod curate_duplicates;
mod curate_killed;
mod curate_passes;
mod curate_resume;
mod decode;
mod fixtures;
mod folder;
mod fuzz;
mod loader;
mod make;
mod manifest;
mod opening;
mod permutation;
mod prepare;
#[cfg(feature = "object-store")]
mod remote;
mod shards;
mod stream;
mod survey;
mod table;
mod together;
mod writer;

use canvas_data::{Caption, Fault, InMemory, Record, Source, reason};
use image::{DynamicImage, ImageFormat, RgbImage};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An image file.
fn written(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// A picture in which every pixel of a row and of a column differs.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        [(x * 7 + y) as u8, (x + y * 11) as u8, ((x * y) % 251) as u8].into()
    })
}

fn png(width: u32, height: u32) -> Vec<u8> {
    written(&scene(width, height).into(), ImageFormat::Png)
}

fn record(key: &str, image: Vec<u8>) -> Record {
    let fields = serde_json::Map::new();
    Record { key: key.into(), image, captions: vec![Caption::new("a test")], fields }
}

/// Images of which one cannot be read from a time on.
struct Flaky {
    images: InMemory,
    settings: &'static str,
    bad: AtomicUsize,
    /// How often it may be read until then.
    good_for: AtomicUsize,
    reads: AtomicUsize,
}

impl Flaky {
    fn new(images: InMemory, bad: usize) -> Self {
        let [bad, good_for, reads] = [bad, 0, 0].map(AtomicUsize::new);
        Self { images, settings: "", bad, good_for, reads }
    }

    /// All can be read again.
    fn mend(&self) {
        self.bad.store(usize::MAX, Ordering::Relaxed);
    }

    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

impl Source for Flaky {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn key(&self, index: usize) -> String {
        self.images.key(index)
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let less = |left: usize| left.checked_sub(1);
        if index == self.bad.load(Ordering::Relaxed)
            && self.good_for.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
        {
            return Err(Fault::new(self.key(index), reason::UNREADABLE, "Input/output error"));
        }
        self.images.read(index)
    }

    fn settings(&self) -> String {
        self.settings.into()
    }
}
