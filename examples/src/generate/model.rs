//! A published model, taken apart: its networks with their weights, its tokenizers, what its pipeline says.

use super::args::Args;
use super::memory;
use super::show::Loading;
use super::text::Reader;
use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{Family, Original, Report, Rules, Source, load_published_with};
use canvas_core::{Autoencoder, LatentScale};
use canvas_sched::diffusers::quoted;
use canvas_text::{ClipTextConfig, ClipTokenizer};
use canvas_unet::{Unet, UnetConfig};
use canvas_vae::{AutoencoderKlConfig, AutoencoderTinyConfig};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How a model reads prompts and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stable Diffusion 1 and 2: one text encoder, its last states.
    Sd,
    /// SDXL: one or two text encoders, their penultimate states, a pooled prompt and sizes.
    Sdxl,
}

/// A model, ready to draw.
pub struct Model {
    /// How it reads prompts and sizes.
    pub kind: Kind,
    /// Of its UNet.
    pub config: UnetConfig,
    /// The network.
    pub unet: Unet,
    /// Side of the latents it was trained with, height and width.
    pub sample: [usize; 2],
    /// Between images and latents.
    pub vae: Vae,
    /// Text encoders with their tokenizers, in the order in which their tokens are joined.
    pub readers: Vec<Reader>,
    /// What LoRA files call each text encoder.
    pub reader_names: Vec<&'static str>,
    /// Its `scheduler_config.json`.
    pub scheduler: Value,
    /// SDXL: a missing negative prompt is zeros (`force_zeros_for_empty_prompt`).
    pub zero_negative: bool,
    /// What became of every key, by component.
    pub reports: Vec<(String, Report)>,
}

/// An autoencoder with what the pipeline has to know of it.
pub struct Vae {
    /// The network.
    pub network: Box<dyn Autoencoder>,
    /// Its latents to unit variance.
    pub scale: LatentScale,
    /// Pixels of a side per latent.
    pub factor: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// Whether its posterior has a spread to draw from.
    pub spread: bool,
    /// What decoding takes is estimated from this; an AutoencoderTiny takes little.
    pub config: Option<AutoencoderKlConfig>,
}

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

/// A JSON file.
///
/// # Errors
/// Names the file.
pub fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Python writes infinities that JSON has not got.
    serde_json::from_str(&quoted(&text)).with_context(|| format!("{} is not JSON", path.display()))
}

impl Model {
    /// Opens what `--model` names: a folder, or one file.
    ///
    /// # Errors
    /// Names the folder, file or key, what was expected and what was found.
    pub fn open(args: &Args, device: &Device) -> Result<Self> {
        if !args.model.exists() {
            bail!("--model {}: there is no such folder or file", args.model.display());
        }
        let mut model = match args.model.is_dir() {
            true => Self::folder(args, device)?,
            false => Self::file(args, device)?,
        };
        if let Some(folder) = &args.vae {
            model.vae = Loader { args, device, reports: &mut model.reports }.vae(folder)?;
        }
        if let Some(prediction) = &args.prediction_type {
            model.scheduler["prediction_type"] = prediction.as_str().into();
        }
        model.check()?;
        Ok(model)
    }

    fn folder(args: &Args, device: &Device) -> Result<Self> {
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

    /// One file in the original code's layout: sizes are told from its shapes.
    fn file(args: &Args, device: &Device) -> Result<Self> {
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
            let tokenizer = loader.tokenizer(name, family)?;
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

    /// Whether the parts are of one model.
    fn check(&self) -> Result<()> {
        if self.readers.is_empty() {
            bail!("this model has no text encoder: text_encoder or text_encoder_2 is expected");
        }
        let width: usize = self.readers.iter().map(|reader| reader.encoder.width()).sum();
        if width != self.config.context_width {
            bail!(
                "the text encoders ({}) make tokens of width {width}, the UNet reads {}",
                self.reader_names.join(" and "),
                self.config.context_width
            );
        }
        Ok(())
    }

    /// Whether its UNet reads a mask and a masked picture: an inpainting model.
    pub fn reads_mask(&self) -> bool {
        self.config.in_channels == 2 * self.vae.channels + 1
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
    Ok(json!({
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

/// Loads components, with a bar for each.
pub struct Loader<'a> {
    /// Of the program.
    pub args: &'a Args,
    /// Where the networks go.
    pub device: &'a Device,
    /// What became of every key, by component.
    pub reports: &'a mut Vec<(String, Report)>,
}

impl Loader<'_> {
    /// The variant of the weights.
    pub fn variant(&self) -> Option<&str> {
        self.args.variant.as_deref()
    }

    /// Weights into a network.
    ///
    /// # Errors
    /// Lists every key that does not fit.
    pub fn load<M: Module>(&mut self, name: &str, module: M, source: &Source, rules: &Rules) -> Result<M> {
        let mut bar = Loading::new(name);
        let loaded = load_published_with(module, source, rules, &mut |progress| bar.at(progress));
        let (module, report) = loaded.with_context(|| format!("loading {name}"))?;
        bar.finish();
        self.reports.push((name.to_owned(), report));
        Ok(module)
    }

    fn reader(&mut self, root: &Path, encoder: &str, tokenizer: &str) -> Result<Reader> {
        let tokenizer = ClipTokenizer::from_folder(&root.join(tokenizer))?;
        let folder = root.join(encoder);
        let config = ClipTextConfig::from_file(&folder.join("config.json"))?;
        let (found, expected) = (tokenizer.vocabulary(), config.vocabulary);
        if found > expected {
            bail!(
                "{}: {found} tokens for an encoder that knows {expected}",
                root.join("tokenizer").display()
            );
        }
        let source = Source::open(&folder, self.variant())?;
        let encoder = self.load(encoder, config.init(self.device), &source, &config.published())?;
        Ok(Reader { tokenizer, encoder })
    }

    /// The tokenizer of an encoder of a single file: such files hold none.
    fn tokenizer(&self, encoder: &str, family: Family) -> Result<ClipTokenizer> {
        let Some(folder) = &self.args.config else {
            bail!(
                "{}: one file holds no tokenizer: give a folder with one, --config DIR (a model's folder in diffusers' \
                 layout without weights, or one with vocab.json and merges.txt)",
                self.args.model.display()
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

    /// An autoencoder's folder.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn vae(&mut self, folder: &Path) -> Result<Vae> {
        let path = folder.join("config.json");
        let source = Source::open(folder, self.variant())?;
        match json(&path)?["_class_name"].as_str() {
            Some("AutoencoderTiny") => {
                let (config, scale) = AutoencoderTinyConfig::from_diffusers_file(&path)?;
                let network = self.load("vae", config.init(self.device), &source, &config.published())?;
                let factor = config.downsampling();
                let channels = network.latent_shape(factor, factor)[0];
                Ok(Vae { network: Box::new(network), scale, factor, channels, spread: false, config: None })
            }
            _ => {
                let (config, scale) = AutoencoderKlConfig::from_diffusers_file(&path)?;
                let network = self.load("vae", config.init(self.device), &source, &config.published())?;
                let (factor, channels) = (config.downsampling(), config.latent);
                Ok(Vae {
                    network: Box::new(network),
                    scale,
                    factor,
                    channels,
                    spread: true,
                    config: Some(config),
                })
            }
        }
    }
}
