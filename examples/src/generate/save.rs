//! What the program leaves: pictures that carry their recipe, and latents.

use anyhow::{Context, Result};
use burn::prelude::*;
use canvas_core::weights::{write_atomically, write_tensors};
use image::RgbImage;
use std::path::{Path, PathBuf};

/// `name.png` for one picture, `name-0.png`, `name-1.png`, .. for several.
pub fn names(path: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![path.to_owned()];
    }
    (0..count).map(|number| beside(path, &number.to_string())).collect()
}

/// The file with something behind its name: `name-preview.png`.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path.extension().map_or("png".into(), |end| end.to_string_lossy());
    path.with_file_name(format!("{stem}-{what}.{end}"))
}

/// A PNG with texts in it, written whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn picture(picture: &RgbImage, path: &Path, texts: &[(&str, String)]) -> Result<()> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (key, text) in texts {
        encoder.add_itxt_chunk((*key).to_owned(), text.clone())?;
    }
    encoder.write_header()?.write_image_data(picture.as_raw())?;
    write_atomically(path, &bytes).context("the picture was not written")
}

/// The latents, under the key `latents`.
///
/// # Errors
/// If they cannot be written.
pub fn latents(latents: Tensor<4>, path: &Path) -> Result<()> {
    let data = latents.cast(burn::tensor::DType::F32).into_data();
    let version = [("canvas".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    write_tensors(path, &[("latents".to_owned(), data)], &version.into())
        .context("the latents were not written")
}
