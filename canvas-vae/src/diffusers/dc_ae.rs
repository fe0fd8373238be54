//! `AutoencoderDC`: its configuration and the names of its parameters.

use super::factor;
use crate::dc_ae::Ends;
use crate::{AutoencoderDcConfig, DcDown, DcLevel, DcNorm, DcUp};
use canvas_core::LatentScale;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::nn::Activation;
use canvas_core::weights::Rules;
use serde_json::Value;
use std::path::Path;

impl AutoencoderDcConfig {
    /// Reads a `vae/config.json` of class `AutoencoderDC`, with the scale between its latents and a denoiser's.
    ///
    /// Of norms, `rms_norm` and `batch_norm` are honoured, of activations `silu` and `relu`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::open(path, "AutoencoderDC")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::parse(json, "AutoencoderDC")?)
    }

    fn read(fields: &Fields) -> Result<(Self, LatentScale), ConfigFileError> {
        let decoder = levels(fields, "decoder", &[3; 6])?;
        let count = decoder.len();
        let norms = each(fields, "decoder_norm_types", "rms_norm", count, &NORMS)?;
        let activations = each(fields, "decoder_act_fns", "silu", count, &ACTIVATIONS)?;
        let dressed = decoder.into_iter().zip(norms).zip(activations);
        let decoder = dressed.map(|((level, norm), act)| level.with_norm(norm).with_activation(act));
        let encoder = levels(fields, "encoder", &[2, 2, 2, 3, 3, 3])?;
        let latent = fields.number("latent_channels")?.unwrap_or(32);
        let config = Self::new(encoder, decoder.collect())
            .with_latent(latent)
            .with_image_channels(fields.number("in_channels")?.unwrap_or(3))
            .with_head(fields.number("attention_head_dim")?.unwrap_or(32))
            .with_down(one(fields, "downsample_block_type", "pixel_unshuffle", &DOWN)?)
            .with_up(one(fields, "upsample_block_type", "pixel_shuffle", &UP)?)
            .with_encoder_around(fields.flag("encoder_out_shortcut", true)?)
            .with_decoder_around(fields.flag("decoder_in_shortcut", true)?)
            .with_last_activation(one(fields, "decoder_conv_act_fn", "relu", &ACTIVATIONS)?);
        let scale = LatentScale::uniform(latent, 0.0, factor(fields, 1.0)? as f32);
        Ok((fields.finish(config, Self::validate)?, scale))
    }

    /// The names of diffusers' `AutoencoderDC`, for [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let mut rules = Rules::new();
        let ends = |levels: &[DcLevel]| if Ends::of(levels).resizes { ".conv" } else { "" };
        for (ours, published, more) in [
            ("encoder.input", "encoder.conv_in", ends(&self.encoder)),
            ("encoder.output", "encoder.conv_out", ""),
            ("decoder.input", "decoder.conv_in", ""),
            ("decoder.output", "decoder.conv_out", ends(&self.decoder)),
        ] {
            rules = rules.prefix(&format!("{published}{more}"), &format!("{ours}.conv"));
        }
        for (half, way, levels) in [("encoder", "down", &self.encoder), ("decoder", "up", &self.decoder)] {
            for (i, level) in levels.iter().enumerate() {
                let (theirs, ours) = (format!("{half}.{way}_blocks.{i}"), format!("{half}.levels.{i}"));
                // A level's changes of size are numbered with its blocks: behind them inwards, before them outwards.
                let resizes = i + 1 < levels.len() && level.blocks > 0;
                let first = usize::from(resizes && way == "up");
                for block in 0..level.blocks {
                    let place = format!("{theirs}.{}", block + first);
                    rules = rules.prefix(&place, &format!("{ours}.blocks.{block}"));
                }
                if resizes {
                    let place = if first == 1 { 0 } else { level.blocks };
                    rules = rules.prefix(&format!("{theirs}.{place}.conv"), &format!("{ours}.resize.conv"));
                }
            }
        }
        let inside = [
            ("attn.to_q", "attention.parts.0"),
            ("attn.to_k", "attention.parts.1"),
            ("attn.to_v", "attention.parts.2"),
            ("attn.to_qkv_multiscale.{k}.proj_in", "attention.scales.{k}.gather"),
            ("attn.to_qkv_multiscale.{k}.proj_out", "attention.scales.{k}.blend"),
            ("attn.to_out", "attention.output"),
            ("attn.norm_out", "attention.norm"),
            ("conv_out.conv_inverted", "glu.widen"),
            ("conv_out.conv_depth", "glu.depth"),
            ("conv_out.conv_point", "glu.narrow"),
            ("conv_out.norm", "glu.norm"),
        ];
        let rules = rules.prefix("decoder.norm_out", "decoder.norm");
        let rules = inside.iter().fold(rules, |rules, (theirs, ours)| rules.segments(theirs, ours));
        rules.ignore("num_batches_tracked", "how often the statistics of a norm were measured")
    }
}

/// A value of a field, and what it means.
type Meaning<T> = (&'static str, T);

const NORMS: [Meaning<DcNorm>; 2] = [("rms_norm", DcNorm::Rms), ("batch_norm", DcNorm::Batch)];
const ACTIVATIONS: [Meaning<Activation>; 3] =
    [("silu", Activation::Silu), ("swish", Activation::Silu), ("relu", Activation::Relu)];
/// The published files write the second with a capital.
const DOWN: [Meaning<DcDown>; 3] =
    [("pixel_unshuffle", DcDown::Unshuffle), ("Conv", DcDown::Conv), ("conv", DcDown::Conv)];
const UP: [Meaning<DcUp>; 2] = [("pixel_shuffle", DcUp::Shuffle), ("interpolate", DcUp::Interpolate)];
const BLOCKS: [Meaning<bool>; 2] = [("ResBlock", false), ("EfficientViTBlock", true)];

fn meaning<T: Copy>(
    fields: &Fields,
    field: &str,
    word: &str,
    known: &[Meaning<T>],
) -> Result<T, ConfigFileError> {
    let found = known.iter().find(|(name, _)| *name == word);
    let names: Vec<String> = known.iter().map(|(name, _)| format!("{name:?}")).collect();
    found.map(|(_, value)| *value).ok_or_else(|| fields.refuse(field, &names.join(" or ")))
}

fn one<T: Copy>(
    fields: &Fields,
    field: &str,
    default: &str,
    known: &[Meaning<T>],
) -> Result<T, ConfigFileError> {
    meaning(fields, field, fields.word_or(field, default)?, known)
}

/// One for all levels, or a list.
fn each<T: Copy>(
    fields: &Fields,
    field: &str,
    default: &str,
    count: usize,
    known: &[Meaning<T>],
) -> Result<Vec<T>, ConfigFileError> {
    let words = match fields.get(field) {
        Some(Value::Array(_)) => fields.words(field, &[])?,
        _ => vec![fields.word_or(field, default)?; count],
    };
    if words.len() != count {
        return Err(fields.refuse(field, &format!("a string, or {count} of them, one a level")));
    }
    words.into_iter().map(|word| meaning(fields, field, word, known)).collect()
}

/// The levels of one half, with the encoder's norms and activations.
fn levels(fields: &Fields, half: &str, blocks: &[usize]) -> Result<Vec<DcLevel>, ConfigFileError> {
    let field = |name: &str| format!("{half}_{name}");
    let widths = fields.numbers(&field("block_out_channels"), &[128, 256, 512, 512, 1024, 1024])?;
    let count = widths.len();
    let numbers = fields.numbers(&field("layers_per_block"), blocks)?;
    if numbers.len() != count {
        let expected = format!("{count} numbers, one a level of {half}_block_out_channels");
        return Err(fields.refuse(&field("layers_per_block"), &expected));
    }
    let attends = each(fields, &field("block_types"), "ResBlock", count, &BLOCKS)?;
    let scales = scales(fields, &field("qkv_multiscales"), count)?;
    let rows = widths.into_iter().zip(numbers).zip(attends).zip(scales);
    let level = |(((width, blocks), attends), scales)| {
        DcLevel::new(width, blocks).with_attends(attends).with_scales(scales)
    };
    Ok(rows.map(level).collect())
}

/// A list for each level.
fn scales(fields: &Fields, field: &str, count: usize) -> Result<Vec<Vec<usize>>, ConfigFileError> {
    let Some(found) = fields.get(field) else {
        return Ok((0..count).map(|i| if i < 3 { vec![] } else { vec![5] }).collect());
    };
    let list = serde_json::from_value::<Vec<Vec<usize>>>(found.clone()).ok();
    let expected = || format!("{count} lists of whole numbers, one a level");
    list.filter(|list| list.len() == count).ok_or_else(|| fields.refuse(field, &expected()))
}
