//! A model in a folder of diffusers' layout: `model_index.json` and a folder for each component.

use super::args::Args;
use super::loader::Loader;
use super::memory;
use super::model::{Kind, Model, json};
use super::text::Reader;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::weights::Source;
use canvas_unet::UnetConfig;
use serde_json::Value;
use std::path::Path;

/// Pipelines of diffusers whose folders are read.
const CLASSES: [(&str, Kind); 12] = [
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
        let root = &args.model;
        let index_path = root.join("model_index.json");
        let index = json(&index_path).with_context(|| {
            format!(
                "--model {}: expected a folder in diffusers' layout, with a model_index.json",
                root.display()
            )
        })?;
        let class = index["_class_name"].as_str().unwrap_or("nothing");
        let Some((_, kind)) = CLASSES.iter().find(|(name, _)| *name == class) else {
            let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
            let path = index_path.display();
            bail!("{path}: _class_name: {class} is not known; expected one of {}", known.join(", "));
        };
        let there = |name: &str| index[name].as_array().is_some_and(|pair| !pair[0].is_null());
        for name in ["unet", "vae", "scheduler"] {
            if !there(name) || !root.join(name).is_dir() {
                bail!(
                    "{}: {name}: expected the component, found {}",
                    index_path.display(),
                    missing(&index, root, name)
                );
            }
        }
        let mut reports = Vec::new();
        let mut loader = Loader { args, device, reports: &mut reports };
        let (mut readers, mut reader_names) = (Vec::new(), Vec::new());
        for (encoder, tokenizer) in [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")] {
            if there(encoder) {
                for name in [encoder, tokenizer] {
                    if !root.join(name).is_dir() {
                        bail!(
                            "{}: {name}: expected the component, found {}",
                            index_path.display(),
                            missing(&index, root, name)
                        );
                    }
                }
                readers.push(loader.reader(root, encoder, tokenizer)?);
                reader_names.push(encoder);
            }
        }
        let config_path = root.join("unet/config.json");
        let config = UnetConfig::from_diffusers_file(&config_path)?;
        let config =
            sized(config, readers.last().map(|reader: &Reader| reader.encoder.pooled_width()), &config_path)?;
        memory::weights(&config, args, device)?;
        let unet = loader.load(
            "unet",
            config.init(device),
            &Source::open(&root.join("unet"), loader.variant())?,
            &config.published(),
        )?;
        let vae = loader.vae(&root.join("vae"))?;
        Ok(Self {
            kind: *kind,
            sample: sample_size(&json(&config_path)?),
            config,
            unet,
            vae,
            readers,
            reader_names,
            scheduler: json(&root.join("scheduler/scheduler_config.json"))?,
            zero_negative: *kind == Kind::Sdxl
                && index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true),
            reports,
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

/// Says why a component is not there.
fn missing(index: &Value, root: &Path, name: &str) -> String {
    match &index[name] {
        Value::Null => "no such entry".to_owned(),
        entry if entry[0].is_null() => "null".to_owned(),
        _ => format!("no folder {}", root.join(name).display()),
    }
}

/// Side of the latents, one number or two.
fn sample_size(config: &Value) -> [usize; 2] {
    let whole = |value: &Value| value.as_u64().map(|side| side as usize);
    let one = whole(&config["sample_size"]).map(|side| [side; 2]);
    let two = || Some([whole(&config["sample_size"][0])?, whole(&config["sample_size"][1])?]);
    one.or_else(two).unwrap_or([64, 64])
}
