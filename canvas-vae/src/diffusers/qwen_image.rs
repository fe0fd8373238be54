//! `AutoencoderKLQwenImage`: its configuration and the names of its parameters.

use crate::AutoencoderKlQwenImageConfig;
use crate::qwen_image::{MEAN, STD};
use canvas_core::LatentScale;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use serde_json::Value;
use std::path::Path;

impl AutoencoderKlQwenImageConfig {
    /// Reads a `vae/config.json` of class `AutoencoderKLQwenImage`, with the scale between its latents and a denoiser's.
    ///
    /// `temperal_downsample`, spelt so, is about frames behind the first: it is looked at for its length only. Refused
    /// are attention outside the innermost level (`attn_scales`) and `dropout`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::open(path, "AutoencoderKLQwenImage")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::parse(json, "AutoencoderKLQwenImage")?)
    }

    fn read(fields: &Fields) -> Result<(Self, LatentScale), ConfigFileError> {
        let multiples = fields.numbers("dim_mult", &[1, 2, 4, 4])?;
        let latent = fields.number("z_dim")?.unwrap_or(16);
        let halvings = multiples.len().saturating_sub(1);
        if let Some(found) = fields.get("temperal_downsample").or(Some(&Value::from(vec![false; 3]))) {
            let flags = found.as_array().filter(|list| list.iter().all(Value::is_boolean));
            if flags.is_none_or(|flags| flags.len() != halvings) {
                let expected = format!("{halvings} of true or false, one a halving of dim_mult's levels");
                return Err(fields.refuse("temperal_downsample", &expected));
            }
        }
        let config = Self::new()
            .with_width(fields.number("base_dim")?.unwrap_or(96))
            .with_multiples(multiples)
            .with_layers(fields.number("num_res_blocks")?.unwrap_or(2))
            .with_latent(latent)
            .with_image_channels(fields.number("input_channels")?.unwrap_or(3));
        fields.only("attn_scales", &[Value::Array(vec![])])?;
        fields.only("dropout", &[0.into()])?;
        let channel = |field: &str, default: &[f64], least: f64| {
            let list = fields.reals(field)?.unwrap_or_else(|| default.to_vec());
            let fits = list.len() == latent && list.iter().all(|&value| value > least);
            let above = if least == 0.0 { ", above 0" } else { "" };
            let expected = || format!("{latent} numbers, one a channel of the latents{above}");
            if fits { Ok(list) } else { Err(fields.refuse(field, &expected())) }
        };
        let (mean, std) = (channel("latents_mean", &MEAN, f64::MIN)?, channel("latents_std", &STD, 0.0)?);
        Ok((fields.finish(config, Self::validate)?, LatentScale::per_channel(&mean, &std)))
    }

    /// The names of diffusers' `AutoencoderKLQwenImage`, for
    /// [`load_published`](canvas_core::weights::load_published): of each kernel over time, height and width the last
    /// slice is taken, and the layers between frames are left out.
    ///
    /// What [`save_published`](canvas_core::weights::save_published) writes by them has zeros in the earlier slices and
    /// nothing between frames: an autoencoder of images, no longer one of videos.
    pub fn published(&self) -> Rules {
        let mut rules = Rules::new().ignore("time_conv", "between frames, which an image has not");
        for layer in ["conv_in", "conv_out", "conv1", "conv2"] {
            rules = rules.last_slice(&format!("{layer}.weight"), 2, 3);
        }
        for layer in ["conv_shortcut", "quant_conv", "post_quant_conv"] {
            rules = rules.last_slice(&format!("{layer}.weight"), 2, 1);
        }
        for norm in ["norm1", "norm2", "norm_out"] {
            rules = rules.last_slice(&format!("{norm}.gamma"), 2, 1);
        }
        // The encoder's blocks and changes of size are numbered in one row.
        let levels = self.multiples.len();
        for level in 0..levels {
            let (first, ours) = (level * (self.layers + 1), format!("encoder.levels.{level}"));
            for block in 0..self.layers {
                let place = format!("encoder.down_blocks.{}", first + block);
                rules = rules.prefix(&place, &format!("{ours}.blocks.{block}"));
            }
            if level + 1 < levels {
                let place = format!("encoder.down_blocks.{}.resample.1", first + self.layers);
                rules = rules.prefix(&place, &format!("{ours}.resize"));
            }
        }
        let attention = "mid_block.attentions.0";
        let thirds = ["query", "key", "value"].map(|third| format!("middle.attention.{third}"));
        rules
            .pointwise("to_qkv.weight")
            .pointwise("proj.weight")
            .prefix("decoder.up_blocks.{i}.upsamplers.0.resample.1", "decoder.levels.{i}.resize")
            .prefix("decoder.up_blocks.{i}.resnets.{j}", "decoder.levels.{i}.blocks.{j}")
            .prefix("quant_conv", "quant")
            .prefix("post_quant_conv", "post_quant")
            .segments("conv_in", "input")
            .prefix("encoder.norm_out", "encoder.norm")
            .prefix("decoder.norm_out", "decoder.norm")
            .segments("conv_out", "output")
            .segments("conv_shortcut", "shortcut")
            .segments("mid_block.resnets.0", "middle.first")
            .segments("mid_block.resnets.1", "middle.second")
            .segments(&format!("{attention}.norm"), "middle.norm")
            .split(&format!("{attention}.to_qkv"), &thirds.each_ref().map(String::as_str))
            .segments(&format!("{attention}.proj"), "middle.attention.output")
    }
}
