//! `vae/config.json` and the other autoencoders' configurations, as diffusers writes them.
//!
//! Every field of `AutoencoderKL`, `AutoencoderTiny`, `VQModel` and of the classes in the files of this folder, as diffusers
//! 0.42.1 has them, is honoured, or refused by name
//! where its value asks for something that is not here. Absent and `null` are the class's defaults.

mod dc_ae;
mod flux2;
mod qwen_image;
mod rae;

use crate::{AutoencoderKlConfig, AutoencoderTinyConfig, VqConfig};
use canvas_core::LatentScale;
use canvas_core::config_file::{ConfigFileError, Fields};
use serde_json::Value;
use std::path::Path;

impl AutoencoderKlConfig {
    /// Reads a `vae/config.json` of class `AutoencoderKL`, with the scale between its latents and a denoiser's:
    /// `scaling_factor` and `shift_factor`, or `latents_mean` and `latents_std` where the file has them.
    ///
    /// Not part of the network are `force_upcast`, which asks for 32-bit floats, and `sample_size`, the images' side
    /// in training.
    ///
    /// # Errors
    /// Names the file and the field.
    ///
    /// # Example
    /// ```
    /// use canvas_vae::AutoencoderKlConfig;
    /// let (config, scale) = AutoencoderKlConfig::from_diffusers(
    ///     r#"{"_class_name": "AutoencoderKL", "block_out_channels": [32, 64], "scaling_factor": 0.5,
    ///         "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    ///         "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}"#,
    /// )?;
    /// assert_eq!((config.downsampling(), scale.scale[0]), (2, 0.5));
    /// # Ok::<(), canvas_core::config_file::ConfigFileError>(())
    /// ```
    pub fn from_diffusers_file(path: &Path) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::open(path, "AutoencoderKL")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::parse(json, "AutoencoderKL")?)
    }

    fn read(fields: &Fields) -> Result<(Self, LatentScale), ConfigFileError> {
        let latent = fields.number("latent_channels")?.unwrap_or(4);
        let quant = fields.flag("use_quant_conv", true)?;
        if fields.flag("use_post_quant_conv", true)? != quant {
            return Err(fields.refuse("use_post_quant_conv", &format!("{quant}, as use_quant_conv")));
        }
        let config = Self::new()
            .with_channels(channels(fields, &[64])?)
            .with_layers(fields.number("layers_per_block")?.unwrap_or(1))
            .with_latent(latent)
            .with_image_channels(image_channels(fields)?)
            .with_groups(fields.number("norm_num_groups")?.unwrap_or(32))
            .with_quant_convs(quant)
            .with_middle_attention(fields.flag("mid_block_add_attention", true)?);
        fixed(fields)?;
        let scale = channel_scale(fields, latent)?;
        Ok((fields.finish(config, Self::validate)?, scale))
    }
}

impl VqConfig {
    /// Reads a `vqvae/config.json` of class `VQModel`, with the scale between its latents and a denoiser's.
    ///
    /// diffusers' class has the commitment's [`beta`](Self::beta) and [`legacy`](Self::legacy) built in.
    /// `lookup_from_codebook` says what a pipeline gives its decoder: codes, for [`lookup`](crate::VqModel::lookup),
    /// in place of latents.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::open(path, "VQModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::parse(json, "VQModel")?)
    }

    fn read(fields: &Fields) -> Result<(Self, LatentScale), ConfigFileError> {
        let config = Self::new()
            .with_channels(channels(fields, &[64])?)
            .with_layers(fields.number("layers_per_block")?.unwrap_or(1))
            .with_latent(fields.number("latent_channels")?.unwrap_or(3))
            .with_image_channels(image_channels(fields)?)
            .with_groups(fields.number("norm_num_groups")?.unwrap_or(32))
            .with_codes(fields.number("num_vq_embeddings")?.unwrap_or(256))
            .with_code_width(fields.number("vq_embed_dim")?)
            .with_middle_attention(fields.flag("mid_block_add_attention", true)?);
        fixed(fields)?;
        // "spatial" is another network: MoVQ, whose norms read the latents.
        fields.only("norm_type", &["group".into()])?;
        fields.flag("lookup_from_codebook", false)?;
        let scale = LatentScale::uniform(config.width(), 0.0, factor(fields, 0.18215)? as f32);
        Ok((fields.finish(config, Self::validate)?, scale))
    }
}

impl AutoencoderTinyConfig {
    /// Reads a `config.json` of class `AutoencoderTiny`, with the scale between its latents and a denoiser's.
    ///
    /// Not part of the network are `force_upcast`, and `latent_magnitude` and `latent_shift`, by which diffusers
    /// stores latents in bytes.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::open(path, "AutoencoderTiny")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::parse(json, "AutoencoderTiny")?)
    }

    fn read(fields: &Fields) -> Result<(Self, LatentScale), ConfigFileError> {
        let channels = fields.numbers("encoder_block_out_channels", &[64; 4])?;
        let blocks = fields.numbers("num_encoder_blocks", &[1, 3, 3, 3])?;
        // There, the convolutions that change the size keep the channels.
        if channels.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(fields.refuse("encoder_block_out_channels", "the same number for all levels"));
        }
        mirrored(fields, "decoder_block_out_channels", &[64; 4], ("encoder_block_out_channels", &channels))?;
        mirrored(fields, "num_decoder_blocks", &[3, 3, 3, 1], ("num_encoder_blocks", &blocks))?;
        fields.only("act_fn", &["relu".into()])?;
        fields.only("upsample_fn", &["nearest".into()])?;
        fields.only("upsampling_scaling_factor", &[2.into()])?;
        let latent = fields.number("latent_channels")?.unwrap_or(4);
        let config = Self::new()
            .with_channels(channels)
            .with_blocks(blocks)
            .with_latent(latent)
            .with_image_channels(image_channels(fields)?);
        fields.flag("force_upcast", false)?;
        fields.real("latent_magnitude")?;
        fields.real("latent_shift")?;
        // A note of the decoder's channels, which the class writes and does not read.
        fields.numbers("block_out_channels", &[])?;
        let scale = shifted_scale(fields, latent, 1.0)?;
        Ok((fields.finish(config, Self::validate)?, scale))
    }
}

/// Channels of the levels, each of the plain kind on both sides.
fn channels(fields: &Fields, default: &[usize]) -> Result<Vec<usize>, ConfigFileError> {
    let channels = fields.numbers("block_out_channels", default)?;
    for (field, kind) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
    {
        let found = fields.words(field, &vec![kind; default.len()])?;
        if found.len() != channels.len() || found.iter().any(|word| *word != kind) {
            let expected = format!("{} of {kind}, one a level of block_out_channels", channels.len());
            return Err(fields.refuse(field, &expected));
        }
    }
    Ok(channels)
}

/// Channels of images, the same on the way in and out.
fn image_channels(fields: &Fields) -> Result<usize, ConfigFileError> {
    let channels = fields.number("in_channels")?.unwrap_or(3);
    if fields.number("out_channels")?.unwrap_or(3) != channels {
        return Err(fields.refuse("out_channels", &format!("{channels}, as in_channels")));
    }
    Ok(channels)
}

/// Fields of both larger classes with one value that is honoured, and those without an effect on the network.
fn fixed(fields: &Fields) -> Result<(), ConfigFileError> {
    fields.only("act_fn", &["silu".into(), "swish".into()])?;
    fields.flag("force_upcast", true)?;
    fields.levels("sample_size", 32, 2)?; // one side, or height and width
    Ok(())
}

/// Refuses a list of the decoder that is not its counterpart of the encoder backwards.
fn mirrored(
    fields: &Fields,
    field: &str,
    default: &[usize],
    (other, list): (&str, &[usize]),
) -> Result<(), ConfigFileError> {
    let mut found = fields.numbers(field, default)?;
    found.reverse();
    if found != list {
        return Err(fields.refuse(field, &format!("{other} in reverse")));
    }
    Ok(())
}

/// A scale with one value for all channels, after a shift if there is one.
fn shifted_scale(fields: &Fields, channels: usize, default: f64) -> Result<LatentScale, ConfigFileError> {
    let shift = fields.real("shift_factor")?.unwrap_or(0.0);
    Ok(LatentScale::uniform(channels, shift as f32, factor(fields, default)? as f32))
}

/// As [`shifted_scale`], or with a mean and a spread for each channel.
fn channel_scale(fields: &Fields, channels: usize) -> Result<LatentScale, ConfigFileError> {
    let (mean, spread) = (fields.reals("latents_mean")?, fields.reals("latents_std")?);
    let Some(mean) = mean else {
        fields.only("latents_std", &[])?;
        return shifted_scale(fields, channels, 0.18215);
    };
    let each = format!("{channels} numbers, one a channel of the latents");
    let spread = spread.filter(|list| list.len() == channels && list.iter().all(|&std| std > 0.0));
    let spread = spread.ok_or_else(|| fields.refuse("latents_std", &format!("{each}, above 0")))?;
    if mean.len() != channels {
        return Err(fields.refuse("latents_mean", &each));
    }
    fields.only("shift_factor", &[Value::from(0)])?; // the means are the shift
    let factor = factor(fields, 0.18215)?;
    Ok(LatentScale {
        shift: mean.iter().map(|&mean| mean as f32).collect(),
        scale: spread.iter().map(|&std| (factor / std) as f32).collect(),
    })
}

fn factor(fields: &Fields, default: f64) -> Result<f64, ConfigFileError> {
    let factor = fields.real("scaling_factor")?.unwrap_or(default);
    if factor > 0.0 { Ok(factor) } else { Err(fields.refuse("scaling_factor", "a number above 0")) }
}
