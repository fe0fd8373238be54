//! The networks that the files are for, and what these make of them.

use crate::files::{File, folder, open, write};
use burn::prelude::*;
use canvas_core::weights::{
    Lora, Merging, Part, Rules, Source, load_published, read_tensors, save_published,
};
use canvas_core::{Backbone, Text};
use canvas_testkit::{hashed, pattern, relative};
use canvas_unet::{Conditions, Unet, UnetConfig};
use std::collections::BTreeMap;
use std::path::Path;

/// A model with hashed weights, and its layers as diffusers calls them.
pub struct Model {
    pub config: UnetConfig,
    pub unet: Unet,
    layers: Vec<(String, Vec<usize>)>,
}

impl Model {
    fn new(name: &str, config: UnetConfig) -> Self {
        let path = folder(name).join("model.safetensors");
        save_published(&config.init(&Device::flex()), &path, &config.published()).unwrap();
        let source = Source::open(&path, None).unwrap();
        let hash = |key: &str| {
            let shape = source.shape(key).unwrap();
            let norm = key.contains("norm") && key.ends_with("weight");
            let fan = if shape.len() < 2 { 16 } else { shape[1..].iter().product::<usize>() };
            let scale = if norm { 0.1 } else { (fan as f64).powf(-0.5) };
            (key.to_owned(), hashed(key, shape, scale, if norm { 1.0 } else { 0.0 }))
        };
        let values: File = source.keys().map(hash).collect();
        write(&path, &values, &BTreeMap::new());
        let source = Source::open(&path, None).unwrap();
        let (unet, _) = load_published(config.init(&Device::flex()), &source, &config.published()).unwrap();
        let layer = |key: &str| {
            let shape = source.shape(key)?.to_vec();
            Some((key.strip_suffix(".weight")?.to_owned(), shape)).filter(|(_, shape)| shape.len() > 1)
        };
        let layers = source.keys().filter_map(layer).collect();
        Self { config, unet, layers }
    }

    pub fn sd(name: &str) -> Self {
        let config = UnetConfig::new(3, 10, vec![8, 12], vec![1, 0], vec![2, 3]);
        Self::new(name, config.with_blocks(1).with_norm_groups(2))
    }

    pub fn sdxl(name: &str) -> Self {
        let config = UnetConfig::new(3, 10, vec![8, 12], vec![0, 2], vec![2, 3])
            .with_middle_depth(2)
            .with_norm_groups(2)
            .with_linear_projection(true)
            .with_pooled_width(Some(7))
            .with_size_features(Some(4));
        Self::new(name, config)
    }

    /// Tensors for every chosen layer.
    pub fn file(&self, chosen: fn(&str) -> bool, tensors: impl Fn(&str, &[usize]) -> File) -> File {
        let layers = self.layers.iter().filter(|(name, _)| chosen(name));
        layers.flat_map(|(name, shape)| tensors(name, shape)).collect()
    }

    /// The model with these LoRAs, every key of which must be used.
    pub fn with(&self, loras: &[(&Lora, f64)], names: &[&Rules]) -> Unet {
        let mut merging = Merging::new(loras);
        let merged = merging.merge(self.unet.clone(), Part::Unet, names).unwrap();
        for (report, (lora, _)) in merging.finish().unwrap().iter().zip(loras) {
            let keys = Source::open(lora.path(), None).unwrap().keys().count();
            assert_eq!((report.renamed.len(), report.ignored.len()), (keys, 0));
        }
        merged
    }

    /// The same, by the names of diffusers alone.
    pub fn merged(&self, loras: &[(&Lora, f64)]) -> Unet {
        self.with(loras, &[&self.config.published()])
    }
}

fn draw(unet: &Unet, sized: bool) -> Vec<f64> {
    let device = Device::flex();
    let mask = Tensor::from_data(TensorData::from([[true; 5]]), &device);
    let text =
        Text { tokens: pattern([1, 5, 10], 1.0, &device), mask, pooled: pattern([1, 7], 3.0, &device) };
    let sizes = [[512.0f32, 768.0, 3.0, 17.0, 1024.0, 896.0]];
    let sizes = sized.then(|| Tensor::from_floats(sizes, &device));
    let cond = Conditions { sizes, ..text.into() };
    let time = Tensor::from_floats([0.25], &device);
    let drawn = unet.told().forward(pattern([1, 3, 4, 6], 1.0, &device) * 3.0, time, &cond);
    drawn.into_data().iter::<f64>().collect()
}

#[track_caller]
pub fn assert_draws(unet: &Unet, case: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lora.safetensors");
    let expected: Vec<f64> = read_tensors(&fixture).unwrap()[case].iter::<f64>().collect();
    let error = relative(&draw(unet, ["sdxl", "ldm"].contains(&case)), &expected);
    println!("{case}: {error:.1e}");
    assert!(error < 1e-5, "{case}: relative error {error:.2e}");
}

/// Merges one file, and compares.
#[track_caller]
pub fn check(case: &str, model: &Model, file: &File, weight: f64) {
    let lora = open(case, file);
    assert_draws(&model.merged(&[(&lora, weight)]), case);
}
