//! An image alone gives what it gives within a batch.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Autoencoder, params};
use canvas_vae::{AutoencoderKlConfig, AutoencoderTinyConfig};

fn pattern(dims: [usize; 4], device: &Device) -> Tensor<4> {
    let values: Vec<f32> =
        (0..dims.iter().product()).map(|i: usize| (0.37 * i as f64).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

fn check<M: Module + Autoencoder>(name: &str, model: M, device: &Device) {
    let model = params::fill_by_formula(model);
    let images = pattern([2, 3, 8, 12], device);
    let latents = model.encode(images.clone()).mode();
    let decoded = model.decode(latents.clone());
    for row in 0..2 {
        let own = |x: &Tensor<4>| x.clone().narrow(0, row, 1);
        let distance = |a: Tensor<4>, b: &Tensor<4>| (a - own(b)).abs().max().into_scalar::<f32>();
        let encoding = distance(model.encode(own(&images)).mode(), &latents);
        let decoding = distance(model.decode(own(&latents)), &decoded);
        assert!(encoding < 1e-5 && decoding < 1e-5, "{name}, row {row}: {encoding:e}, {decoding:e}");
    }
    assert!(
        (decoded.clone().narrow(0, 0, 1) - decoded.narrow(0, 1, 1)).abs().max().into_scalar::<f32>() > 1e-4
    );
}

#[test]
fn an_image_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let tiny = AutoencoderTinyConfig::new().with_channels(vec![6; 3]).with_blocks(vec![1, 2, 1]);
    check("tiny", tiny.init(&device), &device);
    let kl = AutoencoderKlConfig::new().with_channels(vec![8, 16, 16]).with_layers(1).with_latent(3);
    check("kl", kl.with_groups(4).init(&device), &device);
}
