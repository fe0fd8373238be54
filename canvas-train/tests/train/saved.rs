//! What was trained goes into files that diffusers loads: read back here, and there by `tools/check_training_files.py`, for which
//! `CANVAS_SAVE_TO` names a folder to keep them in.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::weights::{Rules, Source, load_published, save_published, write_tensors};
use canvas_core::{Backbone, Channels, Text, TextEncoder, Tokens};
use canvas_testkit::{chirped, distance, pattern};
use canvas_text::{ClipText, ClipTextConfig};
use canvas_train::word_vectors::WordVectors;
use canvas_train::{AdamW, Ema, StepOptions, TrainState};
use canvas_unet::{
    ControlNet, ControlNetConfig, Controlled, Hints, ImagePrompted, ImageTokens, IpAdapter, IpAdapterConfig,
    Unet, UnetConfig,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const OPTIONS: StepOptions = StepOptions { rate: 1e-2, clip: f64::INFINITY, ema: Ema::WarmUp { limit: 0.5 } };

fn unet_config() -> UnetConfig {
    UnetConfig::new(3, 12, vec![8, 16], vec![1, 0], vec![2, 2]).with_blocks(1).with_norm_groups(2)
}

fn clip_config() -> ClipTextConfig {
    ClipTextConfig::new(12, 20, 2, 3, Activation::QuickGelu).with_vocabulary(50).with_context(6)
}

fn prompts(device: &Device) -> Text {
    Text {
        tokens: pattern([2, 5, 12], 1.0, device),
        mask: Tensor::<2, Int>::ones([2, 5], device).bool(),
        pooled: pattern([2, 7], 3.0, device),
    }
}

fn x(device: &Device) -> (Tensor<4>, Tensor<1>) {
    (pattern([2, 3, 8, 12], 2.0, device), Tensor::from_floats([0.3, 0.6], device))
}

fn controlled(unet: &Unet, control: &ControlNet, device: &Device) -> Tensor<4> {
    let (x, time) = x(device);
    let hints = Hints(vec![Channels { values: pattern([2, 3, 16, 24], 4.0, device) }]);
    Controlled { unet, controls: vec![(control, 1.0)] }.forward(x, time, &(prompts(device).into(), hints))
}

fn prompted(unet: &Unet, adapter: &IpAdapter, device: &Device) -> Tensor<4> {
    let (x, time) = x(device);
    let images = ImageTokens(vec![adapter.tokens(pattern([2, 1, 10], 5.0, device))]);
    let prompted = ImagePrompted { backbone: unet, adapters: vec![(adapter, 0.7)] };
    prompted.forward(x, time, &(prompts(device), images))
}

/// The state of the last token's id is not asked for: a learned one would be the largest.
fn told(clip: &ClipText) -> Tensor<3> {
    clip.encode(&Tokens { ids: vec![48, 3, 50, 51, 49, 49], mask: vec![true; 6], length: 6 }).tokens
}

/// Three steps, and the model without gradients.
fn trained<M: Module>(model: M, answer: impl Fn(&M) -> Tensor<4>) -> M {
    let mut state = TrainState::new(model, AdamW::default());
    for _ in 0..3 {
        let losses = answer(&state.model).square().flatten::<2>(1, 3).mean_dim(1).reshape([2]);
        state.step(losses, &OPTIONS).unwrap();
    }
    state.model.valid()
}

/// Where the files go.
fn folder() -> (PathBuf, Option<TempDir>) {
    match std::env::var_os("CANVAS_SAVE_TO") {
        Some(folder) => (folder.into(), None),
        None => {
            let folder = tempfile::tempdir().unwrap();
            (folder.path().to_owned(), Some(folder))
        }
    }
}

fn load<M: Module>(fresh: M, path: &Path, rules: &Rules) -> M {
    let (model, report) = load_published(fresh, &Source::open(path, None).unwrap(), rules).unwrap();
    assert!(report.one_way.is_empty() && report.ignored.is_empty());
    model
}

#[test]
fn what_was_trained_is_read_back_to_the_bit() {
    let (device, tracked) = (Device::flex(), Device::flex().autodiff());
    let (folder, _kept) = folder();
    let file = |name: &str| folder.join(format!("{name}.safetensors"));
    let unet = chirped(unet_config().init(&tracked)).no_grad();
    let (plain, clip) = (unet.valid(), chirped(clip_config().init(&tracked)).no_grad());

    let config = ControlNetConfig::new(unet_config()).with_hint_widths(vec![4, 6]);
    let control = trained(config.init(&tracked).from_unet(&unet), |net| controlled(&unet, net, &tracked));
    let first = config.init(&device).from_unet(&plain);
    assert!(distance(controlled(&plain, &control, &device), controlled(&plain, &first, &device)) > 1e-3);
    let of_adapter = IpAdapterConfig::new(unet_config(), 10);
    let adapter = trained(of_adapter.init(&tracked).from_text(&unet), |net| prompted(&unet, net, &tracked));
    let table = "text_model.embeddings.token_embedding.weight";
    let words = trained(WordVectors::new(&clip, table, 50, &[7, 9]).unwrap(), |words| {
        told(&words.apply(&clip)).repeat_dim(0, 2).unsqueeze_dim(1)
    });

    save_published(&plain, &file("unet"), &unet_config().published()).unwrap();
    save_published(&clip.valid(), &file("clip"), &Rules::new()).unwrap();
    save_published(&control, &file("controlnet"), &config.published()).unwrap();
    save_published(&adapter, &file("ip_adapter"), &of_adapter.published()).unwrap();
    words.save(&file("learned_embeds"), "<cat>").unwrap();
    let answers = [
        ("controlled".to_owned(), controlled(&plain, &control, &device).into_data()),
        ("prompted".to_owned(), prompted(&plain, &adapter, &device).into_data()),
        ("told".to_owned(), told(&words.apply(&clip.valid())).into_data()),
    ];
    write_tensors(&file("answers"), &answers, &BTreeMap::new()).unwrap();

    let back = load(config.init(&device), &file("controlnet"), &config.published());
    assert_eq!(controlled(&plain, &back, &device).into_data(), answers[0].1);
    let source = Source::open(&file("ip_adapter"), None).unwrap();
    let detected = IpAdapterConfig::detect(&source, &unet_config()).unwrap();
    let back = load(detected.init(&device), &file("ip_adapter"), &detected.published());
    assert_eq!(prompted(&plain, &back, &device).into_data(), answers[1].1);
}
