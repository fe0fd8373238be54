//! Configurations read from the shapes of a file in the original layout.

use crate::{ControlNetConfig, LabelKind, UnetConfig};
use canvas_core::weights::{Source, WeightsError};

/// Channels of an attention head in all models with linear projections: Stable Diffusion 2 and XL.
const HEAD: usize = 64;
/// Heads in all others.
const HEADS: usize = 8;
/// Sinusoidal features of a size.
const FEATURES: usize = 256;

impl UnetConfig {
    /// The configuration of a UNet in the original layout, the part of a file behind `model.diffusion_model.`.
    ///
    /// Shapes tell all but three things, which are taken as they are in every published model:
    /// - heads: 8 in each level with 1x1 convolutions around the transformers (Stable Diffusion 1) or a label of classes
    ///   (its upscaler), otherwise one for every 64 channels;
    /// - a label of numbers is the sizes, 256 features each, where the text is 2048 wide (SDXL: six of them) or 1280
    ///   (its refiner: five), otherwise a vector (unCLIP);
    /// - group norms have 32 groups.
    ///
    /// # Errors
    /// Names the file and the key, what was expected and what was found.
    pub fn detect(part: &Source) -> Result<Self, WeightsError> {
        let [out_channels, ..] = part.dims::<4>("out.2.weight")?;
        Ok(way_in(part)?.with_out_channels(Some(out_channels)))
    }
}

impl ControlNetConfig {
    /// The configuration of a ControlNet in the original layout, the part of a file behind `control_model.`, as
    /// [`UnetConfig::detect`].
    ///
    /// # Errors
    /// As [`UnetConfig::detect`].
    pub fn detect(part: &Source) -> Result<Self, WeightsError> {
        let key = |layer: usize| format!("input_hint_block.{layer}.weight");
        let [first, hint, ..] = part.dims::<4>(&key(0))?;
        let mut widths = vec![first];
        // Two layers a width: one that keeps it, one that changes it.
        for layer in (4..).step_by(4) {
            if part.shape(&key(layer + 2)).is_none() {
                break;
            }
            widths.push(part.dims::<4>(&key(layer))?[0]);
        }
        Ok(Self::new(way_in(part)?).with_hint_channels(hint).with_hint_widths(widths))
    }
}

/// What the way down and the middle tell.
fn way_in(part: &Source) -> Result<UnetConfig, WeightsError> {
    let input = "input_blocks.0.0.weight";
    let [_, in_channels, _, _] = part.dims(input)?;
    let levels = levels(part)?;
    let [_, context] = part.dims("middle_block.1.transformer_blocks.0.attn2.to_k.weight")?;
    let channels: Vec<usize> = levels.iter().map(|level| level.channels).collect();
    let depth = levels.iter().map(|level| level.depth).collect();
    let linear = part.shape("middle_block.1.proj_in.weight").is_some_and(|shape| shape.len() == 2);
    let classes = part.shape("label_emb.weight").is_some();
    let heads = if linear && !classes {
        channels.iter().map(|channels| channels / HEAD).collect()
    } else {
        vec![HEADS; channels.len()]
    };
    let config = UnetConfig::new(in_channels, context, channels, depth, heads)
        .with_blocks(levels[0].blocks)
        .with_middle_depth(depth_at(part, "middle_block.1"))
        .with_linear_projection(linear)
        .with_cross_only(cross_only(part, &levels, context)?);
    let config = label(part, config)?;
    config.validate().map_err(|error| part.refuse(input, "a UNet of sizes that fit", &error.to_string()))?;
    Ok(config)
}

struct Level {
    channels: usize,
    /// Transformer blocks behind each residual block.
    depth: usize,
    blocks: usize,
    /// The place of its first block.
    place: String,
}

fn levels(part: &Source) -> Result<Vec<Level>, WeightsError> {
    let mut levels: Vec<Level> = Vec::new();
    let mut begins = true;
    for number in 1.. {
        let place = format!("input_blocks.{number}");
        let convolution = format!("{place}.0.in_layers.2.weight");
        if part.shape(&format!("{place}.0.op.weight")).is_some() {
            begins = true;
        } else if part.shape(&convolution).is_some() {
            let [channels, ..] = part.dims::<4>(&convolution)?;
            let depth = depth_at(part, &format!("{place}.1"));
            match levels.last_mut().filter(|_| !begins) {
                None => levels.push(Level { channels, depth, blocks: 1, place }),
                Some(level) if (level.channels, level.depth) == (channels, depth) => level.blocks += 1,
                Some(level) => {
                    let of = |channels, depth| format!("{channels} channels and {depth} transformer blocks");
                    let expected = format!("{}, as its level begins", of(level.channels, level.depth));
                    return Err(part.refuse(&convolution, &expected, &of(channels, depth)));
                }
            }
            begins = false;
        } else {
            break;
        }
    }
    let first = levels.first().map_or(0, |level| level.blocks);
    match levels.iter().find(|level| level.blocks != first) {
        _ if first == 0 => {
            Err(part.refuse("input_blocks.1.0.in_layers.2.weight", "a residual block", "none"))
        }
        Some(level) => {
            let expected = format!("{first} residual blocks, as in the first level");
            Err(part.refuse(&level.place, &expected, &level.blocks.to_string()))
        }
        None => Ok(levels),
    }
}

/// Transformer blocks at a place.
fn depth_at(part: &Source, place: &str) -> usize {
    let is_there =
        |block: &usize| part.shape(&format!("{place}.transformer_blocks.{block}.norm1.weight")).is_some();
    (0..).take_while(is_there).count()
}

/// Levels whose first attention reads something as wide as the text and not as wide as the pixels.
fn cross_only(part: &Source, levels: &[Level], context: usize) -> Result<Option<Vec<bool>>, WeightsError> {
    let reads_text = |level: &Level| {
        if level.depth == 0 {
            return Ok(false);
        }
        let [_, read] = part.dims(&format!("{}.1.transformer_blocks.0.attn1.to_k.weight", level.place))?;
        Ok(read == context && read != level.channels)
    };
    let mut found = levels.iter().map(reads_text).collect::<Result<Vec<bool>, _>>()?;
    let any = found.contains(&true);
    // A level without transformers has none that read themselves.
    let ends = levels.iter().zip(&mut found).take_while(|(level, _)| level.depth == 0);
    ends.for_each(|(_, cross)| *cross = any);
    Ok(any.then_some(found))
}

fn label(part: &Source, config: UnetConfig) -> Result<UnetConfig, WeightsError> {
    if part.shape("label_emb.weight").is_some() {
        let [classes, _] = part.dims("label_emb.weight")?;
        return Ok(config.with_label(Some(LabelKind::Class(classes))));
    }
    let key = "label_emb.0.0.weight";
    if part.shape(key).is_none() {
        return Ok(config);
    }
    let [_, width] = part.dims(key)?;
    let count = match config.context_width {
        2048 => 6,
        1280 => 5,
        _ => return Ok(config.with_label(Some(LabelKind::Vector(width)))),
    };
    let pooled = width.checked_sub(count * FEATURES).filter(|pooled| *pooled > 0);
    let expected = format!("more than {count} sizes of {FEATURES} features");
    let pooled = pooled.ok_or_else(|| part.refuse(key, &expected, &format!("{width} in all")))?;
    Ok(config.with_size_features(Some(FEATURES)).with_size_count(count).with_pooled_width(Some(pooled)))
}
