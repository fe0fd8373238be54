//! CLIP's image preprocessing: shorter edge to a size, centre cut out, colours normalised.

use crate::ClipConfigError;
use crate::clip::config;
use burn::prelude::*;
use canvas_core::picture::{Axis, Filter, resize};
use image::RgbImage;
use serde_json::Value;
use std::path::Path;

/// What a picture goes through before a [`ClipVision`](crate::ClipVision) sees it.
///
/// # Reference
/// transformers' `CLIPImageProcessor` with Pillow: resized bytes are those of Pillow 13.0.0, bit for bit. (Its torchvision
/// backend may differ from that by one byte here and there.)
#[derive(Clone, Debug, PartialEq)]
pub struct ClipImageProcessor {
    /// Pixels of the shorter edge after resizing.
    pub short: usize,
    /// Height and width of the part that is cut out; neither above `short`.
    pub crop: [usize; 2],
    /// Means of red, green, blue in `[0, 1]`.
    pub mean: [f32; 3],
    /// Deviations of red, green, blue in `[0, 1]`.
    pub std: [f32; 3],
}

impl Default for ClipImageProcessor {
    /// 224 pixels and the colours of CLIP's training data.
    fn default() -> Self {
        Self {
            short: 224,
            crop: [224, 224],
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

impl ClipImageProcessor {
    /// Reads a transformers `preprocessor_config.json`.
    ///
    /// # Errors
    /// Names the file and the key: a step that is left out, another filter than bicubic, sizes or colours that
    /// are none, a cut larger than the picture can be.
    pub fn from_file(path: &Path) -> Result<Self, ClipConfigError> {
        config::read(path, Self::parse)
    }

    fn parse(json: &Value) -> Result<Self, String> {
        for key in ["do_resize", "do_center_crop", "do_rescale", "do_normalize"] {
            if json[key] == false {
                return Err(config::expected(key, "true", &json[key]));
            }
        }
        if !json["resample"].is_null() && json["resample"] != 3 {
            return Err(config::expected("resample", "3 (bicubic)", &json["resample"]));
        }
        let factor = json["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0);
        if (factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(config::expected("rescale_factor", "1/255", &json["rescale_factor"]));
        }
        let (size, crop, default) = (&json["size"], &json["crop_size"], Self::default());
        let short = if size.is_object() {
            config::size(size, "shortest_edge", 0)?
        } else {
            config::size(json, "size", 224)?
        };
        let crop = if crop.is_object() {
            [config::size(crop, "height", 0)?, config::size(crop, "width", 0)?]
        } else {
            [config::size(json, "crop_size", 224)?; 2]
        };
        if short == 0 {
            return Err(config::expected("size", "a number or a shortest_edge", size));
        }
        if crop.iter().any(|&edge| edge == 0 || edge > short) {
            return Err(format!("crop_size: expected 1 to size ({short}), found {crop:?}"));
        }
        let mean = colours(json, "image_mean", default.mean)?;
        let std = colours(json, "image_std", default.std)?;
        if std.contains(&0.0) {
            return Err(config::expected("image_std", "three positive numbers", &json["image_std"]));
        }
        Ok(Self { short, crop, mean, std })
    }

    /// Pictures of any sizes to one tensor.
    ///
    /// # Shapes
    /// - output: `[B, 3, H, W]` with the height and width of [`crop`](Self::crop)
    ///
    /// # Panics
    /// If there is no picture, or one has no pixels.
    pub fn process(&self, pictures: &[RgbImage], device: &Device) -> Tensor<4> {
        let cut = pictures.iter().map(|picture| self.cut(picture));
        normalised(cut, self.crop, (self.mean, self.std), device)
    }

    /// Resized and cut, row by row; what is cut off is not computed, however long the picture is.
    fn cut(&self, picture: &RgbImage) -> Vec<u8> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        assert!(width > 0 && height > 0, "a picture of {width}x{height} pixels");
        let long = |edge: usize| (self.short * edge) / width.min(height);
        let (new_width, new_height) = (long(width), long(height));
        let [rows, columns] = self.crop;
        let (top, left) = ((new_height - rows) / 2, (new_width - columns) / 2);
        let tall = Axis { from: height, to: new_height, keep: top..top + rows };
        let wide = Axis { from: width, to: new_width, keep: left..left + columns };
        resize(picture.as_raw(), 3, (&tall, &wide), Filter::Bicubic)
    }
}

fn colours(json: &Value, key: &str, default: [f32; 3]) -> Result<[f32; 3], String> {
    let found = &json[key];
    if found.is_null() {
        return Ok(default);
    }
    serde_json::from_value(found.clone()).map_err(|_| config::expected(key, "three numbers", found))
}

/// Rows of bytes to one tensor `[B, 3, H, W]`: `(byte / 255 - mean) / std`.
pub(crate) fn normalised(
    pictures: impl Iterator<Item = Vec<u8>>,
    [height, width]: [usize; 2],
    (mean, std): ([f32; 3], [f32; 3]),
    device: &Device,
) -> Tensor<4> {
    let (mut values, mut count) = (Vec::new(), 0);
    for picture in pictures {
        let units = picture.into_iter().map(|byte| f32::from(byte) / 255.0);
        values.extend(units.enumerate().map(|(i, unit)| (unit - mean[i % 3]) / std[i % 3]));
        count += 1;
    }
    assert!(count > 0, "at least one picture");
    let data = TensorData::new(values, [count, height, width, 3]);
    Tensor::<4>::from_data(data, device).permute([0, 3, 1, 2])
}
