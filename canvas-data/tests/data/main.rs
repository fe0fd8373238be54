//! From stored images to batches, through the public interface.

mod bucket;
mod cache;
mod cache_damage;
mod cache_kill;
mod caption;
mod curate;
mod curate_duplicates;
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
