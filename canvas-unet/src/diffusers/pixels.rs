//! Configurations of `UNet2DModel`: DDPM, ADM, and what was trained after them.

use crate::{AdmConfig, DdpmConfig, Resample};
use canvas_core::config_file::{ConfigFileError, Fields};
use std::path::Path;

const CLASS: &str = "UNet2DModel";
/// The kinds of a level: plain, attending, and with residual blocks that resize.
const DOWN: [&str; 3] = ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"];
const UP: [&str; 3] = ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"];

impl DdpmConfig {
    /// Reads a `unet/config.json` of class `UNet2DModel`, without classes: those are
    /// [`AdmConfig::from_diffusers_file`]'s.
    ///
    /// Times stay in `[0, 1]`: [`time_scale`](Self::time_scale) is 1000, as diffusers counts steps.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, CLASS)?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, CLASS)?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        fields.only("num_class_embeds", &[])?;
        fields.finish(body(fields)?, Self::validate)
    }
}

impl AdmConfig {
    /// Reads a `unet/config.json` of class `UNet2DModel` with `num_class_embeds`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, CLASS)?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, CLASS)?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let classes = fields.number("num_class_embeds")?;
        let classes = classes.ok_or_else(|| fields.refuse("num_class_embeds", "a number of classes"))?;
        fields.finish(Self::new(body(fields)?, classes), Self::validate)
    }
}

/// All but the classes.
fn body(fields: &Fields) -> Result<DdpmConfig, ConfigFileError> {
    fixed(fields)?;
    let channels = fields.numbers("block_out_channels", &[224, 448, 672, 896])?;
    let (attends, resample) = levels(fields, channels.len())?;
    let width = channels.first().copied().unwrap_or(0);
    fields.only("time_embedding_dim", &[(4 * width).into()])?;
    let input = fields.number("in_channels")?.unwrap_or(3);
    let output = fields.number("out_channels")?.unwrap_or(3);
    let groups = fields.number("norm_num_groups")?.unwrap_or(32);
    let told = fields.word_or("resnet_time_scale_shift", "default")?;
    let scale_shift = match told {
        "default" => false,
        "scale_shift" => true,
        _ => return Err(fields.refuse("resnet_time_scale_shift", "\"default\" or \"scale_shift\"")),
    };
    // Without a number of its own, the middle's attention has no norm at all where the time scales and shifts.
    fields.only("attn_norm_num_groups", &[groups.into()])?;
    if scale_shift && fields.get("attn_norm_num_groups").is_none() {
        return Err(fields.refuse("attn_norm_num_groups", &format!("{groups}, as norm_num_groups")));
    }
    Ok(DdpmConfig::new(input, channels, attends)
        .with_out_channels((output != input).then_some(output))
        .with_head_width(head_width(fields)?)
        .with_blocks(fields.number("layers_per_block")?.unwrap_or(2))
        .with_norm_groups(groups)
        .with_epsilon(fields.real("norm_eps")?.unwrap_or(1e-5))
        .with_scale_shift(scale_shift)
        .with_resample(resample)
        .with_ddpm_time(ddpm_time(fields)?))
}

/// Which levels attend, and how all of them change the size.
fn levels(fields: &Fields, count: usize) -> Result<(Vec<bool>, Resample), ConfigFileError> {
    let down = kinds(fields, "down_block_types", DOWN, [0, 1, 1, 1])?;
    let mut up = kinds(fields, "up_block_types", UP, [1, 1, 1, 0])?;
    up.reverse();
    if down.len() != count {
        return Err(fields.refuse("block_out_channels", &format!("{} numbers, one a level", down.len())));
    }
    let attends = |kinds: &[usize]| kinds.iter().map(|&kind| kind == 1).collect::<Vec<_>>();
    if attends(&down) != attends(&up) {
        return Err(fields.refuse("up_block_types", "down_block_types in reverse"));
    }
    let after = match fields.number("downsample_padding")? {
        None | Some(1) => Resample::Around,
        Some(0) => Resample::After,
        Some(_) => return Err(fields.refuse("downsample_padding", "0 or 1")),
    };
    // The last level on the way down and the first one do not change the size on their way.
    let (first, last) = (1.min(count), count.saturating_sub(1));
    let residual = resizes(fields, "downsample_type", "down_block_types", &down[..last])?;
    if resizes(fields, "upsample_type", "up_block_types", &up[first..])? != residual {
        return Err(fields.refuse("up_block_types", "sizes changed as by down_block_types"));
    }
    Ok((attends(&down), if residual { Resample::Residual } else { after }))
}

/// Which of three kinds each level is.
fn kinds(
    fields: &Fields,
    field: &str,
    names: [&str; 3],
    default: [usize; 4],
) -> Result<Vec<usize>, ConfigFileError> {
    let kind = |name: &&str| names.iter().position(|known| known == name);
    let found = fields.words(field, &default.map(|kind| names[kind]))?.iter().map(kind).collect();
    let expected = || format!("a list of {}, {} and {}", names[0], names[1], names[2]);
    Option::ok_or_else(found, || fields.refuse(field, &expected()))
}

/// Whether these levels change the size by residual blocks; a level that attends does as `field` says.
fn resizes(fields: &Fields, field: &str, types: &str, kinds: &[usize]) -> Result<bool, ConfigFileError> {
    let attending = match fields.word_or(field, "conv")? {
        "conv" => false,
        "resnet" => true,
        _ => return Err(fields.refuse(field, "\"conv\" or \"resnet\"")),
    };
    let residual = |kind: &usize| if *kind == 1 { attending } else { *kind == 2 };
    let found: Vec<bool> = kinds.iter().map(residual).collect();
    if found.windows(2).any(|pair| pair[0] != pair[1]) {
        let expected = format!("all levels to change the size the same way (those that attend by {field})");
        return Err(fields.refuse(types, &expected));
    }
    Ok(found.first().copied().unwrap_or(attending))
}

/// Absent is the class's 8, `null` one head for all channels.
fn head_width(fields: &Fields) -> Result<Option<usize>, ConfigFileError> {
    let width = fields.number("attention_head_dim")?;
    Ok(if fields.has("attention_head_dim") { width } else { Some(8) })
}

/// Which of two pairs of choices the time's features are made by.
fn ddpm_time(fields: &Fields) -> Result<bool, ConfigFileError> {
    let ddpm = !fields.flag("flip_sin_to_cos", true)?;
    let shift = usize::from(ddpm);
    if fields.number("freq_shift")?.unwrap_or(0) != shift {
        let expected = format!("{shift}, with flip_sin_to_cos {}", !ddpm);
        return Err(fields.refuse("freq_shift", &expected));
    }
    Ok(ddpm)
}

/// Fields with one value that is honoured, and those without an effect on the network.
fn fixed(fields: &Fields) -> Result<(), ConfigFileError> {
    fields.only("act_fn", &["silu".into(), "swish".into()])?;
    fields.only("add_attention", &[true.into()])?;
    fields.only("center_input_sample", &[false.into()])?;
    fields.only("class_embed_type", &[])?;
    fields.only("mid_block_type", &["UNetMidBlock2D".into()])?;
    fields.only("mid_block_scale_factor", &[1.into()])?;
    fields.only("time_embedding_type", &["positional".into()])?;
    // Of training only.
    fields.only("dropout", &[0.into()])?;
    // Of a learned embedding of the time, which is refused.
    fields.number("num_train_timesteps")?;
    // The size it was trained at: one side, or height and width.
    fields.levels("sample_size", 0, 2)?;
    Ok(())
}
