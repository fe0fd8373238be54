//! One caption, two vendors: the pictures a style is learned from.

use anyhow::{Context, Result, bail};
use canvas_core::generator;
use canvas_examples::emoji_set::{EmojiSet, on_white};
use image::RgbImage;
use rand::seq::SliceRandom;
use std::io::ErrorKind;
use std::path::Path;

/// Of this many captions, one is never shown in the new style.
const TESTED: usize = 5;

/// A caption and its picture by each vendor.
pub struct Both {
    /// What both show.
    pub caption: String,
    /// As the network has learned to draw it.
    pub old: RgbImage,
    /// In the style that it is to learn.
    pub new: RgbImage,
}

/// The captions that both vendors have drawn.
pub struct Pictures {
    /// Those whose new pictures are trained on.
    pub trained: Vec<Both>,
    /// Those whose new pictures are only compared with.
    pub tested: Vec<Both>,
    /// Captions that the new vendor has not drawn.
    pub missing: Vec<String>,
}

impl Pictures {
    /// Looks for the other vendor's pictures of the emoji that a network was trained on: files named by code points, as in
    /// `1f469-200d-1f680.webp`.
    ///
    /// # Errors
    /// If none is there, or one is not a picture: names it.
    pub fn read(folder: &Path, set: &EmojiSet) -> Result<Self> {
        let (mut both, mut missing) = (Vec::new(), Vec::new());
        for emoji in set.trained() {
            let caption = emoji.caption.clone();
            match find(folder, &emoji.glyph, set.side)? {
                Some(new) => both.push(Both { caption, old: emoji.picture.clone(), new }),
                None => missing.push(caption),
            }
        }
        if both.len() < TESTED {
            bail!(
                "{}: {} of {} emoji have a picture here; files are named by code points, as in 1f34e.webp",
                folder.display(),
                both.len(),
                both.len() + missing.len()
            );
        }
        both.shuffle(&mut generator(0, 0, 0));
        let trained = both.split_off(both.len() / TESTED);
        Ok(Self { trained, tested: both, missing })
    }

    /// All of them, those that are trained on first.
    pub fn all(&self) -> impl Iterator<Item = &Both> {
        self.trained.iter().chain(&self.tested)
    }
}

/// The picture of a glyph. Vendors disagree on where U+FE0F (draw as a picture) belongs.
fn find(folder: &Path, glyph: &str, side: u32) -> Result<Option<RgbImage>> {
    let plain = glyph.replace('\u{FE0F}', "");
    for glyph in [glyph, &plain, &format!("{plain}\u{FE0F}")] {
        let points: Vec<String> = glyph.chars().map(|point| format!("{:04x}", u32::from(point))).collect();
        let path = folder.join(format!("{}.webp", points.join("-")));
        match std::fs::read(&path) {
            Ok(file) => {
                return Ok(Some(on_white(&file, side).with_context(|| path.display().to_string())?));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use canvas_examples::emoji_set::Which;
    use image::{ImageFormat, Rgb};

    fn save(folder: &Path, name: &str) {
        RgbImage::from_pixel(4, 4, Rgb([9; 3]))
            .save_with_format(folder.join(name), ImageFormat::WebP)
            .unwrap();
    }

    #[test]
    fn pictures_are_found_whatever_their_names_say_of_fe0f() {
        let (folder, set) = (tempfile::tempdir().unwrap(), EmojiSet::build(Which::Simple, 8).unwrap());
        let error = |set| Pictures::read(folder.path(), set).err().unwrap().to_string();
        assert!(error(&set).contains("0 of 240"), "{}", error(&set));
        for name in ["2764-fe0f", "1f34e", "1f34f", "1f34a", "1f34b", "1f34d", "0023-fe0f-20e3"] {
            save(folder.path(), &format!("{name}.webp"));
        }
        let pictures = Pictures::read(folder.path(), &set).unwrap();
        let mut captions: Vec<&str> = pictures.all().map(|both| both.caption.as_str()).collect();
        captions.sort_unstable();
        assert_eq!(captions, ["green apple", "lemon", "pineapple", "red apple", "red heart", "tangerine"]);
        assert_eq!((pictures.tested.len(), pictures.missing.len()), (1, 234));
        std::fs::write(folder.path().join("1f347.webp"), "not a picture").unwrap();
        let error = format!("{:#}", Pictures::read(folder.path(), &set).err().unwrap());
        assert!(error.contains("1f347.webp"), "{error}");
    }
}
