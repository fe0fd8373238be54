//! `unet/config.json` and the configurations of ControlNets and T2I-Adapters, as diffusers writes them.
//!
//! Every field of `UNet2DConditionModel`, `ControlNetModel`, `UNet2DModel` and `T2IAdapter` in diffusers 0.42.1 is
//! honoured, or refused by name where its value asks for something that is not here. Absent and `null` are the class's
//! defaults.

mod adapter;
mod pixels;

use crate::{ControlNetConfig, LabelKind, UnetConfig};
use canvas_core::config_file::{ConfigFileError, Fields};
use serde_json::Value;
use std::path::Path;

const DOWN: [&str; 2] = ["DownBlock2D", "CrossAttnDownBlock2D"];
const UP: [&str; 2] = ["UpBlock2D", "CrossAttnUpBlock2D"];

impl UnetConfig {
    /// Reads a `unet/config.json` of class `UNet2DConditionModel`.
    ///
    /// Times stay in `[0, 1]`: [`time_scale`](Self::time_scale) is 1000, as diffusers counts steps.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "UNet2DConditionModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "UNet2DConditionModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let down = way_down(fields)?;
        let mut up = attends(fields, "up_block_types", UP, &[UP[0], UP[1], UP[1], UP[1]])?;
        up.reverse();
        if up != down {
            return Err(fields.refuse("up_block_types", "down_block_types in reverse"));
        }
        let config = common(fields, &down)?;
        let output = fields.number("out_channels")?.unwrap_or(4);
        only_unet(fields)?;
        let config = config.with_out_channels(Some(output));
        fields.finish(config, Self::validate)
    }
}

impl ControlNetConfig {
    /// Reads a ControlNet's `config.json`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "ControlNetModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "ControlNetModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let unet = common(fields, &way_down(fields)?)?;
        let hint = fields.number("conditioning_channels")?.unwrap_or(3);
        let widths = fields.numbers("conditioning_embedding_out_channels", &[16, 32, 96, 256])?;
        fields.only("controlnet_conditioning_channel_order", &["rgb".into()])?;
        fields.only("global_pool_conditions", &[false.into()])?;
        let config = Self::new(unet).with_hint_channels(hint).with_hint_widths(widths);
        fields.finish(config, Self::validate)
    }
}

/// Which levels attend on the way down.
fn way_down(fields: &Fields) -> Result<Vec<bool>, ConfigFileError> {
    attends(fields, "down_block_types", DOWN, &[DOWN[1], DOWN[1], DOWN[1], DOWN[0]])
}

/// Which levels are of the second of two kinds.
fn attends<'a>(
    fields: &'a Fields,
    field: &str,
    kinds: [&str; 2],
    default: &[&'a str],
) -> Result<Vec<bool>, ConfigFileError> {
    let kind = |name: &&str| kinds.iter().position(|kind| kind == name).map(|at| at == 1);
    let found: Option<Vec<bool>> = fields.words(field, default)?.iter().map(kind).collect();
    found.ok_or_else(|| fields.refuse(field, &format!("a list of {} and {}", kinds[0], kinds[1])))
}

/// The fields that both classes have.
fn common(fields: &Fields, attends: &[bool]) -> Result<UnetConfig, ConfigFileError> {
    fixed(fields)?;
    let channels = fields.numbers("block_out_channels", &[320, 640, 1280, 1280])?;
    let count = channels.len();
    if count != attends.len() {
        return Err(fields.refuse("block_out_channels", &format!("{} numbers, one a level", attends.len())));
    }
    // What diffusers calls a head's dimension is the number of heads.
    let named = fields.levels("attention_head_dim", 8, count)?;
    let heads = match fields.get("num_attention_heads") {
        None => named,
        Some(_) => fields.levels("num_attention_heads", 8, count)?,
    };
    let depth = fields.levels("transformer_layers_per_block", 1, count)?;
    let middle = match fields.word_or("mid_block_type", "UNetMidBlock2DCrossAttn")? {
        "UNetMidBlock2DCrossAttn" => depth.last().copied().unwrap_or(0),
        _ => return Err(fields.refuse("mid_block_type", "\"UNetMidBlock2DCrossAttn\"")),
    };
    let blocks = fields.levels("layers_per_block", 2, count)?;
    if blocks.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(fields.refuse("layers_per_block", "the same number for all levels"));
    }
    let at = |(depth, attends): (usize, &bool)| if *attends { depth } else { 0 };
    let depth = depth.into_iter().zip(attends).map(at).collect();
    let context = fields.number("cross_attention_dim")?.unwrap_or(1280);
    let input = fields.number("in_channels")?.unwrap_or(4);
    let config = UnetConfig::new(input, context, channels, depth, heads)
        .with_blocks(blocks.first().copied().unwrap_or(2))
        .with_middle_depth(middle)
        .with_norm_groups(fields.number("norm_num_groups")?.unwrap_or(32))
        .with_linear_projection(fields.flag("use_linear_projection", false)?)
        .with_cross_only(cross_only(fields, count)?);
    told(fields, config)
}

/// Labels and sizes.
fn told(fields: &Fields, config: UnetConfig) -> Result<UnetConfig, ConfigFileError> {
    let width = fields.number("projection_class_embeddings_input_dim")?;
    let needs = || fields.refuse("projection_class_embeddings_input_dim", "a width, for what is projected");
    let classes = fields.number("num_class_embeds")?;
    let label = match fields.word("class_embed_type")? {
        None => classes.map(LabelKind::Class),
        Some("timestep") => Some(LabelKind::Time),
        Some("projection") => Some(LabelKind::Vector(width.ok_or_else(needs)?)),
        Some(_) => return Err(fields.refuse("class_embed_type", "null, \"timestep\" or \"projection\"")),
    };
    let features = fields.number("addition_time_embed_dim")?;
    let config = config.with_label(label);
    match fields.word("addition_embed_type")? {
        None => Ok(config),
        Some("text_time") => {
            let width = width.ok_or_else(needs)?;
            let expected = "a number of sinusoidal features, for addition_embed_type \"text_time\"";
            let features = features.ok_or_else(|| fields.refuse("addition_time_embed_dim", expected))?;
            // The file holds the sum of pooled text and sizes only. Five sizes are the refiner's, six everyone else's.
            let count = if width == 1280 + 5 * features { 5 } else { 6 };
            let expected = format!("more than {count} sizes of {features} features");
            let pooled = width.checked_sub(count * features).filter(|&pooled| pooled > 0);
            let pooled =
                pooled.ok_or_else(|| fields.refuse("projection_class_embeddings_input_dim", &expected))?;
            Ok(config
                .with_size_features(Some(features))
                .with_size_count(count)
                .with_pooled_width(Some(pooled)))
        }
        Some(_) => Err(fields.refuse("addition_embed_type", "null or \"text_time\"")),
    }
}

/// Fields of both classes with one value that is honoured, and those without an effect on the network.
fn fixed(fields: &Fields) -> Result<(), ConfigFileError> {
    // There it stands in the time's embedding, too.
    fields.only("act_fn", &["silu".into(), "swish".into()])?;
    fields.only("flip_sin_to_cos", &[true.into()])?;
    fields.only("freq_shift", &[0.into()])?;
    fields.only("downsample_padding", &[1.into()])?;
    fields.only("mid_block_scale_factor", &[1.into()])?;
    fields.only("norm_eps", &[1e-5.into()])?;
    fields.only("resnet_time_scale_shift", &["default".into()])?;
    fields.only("encoder_hid_dim", &[])?;
    fields.only("encoder_hid_dim_type", &[])?;
    // A matter of precision in 16 bits, and of an embedding that is refused.
    fields.flag("upcast_attention", false)?;
    fields.number("addition_embed_type_num_heads")?;
    Ok(())
}

/// Which levels read the text only; a single `true` would mean the middle, too.
fn cross_only(fields: &Fields, count: usize) -> Result<Option<Vec<bool>>, ConfigFileError> {
    let field = "only_cross_attention";
    let Some(value) = fields.get(field).filter(|value| **value != false) else { return Ok(None) };
    let list: Option<Vec<bool>> = value.as_array().and_then(|list| list.iter().map(Value::as_bool).collect());
    let list = list.filter(|list| list.len() == count);
    let list = list.ok_or_else(|| fields.refuse(field, &format!("false, or {count} flags, one a level")))?;
    Ok(list.contains(&true).then_some(list))
}

/// Fields of the UNet alone with one value that is honoured.
fn only_unet(fields: &Fields) -> Result<(), ConfigFileError> {
    // diffusers refuses it, too: the heads are in attention_head_dim.
    fields.only("num_attention_heads", &[])?;
    fields.only("center_input_sample", &[false.into()])?;
    // Of training only.
    fields.only("dropout", &[0.into()])?;
    fields.only("dual_cross_attention", &[false.into()])?;
    fields.only("reverse_transformer_layers_per_block", &[])?;
    fields.only("resnet_skip_time_act", &[false.into()])?;
    fields.only("resnet_out_scale_factor", &[1.into()])?;
    fields.only("time_embedding_type", &["positional".into()])?;
    fields.only("time_embedding_dim", &[])?;
    fields.only("time_embedding_act_fn", &[])?;
    fields.only("timestep_post_act", &[])?;
    fields.only("time_cond_proj_dim", &[])?;
    fields.only("conv_in_kernel", &[3.into()])?;
    fields.only("conv_out_kernel", &[3.into()])?;
    fields.only("attention_type", &["default".into()])?;
    fields.only("class_embeddings_concat", &[false.into()])?;
    fields.only("mid_block_only_cross_attention", &[false.into()])?;
    fields.only("cross_attention_norm", &[])?;
    // The size it was trained at.
    fields.get("sample_size");
    Ok(())
}
