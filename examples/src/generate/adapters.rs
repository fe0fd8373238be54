//! What is put on a model: ControlNets, T2I-Adapters, IP-Adapters.

use super::args::{Args, Window, numbers};
use super::loader::Loader;
use super::model::Model;
use super::network::Control;
use super::picture;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::weights::Source;
use canvas_core::{Channels, Condition, params};
use canvas_text::{ClipImageProcessor, ClipVision, ClipVisionConfig};
use canvas_unet::{
    ControlNetConfig, Hints, ImageTokens, IpAdapter, IpAdapterConfig, Residuals, T2iAdapterConfig,
};
use std::path::Path;

/// The ControlNets of a run.
///
/// # Errors
/// If one cannot be read, or was made for another UNet.
pub fn controls(model: &mut Model, args: &Args, scale: f64, device: &Device) -> Result<Vec<Control>> {
    let mut controls = Vec::new();
    for (number, folder) in args.controlnet.iter().enumerate() {
        let config = ControlNetConfig::from_diffusers_file(&folder.join("config.json"))?;
        let (found, expected) = (&config.unet, &model.config);
        let fits = found.channels == expected.channels
            && found.blocks == expected.blocks
            && found.context_width == expected.context_width
            && found.in_channels == model.vae.channels
            && found.size_features == expected.size_features;
        if !fits {
            bail!(
                "--controlnet {}: made for another UNet: expected channels {:?}, {} blocks a level and tokens of width {}, \
                 found {:?}, {} and {}",
                folder.display(),
                expected.channels,
                expected.blocks,
                expected.context_width,
                found.channels,
                found.blocks,
                found.context_width
            );
        }
        let source = Source::open(folder, args.variant.as_deref())?;
        let mut loader = Loader { args, device, reports: &mut model.reports };
        let network = loader.load("controlnet", config.init(device), &source, &config.published())?;
        let scale = args.control_scale.get(number).copied().unwrap_or(scale);
        let Window { start, end } =
            args.control_window.get(number).copied().unwrap_or(Window { start: 0.0, end: 1.0 });
        let network = params::cast(network, numbers(&args.dtype));
        controls.push(Control { network, scale, window: (start, end) });
    }
    Ok(controls)
}

/// What ControlNets see.
///
/// # Errors
/// If a picture cannot be read.
pub fn hints(args: &Args, size: [usize; 2], batch: usize, device: &Device) -> Result<Hints> {
    let hint = |path: &std::path::PathBuf| -> Result<Channels<4>> {
        let values = picture::unsigned(&picture::open(path)?, size, device);
        Ok(Channels { values }.spread(batch))
    };
    Ok(Hints(args.control_image.iter().map(hint).collect::<Result<_>>()?))
}

/// What T2I-Adapters add, the same at all times.
///
/// # Errors
/// If one cannot be read, or the size does not suit it.
pub fn adapted(
    model: &mut Model,
    args: &Args,
    size: [usize; 2],
    batch: usize,
    device: &Device,
) -> Result<Option<Residuals>> {
    let mut sum: Option<Residuals> = None;
    for (number, folder) in args.t2i_adapter.iter().enumerate() {
        let config = T2iAdapterConfig::from_diffusers_file(&folder.join("config.json"))?;
        let source = Source::open(folder, args.variant.as_deref())?;
        let mut loader = Loader { args, device, reports: &mut model.reports };
        let network = loader.load("t2i_adapter", config.init(device), &source, &config.published())?;
        let unit = network.unit();
        if size.iter().any(|side| !side.is_multiple_of(unit)) {
            bail!(
                "--t2i-adapter {}: height and width must be multiples of {unit}, found {size:?}",
                folder.display()
            );
        }
        let picture = picture::open(&args.adapter_image[number])?;
        let residuals = network.forward(picture::unsigned(&picture, size, device));
        let residuals = residuals.scaled(args.adapter_scale.get(number).copied().unwrap_or(1.0));
        sum = Some(match sum {
            Some(sum) => sum.plus(residuals),
            None => residuals,
        });
    }
    Ok(sum.map(|sum| sum.spread(batch)))
}

/// IP-Adapters with what they read, of the prompts and of the negative prompts.
pub struct ImagePrompts {
    /// Adapters and their scales.
    pub adapters: Vec<(IpAdapter, f64)>,
    /// Tokens of the pictures.
    pub positive: ImageTokens,
    /// Tokens of no picture: those of a zero vector, or of a black one, as the adapter reads.
    pub negative: ImageTokens,
}

/// The IP-Adapters of a run.
///
/// # Errors
/// If a file or a picture cannot be read, or an adapter was made for another UNet or encoder.
pub fn image_prompts(model: &mut Model, args: &Args, batch: usize, device: &Device) -> Result<ImagePrompts> {
    let none = || ImageTokens(Vec::new());
    let mut prompts = ImagePrompts { adapters: Vec::new(), positive: none(), negative: none() };
    let Some(folder) = args.image_encoder.as_ref().filter(|_| !args.ip_adapter.is_empty()) else {
        return Ok(prompts);
    };
    let vision = vision(model, args, folder, device)?;
    let processor = processor(args, vision.image())?;
    for (number, path) in args.ip_adapter.iter().enumerate() {
        let source = Source::open(path, None)?;
        let config = IpAdapterConfig::detect(&source, &model.config)?;
        let mut loader = Loader { args, device, reports: &mut model.reports };
        let adapter = loader.load("ip_adapter", config.init(device), &source, &config.published())?;
        let pixels = processor.process(&[picture::open(&args.ip_image[number])?.to_rgb8()], device);
        let states = config.reader.reads_states();
        let (seen, unseen) = if states {
            let penultimate = |pixels: Tensor<4>| {
                let mut hidden = vision.states(pixels).hidden;
                hidden.swap_remove(hidden.len() - 2)
            };
            let blank = pixels.zeros_like();
            (penultimate(pixels), penultimate(blank))
        } else {
            let pooled: Tensor<3> = vision.states(pixels).pooled.unsqueeze_dim(1); // [1, 1, V]
            let blank = pooled.zeros_like();
            (pooled, blank)
        };
        let (found, expected) = (seen.dims()[2], config.image_width);
        if found != expected {
            let what = if states { "states" } else { "a vector" };
            bail!(
                "--ip-adapter {}: reads {what} of width {expected}, {} makes them {found} wide",
                path.display(),
                folder.display()
            );
        }
        let spread = |tokens: Tensor<3>| ImageTokens(vec![tokens]).spread(batch).0.remove(0);
        let dtype = numbers(&args.dtype);
        prompts.positive.0.push(spread(adapter.tokens(seen).cast(dtype)));
        prompts.negative.0.push(spread(adapter.tokens(unseen).cast(dtype)));
        let adapter = params::cast(adapter, dtype);
        prompts.adapters.push((adapter, args.ip_scale.get(number).copied().unwrap_or(1.0)));
    }
    Ok(prompts)
}

fn vision(model: &mut Model, args: &Args, folder: &Path, device: &Device) -> Result<ClipVision> {
    let config = ClipVisionConfig::from_file(&folder.join("config.json")).context("--image-encoder")?;
    let source = Source::open(folder, args.variant.as_deref()).context("--image-encoder")?;
    let mut loader = Loader { args, device, reports: &mut model.reports };
    loader.load("image_encoder", config.init(device), &source, &config.published())
}

fn processor(args: &Args, image: usize) -> Result<ClipImageProcessor> {
    let processor = match &args.feature_extractor {
        Some(folder) => ClipImageProcessor::from_file(&folder.join("preprocessor_config.json"))?,
        None => ClipImageProcessor { short: image, crop: [image; 2], ..ClipImageProcessor::default() },
    };
    if processor.crop != [image; 2] {
        bail!(
            "--feature-extractor makes pictures of {:?} pixels, the encoder reads {image}x{image}",
            processor.crop
        );
    }
    Ok(processor)
}
