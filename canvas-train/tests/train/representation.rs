use crate::{close, panic_text, tensor};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::prelude::*;
use canvas_core::{Backbone, Class, params};
use canvas_dit::DitConfig;
use canvas_train::representation::{Projector, dispersive, watch};

fn tokens(seed: f64, dims: [usize; 3], device: &Device) -> Tensor<3> {
    tensor(crate::wave(dims.iter().product(), seed, 1.0), dims, device)
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// From DiT-XL's tokens to DINOv2-B's features: the paper's projector.
#[test]
fn the_projector_has_as_many_parameters_as_published() {
    assert_eq!(Projector::new(1152, 2048, 768, &Device::flex()).num_params(), 8_131_328);
}

/// By hand: cosines of each token, their mean over an image. Lengths do not count, and features learn nothing.
#[test]
fn alignment_is_less_the_mean_cosine() {
    let device = Device::flex().autodiff();
    let projector = params::fill_by_formula(Projector::new(6, 8, 4, &device));
    let x = tokens(0.3, [2, 5, 6], &device).require_grad();
    let features = tokens(1.7, [2, 5, 4], &device).require_grad();
    let found = projector.alignment(x.clone(), features.clone());
    let (ours, theirs) = (host(&projector.forward(x.clone())), host(&features));
    for (image, found) in host(&found).into_iter().enumerate() {
        let cosine = |token: usize| {
            let place = |i: usize| 4 * (5 * image + token) + i;
            let sum = |a: &[f64], b: &[f64]| (0..4).map(|i| a[place(i)] * b[place(i)]).sum::<f64>();
            sum(&ours, &theirs) / (sum(&ours, &ours) * sum(&theirs, &theirs)).sqrt()
        };
        close(found, -(0..5).map(cosine).sum::<f64>() / 5.0, 1e-6);
    }
    let scaled = projector.alignment(x.clone(), features.clone() * 7.0);
    host(&scaled).iter().zip(host(&found)).for_each(|(a, b)| close(*a, b, 1e-6));
    let grads = found.sum().backward();
    assert!(features.grad(&grads).is_none_or(|grad| host(&grad).iter().all(|&x| x == 0.0)));
    assert!(host(&x.grad(&grads).unwrap()).iter().any(|&x| x != 0.0));
    let message = panic_text(|| projector.alignment(x, tokens(0.0, [2, 3, 4], &device)));
    assert!(message.contains("[2, 3, 4]"), "{message}");
}

/// All pairs, each image with itself too, as in the paper's code: `pdist` twice and zeros.
#[test]
fn dispersion_is_the_mean_over_all_pairs() {
    let device = Device::flex();
    let x = tokens(0.3, [4, 3, 2], &device);
    let values = host(&x);
    let square =
        |i: usize, j: usize| (0..6).map(|k| (values[6 * i + k] - values[6 * j + k]).powi(2)).sum::<f64>();
    let terms = (0..4).flat_map(|i| (0..4).map(move |j| (-square(i, j) / 6.0 / 0.5).exp()));
    close(host(&dispersive(x.clone(), 0.5))[0], (terms.sum::<f64>() / 16.0).ln(), 1e-6);
    // Images that are all alike have nothing to lose.
    let alike = x.clone().narrow(0, 0, 1).expand([4, 3, 2]);
    close(host(&dispersive(alike, 0.5))[0], 0.0, 1e-6);
    assert!(host(&dispersive(x * 3.0, 0.5))[0] < -0.5);
}

/// What was watched is what a hook sees, with its gradient; the answer is the same.
#[test]
fn a_block_is_watched_without_a_change() {
    let device = Device::flex().autodiff();
    let config = DitConfig::new([4, 4], 16, 2, 2).with_channels(3).with_classes(10);
    let dit = params::fill_by_formula(config.init(&device));
    let x = tensor::<4>(crate::wave(96, 0.0, 1.0), [2, 3, 4, 4], &device);
    let (time, class) = (Tensor::from_floats([0.2, 0.7], &device), Class::new(&[3, 7], &device));
    let run = || dit.forward(x.clone(), time.clone(), &class);
    let (answer, middle) = watch("blocks.0", run);
    assert_eq!(answer.into_data(), run().into_data());
    assert_eq!(middle.dims(), [2, 4, 16]);
    // Of the blocks up to there, and not of those behind.
    let grads = GradientsParams::from_grads(middle.square().sum().backward(), &dit);
    let learns =
        |name: &str| params::named_gradients(&dit, &grads).iter().any(|grad| grad.name.starts_with(name));
    assert!(learns("blocks.0.") && !learns("blocks.1."));
    let message = panic_text(|| watch("blocks.7", run));
    assert!(message.contains("no part named blocks.7") && message.contains("blocks.1"), "{message}");
}
