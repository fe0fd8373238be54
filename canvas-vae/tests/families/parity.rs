//! Values and gradients of tiny networks, loaded by their published names.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::Gradients;
use canvas_core::nn::Activation;
use canvas_core::weights::{self, Rules, Source, load_published, read_tensors, save_published};
use canvas_core::{Autoencoder, Posterior};
use canvas_vae::{AutoencoderDcConfig, AutoencoderKlConfig, AutoencoderKlFlux2Config};
use canvas_vae::{
    AutoencoderKlQwenImageConfig, AutoencoderRaeConfig, DcDown, DcLevel, DcNorm, DcUp, RaeEncoder,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest difference of values from the fixture, relative to the largest value.
const VALUES: f64 = 1e-5;
/// Largest difference of a gradient's length and projections, relative to its length.
const GRADIENTS: f64 = 1e-4;
/// Below this part of the largest length the reference, in f64, holds roundings of 0: keys' biases move no softmax.
const NOTHING: f64 = 1e-12;
/// As far may ours be from 0 then, in parts of the largest length: in f32.
const ROUNDINGS: f64 = 1e-7;

/// Published names with their shapes, the names whose gradients a fixture holds, and the seed of its images.
#[derive(serde::Deserialize)]
struct Case {
    shapes: BTreeMap<String, Vec<usize>>,
    gradients: Vec<String>,
    seed: f64,
}

fn wave(dims: &[usize], seed: f64) -> TensorData {
    let value = |i: usize| (0.37 * i as f64 + 0.011 * (i as f64).powi(2) + seed).sin() as f32;
    TensorData::new((0..dims.iter().product()).map(value).collect::<Vec<_>>(), dims.to_vec())
}

/// As `value` of the script.
fn weight(name: &str, shape: &[usize]) -> TensorData {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let phase = (name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) % 1000) as f64;
    let chirp = |i: usize| (0.7 * i as f64 + 0.013 * (i as f64).powi(2) + phase).sin();
    let (count, mut long) = (shape.iter().product::<usize>(), shape.iter().filter(|size| **size > 1));
    let (first, vector) = (long.next(), long.next().is_none());
    let factors = ["weight", "gamma", "running_var", "lambda1", "std"];
    let value = |i: usize| match first {
        _ if vector && factors.iter().any(|end| name.ends_with(end)) => (1.0 + 0.1 * chirp(i)) as f32,
        Some(first) if !vector => (chirp(i) * (2.0 / (count / first) as f64).sqrt()) as f32,
        _ => (chirp(i) * (2.0f64 / 16.0).sqrt()) as f32,
    };
    TensorData::new((0..count).map(value).collect::<Vec<_>>(), shape.to_vec())
}

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(file)
}

/// A file of our own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let file = format!("canvas-vae-{name}-{}.safetensors", std::process::id());
        Self(std::env::temp_dir().join(file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn case(name: &str) -> Case {
    let text = std::fs::read_to_string(fixture("cases.json")).unwrap();
    let mut all: BTreeMap<String, Case> = serde_json::from_str(&text).unwrap();
    all.remove(name).unwrap()
}

/// The published file that the script's network would be, read strictly; and what is left out of it.
fn loaded<M: Module>(case: &Case, name: &str, module: M, rules: &Rules) -> M {
    let file = Scratch::new(name);
    let tensors: Vec<(String, TensorData)> =
        case.shapes.iter().map(|(key, shape)| (key.clone(), weight(key, shape))).collect();
    weights::write_tensors(&file.0, &tensors, &BTreeMap::new()).unwrap();
    let source = Source::open(&file.0, None).unwrap();
    let (module, report) = load_published(module, &source, rules).unwrap();
    assert!(report.one_way.is_empty(), "{name}: {:?}", report.one_way);
    for (key, why) in &report.ignored {
        println!("{name} {key} ignored: {why}");
    }
    module
}

/// Every parameter by its gradient, zero where there is none: of statistics, which are not trained.
struct Grads<'a>(&'a Gradients);

impl ModuleMapper for Grads<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| {
            let data = value.grad(self.0).map(|grad| grad.into_data());
            assert_eq!(data.is_some(), value.is_require_grad());
            data.map_or_else(|| value.zeros_like(), |data| Tensor::from_data(data, &value.device()))
        })
    }
}

/// Length, and products with two waves.
fn sketch(grad: &TensorData) -> [f64; 3] {
    let values: Vec<f64> = grad.iter::<f64>().collect();
    let product = |other: &TensorData| values.iter().zip(other.iter::<f64>()).map(|(a, b)| a * b).sum();
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    [length, product(&wave(&grad.shape(), 5.0)), product(&wave(&grad.shape(), 6.0))]
}

fn compare_values(name: &str, what: &str, found: &TensorData, expected: &TensorData) {
    assert_eq!(found.shape(), expected.shape(), "{name} {what}");
    let largest = expected.iter::<f64>().fold(0.0, |most: f64, x| most.max(x.abs()));
    let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
    let error = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest;
    println!("{name} {what}: {error:.1e}");
    assert!(error < VALUES, "{name} {what}: relative error {error:.2e}");
}

fn compare_gradients(
    name: &str,
    names: &[String],
    found: &BTreeMap<String, TensorData>,
    expected: &TensorData,
) {
    let expected: Vec<f64> = expected.iter::<f64>().collect();
    let largest = expected.iter().step_by(3).fold(0.0, |most: f64, x| most.max(*x));
    let (mut worst, mut at) = (0.0, "");
    for (key, expected) in names.iter().zip(expected.chunks(3)) {
        let grad = found.get(key).unwrap_or_else(|| panic!("{name}: no gradient of {key}"));
        let pairs = sketch(grad).into_iter().zip(expected);
        let off = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
        if expected[0] < NOTHING * largest {
            assert!(off < ROUNDINGS * largest, "{name} gradient of {key}: {off:e}, where it should be 0");
            continue;
        }
        let error = off / expected[0];
        if error > worst {
            (worst, at) = (error, key);
        }
    }
    println!("{name} {} gradients: {worst:.1e} ({at})", names.len());
    assert!(worst < GRADIENTS, "{name} gradient of {at}: relative error {worst:.2e}");
}

/// Runs the network as the script runs diffusers' and compares everything the fixture holds.
fn parity<M: Module + Autoencoder>(
    name: &str,
    [height, width]: [usize; 2],
    make: impl FnOnce(&Device) -> M,
    rules: &Rules,
    more: impl FnOnce(&M, &Posterior) -> Vec<(&'static str, TensorData)>,
) {
    let (case, device) = (case(name), Device::flex().autodiff());
    let model = loaded(&case, name, make(&device), rules);
    let input = |dims: [usize; 4], seed| Tensor::<4>::from_data(wave(&dims, seed), &device);

    let images = input([2, 3, height, width], case.seed).require_grad();
    let posterior = model.encode(images.clone());
    let image = model.decode(posterior.sample(input(posterior.mean.dims(), 2.0)));
    let grads = (image.clone() * input(image.dims(), 1.0)).sum().backward();

    let mut found: BTreeMap<&str, TensorData> = more(&model, &posterior).into_iter().collect();
    found.insert("mean", posterior.mean.into_data());
    found.extend(posterior.log_variance.map(|log| ("log_variance", log.into_data())));
    found.insert("image", image.into_data());
    let mut expected = read_tensors(&fixture(&format!("{name}.safetensors"))).unwrap();
    let sketches = expected.remove("gradients").unwrap();
    for (what, expected) in expected.iter().rev() {
        compare_values(name, what, &found[what.as_str()], expected);
    }

    let file = Scratch::new(&format!("{name}-gradients"));
    let input_grad = images.grad(&grads).unwrap().into_data();
    save_published(&model.map(&mut Grads(&grads)), &file.0, rules).unwrap();
    let mut grads = read_tensors(&file.0).unwrap();
    grads.insert("images".into(), input_grad);
    compare_gradients(name, &case.gradients, &grads, &sketches);
}

#[test]
fn dc_ae_equals_diffusers() {
    let attends = |width, blocks, scales: &[usize]| {
        DcLevel::new(width, blocks).with_attends(true).with_scales(scales.to_vec())
    };
    let encoder = vec![DcLevel::new(4, 1), DcLevel::new(8, 1), attends(16, 2, &[5, 3])];
    let decoder = vec![DcLevel::new(4, 1), attends(8, 2, &[]), attends(8, 1, &[3])];
    let config = AutoencoderDcConfig::new(encoder, decoder).with_latent(4).with_head(4);
    let config = config.with_down(DcDown::Conv).with_up(DcUp::Interpolate);
    parity("dc", [16, 24], |device| config.init(device), &config.published(), |_, _| vec![]);

    let encoder = vec![DcLevel::new(5, 0), DcLevel::new(8, 2), attends(16, 1, &[])];
    let relu = |level: DcLevel| level.with_activation(Activation::Relu);
    let decoder = [relu(DcLevel::new(5, 0)), relu(DcLevel::new(4, 1)), attends(16, 1, &[3])];
    let decoder = decoder.map(|level| level.with_norm(DcNorm::Batch)).to_vec();
    let config = AutoencoderDcConfig::new(encoder, decoder).with_latent(3).with_head(8);
    let config = config.with_encoder_around(false).with_decoder_around(false);
    let config = config.with_last_activation(Activation::Silu);
    parity("dc_few", [8, 16], |device| config.init(device), &config.published(), |_, _| vec![]);
}

#[test]
fn flux2_equals_diffusers() {
    let network = AutoencoderKlConfig::new().with_channels(vec![8, 16]).with_layers(1).with_latent(3);
    let network = network.with_decoder_channels(Some(vec![8, 12])).with_groups(4);
    let config = AutoencoderKlFlux2Config::new().with_network(network).with_epsilon(0.01);
    parity(
        "flux2",
        [8, 12],
        |device| config.init(device),
        &config.published(),
        |model, posterior| {
            let scale = model.scale();
            let normalised = scale.normalise(posterior.mode());
            let back = scale.restore(normalised.clone()) - posterior.mode();
            assert!(back.abs().max().into_scalar::<f32>() < 1e-5);
            vec![("normalised", normalised.into_data())]
        },
    );
}

/// The reference runs on one frame of a video; the gradients of its kernels' earlier slices are zeros, as what is saved
/// of ours.
#[test]
fn qwen_image_equals_diffusers() {
    let config = AutoencoderKlQwenImageConfig::new().with_width(4).with_latent(3);
    let config = config.with_multiples(vec![1, 2, 2]).with_layers(1);
    parity("qwen", [8, 12], |device| config.init(device), &config.published(), |_, _| vec![]);
}

/// Of each encoder, with tables of positions for more places and images of another side, or statistics for each place.
#[test]
fn rae_equals_diffusers() {
    let small = AutoencoderRaeConfig::new().with_width(8).with_head(4).with_layers(2).with_decoder_width(12);
    let small = small.with_decoder_layers(2).with_decoder_heads(3).with_decoder_hidden(20);
    let with = |kind, [encoder_patch, side, patch]: [usize; 3]| {
        let config = small.clone().with_encoder(kind).with_encoder_patch(encoder_patch);
        config.with_input_side(side).with_patch(patch)
    };
    let dino =
        with(RaeEncoder::Dinov2, [14, 28, 9]).with_mean_shape(vec![8, 2, 2]).with_std_shape(vec![8, 1, 1]);
    let siglip = with(RaeEncoder::Siglip2, [4, 16, 4]);
    let mae = with(RaeEncoder::Mae, [4, 12, 6]).with_mean_shape(vec![1, 8, 1, 1]);
    for (name, config) in [("rae_dinov2", dino), ("rae_siglip2", siglip), ("rae_mae", mae)] {
        let side = config.image_side();
        parity(name, [side, side], |device| config.init(device), &config.published(), |_, _| vec![]);
    }
}
