//! A model with a UNet in a folder: Stable Diffusion 1.x, 2.x, XL and their relatives.

use super::args::Args;
use super::folder::Folder;
use super::memory;
use super::model::{Kind, Model, json};
use super::text::Reader;
use anyhow::{Result, bail};
use burn::prelude::*;
use canvas_core::weights::Source;
use canvas_unet::UnetConfig;
use serde_json::Value;
use std::path::Path;

/// Pipelines of diffusers whose folders are read.
pub(super) const CLASSES: [(&str, Kind); 12] = [
    ("StableDiffusionPipeline", Kind::Sd),
    ("StableDiffusionImg2ImgPipeline", Kind::Sd),
    ("StableDiffusionInpaintPipeline", Kind::Sd),
    ("StableDiffusionControlNetPipeline", Kind::Sd),
    ("StableDiffusionControlNetImg2ImgPipeline", Kind::Sd),
    ("StableDiffusionControlNetInpaintPipeline", Kind::Sd),
    ("StableDiffusionXLPipeline", Kind::Sdxl),
    ("StableDiffusionXLImg2ImgPipeline", Kind::Sdxl),
    ("StableDiffusionXLInpaintPipeline", Kind::Sdxl),
    ("StableDiffusionXLControlNetPipeline", Kind::Sdxl),
    ("StableDiffusionXLControlNetImg2ImgPipeline", Kind::Sdxl),
    ("StableDiffusionXLControlNetInpaintPipeline", Kind::Sdxl),
];

impl Model {
    /// Reads every component, or says which is missing.
    pub(super) fn folder(args: &Args, device: &Device) -> Result<Self> {
        let mut folder = Folder::open(args, device)?;
        let class = folder.class();
        let Some((_, kind)) = CLASSES.iter().find(|(name, _)| *name == class) else {
            let transformers = super::transformers::CLASSES.iter().copied();
            let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).chain(transformers).collect();
            let path = folder.index_path();
            bail!(
                "{}: _class_name: {class} is not known; expected one of {}",
                path.display(),
                known.join(", ")
            );
        };
        for name in ["unet", "vae", "scheduler"] {
            folder.component(name)?;
        }
        let (mut readers, mut reader_names) = (Vec::new(), Vec::new());
        for (encoder, tokenizer) in [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")] {
            if folder.has(encoder) {
                folder.component(encoder)?;
                folder.component(tokenizer)?;
                readers.push(folder.loader().reader(&args.model, encoder, tokenizer)?);
                reader_names.push(encoder);
            }
        }
        let path = folder.component("unet")?;
        let config_path = path.join("config.json");
        let config = UnetConfig::from_diffusers_file(&config_path)?;
        let config =
            sized(config, readers.last().map(|reader: &Reader| reader.encoder.pooled_width()), &config_path)?;
        memory::weights(&config, args, device)?;
        let source = Source::open(&path, args.variant.as_deref())?;
        let unet = folder.loader().load("unet", config.init(device), &source, &config.published())?;
        let vae = folder.component("vae")?;
        let vae = folder.loader().vae(&vae)?;
        Ok(Self {
            kind: *kind,
            sample: sample_size(&json(&config_path)?),
            config,
            unet,
            vae,
            readers,
            reader_names,
            scheduler: folder.scheduler()?,
            zero_negative: *kind == Kind::Sdxl
                && folder.index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true),
            reports: folder.reports,
        })
    }
}
/// The file says how wide the pooled prompt and the sizes are together: the text encoder tells the one from the other.
fn sized(config: UnetConfig, pooled: Option<usize>, path: &Path) -> Result<UnetConfig> {
    let (Some(features), Some(own), Some(pooled)) = (config.size_features, config.pooled_width, pooled)
    else {
        return Ok(config);
    };
    let total = own + config.size_count * features;
    match total.checked_sub(pooled).filter(|rest| rest.is_multiple_of(features)).map(|rest| rest / features) {
        Some(count @ (5 | 6)) => Ok(config.with_size_count(count).with_pooled_width(Some(pooled))),
        _ => bail!(
            "{}: projection_class_embeddings_input_dim: expected {pooled} of the text encoder and 5 or 6 sizes of \
             {features} features, found {total}",
            path.display()
        ),
    }
}

/// Side of the latents, one number or two.
pub(super) fn sample_size(config: &Value) -> [usize; 2] {
    let whole = |value: &Value| value.as_u64().map(|side| side as usize);
    let one = whole(&config["sample_size"]).map(|side| [side; 2]);
    let two = || Some([whole(&config["sample_size"][0])?, whole(&config["sample_size"][1])?]);
    one.or_else(two).unwrap_or([64, 64])
}
