//! `VqModel`: parity with diffusers' `VQModel` and its quantiser (fixtures by `tools/fixtures_vae.py`), names, codes.

mod common;

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::{Autoencoder, params};
use canvas_vae::{VqConfig, VqModel};
use common::{compare_with, gradients, pattern, saved_as};

fn config() -> VqConfig {
    VqConfig::new().with_channels(vec![8, 16]).with_layers(1).with_groups(4).with_codes(24)
}

fn wide() -> VqConfig {
    config().with_code_width(Some(5))
}

fn plain() -> VqConfig {
    config().with_latent(4).with_middle_attention(false).with_legacy(false)
}

/// Fills the codebook as the script does; everything else stays.
struct Codebook {
    inside: bool,
}

impl ModuleMapper for Codebook {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.inside |= name == "codebook";
    }
    fn exit_module(&mut self, name: &str, _container: &str) {
        self.inside &= name != "codebook";
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.inside {
            return param;
        }
        param.map(|old| {
            let dims = old.dims();
            let count: usize = dims.iter().product();
            let value = |i: usize| (0.13 * (i * i) as f64 + i as f64).sin() as f32;
            let data = TensorData::new((0..count).map(value).collect::<Vec<_>>(), dims);
            let filled = Tensor::from_data(data, &old.device());
            if old.is_require_grad() { filled.require_grad() } else { filled }
        })
    }
}

fn filled(config: &VqConfig, device: &Device) -> VqModel {
    params::fill_by_formula(config.init(device)).map(&mut Codebook { inside: false })
}

/// Values, codes, loss, and the gradients of the image and the loss together.
fn parity(file: &str, config: &VqConfig) {
    let device = Device::flex().autodiff();
    let model = filled(config, &device);
    let images = pattern([2, 3, 8, 12], 0.0, &device).require_grad();
    let latents = model.encode(images.clone()).mode();
    let quantised = model.quantise(latents.clone());
    let image = model.decode(latents.clone());
    let aim = (image.clone() * pattern(image.dims(), 1.0, &device)).sum();
    let grads = (aim + quantised.loss.clone().sum()).backward();

    let mut found = gradients(&model, &grads);
    found.insert("grad.images".into(), images.grad(&grads).unwrap().into_data());
    found.insert("mean".into(), latents.into_data());
    found.insert("image".into(), image.into_data());
    found.insert("loss".into(), quantised.loss.into_data());
    let lookup = model.lookup(reversed(quantised.codes.clone()));
    found.insert("lookup".into(), lookup.into_data());
    found.insert("codes".into(), quantised.codes.float().into_data());
    compare_with(file, &found);
}

/// All places in reverse order.
fn reversed(codes: Tensor<3, Int>) -> Tensor<3, Int> {
    codes.flip([0, 1, 2])
}

#[test]
fn vq_equals_diffusers() {
    parity("vq.safetensors", &wide());
    parity("vq_plain.safetensors", &plain());
}

#[test]
fn keys_are_those_of_diffusers() {
    let device = Device::flex();
    saved_as("vq", || wide().init(&device), &wide().published());
    saved_as("vq_plain", || plain().init(&device), &plain().published());
}

/// A vector of the codebook is its own nearest, and decoding it by number is decoding it.
#[test]
fn codes_survive_a_round_trip() {
    let device = Device::flex();
    let model = filled(&wide(), &device);
    let codes: Tensor<3, Int> = Tensor::arange(0..24, &device).reshape([2, 3, 4]);
    let vectors = model.lookup(codes.clone());
    let quantised = model.quantise(vectors.clone());
    quantised.codes.into_data().assert_eq(&codes.into_data(), true);
    assert_eq!(quantised.loss.into_scalar::<f32>(), 0.0);
    let direct = model.decode_quantised(vectors.clone()).into_data();
    model.decode(vectors).into_data().assert_eq(&direct, true);
}

/// Read off the shapes: nothing is allocated. As counted from diffusers 0.42.1's VQModel.
#[test]
fn vq_f4_has_the_published_size() {
    assert_eq!(VqConfig::vq_f4().init(&Device::flex()).num_params(), 55_322_782);
}

#[test]
fn errors_name_both_values() {
    let message = |config: VqConfig| config.validate().unwrap_err().to_string();
    assert_eq!(message(config().with_groups(3)), "groups (3) must divide channels (8)");
    assert_eq!(message(config().with_codes(0)), "codes must be at least 1, found 0");
    assert_eq!(message(config().with_code_width(Some(0))), "code_width must be at least 1, found 0");
}

#[test]
#[should_panic(expected = "latents have 3 channels, but the autoencoder's code_width is 5")]
fn latents_of_another_width_are_refused() {
    let device = Device::flex();
    wide().init(&device).codes(Tensor::zeros([1, 3, 2, 2], &device));
}
