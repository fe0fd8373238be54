//! A model in one file of the original code's layout.

use super::args::Args;
use super::loader::Loader;
use super::memory;
use super::model::{Kind, Model, Vae, json};
use super::text::Reader;
use anyhow::{Result, bail};
use burn::prelude::*;
use canvas_core::weights::{Family, Original, Source};
use canvas_text::{ClipTextConfig, ClipTokenizer};
use canvas_unet::UnetConfig;
use canvas_vae::AutoencoderKlConfig;
use serde_json::{Value, json as value};
use std::path::PathBuf;

impl Model {
    /// One file in the original code's layout: sizes are told from its shapes.
    pub(super) fn file(args: &Args, device: &Device) -> Result<Self> {
        let source = Source::open(&args.model, None)?;
        let original = Original::detect(&source)?;
        let family = original.family;
        let xl = matches!(family, Family::Sdxl | Family::SdxlRefiner);
        let mut reports = Vec::new();
        let mut loader = Loader { args, device, reports: &mut reports };

        let reader_names: Vec<&'static str> = match family {
            Family::Sd1 | Family::Sd2 => vec!["text_encoder"],
            Family::Sdxl => vec!["text_encoder", "text_encoder_2"],
            Family::SdxlRefiner => vec!["text_encoder_2"],
        };
        let mut readers = Vec::new();
        for (&prefix, &name) in original.texts().iter().zip(&reader_names) {
            let part = source.part(prefix);
            let config = ClipTextConfig::detect(&part)?;
            let tokenizer = tokenizer(args, name, family)?;
            let rules = config.original(&part);
            let encoder = loader.load(name, config.init(device), &part, &rules)?;
            readers.push(Reader { tokenizer, encoder });
        }
        let part = source.part(original.unet());
        let config = UnetConfig::detect(&part)?;
        memory::weights(&config, args, device)?;
        let unet = loader.load("unet", config.init(device), &part, &config.original())?;
        let part = source.part(original.autoencoder());
        let vae_config = AutoencoderKlConfig::detect(&part)?;
        let network = loader.load("vae", vae_config.init(device), &part, &vae_config.original())?;
        let vae = Vae {
            scale: if xl { AutoencoderKlConfig::sdxl_scale() } else { AutoencoderKlConfig::sd_scale() },
            factor: vae_config.downsampling(),
            channels: vae_config.latent,
            spread: true,
            config: Some(vae_config),
            network: Box::new(network),
        };
        let parts = reports.into_iter().map(|(_, report)| report).collect();
        let report = original.account(&source, parts)?;
        let sides = match (family, original.prediction_type()) {
            (Family::Sdxl | Family::SdxlRefiner, _) => 128,
            (Family::Sd2, "v_prediction") => 96,
            _ => 64,
        };
        Ok(Self {
            kind: if xl { Kind::Sdxl } else { Kind::Sd },
            config,
            unet,
            sample: [sides; 2],
            vae,
            readers,
            reader_names,
            scheduler: scheduler_of(args, family, original.prediction_type())?,
            zero_negative: zero_negative(args, family)?,
            reports: vec![(args.model.display().to_string(), report)],
        })
    }
}

/// The tokenizer of an encoder of a single file: such files hold none.
fn tokenizer(args: &Args, encoder: &str, family: Family) -> Result<ClipTokenizer> {
    let Some(folder) = &args.config else {
        bail!(
            "{}: one file holds no tokenizer: give a folder with one, --config DIR (a model's folder in diffusers' \
                 layout without weights, or one with vocab.json and merges.txt)",
            args.model.display()
        );
    };
    let second = encoder == "text_encoder_2";
    let own: PathBuf = folder.join(if second { "tokenizer_2" } else { "tokenizer" });
    if own.is_dir() {
        return Ok(ClipTokenizer::from_folder(&own)?);
    }
    let plain = if folder.join("tokenizer").is_dir() { folder.join("tokenizer") } else { folder.clone() };
    let tokenizer = ClipTokenizer::from_folder(&plain)?;
    // OpenCLIP pads with the first token of the vocabulary.
    Ok(if second || family == Family::Sd2 { tokenizer.with_pad("!")? } else { tokenizer })
}

/// The scheduler of a model in one file: of `--config`, or what such models were published with.
fn scheduler_of(args: &Args, family: Family, prediction: &str) -> Result<Value> {
    let path = args.config.as_ref().map(|folder| folder.join("scheduler/scheduler_config.json"));
    if let Some(path) = path.filter(|path| path.exists()) {
        return json(&path);
    }
    let class = match family {
        Family::Sd1 => "PNDMScheduler",
        Family::Sd2 => "DDIMScheduler",
        Family::Sdxl | Family::SdxlRefiner => "EulerDiscreteScheduler",
    };
    Ok(value!({
        "_class_name": class, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "num_train_timesteps": 1000, "steps_offset": 1, "clip_sample": false, "set_alpha_to_one": false,
        "skip_prk_steps": true, "prediction_type": prediction, "timestep_spacing": "leading"
    }))
}

/// Of the pipeline in `--config`, or of SDXL's base model.
fn zero_negative(args: &Args, family: Family) -> Result<bool> {
    let index = args.config.as_ref().map(|folder| folder.join("model_index.json"));
    match index.filter(|path| path.exists()) {
        Some(path) => {
            Ok(json(&path)?["force_zeros_for_empty_prompt"].as_bool().unwrap_or(family == Family::Sdxl))
        }
        None => Ok(family == Family::Sdxl),
    }
}
