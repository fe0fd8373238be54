//! Whole single files of Stable Diffusion, small ones of each family: every key of every network and beside them.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::weights::{
    Family, Original, Report, Rules, Source, WeightsError, load_published, published_shapes, write_tensors,
};
use canvas_text::ClipTextConfig;
use canvas_unet::UnetConfig;
use canvas_vae::AutoencoderKlConfig;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

type Shapes = BTreeMap<String, Vec<usize>>;

/// The UNet, and the text encoders behind what their keys begin with.
fn networks(family: Family) -> (UnetConfig, Vec<(&'static str, ClipTextConfig)>) {
    let unet = |context, depth| {
        let config = UnetConfig::new(4, context, vec![64, 128], depth, vec![1, 2]);
        config.with_blocks(1).with_out_channels(Some(4)).with_linear_projection(true)
    };
    let sized = |unet: UnetConfig, count| {
        unet.with_pooled_width(Some(24)).with_size_features(Some(256)).with_size_count(count)
    };
    let clip = |activation| ClipTextConfig::new(64, 96, 2, 1, activation).with_vocabulary(20).with_context(7);
    let (transformers, open) = (clip(Activation::QuickGelu), clip(Activation::Gelu));
    let projected = open.clone().with_projection(Some(24));
    match family {
        Family::Sd1 => {
            let unet = unet(64, vec![1, 0]).with_linear_projection(false);
            (UnetConfig { heads: vec![8; 2], ..unet }, vec![("cond_stage_model.transformer.", transformers)])
        }
        Family::Sd2 => (unet(64, vec![1, 0]), vec![("cond_stage_model.model.", open)]),
        Family::Sdxl => {
            let first = ("conditioner.embedders.0.transformer.", transformers);
            (sized(unet(2048, vec![0, 1]), 6), vec![first, ("conditioner.embedders.1.model.", projected)])
        }
        Family::SdxlRefiner => {
            (sized(unet(1280, vec![0, 1]), 5), vec![("conditioner.embedders.0.model.", projected)])
        }
    }
}

/// A file of the family, with what published ones hold beside the networks.
fn shapes(family: Family) -> Shapes {
    let device = Device::flex();
    let mut found = Shapes::new();
    let mut add = |prefix: &str, shapes: Shapes| {
        found.extend(shapes.into_iter().map(|(key, shape)| (format!("{prefix}{key}"), shape)));
    };
    let (unet, texts) = networks(family);
    add("model.diffusion_model.", published_shapes(&unet.init(&device), &unet.original()));
    let vae = vae();
    add("first_stage_model.", published_shapes(&vae.init(&device), &vae.original()));
    for (prefix, text) in texts {
        let open = prefix.ends_with("model.");
        let rules = if open { text.open_clip() } else { text.published() };
        add(prefix, published_shapes(&text.init(&device), &rules));
        add(prefix, [("logit_scale".to_owned(), vec![])].into());
        if !open {
            add(prefix, [("text_model.embeddings.position_ids".to_owned(), vec![1, 7])].into());
        }
        if family == Family::Sd2 {
            let block = "transformer.resblocks.2.ln_1.weight";
            let more =
                [(block.into(), vec![64]), (block.replace("ln_1.weight", "mlp.c_fc.weight"), vec![96, 64])];
            add(prefix, more.into());
            add(prefix, [("text_projection".to_owned(), vec![64, 64])].into());
        }
    }
    let beside =
        ["model_ema.decay", "model_ema.diffusion_modelout2weight", "alphas_cumprod", "denoiser.sigmas"];
    add("", beside.map(|key| (key.to_owned(), vec![2])).into());
    found
}

fn vae() -> AutoencoderKlConfig {
    AutoencoderKlConfig::new().with_channels(vec![32, 64]).with_layers(1)
}

fn write(path: &Path, shapes: &Shapes) -> Source {
    let zeros = |shape: &Vec<usize>| TensorData::new(vec![0f32; shape.iter().product()], shape.clone());
    let tensors: Vec<_> = shapes.iter().map(|(key, shape)| (key.clone(), zeros(shape))).collect();
    write_tensors(path, &tensors, &BTreeMap::new()).unwrap();
    Source::open(path, None).unwrap()
}

fn load<M: Module>(module: M, part: &Source, rules: &Rules) -> Result<Report, WeightsError> {
    load_published(module, part, rules).map(|(_, report)| report)
}

/// Loads all networks as a program would that knows nothing of the file.
fn account(source: &Source) -> Result<(Original, Report), WeightsError> {
    let (device, original) = (Device::flex(), Original::detect(source)?);
    let part = source.part(original.unet());
    let unet = UnetConfig::detect(&part)?;
    let mut reports = vec![load(unet.init(&device), &part, &unet.original())?];
    let part = source.part(original.autoencoder());
    let vae = AutoencoderKlConfig::detect(&part)?;
    reports.push(load(vae.init(&device), &part, &vae.original())?);
    for prefix in original.texts() {
        let part = source.part(prefix);
        let text = ClipTextConfig::detect(&part)?;
        reports.push(load(text.init(&device), &part, &text.original(&part))?);
    }
    Ok((original, original.account(source, reports)?))
}

#[test]
fn every_key_of_every_family_is_accounted_for() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    for family in [Family::Sd1, Family::Sd2, Family::Sdxl, Family::SdxlRefiner] {
        let mut shapes = shapes(family);
        let (found, report) = account(&write(&path, &shapes)).unwrap();
        assert_eq!(found, Original { family, in_channels: 4 });
        let every = report.every_key();
        assert_eq!(every.trim().lines().count(), shapes.len(), "{family:?}: {every}");
        assert!(every.contains("\n  ignored model_ema.decay: an average of the UNet's weights"), "{every}");

        // One more anywhere is an error, and so is one less.
        for stray in ["stray", "model.diffusion_model.stray", "first_stage_model.stray"] {
            shapes.insert(stray.into(), vec![3]);
            let shown = account(&write(&path, &shapes)).unwrap_err().to_string();
            assert!(shown.contains(&format!("\n  unexpected {stray} [3]")), "{family:?}: {shown}");
            shapes.remove(stray);
        }
        let gone = "first_stage_model.decoder.up.0.block.1.conv2.bias";
        shapes.remove(gone).unwrap();
        let shown = account(&write(&path, &shapes)).unwrap_err().to_string();
        assert!(shown.contains(&format!("\n  missing {gone}")), "{family:?}: {shown}");
    }
}
