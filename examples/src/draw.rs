//! Drawing with a trained run, long after it ended or while it goes on.

use crate::config::RunConfig;
use crate::generate::args::Weighed;
use crate::model::{BackboneSizes, DrawOptions, Network, Painter, TextToImage, process};
use crate::run::{Folder, new_autoencoder, new_model};
use crate::sheet::{Cell, save_png, sheet};
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::weights::{Lora, Merging, Part, Rules};
use canvas_core::{Autoencoder, LatentScale, weights};
use canvas_text::WordTokenizer;
use canvas_train::Checkpoints;
use canvas_vae::AutoencoderTiny;
use std::path::PathBuf;

/// What to draw, and how.
pub struct Request {
    /// At least one.
    pub prompts: Vec<String>,
    /// What the sheet calls the scheduler.
    pub scheduler: String,
    /// Scheduler, steps (at least 1), guidance and seed.
    pub options: DrawOptions,
    /// LoRAs of the denoiser, each with a weight.
    pub loras: Vec<Weighed>,
    /// Width and height; those of a square picture of the run's if none are given.
    pub size: Option<[u32; 2]>,
    /// File to write.
    pub picture: PathBuf,
}

/// Draws the prompts into one sheet.
///
/// # Errors
/// For an empty prompt or one longer than the context, no steps, a size that the run has no pictures of, a run that has no model
/// yet or another architecture, a LoRA that does not fit it, and files that cannot be read or written.
pub fn draw<B: Network>(
    folder: &Folder,
    config: &RunConfig,
    make: impl Fn(BackboneSizes, &Device) -> Result<B>,
    request: &Request,
    device: &Device,
) -> Result<()> {
    let options = &request.options;
    if options.steps == 0 {
        bail!("--steps 0: a drawing takes at least one step");
    }
    if !options.guidance.is_finite() {
        bail!("--guidance {}: not a number", options.guidance);
    }
    let [width, height] = request.size.unwrap_or([config.side; 2]);
    if !config.buckets()?.sizes().contains(&[width, height]) {
        let sizes: Vec<String> = config.buckets()?.sizes().iter().map(|[w, h]| format!("{w}x{h}")).collect();
        bail!("--size {width}x{height}: the run has pictures of {}", sizes.join(", "));
    }
    let (process, _) = process(&config.prediction)?;
    options
        .scheduler
        .levels(&process, options.steps)
        .with_context(|| format!("--scheduler {}", request.scheduler))?;
    let mut run = Opened::new(folder, config, make, device)?;
    run.model.backbone = with_loras(run.model.backbone, &request.loras).context("--lora")?;
    if let Some(prompt) = request.prompts.iter().find(|prompt| prompt.trim().is_empty()) {
        bail!("--prompt {prompt:?}: the prompt holds no word");
    }
    let encoded = run.tokenizer.tokenize(&request.prompts).context("--prompt")?;
    encoded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));

    let painter = Painter {
        model: &run.model,
        autoencoder: &run.autoencoder,
        scale: &run.scale,
        process: &process,
        latent: run.autoencoder.latent_shape(height as usize, width as usize),
    };
    let null = run.tokenizer.tokenize(&[""])?.tokens;
    let numbers: Vec<u64> = (0..request.prompts.len() as u64).collect();
    let drawn = painter.draw(&encoded.tokens, &null, &numbers, options)?;

    let cells: Vec<Cell> =
        drawn.iter().zip(&request.prompts).map(|(picture, label)| Cell { picture, label }).collect();
    let loras: String = request.loras.iter().map(|lora| format!(", {lora}")).collect();
    let title = format!(
        "{}, {} steps, guidance {}, seed {}{loras}",
        request.scheduler, options.steps, options.guidance, options.seed
    );
    save_png(&request.picture, &sheet(&title, &cells, 8, (256 / width.max(height)).max(1))?)?;
    println!("{}", request.picture.display());
    Ok(())
}

/// A network with these LoRAs in its weights.
fn with_loras<B: Network>(network: B, given: &[Weighed]) -> Result<B> {
    let files = given.iter().map(|lora| Lora::open(&lora.path)).collect::<Result<Vec<_>, _>>()?;
    let weighed: Vec<(&Lora, f64)> = files.iter().zip(given.iter().map(|lora| lora.weight)).collect();
    let mut merging = Merging::new(&weighed);
    let network = merging.merge(network, Part::Unet, &[&Rules::new()])?;
    merging.finish()?;
    Ok(network)
}

/// A run's averaged model with all it needs to draw, from its folder: the final one, or that of its newest checkpoint.
pub struct Opened<B: Network> {
    /// Text encoder and backbone.
    pub model: TextToImage<B>,
    /// From latents to pictures.
    pub autoencoder: AutoencoderTiny,
    /// Between the autoencoder's latents and those the model works on.
    pub scale: LatentScale,
    /// Of prompts.
    pub tokenizer: WordTokenizer,
}

impl<B: Network> Opened<B> {
    /// Opens the run in a folder.
    ///
    /// # Errors
    /// For a run that has no model yet or another architecture, and files that cannot be read.
    pub fn new(
        folder: &Folder,
        config: &RunConfig,
        make: impl Fn(BackboneSizes, &Device) -> Result<B>,
        device: &Device,
    ) -> Result<Self> {
        let tokenizer = WordTokenizer::load(&folder.0.join("tokenizer.json"))?;
        let path = folder.0.join("autoencoder.safetensors");
        if !path.exists() {
            bail!(
                "{}: the run has not finished its autoencoder; --resume {} goes on",
                path.display(),
                folder.0.display()
            );
        }
        let autoencoder = weights::load(new_autoencoder(config, device), &path, &[])?;
        let model = weights::load(new_model(config, &tokenizer, make, device)?, &newest(folder)?, &[])?;
        let path = folder.0.join("latent_scale.json");
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let scale = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok(Self { model, autoencoder, scale, tokenizer })
    }
}

/// The file of the newest averaged model.
fn newest(folder: &Folder) -> Result<PathBuf> {
    let path = folder.0.join("model.safetensors");
    if path.exists() {
        return Ok(path);
    }
    let newest = Checkpoints::new(folder.denoiser().join("checkpoints"), 1).newest()?;
    let newest = newest.with_context(|| {
        format!("{}: no checkpoint of the denoiser yet; --resume {0} goes on", folder.0.display())
    })?;
    eprintln!("the run is not finished: drawing with its checkpoint after {} images", newest.images);
    Ok(newest.path.join("average.safetensors"))
}
