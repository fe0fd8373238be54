//! SigLIP's image preprocessing: to its size, whatever the proportions, and colours normalised.

use crate::clip_image::normalised;
use burn::prelude::*;
use canvas_core::ConfigError;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::picture::{Filter, resized};
use image::RgbImage;
use std::path::Path;

/// What a picture goes through before a [`SiglipVision`](crate::SiglipVision) sees it.
///
/// # Reference
/// transformers' `SiglipImageProcessor` with Pillow: resized bytes are Pillow's, bit for bit. (Its torchvision backend
/// may differ from that by one byte here and there.)
#[derive(Clone, Debug, PartialEq)]
pub struct SiglipImageProcessor {
    /// Height and width after resizing.
    pub size: [usize; 2],
    /// Means of red, green, blue in `[0, 1]`.
    pub mean: [f32; 3],
    /// Deviations of red, green, blue in `[0, 1]`.
    pub std: [f32; 3],
}

impl Default for SiglipImageProcessor {
    /// 224 pixels, colours to [-1, 1].
    fn default() -> Self {
        Self { size: [224, 224], mean: [0.5; 3], std: [0.5; 3] }
    }
}

impl SiglipImageProcessor {
    /// Reads a transformers `preprocessor_config.json`.
    ///
    /// # Errors
    /// Names the file and the field: a step that is left out, another filter than bicubic, sizes or colours that are
    /// none, a field that is not known.
    pub fn from_transformers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "SiglipImageProcessor")?)
    }

    /// As [`from_transformers_file`](Self::from_transformers_file), from the file's text.
    ///
    /// # Errors
    /// As there.
    pub fn from_transformers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "SiglipImageProcessor")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        for field in ["image_processor_type", "feature_extractor_type"] {
            fields.only(field, &["SiglipImageProcessor".into(), "SiglipImageProcessorFast".into()])?;
        }
        for field in ["do_resize", "do_rescale", "do_normalize"] {
            fields.only(field, &[true.into()])?;
        }
        for field in ["do_center_crop", "do_pad"] {
            fields.only(field, &[false.into()])?;
        }
        fields.only("resample", &[3.into()])?;
        // Of no effect: our pictures are RGB, and those fields are about where and how transformers computes.
        for field in [
            "crop_size",
            "data_format",
            "default_to_square",
            "device",
            "disable_grouping",
            "do_convert_rgb",
            "input_data_format",
            "pad_size",
            "processor_class",
            "return_tensors",
        ] {
            fields.get(field);
        }
        let factor = fields.real("rescale_factor")?.unwrap_or(1.0 / 255.0);
        if (factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(fields.refuse("rescale_factor", "1/255"));
        }
        let default = Self::default();
        let colours = |field, default| match fields.reals(field)? {
            None => Ok(default),
            Some(values) => match values.as_slice() {
                [r, g, b] => Ok([*r as f32, *g as f32, *b as f32]),
                _ => Err(fields.refuse(field, "three numbers")),
            },
        };
        let size = match fields.get("size") {
            None => default.size,
            Some(size) => match (size["height"].as_u64(), size["width"].as_u64()) {
                (Some(height), Some(width)) => [height as usize, width as usize],
                _ => return Err(fields.refuse("size", "a height and a width")),
            },
        };
        let found = Self {
            size,
            mean: colours("image_mean", default.mean)?,
            std: colours("image_std", default.std)?,
        };
        fields.finish(found, |found| {
            let fits = !found.size.contains(&0) && !found.std.contains(&0.0);
            fits.then_some(()).ok_or_else(|| ConfigError::new("size and image_std must not be 0"))
        })
    }

    /// Pictures of any sizes to one tensor.
    ///
    /// # Shapes
    /// - output: `[B, 3, H, W]` of the [size](Self::size)
    ///
    /// # Panics
    /// If there is no picture, or one has no pixels.
    pub fn process(&self, pictures: &[RgbImage], device: &Device) -> Tensor<4> {
        let [height, width] = self.size;
        let bytes = |picture: &RgbImage| resized(picture, (width, height), Filter::Bicubic).into_raw();
        normalised(pictures.iter().map(bytes), self.size, (self.mean, self.std), device)
    }
}
