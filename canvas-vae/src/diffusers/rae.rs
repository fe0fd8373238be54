//! `AutoencoderRAE`: its configuration and the names of its parameters.

use super::factor;
use crate::{AutoencoderRaeConfig, RaeEncoder};
use canvas_core::LatentScale;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use serde_json::Value;
use std::path::Path;

impl AutoencoderRaeConfig {
    /// Reads a `config.json` of class `AutoencoderRAE`, with the scale between its latents, which are of unit variance
    /// already, and a denoiser's.
    ///
    /// Not part of the network are `noise_tau`, the most noise that is put on latents in training, and
    /// `use_encoder_loss`. The numbers in `latents_mean` and `latents_std` are in the weights as well, and taken from
    /// there.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::open(path, "AutoencoderRAE")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<(Self, LatentScale), ConfigFileError> {
        Self::read(&Fields::parse(json, "AutoencoderRAE")?)
    }

    fn read(fields: &Fields) -> Result<(Self, LatentScale), ConfigFileError> {
        let encoder = match fields.word_or("encoder_type", "dinov2")? {
            "dinov2" => RaeEncoder::Dinov2,
            "siglip2" => RaeEncoder::Siglip2,
            "mae" => RaeEncoder::Mae,
            _ => return Err(fields.refuse("encoder_type", "\"dinov2\" or \"siglip2\" or \"mae\"")),
        };
        let number = |field: &str, default| Ok(fields.number(field)?.unwrap_or(default));
        let bare = Self::new();
        let config = bare
            .clone()
            .with_encoder(encoder)
            .with_width(number("encoder_hidden_size", bare.width)?)
            .with_layers(number("encoder_num_hidden_layers", bare.layers)?)
            .with_encoder_patch(number("encoder_patch_size", bare.encoder_patch)?)
            .with_input_side(number("encoder_input_size", bare.input_side)?)
            .with_colour_mean(colours(fields, "encoder_norm_mean", bare.colour_mean)?)
            .with_colour_std(colours(fields, "encoder_norm_std", bare.colour_std)?)
            .with_decoder_width(number("decoder_hidden_size", bare.decoder_width)?)
            .with_decoder_layers(number("decoder_num_hidden_layers", bare.decoder_layers)?)
            .with_decoder_heads(number("decoder_num_attention_heads", bare.decoder_heads)?)
            .with_decoder_hidden(number("decoder_intermediate_size", bare.decoder_hidden)?)
            .with_patch(number("patch_size", bare.patch)?)
            .with_mean_shape(shape(fields, "latents_mean")?)
            .with_std_shape(shape(fields, "latents_std")?);
        fields.only("num_channels", &[3.into()])?;
        fields.only("reshape_to_2d", &[true.into()])?;
        fields.real("noise_tau")?;
        fields.flag("use_encoder_loss", false)?;
        let side = fields.number("image_size")?;
        let scale = LatentScale::uniform(config.width, 0.0, factor(fields, 1.0)? as f32);
        let config = fields.finish(config, Self::validate)?;
        match side {
            Some(side) if side != config.image_side() => {
                let expected = format!("{}, as patch_size and the encoder's make it", config.image_side());
                Err(fields.refuse("image_size", &expected))
            }
            _ => Ok((config, scale)),
        }
    }

    /// The names of diffusers' `AutoencoderRAE`, for [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// The encoder's are transformers', which has renamed them: those of versions 4 and 5 are read, and version 5's
    /// written; of SigLIP version 4's, by which alone diffusers 0.42.1 finds its parts.
    pub fn published(&self) -> Rules {
        let rules = Rules::new()
            .exact("encoder_mean", "colour_mean")
            .exact("encoder_std", "colour_std")
            .exact("_latents_mean", "mean")
            .exact("_latents_std", "std");
        let rules = [("_latents_mean", &self.mean_shape), ("_latents_std", &self.std_shape)]
            .into_iter()
            .filter(|(_, shape)| shape.len() == 4)
            .fold(rules, |rules, (key, _)| rules.last_slice(key, 0, 1));
        decoder(match self.encoder {
            RaeEncoder::Siglip2 => siglip(rules),
            RaeEncoder::Dinov2 => dino(rules),
            RaeEncoder::Mae => mae(rules),
        })
    }
}

/// Renames the layers inside a block.
fn inside(rules: Rules, block: &str, ours: &str, names: &[(&str, &str)]) -> Rules {
    names.iter().fold(rules, |rules, (theirs, name)| {
        rules.prefix(&format!("{block}.{{i}}.{theirs}"), &format!("{ours}.{{i}}.{name}"))
    })
}

const OLD_ATTENTION: [(&str, &str); 4] = [
    ("attention.attention.query", "attention.query"),
    ("attention.attention.key", "attention.key"),
    ("attention.attention.value", "attention.value"),
    ("attention.output.dense", "attention.output"),
];
const ATTENTION: [(&str, &str); 4] = [
    ("attention.q_proj", "attention.query"),
    ("attention.k_proj", "attention.key"),
    ("attention.v_proj", "attention.value"),
    ("attention.o_proj", "attention.output"),
];
const FC: [(&str, &str); 2] = [("mlp.fc1", "mlp.up"), ("mlp.fc2", "mlp.down")];
const DENSE: [(&str, &str); 2] = [("intermediate.dense", "mlp.up"), ("output.dense", "mlp.down")];
const BEFORE_AFTER: [(&str, &str); 2] = [("layernorm_before", "norm1"), ("layernorm_after", "norm2")];

/// What the two with a class token share; its rows have an axis more.
fn tokens(rules: Rules) -> Rules {
    let rules =
        [("cls_token", "class"), ("position_embeddings", "positions"), ("register_tokens", "registers")]
            .into_iter()
            .fold(rules, |rules, (theirs, ours)| {
                let place = format!("encoder.embeddings.{theirs}");
                rules.exact(&place, &format!("encoder.{ours}")).last_slice(theirs, 0, 1)
            });
    rules
        .prefix("encoder.embeddings.patch_embeddings.projection", "encoder.patch")
        .ignore("encoder.embeddings.mask_token", "of the encoder's own training")
}

fn dino(rules: Rules) -> Rules {
    let (layer, ours) = ("encoder.encoder.layer", "encoder.blocks");
    let rules = inside(tokens(rules), layer, ours, &OLD_ATTENTION);
    let rules = inside(rules, layer, ours, &ATTENTION);
    let scales = [("layer_scale1.lambda1", "scale1"), ("layer_scale2.lambda1", "scale2")];
    let same = [("norm1", "norm1"), ("norm2", "norm2")];
    inside(inside(inside(rules, layer, ours, &FC), layer, ours, &scales), layer, ours, &same)
}

fn mae(rules: Rules) -> Rules {
    let (old, new, ours) = ("encoder.encoder.layer", "encoder.layers", "encoder.blocks");
    let mut rules = tokens(rules);
    for names in [&OLD_ATTENTION[..], &DENSE, &BEFORE_AFTER] {
        rules = inside(rules, old, ours, names);
    }
    for names in [&ATTENTION[..], &FC, &BEFORE_AFTER] {
        rules = inside(rules, new, ours, names);
    }
    rules
}

fn siglip(mut rules: Rules) -> Rules {
    let attention = [
        ("self_attn.q_proj", "attention.query"),
        ("self_attn.k_proj", "attention.key"),
        ("self_attn.v_proj", "attention.value"),
        ("self_attn.out_proj", "attention.output"),
    ];
    let norms = [("layer_norm1", "norm1"), ("layer_norm2", "norm2")];
    for root in ["encoder", "encoder.vision_model"] {
        let layer = format!("{root}.encoder.layers");
        for names in [&attention[..], &norms, &FC] {
            rules = inside(rules, &layer, "encoder.blocks", names);
        }
        rules = rules
            .prefix(&format!("{root}.embeddings.patch_embedding"), "encoder.patch")
            .exact(&format!("{root}.embeddings.position_embedding.weight"), "encoder.positions")
            .ignore_prefix(&format!("{root}.head"), "pools what the decoder reads patch by patch");
    }
    rules
}

fn decoder(rules: Rules) -> Rules {
    let attention = [
        ("attention.to_q", "attention.query"),
        ("attention.to_k", "attention.key"),
        ("attention.to_v", "attention.value"),
        ("attention.to_out.0", "attention.output"),
    ];
    let names = [&attention[..], &DENSE, &BEFORE_AFTER];
    let layer =
        |rules, names: &&[(&str, &str)]| inside(rules, "decoder.decoder_layers", "decoder.blocks", names);
    names
        .iter()
        .fold(rules, layer)
        .prefix("decoder.decoder_embed", "decoder.input")
        .prefix("decoder.decoder_norm", "decoder.norm")
        .prefix("decoder.decoder_pred", "decoder.output")
        .exact("decoder.trainable_cls_token", "decoder.class")
        .last_slice("trainable_cls_token", 0, 1)
        .ignore("decoder.decoder_pos_embed", "a table that is computed")
}

/// Three numbers, one a colour.
fn colours(fields: &Fields, field: &str, default: [f64; 3]) -> Result<[f64; 3], ConfigFileError> {
    let Some(list) = fields.reals(field)? else { return Ok(default) };
    list.try_into().map_err(|_| fields.refuse(field, "3 numbers, one a colour"))
}

/// The shape of nested lists of numbers: `[1]` where there are none.
fn shape(fields: &Fields, field: &str) -> Result<Vec<usize>, ConfigFileError> {
    fn of(value: &Value) -> Option<Vec<usize>> {
        let Value::Array(list) = value else { return value.is_number().then(Vec::new) };
        let inner = of(list.first()?)?;
        let same = list.iter().all(|value| of(value).as_ref() == Some(&inner));
        same.then(|| [vec![list.len()], inner].concat())
    }
    let Some(value) = fields.get(field) else { return Ok(vec![1]) };
    of(value).filter(|shape| !shape.is_empty()).ok_or_else(|| fields.refuse(field, "nested lists of numbers"))
}
