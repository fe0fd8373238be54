use crate::{close, panic_text, tensor};
use burn::prelude::*;
use canvas_core::{Autoencoder, LatentScale, Posterior};
use canvas_train::inpainting::{binary, channels, masked_image, shrunk};

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Means of 2 by 2 pixels, three channels, and a spread of 1.
struct Means;
impl Autoencoder for Means {
    fn encode(&self, images: Tensor<4>) -> Posterior {
        let [batch, channels, height, width] = images.dims();
        let cut = images.reshape([batch, channels, height / 2, 2, width / 2, 2]);
        let mean = cut.mean_dim(5).mean_dim(3).reshape([batch, channels, height / 2, width / 2]);
        Posterior { log_variance: Some(mean.zeros_like()), mean }
    }
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        latents
    }
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        [3, height / 2, width / 2]
    }
}

/// `torch.nn.functional.interpolate(mask, size)` of a mask with its places' numbers, in PyTorch 2.15:
/// `[int(v) for v in F.interpolate(torch.arange(35.).reshape(1, 1, 5, 7), size=(3, 4)).flatten()]`, and to (5, 7), (2, 2), (7, 9).
#[test]
fn masks_shrink_as_in_pytorch() {
    let mask = tensor((0..35).map(|i| i as f32).collect(), [1, 1, 5, 7], &Device::flex());
    let to = |size| host(&shrunk(mask.clone(), size)).into_iter().map(|x| x as usize).collect::<Vec<_>>();
    assert_eq!(to([3, 4]), [0, 1, 3, 5, 7, 8, 10, 12, 21, 22, 24, 26]);
    assert_eq!(to([5, 7]), (0..35).collect::<Vec<_>>());
    assert_eq!(to([2, 2]), [0, 3, 14, 17]);
    assert_eq!(to([7, 9])[..9], [0, 0, 1, 2, 3, 3, 4, 5, 6]);
    assert!(panic_text(|| shrunk(mask.clone(), [0, 4])).contains("a side of 5, for latents with one of 0"));
}

#[test]
fn what_is_to_be_painted_is_grey() {
    let device = Device::flex();
    let mask = Tensor::<4>::from_floats([[[[0.0, 0.49, 0.5, 1.0]]]], &device);
    assert_eq!(host(&binary(mask.clone())), [0.0, 0.0, 1.0, 1.0]);
    let image = Tensor::<4>::full([1, 2, 1, 4], -0.7, &device);
    for (i, found) in host(&masked_image(image, mask)).into_iter().enumerate() {
        close(found, if i % 4 < 2 { -0.7 } else { 0.0 }, 1e-7);
    }
}

/// The mask first, then the masked latents in the network's units: behind the four noised ones `[.., mask, masked image]`.
#[test]
fn channels_come_in_diffusers_order() {
    let device = Device::flex();
    let image = tensor(crate::wave(2 * 3 * 4 * 6, 0.2, 1.0), [2, 3, 4, 6], &device);
    let mut pixels = vec![0.0; 48];
    pixels[..3].fill(1.0); // of the first image the first half of a row
    pixels[24 + 8] = 0.6; // of the second a pixel that no place of the latents takes, and one that is taken
    pixels[24 + 12] = 0.9;
    let mask = tensor(pixels.iter().map(|&x: &f64| x as f32).collect(), [2, 1, 4, 6], &device);
    let noise = tensor(crate::wave(2 * 3 * 2 * 3, 2.2, 1.0), [2, 3, 2, 3], &device);
    let scale = LatentScale::uniform(3, 0.1, 0.5);
    let found = channels(&Means, &scale, (image.clone(), mask.clone()), noise.clone()).values;
    assert_eq!(found.dims(), [2, 4, 2, 3]);
    let (found, image, noise) = (host(&found), host(&image), host(&noise));
    // Upper left pixels of 2 by 2.
    assert_eq!(found[..6], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(found[24..30], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    for b in 0..2 {
        for place in 0..18 {
            let [c, y, x] = [place / 6, place % 6 / 3 * 2, place % 3 * 2];
            let pixel = |dy: usize, dx: usize| {
                let at = (y + dy) * 6 + x + dx;
                if pixels[24 * b + at] >= 0.5 { 0.0 } else { image[(3 * b + c) * 24 + at] }
            };
            let mean = (pixel(0, 0) + pixel(0, 1) + pixel(1, 0) + pixel(1, 1)) / 4.0;
            close(found[24 * b + 6 + place], (mean + noise[18 * b + place] - 0.1) * 0.5, 1e-6);
        }
    }
    let other = mask.narrow(0, 0, 1);
    let image = Tensor::<4>::zeros([2, 3, 4, 6], &device);
    assert!(
        panic_text(|| channels(&Means, &scale, (image, other), Tensor::zeros([2, 3, 2, 3], &device)))
            .contains("mask")
    );
}
