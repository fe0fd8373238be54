//! Sources and shards through their public interface.

mod fixtures;
mod folder;
mod fuzz;
mod make;
mod opening;
#[cfg(feature = "object-store")]
mod remote;
mod shards;
mod table;
mod writer;
//! Sources, decoding, buckets, surveys and preparation through their public interface.

mod bucket;
mod caption;
mod decode;
mod manifest;
mod prepare;
mod survey;

use canvas_data::{Caption, Record};
use image::{DynamicImage, ImageFormat, RgbImage};
use std::io::Cursor;

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
//! Streams, loaders and caches through their public interface.

mod cache;
mod cache_kill;
mod loader;
mod permutation;
mod stream;
mod together;
//! Sources, curation and streams through their public interface.

mod curate;
mod curate_duplicates;
mod curate_passes;
mod curate_resume;
