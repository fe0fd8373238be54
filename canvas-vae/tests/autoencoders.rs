//! Parity with diffusers (fixtures by `tools/fixtures_vae.py`), shapes, and errors.

mod common;

use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Autoencoder, Posterior, params};
use canvas_vae::{AutoencoderKlConfig, AutoencoderTinyConfig};
use common::{compare_with, gradients, pattern, saved_as};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the model as the script runs diffusers' and compares everything the fixture holds.
fn compare<M: Module + Autoencoder>(file: &str, model: M, device: &Device) {
    let model = params::fill_by_formula(model);

    let images = pattern([2, 3, 8, 12], 0.0, device).require_grad();
    let posterior = model.encode(images.clone());
    let noise = pattern(posterior.mean.dims(), 2.0, device);
    let image = model.decode(posterior.sample(noise));
    let grads = (image.clone() * pattern(image.dims(), 1.0, device)).sum().backward();

    let mut found = gradients(&model, &grads);
    let Posterior { mean, log_variance } = posterior;
    found.insert("mean".into(), mean.into_data());
    found.extend(log_variance.map(|log| ("log_variance".into(), log.into_data())));
    found.insert("image".into(), image.into_data());
    found.insert("grad.images".into(), images.grad(&grads).unwrap().into_data());

    compare_with(file, &found);
}

#[test]
fn tiny_equals_diffusers() {
    let device = Device::flex().autodiff();
    let config = AutoencoderTinyConfig::new().with_channels(vec![6; 3]).with_blocks(vec![1, 2, 1]);
    compare("tiny.safetensors", config.init(&device), &device);
    let config = AutoencoderTinyConfig::new().with_channels(vec![6; 2]).with_blocks(vec![0, 1]).with_patch(2);
    compare("tiny_patch.safetensors", config.init(&device), &device);
}

#[test]
fn kl_equals_diffusers() {
    let device = Device::flex().autodiff();
    let config = AutoencoderKlConfig::new().with_channels(vec![8, 16, 16]).with_layers(1).with_latent(3);
    compare("kl.safetensors", config.with_groups(4).init(&device), &device);
}

/// Shapes of an encoded and a decoded pair of images.
fn shapes(model: &impl Autoencoder, channels: usize, [height, width]: [usize; 2]) {
    let images = pattern([2, channels, height, width], 0.0, &Device::flex());
    let latents = model.encode(images.clone()).mode();
    assert_eq!(latents.dims()[1..], model.latent_shape(height, width));
    assert_eq!(model.decode(latents).dims(), images.dims());
}

#[test]
fn odd_sizes_keep_their_shapes() {
    let device = Device::flex();
    let tiny =
        AutoencoderTinyConfig::new().with_channels(vec![3, 5, 2]).with_blocks(vec![0, 1, 2]).with_latent(7);
    let model = tiny.clone().with_patch(3).with_image_channels(1).init(&device);
    shapes(&model, 1, [12, 36]);
    shapes(&tiny.with_channels(vec![3]).with_blocks(vec![1]).init(&device), 3, [5, 7]);

    let kl = AutoencoderKlConfig::new().with_groups(2).with_layers(1).with_latent(5);
    shapes(&kl.clone().with_channels(vec![4, 6]).with_quant_convs(false).init(&device), 3, [6, 10]);
    shapes(&kl.with_channels(vec![2]).with_image_channels(1).init(&device), 1, [3, 5]);
}

#[test]
fn clamping_bounds_what_the_decoder_sees() {
    let device = Device::flex();
    let config = AutoencoderTinyConfig::new().with_channels(vec![4]).with_blocks(vec![1]);
    let decode = |config: &AutoencoderTinyConfig, size: f32| {
        let model = params::fill_by_formula(config.init(&device));
        model.decode(Tensor::full([1, 4, 2, 2], size, &device)).into_data()
    };
    let free = config.clone().with_clamp_latents(false);
    // tanh(x / 3) is 1 in f32 beyond 30, so the clamped decoder sees 3 whatever it is given.
    decode(&config, 1e3).assert_eq(&decode(&config, 1e6), true);
    decode(&config, 1e3).assert_eq(&decode(&free, 3.0), true);
    assert_ne!(decode(&free, 1e3), decode(&free, 1e6));
}

/// The text of a panic.
fn panic_text<T>(run: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).err().expect("should panic");
    *payload.downcast::<String>().expect("a formatted message")
}

#[test]
fn errors_name_both_values() {
    let tiny = AutoencoderTinyConfig::new();
    let lengths = tiny.clone().with_channels(vec![8, 8]).validate().unwrap_err().to_string();
    assert_eq!(lengths, "channels (2 levels) and blocks (4 levels) must have the same length");
    let patch = tiny.clone().with_patch(0).validate().unwrap_err().to_string();
    assert_eq!(patch, "patch must be at least 1, found 0");
    let groups = AutoencoderKlConfig::new().with_groups(48).validate().unwrap_err().to_string();
    assert_eq!(groups, "groups (48) must divide channels (128)");
    assert!(AutoencoderKlConfig::new().with_channels(vec![]).validate().is_err());
}

#[test]
fn wrong_images_and_latents_name_both_numbers() {
    let device = Device::flex();
    let config = AutoencoderTinyConfig::new().with_channels(vec![4, 4]).with_blocks(vec![0, 0]).with_patch(4);
    let model = config.init(&device);
    let zeros = |dims: [usize; 4]| Tensor::<4>::zeros(dims, &device);

    let size = panic_text(|| model.encode(zeros([1, 3, 16, 20])));
    assert_eq!(size, "image width (20) must be a multiple of the autoencoder's downsampling (8)");
    assert_eq!(panic_text(|| model.latent_shape(16, 20)), size);
    let images = panic_text(|| model.encode(zeros([1, 1, 16, 16])));
    assert_eq!(images, "images have 1 channels, but the autoencoder's image_channels is 3");
    let latents = panic_text(|| model.decode(zeros([1, 16, 2, 2])));
    assert_eq!(latents, "latents have 16 channels, but the autoencoder's latent is 4");
}

#[test]
fn a_few_steps_of_training_lower_the_error() {
    use burn::optim::{AdamConfig, GradientsParams};
    let device = Device::flex().autodiff();
    device.seed(7);
    let config =
        AutoencoderTinyConfig::new().with_patch(4).with_channels(vec![16, 16]).with_blocks(vec![1, 1]);
    let mut model = params::realise(config.init(&device));
    let mut adam = AdamConfig::new().init();
    let images = pattern([4, 3, 16, 16], 0.0, &device);
    let mut errors = Vec::new();
    for _ in 0..30 {
        let error = (model.decode(model.encode(images.clone()).mode()) - images.clone()).square().mean();
        errors.push(error.clone().into_scalar::<f32>());
        let grads = GradientsParams::from_grads(error.backward(), &model);
        model = adam.step(3e-3, model, grads);
    }
    assert!(errors[29] < 0.7 * errors[0], "{errors:?}");
    model.valid().decode(Tensor::zeros([1, 4, 2, 2], &Device::flex()));
}

#[test]
fn keys_are_those_of_diffusers() {
    let device = Device::flex();
    let kl = AutoencoderKlConfig::new().with_channels(vec![8, 16, 16]).with_layers(1).with_latent(3);
    let kl = kl.with_groups(4);
    saved_as("kl", || kl.init(&device), &kl.published());
    let tiny = AutoencoderTinyConfig::new().with_channels(vec![6; 3]).with_blocks(vec![1, 2, 1]);
    saved_as("tiny", || tiny.init(&device), &tiny.published());
    let patch = AutoencoderTinyConfig::new().with_channels(vec![6; 2]).with_blocks(vec![0, 1]).with_patch(2);
    saved_as("tiny_patch", || patch.init(&device), &patch.published());
}

/// Keys of the attention as older versions of diffusers wrote them load too, and are saved by today's.
#[test]
fn old_names_of_the_attention_load() {
    let rules = AutoencoderKlConfig::sd().published();
    for (old, today) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
        let key = |part| format!("decoder.mid_block.attentions.0.{part}.weight");
        let ours = rules.ours(&key(old));
        assert_eq!(ours, rules.ours(&key(today)));
        assert_eq!(rules.published(&ours), key(today));
    }
}
