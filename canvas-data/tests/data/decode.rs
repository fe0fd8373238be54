use canvas_data::{Decode, Decoded, Several, reason};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, GrayImage, ImageFormat, RgbImage, RgbaImage};
use proptest::prelude::*;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

const FIRST: Decode =
    Decode { max_pixels: 1 << 20, several: Several::First, background: [10, 200, 90], orient: true };

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

/// A small odd file of tools/fixtures_images.py.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixtures().join(name)).unwrap()
}

/// What Pillow makes of it.
fn judged(name: &str) -> DynamicImage {
    image::load_from_memory(&fixture(&format!("{name}.png"))).unwrap()
}

/// Names of all files that Pillow has judged.
fn names() -> Vec<String> {
    let entries = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.filter_map(|name| Some(name.to_str()?.strip_suffix(".png")?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| name.contains('.')).collect();
    names.sort();
    names
}

/// The largest difference of a byte, and the mean one.
fn difference(found: &[u8], expected: &[u8]) -> (u8, f64) {
    assert_eq!(found.len(), expected.len());
    let off = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    (off.clone().max().unwrap(), off.map(f64::from).sum::<f64>() / found.len() as f64)
}

fn written(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

#[track_caller]
fn refused(decode: &Decode, bytes: &[u8], expected: &str) -> String {
    let fault = decode.picture("some/key.jpg", bytes).unwrap_err();
    assert_eq!((fault.key.as_str(), &*fault.reason), ("some/key.jpg", expected), "{fault}");
    fault.detail
}

#[test]
fn compare() {
    for name in names() {
        let bytes = fixture(&name);
        let size = FIRST.size(&name, &bytes);
        let found = FIRST.picture(&name, &bytes);
        match found {
            Err(f) => println!("{name}: {f} (size {size:?})"),
            Ok(d) => {
                let j = judged(&name);
                let has = j.color().has_alpha();
                let same = j.width() == d.rgb.width();
                println!(
                    "{name}: size {:?} {same} rgb {:?} alpha {} {:?}",
                    size.unwrap() == [j.width(), j.height()],
                    if has || !same { None } else { Some(difference(d.rgb.as_raw(), j.to_rgb8().as_raw())) },
                    has,
                    d.alpha.map(|a| a.as_raw()[..4].to_vec())
                );
            }
        }
    }
}
